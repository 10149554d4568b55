#include "tools/evolve/shipped.h"

namespace lethe::evolve {
namespace {

alignas(8) constexpr uint8_t kFile[] = {
#include "tools/evolve/shipped_namm.inc"
};

}  // namespace

std::span<const uint8_t> shipped_namm(const ModelConfig& config) {
  const bool is_smollm2 = config.layers == 30 && config.embed_dim == 576 && config.heads == 9 && config.kv_heads == 3 &&
                          config.head_dim == 64 && config.ffn_dim == 1536;
  return is_smollm2 ? std::span<const uint8_t>(kFile) : std::span<const uint8_t>();
}

}  // namespace lethe::evolve
