#include "tools/evolve/shipped.h"

namespace lethe::evolve {
namespace {

alignas(8) constexpr uint8_t kFile[] = {
#include "tools/evolve/shipped_namm.inc"
};

}  // namespace

std::span<const uint8_t> shipped_namm() { return kFile; }

}  // namespace lethe::evolve
