// The frozen means and variances that the inputs of a NAMM are standardised by.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/cache/namm/parameters.h"

namespace lethe::evolve {

// Tokens between two looks at the inputs.
inline constexpr uint32_t kMomentInterval = 128;

struct FrozenMoments {
  std::vector<float> means, variances;  // [Shape::moments]
};

// As the authors have it: over a pass that forgets nothing, one mean and one variance of every number for all tokens of
// all layers and heads, each time that a decision would be due. Reads every prompt with a full cache of its own length.
Result<FrozenMoments> collect_moments(const std::string& model_path, const namm::Shape& shape,
                                      std::span<const std::vector<int32_t>> prompts, uint32_t threads,
                                      const std::function<void(size_t done)>& on_prompt);

}  // namespace lethe::evolve
