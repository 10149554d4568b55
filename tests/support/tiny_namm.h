// A NAMM file of the published shape with random parameters, for tests that need policy namm to work, whatever it does.
#pragma once

#include <random>
#include <vector>

#include "runtime/cache/namm/file.h"

namespace lethe::test {

// Drops some tokens and keeps others, every `interval` tokens.
inline std::vector<uint8_t> make_namm(uint32_t interval, const namm::Shape& shape = {}, bool rectangular = false) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 0.3f);
  std::vector<float> flat(shape.parameter_count());
  for (float& x : flat) x = normal(random);
  for (size_t i = shape.weight_count(); i < flat.size(); ++i) flat[i] = 0.02f;
  for (size_t i = flat.size() - shape.moments(); i < flat.size(); ++i) flat[i] = 0.0004f;
  const Result<namm::Parameters> parameters = namm::view_parameters(shape, flat, interval, rectangular);
  std::vector<uint8_t> file(namm::file_bytes(shape));
  namm::write_file(parameters.value(), file);
  return file;
}

inline std::span<const uint8_t> tiny_namm() {
  static const std::vector<uint8_t> file = make_namm(48);
  return file;
}

}  // namespace lethe::test
