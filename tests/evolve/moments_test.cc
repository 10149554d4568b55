// The moments of inputs whose distribution is known whatever the model is.
#include "tools/evolve/moments.h"

#include <doctest/doctest.h>

#include "tests/support/tiny_model.h"

namespace lethe::evolve {
namespace {

namm::Shape shape(std::initializer_list<namm::Input> inputs) {
  namm::Shape of{namm::Network::kBam, 32, {}, static_cast<uint32_t>(inputs.size())};
  std::copy(inputs.begin(), inputs.end(), of.inputs.begin());
  return of;
}

std::vector<int32_t> prompt_of(size_t tokens) {
  std::vector<int32_t> ids(tokens);
  for (size_t i = 0; i < tokens; ++i) ids[i] = static_cast<int32_t>(3 + i * 7 % 200);
  return ids;
}

TEST_CASE("moments are those of all tokens that are there after every 128") {
  const std::string model = test::tiny_model_path({});
  using Input = namm::Input;
  const namm::Shape inputs = shape({Input::kAge, Input::kRecency, Input::kAttentionSum, Input::kSpectrum});
  // Looks at 128 and 256 tokens of the first, at 128 of the second, never at the third.
  const std::vector<std::vector<int32_t>> prompts = {prompt_of(300), prompt_of(129), prompt_of(128)};
  std::vector<size_t> done;
  const auto seen = [&](size_t count) { done.push_back(count); };
  const Result<FrozenMoments> moments = collect_moments(model, inputs, prompts, 1, seen);
  REQUIRE_MESSAGE(moments.ok(), moments.status().message());
  CHECK(done == std::vector<size_t>{1, 2, 3});
  const auto& [means, variances] = moments.value();
  REQUIRE(means.size() == 19);  // the age is not standardised
  REQUIRE(variances.size() == 19);
  double sum = 0, squares = 0;
  for (const int tokens : {128, 256, 128}) {
    for (int age = 0; age < tokens; ++age) sum += age, squares += age * age;
  }
  const double mean = sum / 512;
  CHECK(means[0] == doctest::Approx(mean).epsilon(1e-6));
  CHECK(variances[0] == doctest::Approx(squares / 512 - mean * mean).epsilon(1e-6));
  // Every query hands out 1 in all, and there are as many queries as tokens.
  CHECK(means[1] == doctest::Approx(1).epsilon(1e-4));
  CHECK(variances[1] > 0);
  // The mean frequency of a window is the largest, and no magnitude is negative.
  for (size_t i = 2; i < 19; ++i) {
    CHECK(means[i] > 0);
    CHECK(means[i] <= means[2]);
    CHECK(variances[i] > 0);
  }
  const Result<FrozenMoments> again = collect_moments(model, inputs, prompts, 2, [](size_t) {});
  CHECK(again.value().means == means);
  CHECK(again.value().variances == variances);
}

TEST_CASE("prompts that are too short for any moments are refused") {
  const std::vector<std::vector<int32_t>> prompts = {prompt_of(100), prompt_of(128)};
  const Result<FrozenMoments> moments =
      collect_moments(test::tiny_model_path({}), shape({namm::Input::kKeyNorm}), prompts, 1, [](size_t) {});
  REQUIRE_FALSE(moments.ok());
  CHECK(moments.status().code() == ErrorCode::kInvalidArgument);
  CHECK(std::string_view(moments.status().message()).find("the longest has 128") != std::string_view::npos);
}

}  // namespace
}  // namespace lethe::evolve
