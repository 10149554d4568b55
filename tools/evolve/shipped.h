// The NAMM that `lethe pack` puts into models by default: shipped/namm, and how it came about, shipped/evolve.sh.
#pragma once

#include <cstdint>
#include <span>

namespace lethe::evolve {

// A NAMM file, aligned for whoever reads it; lives as long as the program.
std::span<const uint8_t> shipped_namm();

}  // namespace lethe::evolve
