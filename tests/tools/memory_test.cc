// The cap: what plan says, run does, and the process stays below, as seen from outside.

#include "tests/tools/cli.h"

namespace lethe::test {
namespace {

uint64_t minimum_ram(const Args& options = {}) {
  const Finished finished = run_cli(Args{"plan", tiny_model(), "--ram", "0", "--json"} + options);
  CHECK(finished.status == 1);
  const Json json = Json::parse(finished.out);
  CHECK(json["fits"] == false);
  return json["minimum_ram_bytes"];
}

TEST_CASE("the plan is what run then takes, to the byte") {
  for (const Args& options : {Args{}, Args{"--kv", "int8"}, Args{"--kv", "int4"}, Args{"--policy", "full"},
                              Args{"--chunk", "64", "--threads", "1"}}) {
    const Args common = Args{tiny_model(), "--ram", "8MiB", "--json"} + options;
    const Json plan = run_json(Args{"plan"} + common);
    const Json run = run_json(Args{"run"} + common + Args{"hello", "--max-tokens", "10"})["memory"];
    CHECK(plan["fits"] == true);
    CHECK(plan["ledger"] == run["ledger"]);
    for (const char* key : {"cap_bytes", "total_bytes", "peak_bytes", "minimum_ram_bytes", "weights_mapped_bytes",
                            "cache_tokens", "prefill_chunk", "threads"}) {
      CAPTURE(key);
      CHECK(plan[key] == run[key]);
    }
    uint64_t sum = 0;
    for (const auto& [tag, bytes] : plan["ledger"].items()) sum += bytes.get<uint64_t>();
    CHECK(sum == plan["total_bytes"].get<uint64_t>());
    CHECK(sum <= 8u << 20);
  }
}

TEST_CASE("caps that are too small are refused with the smallest that works") {
  const uint64_t minimum = minimum_ram();
  const std::string sentence = std::to_string(minimum) + " bytes";
  const auto run = [](uint64_t ram) {
    return run_cli({"run", tiny_model(), "--ram", std::to_string(ram), "hello", "--max-tokens", "300", "--ignore-eos"});
  };
  for (const uint64_t ram : {uint64_t{0}, uint64_t{1}, minimum / 2, minimum - 1}) {
    CAPTURE(ram);
    check_refused(run(ram), 1, "ram_too_small", sentence);
    check_refused(run_cli({"plan", tiny_model(), "--ram", std::to_string(ram)}), 1, "ram_too_small", sentence);
  }
  CHECK(run(minimum).status == 0);
  CHECK(run_json({"plan", tiny_model(), "--ram", std::to_string(minimum), "--json"})["total_bytes"] == minimum);
}

TEST_CASE("the process never holds more than its cap") {
  const std::string prompt_file = temporary_path(".txt");
  std::string prompt;
  while (prompt.size() < 200'000) prompt += "hello the world ";
  write_file(prompt_file, prompt);
  const uint64_t minimum = minimum_ram();
  struct Case {
    uint64_t ram;
    Args args;
  };
  const std::vector<Case> cases = {
      {minimum, {"--raw", "hello", "--max-tokens", "5000", "--ignore-eos"}},
      {minimum, {"hello", "--max-tokens", "1000", "--ignore-eos"}},
      {8 << 20, {"--raw", "--prompt-file", prompt_file, "--max-tokens", "100"}},
      {8 << 20, {"--raw", "--prompt-file", prompt_file, "--max-tokens", "20000", "--ignore-eos", "--json"}},
      {16 << 20, {"--prompt-file", prompt_file, "--max-tokens", "100"}},
  };
  for (const Case& c : cases) {
    Cli cli(Args{"run", tiny_model(), "--ram", std::to_string(c.ram)} + c.args);
    uint64_t peak = 0;
    while (!cli.poll()) {
      peak = std::max(peak, private_bytes(cli.pid()));
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    const Finished finished = cli.finish();
    CAPTURE(c.ram);
    CAPTURE(finished.err);
    CHECK(finished.status == 0);
    CHECK(peak > 0);
    CHECK(peak <= c.ram);
    if (c.args.back() == "--json") {
      CHECK(Json::parse(finished.out)["memory"]["private_peak_bytes"].get<uint64_t>() <= c.ram);
    }
  }
}

}  // namespace
}  // namespace lethe::test
