// The NAMM that is shipped.
#include "tools/evolve/shipped.h"

#include <doctest/doctest.h>

#include "runtime/cache/namm/file.h"

namespace lethe::evolve {
namespace {

TEST_CASE("the shipped NAMM is a file that sessions read, for the model that it was evolved on and no other") {
  ModelConfig config;
  CHECK(shipped_namm(config).empty());
  config.layers = 30;
  config.embed_dim = 576;
  config.heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  config.ffn_dim = 1536;
  const Result<namm::Parameters> parameters = namm::read_file(shipped_namm(config));
  REQUIRE_MESSAGE(parameters.ok(), parameters.status().message());
  CHECK(parameters.value().shape.network == namm::Network::kLinear);
  config.head_dim = 256;
  CHECK(shipped_namm(config).empty());
}

}  // namespace
}  // namespace lethe::evolve
