// The cap as the operating system sees it: the executable runs far longer than its cache reaches, and its private
// memory (RssAnon + VmSwap) is looked at from outside all the while. Needs LETHE_CLI and LETHE_TEST_MODEL.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "tests/tools/cli.h"

namespace lethe::test {
namespace {

constexpr uint64_t kMiB = 1 << 20;

struct Long {
  std::string model, prompt_file;
  uint64_t tokens;

  Args args(uint64_t ram) const {
    return {"run",           model,      "--ram",        std::to_string(ram),
            "--policy",      "window",   "--ignore-eos", "--greedy",
            "--raw",         "--json",   "--max-tokens", std::to_string(tokens),
            "--prompt-file", prompt_file};
  }

  // From the sentence of the refusal.
  uint64_t minimum() const {
    const Finished finished = run_cli(args(0));
    const std::string sentence = "the smallest cap that works is ";
    const size_t at = finished.err.find(sentence);
    REQUIRE_MESSAGE(at != std::string::npos, finished.err);
    return std::stoull(finished.err.substr(at + sentence.size()));
  }

  void check(uint64_t ram) const {
    Cli cli(args(ram));
    uint64_t peak = 0, samples = 0;
    while (!cli.poll()) {
      peak = std::max(peak, private_bytes(cli.pid()));
      ++samples;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    const Finished finished = cli.finish();
    CAPTURE(ram);
    CAPTURE(finished.err);
    REQUIRE(finished.status == 0);
    const Json json = Json::parse(finished.out);
    CHECK(samples > 100);
    CHECK(peak > 0);
    CHECK(peak <= ram);
    CHECK(json["memory"]["cap_bytes"] == ram);
    CHECK(json["memory"]["peak_bytes"].get<uint64_t>() <= ram);
    CHECK(json["memory"]["total_bytes"].get<uint64_t>() <= ram);
    CHECK(json["memory"]["private_peak_bytes"].get<uint64_t>() <= ram);
    CHECK(json["ids"].size() == tokens);
    CHECK(json["stop_reason"] == "max_tokens");
    CHECK(json["evictions"]["count"].get<uint64_t>() > 0);
    const uint64_t fed = json["prompt_ids"].size() + tokens;
    CHECK(json["evictions"]["tokens"].get<double>() >=
          static_cast<double>(fed - json["memory"]["cache_tokens"].get<uint64_t>()));
    MESSAGE("cap " << ram << ": at most " << peak << " in " << samples << " samples, " << tokens << " tokens");
  }
};

std::string prompt_of(size_t bytes) {
  std::string prompt;
  while (prompt.size() < bytes) {
    prompt += "The river remembers nothing, and whoever drinks from it forgets the world above. ";
  }
  const std::string path = temporary_path(".txt");
  write_file(path, prompt);
  return path;
}

TEST_CASE("memory: 100,000 tokens of a tiny model under three caps") {
  const Long run{tiny_model(), prompt_of(80), 100'000};
  const uint64_t smallest = (run.minimum() + kMiB - 1) / kMiB * kMiB;
  for (const uint64_t ram : {smallest, smallest + kMiB, smallest + 16 * kMiB}) run.check(ram);
}

TEST_CASE("memory: a real model under three caps") {
  const char* model = std::getenv("LETHE_TEST_MODEL");
  REQUIRE_MESSAGE(model != nullptr, "LETHE_TEST_MODEL must be the path of the packed test model");
  const Long run{model, prompt_of(14'000), 600};  // about 3000 tokens
  const uint64_t smallest = run.minimum();
  MESSAGE("smallest cap " << smallest);
  REQUIRE(smallest < 16 * kMiB);
  for (const uint64_t ram : {smallest, 16 * kMiB, 64 * kMiB}) run.check(ram);
}

}  // namespace
}  // namespace lethe::test
