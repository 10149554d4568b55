// SmolLM2 with its full cache finds every pass key. Needs LETHE_TEST_MODEL.
#include "tests/tools/cli.h"

namespace lethe::test {
namespace {

TEST_CASE("the full cache knows all pass keys; a window does not know what it has forgotten") {
  const char* model = std::getenv("LETHE_TEST_MODEL");
  REQUIRE_MESSAGE(model != nullptr, "LETHE_TEST_MODEL must be the path of the packed test model");
  const auto passkey = [&](const char* policy, const char* fraction, const Args& more) {
    return run_json(Args{"eval", "passkey", model, "--length", "1024", "--trials", "4", "--seed", "1", "--json",
                         "--policy", policy, "--kv-fraction", fraction} +
                    more);
  };
  const Json full = passkey("full", "1", {"--question-hidden"});
  CHECK(full["accuracy"] == 1);
  CHECK(full["answer_nll"].get<double>() < 0.5);
  CHECK(full["results"][0]["tokens"].get<int>() > 1000);
  CHECK(passkey("full", "1", {})["accuracy"] == 1);
  const Json window = passkey("window", "0.25", {"--question-hidden"});
  CHECK(window["accuracy"].get<double>() <= 0.25);  // the last of the four lies within it
  CHECK(window["answer_nll"].get<double>() > 1);
}

}  // namespace
}  // namespace lethe::test
