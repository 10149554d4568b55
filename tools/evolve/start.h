// Weights with which a network scores as another NAMM does: where a run begins, if not at zeros.
#pragma once

#include <vector>

#include "runtime/base/status.h"
#include "runtime/cache/namm/parameters.h"
#include "tools/evolve/moments.h"

namespace lethe::evolve {

// The weights of a network of `shape`; where `from` knows the moments of an input, `moments` (of `shape`) takes them.
// `from` has the same network and inputs, or is linear, with inputs that `shape` has as well: then what else there is
// in the network is zero, but for two hidden units of an MLP. kInvalidArgument when it is neither.
Result<std::vector<float>> start_from(const namm::Parameters& from, const namm::Shape& shape, FrozenMoments& moments);

}  // namespace lethe::evolve
