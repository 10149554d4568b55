// Gemma 3 270M against llama.cpp: windows, two RoPE bases, norms of heads, and weights of 4, 5, 6 and 8 bits.
// tests/data/golden_gemma3.json says how the numbers were made.
#include "tests/engine/fidelity_support.h"

namespace lethe::test {
namespace {

const Json& golden() {
  static const Json json = golden_file("golden_gemma3.json");
  return json;
}

TEST_CASE("fidelity of Gemma 3: prompts have llama.cpp's tokens, BOS included") {
  const OpenModel model(path_from("LETHE_TEST_MODEL_GEMMA"));
  OpenSession session(model, options_for(64));
  for (const Json& completion : golden()["llama_cpp_q4_k_m"]) {
    Ids ids(64);
    uint64_t count = 0;
    REQUIRE(session->tokenize(completion["prompt"].get<std::string>(), kTextSpecial | kTextBos, ids, &count).ok());
    ids.resize(count);
    CHECK(ids == completion["prompt_ids"].get<Ids>());
  }
}

TEST_CASE("fidelity of Gemma 3: llama.cpp's teacher-forced mean") {
  const OpenModel model(path_from("LETHE_TEST_MODEL_GEMMA"));
  const Json& forced = golden()["teacher_forced"];
  const std::vector<double> expected = forced["llama_cpp_q4_k_m"];
  const std::vector<double> scores = score(model, forced["ids"].get<Ids>(), 1);
  REQUIRE(scores.size() == expected.size());
  MESSAGE("mean negative log-probability ", -mean(scores), ", llama.cpp's ", -mean(expected));
  CHECK(mean(scores) == doctest::Approx(mean(expected)).epsilon(0.01));
}

TEST_CASE("fidelity of Gemma 3: parts from llama.cpp only where its choice was close") {
  check_parting(OpenModel(path_from("LETHE_TEST_MODEL_GEMMA")), golden()["llama_cpp_q4_k_m"]);
}

}  // namespace
}  // namespace lethe::test
