// lethe eval ppl against the definition, computed from the logits one token at a time.
#include <cmath>

#include "lethe/lethe.hpp"
#include "tests/tools/cli.h"

namespace lethe::test {
namespace {

struct Expected {
  double ppl, standard_error;
  uint64_t scored;
};

// llama-perplexity's protocol over the logits: tokens context/2 + 1 ... context - 1 of every chunk.
Expected expected(const std::string& path, const std::string& text, uint32_t context, uint64_t chunks, int32_t bos) {
  auto model = api::Model::open(path.c_str());
  REQUIRE(model.ok());
  lethe_session_params params = api::session_params(64 << 20);
  params.policy = "full";
  auto opened = api::Session::create(model.value(), params);
  REQUIRE(opened.ok());
  api::Session& session = opened.value();
  std::vector<int32_t> ids(text.size() + 1);
  size_t count = 0;
  REQUIRE(session.tokenize(text, 0, ids.data(), ids.size(), &count).ok());
  ids.resize(count);
  if (bos >= 0) ids.insert(ids.begin(), bos);
  std::vector<double> nlls;
  for (uint64_t chunk = 0; chunk < chunks; ++chunk) {
    REQUIRE(session.reset().ok());
    REQUIRE(ids.size() >= (chunk + 1) * context);
    int32_t* tokens = ids.data() + chunk * context;
    if (bos >= 0) tokens[0] = bos;
    for (uint32_t i = 0; i + 1 < context; ++i) {
      REQUIRE(session.feed(tokens + i, 1).ok());
      if (i + 1 < context / 2 + 1) continue;
      const float* logits = nullptr;
      size_t vocab = 0;
      REQUIRE(session.logits(&logits, &vocab).ok());
      double sum = 0;
      for (size_t v = 0; v < vocab; ++v) sum += std::exp(static_cast<double>(logits[v]));
      nlls.push_back(std::log(sum) - static_cast<double>(logits[tokens[i + 1]]));
    }
  }
  double mean = 0, squares = 0;
  const auto n = static_cast<double>(nlls.size());
  for (const double nll : nlls) mean += nll / n;
  for (const double nll : nlls) squares += (nll - mean) * (nll - mean);
  return {std::exp(mean), std::exp(mean) * std::sqrt(squares / n / (n - 1)), nlls.size()};
}

std::string sample_text() {
  std::string text;
  for (int i = 0; i < 60; ++i) text += "hello the world, line " + std::to_string(i * i) + ".\n";
  return text;
}

void check_ppl(const std::string& model, int32_t bos) {
  const std::string file = temporary_path(".txt");
  write_file(file, sample_text());
  for (const uint32_t context : {16u, 33u}) {
    const Json json = run_json(
        {"eval", "ppl", model, "--text", file, "--context", std::to_string(context), "--chunks", "5", "--json"});
    const Expected by_hand = expected(model, sample_text(), context, 5, bos);
    CHECK(json["chunks"] == 5);
    CHECK(json["scored_tokens"] == by_hand.scored);
    CHECK(by_hand.scored == 5 * (context - context / 2 - 1));
    CHECK(json["ppl"].get<double>() == doctest::Approx(by_hand.ppl).epsilon(1e-4));
    CHECK(json["ppl_stderr"].get<double>() == doctest::Approx(by_hand.standard_error).epsilon(1e-3));
    CHECK(json["nll"].get<double>() == doctest::Approx(std::log(by_hand.ppl)).epsilon(1e-4));
    CHECK(json["seconds"].get<double>() > 0);
    CHECK(json["tokens"].get<uint64_t>() >= 5 * context);
  }
}

TEST_CASE("perplexity is that of the logits") { check_ppl(tiny_model(), -1); }

TEST_CASE("a model that wants BOS gets it at the front of every chunk") {
  PackOptions pack;
  pack.input = temporary_path(".gguf");
  pack.output = temporary_path(".lethe");
  GgufSource source = tiny_gguf(TinyOptions());
  source.set_bool("tokenizer.ggml.add_bos_token", true);
  write_file(pack.input, source.bytes());
  PackReport report;
  REQUIRE(pack_model(pack, &report).ok());
  check_ppl(pack.output, 1);
}

TEST_CASE("all chunks, and too little text") {
  const std::string file = temporary_path(".txt");
  write_file(file, sample_text());
  const Args all = {"eval", "ppl", tiny_model(), "--text", file, "--context", "64", "--json"};
  const Json json = run_json(all);
  CHECK(json["chunks"] == json["tokens"].get<uint64_t>() / 64);
  CHECK(run_json(all + Args{"--chunks", "0"})["ppl"] == json["ppl"]);
  CHECK(run_json(all + Args{"--chunks", "-1"})["ppl"] == json["ppl"]);
  write_file(file, "hello");
  check_refused(run_cli(all), 2, "invalid_argument", "fewer than one chunk");
}

TEST_CASE("eval soak: every token of the conversation is in a tenth, under the cap") {
  const std::string file = temporary_path(".txt");
  write_file(file, sample_text());
  const Args base = {"eval", "soak", tiny_model(), "--text", file, "--reply", "16", "--json"};
  const Json json = run_json(base + Args{"--ram", "8MiB", "--policy", "keydiff", "--tokens", "8000"});
  REQUIRE(json["tenths"].size() == 10);
  uint64_t tokens = 0, evictions = 0;
  for (const Json& tenth : json["tenths"]) {
    tokens += tenth["tokens"].get<uint64_t>();
    evictions += tenth["evictions"].get<uint64_t>();
    CHECK(tenth["turns"].get<int>() > 0);
    CHECK(tenth["nll"].get<double>() > 0);
    CHECK(tenth["cpu_seconds"].get<double>() > 0);
    CHECK(tenth["private_least_bytes"] <= tenth["private_most_bytes"]);
  }
  CHECK(tokens >= 8000);
  CHECK(tokens < 8000 + 1500);
  CHECK(evictions > 0);
  CHECK(json["memory"]["cap_bytes"] == 8 << 20);
  check_refused(run_cli(base + Args{"--ram", "8MiB", "--tokens", "100"}), 2, "invalid_argument", "at least 6000");
  check_refused(run_cli(base + Args{"--ram", "8MiB", "--policy", "full"}), 1, "kv_full", "full");
}

// The stream is read by one cache, so its likelihoods are those of one long chunk.
TEST_CASE("eval stream: the full cache under test is the full cache beside it, and scores what eval ppl scores") {
  const std::string file = temporary_path(".txt");
  write_file(file, sample_text());
  const Args base = {"eval",     "stream", tiny_model(),   "--text", file,
                     "--tokens", "256",    "--score-from", "129",    "--json"};
  const Json json = run_json(base + Args{"--policy", "full", "--kv-fraction", "1"});
  CHECK(json["scored_tokens"] == 127);
  CHECK(json["kl_to_full"].get<double>() == doctest::Approx(0).epsilon(1e-9));
  CHECK(json["top1_agreement"] == 1);
  CHECK(json["kv_share_of_full"] == 1);
  CHECK(json["evictions"] == 0);
  CHECK(json["nll_by_eighth"].size() == 8);
  const Json ppl =
      run_json({"eval", "ppl", tiny_model(), "--text", file, "--context", "256", "--chunks", "1", "--json"});
  CHECK(json["ppl"].get<double>() == doctest::Approx(ppl["ppl"].get<double>()).epsilon(1e-4));

  for (const std::string policy : {"window", "h2o", "tova", "snapkv", "pyramidkv", "pyramidinfer", "scissorhands",
                                   "fastgen", "expected-attention", "keydiff", "lagkv", "l2", "random"}) {
    CAPTURE(policy);
    const Json half = run_json(base + Args{"--policy", policy, "--kv-fraction", "0.5"});
    CHECK(half["policy"] == policy);
    CHECK(half["evictions"].get<int>() > 0);
    CHECK(half["kv_share_of_full"].get<double>() <= 0.5);
    CHECK(half["kl_to_full"].get<double>() > 1e-6);
    CHECK(half["kl_to_full"].get<double>() < 5);
    CHECK(std::isfinite(half["nll"].get<double>()));
  }
  const Json steps = run_json(base + Args{"--policy", "full", "--kv-fraction", "1", "--step", "16"});
  CHECK(steps["ppl"].get<double>() == doctest::Approx(json["ppl"].get<double>()).epsilon(1e-5));
  CHECK(steps["scored_tokens"] == 127);
  const Json alone = run_json(base + Args{"--policy", "window", "--ram", "8MiB", "--no-compare"});
  CHECK_FALSE(alone.contains("kl_to_full"));

  check_refused(run_cli(base + Args{"--policy", "window"}), 2, "invalid_argument", "either --kv-fraction or --ram");
  check_refused(run_cli(base + Args{"--kv-fraction", "0.01"}), 2, "invalid_argument", "too few");
  check_refused(run_cli(base + Args{"--kv-fraction", "1.5"}), 2, "invalid_argument", "at most 1");
  const auto window_of = [&](const char* tokens, const char* from) {
    return run_cli({"eval", "stream", tiny_model(), "--text", file, "--kv-fraction", "1", "--tokens", tokens,
                    "--score-from", from});
  };
  check_refused(window_of("100000", "1"), 2, "invalid_argument", "the text has");
  check_refused(window_of("256", "256"), 2, "invalid_argument", "--score-from");
}

}  // namespace
}  // namespace lethe::test
