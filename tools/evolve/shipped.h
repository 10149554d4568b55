// The NAMM that `lethe pack` puts into SmolLM2-135M by default: shipped/namm, and how it came about, shipped/evolve.sh.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/model/model.h"

namespace lethe::evolve {

// A NAMM file, aligned for whoever reads it, that lives as long as the program; empty for models of another shape than
// that it was evolved on. What it knows of keys does not carry over: on Gemma 3 it is worse than a window
// (docs/namm.md).
std::span<const uint8_t> shipped_namm(const ModelConfig& config);

}  // namespace lethe::evolve
