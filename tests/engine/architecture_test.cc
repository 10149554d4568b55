// Every architecture and every RoPE scaling against transformers, on tiny random models with every option on, from
// Hugging Face folders and from the GGUF files that llama.cpp makes of them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/engine/engine_support.h"
#include "tests/support/hf_fixture.h"

namespace lethe::test {
namespace {

constexpr double kBound = 1e-3;
constexpr size_t kPrefill = 40;  // beyond every window of the models, which are of 8 to 12 tokens

std::string pack(const std::string& input, PackType type) {
  PackOptions options;
  options.input = input;
  options.output = temporary_path(".lethe");
  options.type = type;
  PackReport report;
  const Status status = pack_model(options, &report);
  REQUIRE_MESSAGE(status.ok(), std::string(status.message()));
  CHECK(report.errors.empty() == (type == PackType::kF32));
  return options.output;
}

double difference(const Logits& logits, const float* expected) {
  double most = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double error = std::abs(static_cast<double>(logits[i]) - static_cast<double>(expected[i]));
    most = std::isnan(error) ? INFINITY : std::max(most, error);
  }
  return most;
}

// Feeds the ids, the first `prefill` in chunks and the others one by one, and returns the largest difference of a
// logit from the reference's after every chunk and every token.
double feed_difference(const Model& model, const ExpectedLogits& expected, uint32_t chunk, size_t prefill) {
  const OpenSession session(model, full_options(64, chunk));
  double most = 0;
  for (size_t at = 0; at < expected.ids.size();) {
    const size_t count = at < prefill ? std::min<size_t>(chunk, prefill - at) : 1;
    const Logits logits = feed(*session, std::span(expected.ids).subspan(at, count));
    REQUIRE(logits.size() == expected.vocab);
    at += count;
    most = std::max(most, difference(logits, expected.row(at - 1)));
  }
  return most;
}

// The same for log-probabilities of the next id at every position of one prefill.
double score_difference(const Model& model, const ExpectedLogits& expected) {
  SessionOptions options = full_options(64, 64);
  options.logit_rows = 16;
  const OpenSession session(model, options);
  std::vector<float> log_probs(expected.ids.size() - 1);
  REQUIRE(session->score(expected.ids, 1, log_probs).ok());
  double most = 0;
  for (size_t token = 0; token < log_probs.size(); ++token) {
    double total = 0;
    for (uint32_t i = 0; i < expected.vocab; ++i) total += std::exp(static_cast<double>(expected.row(token)[i]));
    const auto next = static_cast<size_t>(expected.ids[token + 1]);
    const double wanted = static_cast<double>(expected.row(token)[next]) - std::log(total);
    most = std::max(most, std::abs(static_cast<double>(log_probs[token]) - wanted));
  }
  return most;
}

void check_logits(const std::string& packed, const std::string& name) {
  CAPTURE(name);
  const OpenModel model(packed);
  const ExpectedLogits expected(name);
  CHECK(feed_difference(model, expected, 1, 0) < kBound);
  CHECK(feed_difference(model, expected, 7, kPrefill) < kBound);
  CHECK(feed_difference(model, expected, 40, kPrefill) < kBound);
  CHECK(score_difference(model, expected) < kBound);
}

TEST_CASE("architectures: Hugging Face folders give the logits of transformers") {
  CHECK(hf_fixtures().size() >= 14);
  for (const std::string& name : hf_fixtures()) {
    const HfFolder folder(name);
    check_logits(pack(folder.path, PackType::kF32), name);
  }
}

TEST_CASE("architectures: GGUF files by llama.cpp's converter give the logits of transformers") {
  CHECK(gguf_fixtures().size() >= 11);
  for (const std::string& name : gguf_fixtures()) check_logits(pack(gguf_fixture(name), PackType::kF32), name);
}

// Quantised matrices, embeddings and positions beside biases, norms and factors that are not: of logits of 3 to 12, 8
// bits move one by hundredths and 4 bits by tenths.
TEST_CASE("architectures: quantised weights stay near") {
  for (const std::string& name : hf_fixtures()) {
    CAPTURE(name);
    const HfFolder folder(name);
    const ExpectedLogits expected(name);
    CHECK(feed_difference(OpenModel(pack(folder.path, PackType::kQ8)), expected, 40, kPrefill) < 0.1);
    CHECK(feed_difference(OpenModel(pack(folder.path, PackType::kQ4)), expected, 40, kPrefill) < 0.5);
  }
}

}  // namespace
}  // namespace lethe::test
