// What the tests of fidelity share: the numbers of other runtimes, and how ours are compared with them.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <numeric>

#include "tests/engine/engine_support.h"

namespace lethe::test {

using Json = nlohmann::json;

inline Json golden_file(const std::string& name) { return Json::parse(read_file(LETHE_TEST_DATA "/" + name)); }

inline std::string path_from(const char* variable) {
  const char* path = std::getenv(variable);
  REQUIRE_MESSAGE(path != nullptr, variable, " must name the packed model; tools/test.sh sets it");
  return path;
}

inline SessionOptions options_for(uint32_t tokens) {
  SessionOptions options = full_options(tokens, 128);
  options.threads = 2;
  options.logit_rows = 64;
  return options;
}

inline double log_prob(const Logits& logits, int32_t id) {
  double total = 0;
  const double most = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  for (const float logit : logits) total += std::exp(static_cast<double>(logit) - most);
  return static_cast<double>(logits[static_cast<size_t>(id)]) - most - std::log(total);
}

inline int32_t argmax(const Logits& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

inline std::vector<double> score(const Model& model, std::span<const int32_t> ids, uint64_t first) {
  OpenSession session(model, options_for(512));
  std::vector<float> scores(ids.size() - first);
  const Status status = session->score(ids, first, scores);
  REQUIRE_MESSAGE(status.ok(), status.message());
  return {scores.begin(), scores.end()};
}

inline double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// Greedy decoding from the reference's prompts: where it parts, the reference itself was close to the other token.
inline void check_parting(const Model& model, const Json& completions) {
  for (const Json& completion : completions) {
    OpenSession session(model, options_for(128));
    feed(*session, completion["prompt_ids"].get<Ids>());
    const Ids ids = generate(*session, 64, kPastEnd).ids, expected = completion["greedy_ids"];
    const auto parted =
        static_cast<size_t>(std::mismatch(ids.begin(), ids.end(), expected.begin()).first - ids.begin());
    const std::string prompt = completion["prompt"];
    if (parted == expected.size()) {
      MESSAGE(prompt, ": all 64 tokens agree");
      continue;
    }
    const Json& top2 = completion["top2"][parted];
    const double gap = top2[1].get<double>() - top2[2].get<double>();
    MESSAGE(prompt, ": parted at token ", parted, ", where llama.cpp's two best were ", gap, " nats apart");
    CHECK(gap < 0.6);
  }
}

}  // namespace lethe::test
