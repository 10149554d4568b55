// The whole runtime on a real model against transformers and llama.cpp: tests/data/golden_smollm2.json, whose "origin"
// says how their numbers were made.
#include "tests/engine/fidelity_support.h"

namespace lethe::test {
namespace {

const Json& golden() {
  static const Json json = golden_file("golden_smollm2.json");
  return json;
}

// Feeds the reference's own tokens and compares every step whose two best tokens the reference tells apart by more
// than kNearTie nats, and the log-probabilities of both. Both sides round keys and values to f16 after sums in
// another order; that moves an unlikely runner-up further than the best token.
void check_completions(const Model& model, const char* reference) {
  constexpr double kNearTie = 0.01, kBestBound = 0.01, kSecondBound = 0.03;
  for (const Json& completion : golden()[reference]) {
    const std::string prompt = completion["prompt"];
    CAPTURE(prompt);
    OpenSession session(model, options_for(128));
    uint64_t fed = 0;
    uint64_t count = 0;
    Ids ids(64);
    REQUIRE(session->tokenize(prompt, kTextSpecial, ids, &count).ok());
    ids.resize(count);
    CHECK(ids == completion["prompt_ids"].get<Ids>());
    REQUIRE(session->feed_text(prompt, kTextSpecial, &fed).ok());
    const Ids greedy = completion["greedy_ids"];
    const Json& top2 = completion["top2"];
    REQUIRE(greedy.size() == 64);
    REQUIRE(top2.size() >= 16);
    for (size_t step = 0; step < top2.size(); ++step) {
      CAPTURE(step);
      const Logits logits = logits_of(*session);
      const double best = top2[step][1], second = top2[step][2];
      if (best - second > kNearTie) CHECK(argmax(logits) == greedy[step]);
      CHECK(std::abs(log_prob(logits, greedy[step]) - best) < kBestBound);
      CHECK(std::abs(log_prob(logits, top2[step][0]) - second) < kSecondBound);
      feed(*session, {&greedy[step], 1});
    }
  }
}

TEST_CASE("fidelity: f32 weights follow transformers and llama.cpp wherever those are not at a near-tie") {
  const OpenModel model(path_from("LETHE_TEST_MODEL_F32"));
  check_completions(model, "transformers_f32");
  check_completions(model, "llama_cpp_f32");
}

TEST_CASE("fidelity: f32 weights give llama.cpp's teacher-forced log-probabilities") {
  const OpenModel model(path_from("LETHE_TEST_MODEL_F32"));
  const Json& forced = golden()["teacher_forced"];
  const std::vector<double> expected = forced["llama_cpp_f32"];
  const std::vector<double> scores = score(model, forced["ids"].get<Ids>(), 1);
  REQUIRE(scores.size() == expected.size());
  double worst = 0;
  for (size_t i = 0; i < scores.size(); ++i) worst = std::max(worst, std::abs(scores[i] - expected[i]));
  MESSAGE("largest difference of 255 log-probabilities: ", worst);
  CHECK(worst < 0.01);
  CHECK(mean(scores) == doctest::Approx(mean(expected)).epsilon(0.0005));
}

TEST_CASE("fidelity: Q4_1 weights give llama.cpp's teacher-forced mean") {
  const OpenModel model(path_from("LETHE_TEST_MODEL"));
  const Json& forced = golden()["teacher_forced"];
  const std::vector<double> expected = forced["llama_cpp_q4_1"];
  const std::vector<double> scores = score(model, forced["ids"].get<Ids>(), 1);
  REQUIRE(scores.size() == expected.size());
  MESSAGE("mean negative log-probability ", -mean(scores), ", llama.cpp's ", -mean(expected));
  CHECK(mean(scores) == doctest::Approx(mean(expected)).epsilon(0.005));
}

TEST_CASE("fidelity: Q4_1 weights part from llama.cpp only where its choice was close") {
  check_parting(OpenModel(path_from("LETHE_TEST_MODEL")), golden()["llama_cpp_q4_1"]);
}

TEST_CASE("fidelity: int8 activations cost Q4_1 weights little perplexity") {
  const OpenModel quantised(path_from("LETHE_TEST_MODEL")), exact(path_from("LETHE_TEST_MODEL_F32"));
  const std::string text = read_file(LETHE_TEST_DATA "/opticks_excerpt.txt");
  Ids ids(4096);
  uint64_t count = 0;
  REQUIRE(OpenSession(exact, options_for(64))->tokenize(text, 0, ids, &count).ok());
  REQUIRE(count >= 4 * 512);
  // As llama-perplexity does: of every 512 tokens, those that have at least 256 before them count.
  std::vector<double> quantised_scores, exact_scores;
  for (size_t chunk = 0; chunk < 4; ++chunk) {
    const auto part = std::span(ids).subspan(chunk * 512, 512);
    for (const double value : score(quantised, part, 257)) quantised_scores.push_back(value);
    for (const double value : score(exact, part, 257)) exact_scores.push_back(value);
  }
  const double quantised_ppl = std::exp(-mean(quantised_scores)), exact_ppl = std::exp(-mean(exact_scores));
  MESSAGE("perplexity ", quantised_ppl, " with int8 activations, ", exact_ppl, " without");
  CHECK(quantised_scores.size() == 4 * 255);
  CHECK(std::abs(quantised_ppl / exact_ppl - 1) < 0.015);
}

}  // namespace
}  // namespace lethe::test
