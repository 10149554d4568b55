// ggml's quantised blocks. The legacy types have blocks of 32: halves, high bits (5-bit types), nibbles: inputs 0..15
// low, 16..31 high. The K types have blocks of 256: eight groups.
#include <cmath>
#include <cstring>

#include "runtime/base/half.h"
#include "tools/pack/quant_group.h"

namespace lethe {
namespace {

float half_at(const uint8_t* at) {
  uint16_t half;
  std::memcpy(&half, at, 2);
  return half_to_float(half);
}

void set_scale(QuantGroup* group, float d) { group->d[0] = group->d[1] = d; }

void read_nibbles(const uint8_t* nibbles, QuantGroup* group) {
  for (size_t i = 0; i < kGroup / 2; ++i) {
    group->q[i] = nibbles[i] & 15u;
    group->q[i + kGroup / 2] = static_cast<uint8_t>(nibbles[i] >> 4);
  }
}

// Q5_0 and Q5_1: 32 fifth bits, then the nibbles.
void read_5_bits(const uint8_t* at, QuantGroup* group) {
  uint32_t high;
  std::memcpy(&high, at, 4);
  read_nibbles(at + 4, group);
  for (size_t i = 0; i < kGroup; ++i) group->q[i] = static_cast<uint8_t>(group->q[i] | (high >> i & 1u) << 4);
}

// Q4_K and Q5_K: d, dmin, then eight 6-bit scales and eight 6-bit minimums in 12 bytes, w = d * scale * q - dmin * min.
void read_k_params(const uint8_t* block, size_t j, QuantGroup* group) {
  const uint8_t* packed = block + 4;
  uint32_t scale, minimum;
  if (j < 4) {
    scale = packed[j] & 63u;
    minimum = packed[j + 4] & 63u;
  } else {
    scale = (packed[j + 4] & 15u) | (packed[j - 4] >> 6) << 4;
    minimum = (packed[j + 4] >> 4) | (packed[j] >> 6) << 4;
  }
  set_scale(group, half_at(block) * static_cast<float>(scale));
  group->m = -(half_at(block + 2) * static_cast<float>(minimum));
}

// Groups 2i and 2i + 1 of Q4_K and Q5_K are the low and the high nibbles of 32 bytes.
void read_k_nibbles(const uint8_t* nibbles, size_t j, QuantGroup* group) {
  for (size_t i = 0; i < kGroup; ++i) group->q[i] = nibbles[j / 2 * 32 + i] >> (j % 2 * 4) & 15u;
}

// Half a block of Q6_K, 128 inputs, has 64 bytes of nibbles and 32 of pairs of high bits: group j of the four takes the
// low (j < 2) or high nibbles of bytes 32 * (j % 2) on, and bits 2j, 2j + 1 of the others.
void read_q6_k(const uint8_t* block, size_t index, QuantGroup* group) {
  const size_t half = index / 4, j = index % 4;
  const uint8_t* nibbles = block + half * 64 + j % 2 * 32;
  const uint8_t* high = block + 128 + half * 32;
  for (size_t i = 0; i < kGroup; ++i) {
    group->q[i] = static_cast<uint8_t>((nibbles[i] >> (j / 2 * 4) & 15u) | (high[i] >> (2 * j) & 3u) << 4);
  }
  const float d = half_at(block + 208);
  for (size_t part = 0; part < 2; ++part) {
    group->d[part] = d * static_cast<float>(static_cast<int8_t>(block[192 + index * 2 + part]));
  }
}

float round_to_half(float value) { return half_to_float(float_to_half(value)); }

}  // namespace

WeightFormat format_of_blocks(GgmlType type) {
  switch (type) {
    case GgmlType::kQ4_0: return WeightFormat::kQ4;
    case GgmlType::kQ5_0: return WeightFormat::kQ5;
    case GgmlType::kQ5_1:
    case GgmlType::kQ5_K: return WeightFormat::kQ5M;
    case GgmlType::kQ6_K: return WeightFormat::kQ6;
    case GgmlType::kQ8_0: return WeightFormat::kQ8;
    default: return WeightFormat::kQ4M;
  }
}

QuantGroup read_group(GgmlType type, const uint8_t* row, size_t index) {
  const GgmlBlock size = ggml_block(type);
  const size_t groups = size.elements / kGroup;
  const uint8_t* block = row + index / groups * size.bytes;
  const size_t j = index % groups;
  QuantGroup group;
  switch (type) {
    case GgmlType::kQ4_0:
      set_scale(&group, half_at(block));
      read_nibbles(block + 2, &group);
      break;
    case GgmlType::kQ4_1:
      set_scale(&group, half_at(block));
      group.m = half_at(block + 2);
      read_nibbles(block + 4, &group);
      break;
    case GgmlType::kQ5_0:
      set_scale(&group, half_at(block));
      read_5_bits(block + 2, &group);
      break;
    case GgmlType::kQ5_1:
      set_scale(&group, half_at(block));
      group.m = half_at(block + 2);
      read_5_bits(block + 4, &group);
      break;
    case GgmlType::kQ4_K:
      read_k_params(block, j, &group);
      read_k_nibbles(block + 16, j, &group);
      break;
    case GgmlType::kQ5_K:
      read_k_params(block, j, &group);
      read_k_nibbles(block + 48, j, &group);
      for (size_t i = 0; i < kGroup; ++i) {
        group.q[i] = static_cast<uint8_t>(group.q[i] | (block[16 + i] >> j & 1u) << 4);
      }
      break;
    case GgmlType::kQ6_K: read_q6_k(block, j, &group); break;
    default:  // kQ8_0: signed, here with offset 128
      set_scale(&group, half_at(block));
      for (size_t i = 0; i < kGroup; ++i) group.q[i] = block[2 + i] ^ 0x80u;
  }
  return group;
}

void dequantise_group(WeightFormat format, const QuantGroup& group, float* out) {
  for (size_t i = 0; i < kGroup; ++i) {
    const float scaled = group.d[i / (kGroup / 2)] * static_cast<float>(group.q[i] - quant_offset(format));
    out[i] = has_minimum(format) ? scaled + group.m : scaled;
  }
}

bool round_params(QuantGroup* group) {
  for (float& d : group->d) d = round_to_half(d);
  group->m = round_to_half(group->m);
  return std::isfinite(group->d[0]) && std::isfinite(group->d[1]) && std::isfinite(group->m);
}

}  // namespace lethe
