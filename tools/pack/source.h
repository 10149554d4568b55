// Tensors of a file that is packed from, whatever its format.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace lethe {

// The types of weights in files that are packed from, with ggml's numbers.
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30
};
const char* ggml_type_name(GgmlType type);

// Elements of a block and its bytes: 1 element for the float types, 32 or 256 for the quantised ones; 0 for types that
// are not supported.
struct GgmlBlock {
  uint32_t elements, bytes;
};
GgmlBlock ggml_block(GgmlType type);

struct SourceTensor {
  std::string name;
  GgmlType type;
  uint64_t rows, cols;  // a vector has 1 row
  std::span<const uint8_t> data;
};

}  // namespace lethe
