// Weight formats and their one layout on disk and in memory. The single place that knows block sizes and offsets.
//
// A matrix W [rows = outputs N, cols = inputs K] is stored as panels of 16 rows: panel p holds rows 16p..16p+15, and
// the last panel is padded with zero rows. Every panel starts on a 64-byte boundary, panels follow each other without
// gaps. K is a multiple of 32 for the quantised formats (a "group" is 32 consecutive inputs of one row).
//
//   f32   panel = for k in 0..K-1: 16 floats, W[16p + r][k] at r                                 [K][16] f32
//   f16   the same with IEEE halves; K odd leaves 32 bytes of padding at the end of the panel    [K][16] f16
//   q8    a unit is a group: 8 lines of quants                                                   w = d * (q - 128)
//   q4    a unit is a group: 4 lines                                                             w = d * (q - 8)
//   q4m   the same                                                                               w = d * q + m
//   q5    a unit is a group: 5 lines                                                             w = d * (q - 16)
//   q5m   the same                                                                               w = d * q + m
//   q6    a unit is half a group: 3 lines                                                        w = d * (q - 32)
//
// A unit is what shares a scale: 32 or 16 inputs. A quantised panel is a sequence of blocks, each a 64-byte line of
// parameters and the lines of quants that it belongs to: so a panel is one stream, which is what memory reads fastest.
//   with a minimum     block = 16 scales d, 16 minimums m (f16), the quants of one unit
//   without            block = 16 scales of each of two units (f16), the quants of the first, the quants of the second;
//                      where the number of units is odd, the last block has zeros for the second and ends after the
//                      first
//
// One 64-byte line of quants: 16 rows x 4 bytes, byte 4r + j belongs to row r. Inputs count from the unit's first.
//   q8  line i: byte j is input 4i + j, stored with offset 128 (so that u8 x s8 dot products apply).
//   q4* line i: byte j holds input 8i + j in its low and input 8i + 4 + j in its high nibble, 0..15.
//   q5* q6  low nibbles in lines i = 0..3 (q6: 0, 1) as q4, then one line of high bits. Byte j of that line, for each
//   i:
//       q5  bit 2i is bit 4 of input 8i + j, bit 2i + 1 that of input 8i + 4 + j
//       q6  bits 4i, 4i + 1 are bits 4, 5 of input 8i + j, bits 4i + 2, 4i + 3 those of input 8i + 4 + j
// A 64-byte line suits AVX-512; AVX2 takes it as two halves of 8 rows, NEON as four quarters of 4 rows.
//
// Vectors (norm weights, biases) are plain f32 [n], format kF32Vector.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lethe {

enum class WeightFormat : uint8_t {
  kF32Vector = 0,
  kF32 = 1,
  kF16 = 2,
  kQ8 = 3,
  kQ4 = 4,
  kQ4M = 5,
  kQ5 = 6,
  kQ5M = 7,
  kQ6 = 8
};
inline constexpr int kWeightFormatCount = 9;

inline constexpr size_t kPanelRows = 16;
inline constexpr size_t kGroup = 32;  // inputs that share a scale
inline constexpr size_t kLineBytes = 64;

constexpr size_t round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

constexpr bool is_quantised(WeightFormat format) { return format >= WeightFormat::kQ8; }
constexpr bool has_minimum(WeightFormat format) { return format == WeightFormat::kQ4M || format == WeightFormat::kQ5M; }
// Of a quantised format: bits of a stored weight; what is subtracted from it where there is no minimum; inputs that
// share a scale; 64-byte lines of their quants.
constexpr size_t quant_bits(WeightFormat format) {
  switch (format) {
    case WeightFormat::kQ8: return 8;
    case WeightFormat::kQ6: return 6;
    case WeightFormat::kQ5:
    case WeightFormat::kQ5M: return 5;
    default: return 4;
  }
}
constexpr int quant_offset(WeightFormat format) { return has_minimum(format) ? 0 : 1 << (quant_bits(format) - 1); }
constexpr size_t scale_inputs(WeightFormat format) { return format == WeightFormat::kQ6 ? kGroup / 2 : kGroup; }
constexpr size_t scale_lines(WeightFormat format) {
  return scale_inputs(format) * kPanelRows * quant_bits(format) / 8 / kLineBytes;
}

// Of a quantised panel: units whose parameters share a line; bytes from the panel's start to the 16 scales of a unit
// (16 minimums follow them where the format has them) and to its quants.
constexpr size_t block_units(WeightFormat format) { return has_minimum(format) ? 1 : 2; }
constexpr size_t block_offset(WeightFormat format, size_t unit) {
  return unit / block_units(format) * (1 + block_units(format) * scale_lines(format)) * kLineBytes;
}
constexpr size_t params_offset(WeightFormat format, size_t unit) {
  return block_offset(format, unit) + unit % block_units(format) * kPanelRows * 2;
}
constexpr size_t quants_offset(WeightFormat format, size_t unit) {
  return block_offset(format, unit) + (1 + unit % block_units(format) * scale_lines(format)) * kLineBytes;
}

// Bytes of one panel of 16 rows; a multiple of 64.
constexpr size_t panel_bytes(WeightFormat format, size_t cols) {
  switch (format) {
    case WeightFormat::kF32Vector: return 0;
    case WeightFormat::kF32: return cols * kPanelRows * 4;
    case WeightFormat::kF16: return round_up(cols * kPanelRows * 2, kLineBytes);
    default: {
      const size_t units = cols / scale_inputs(format);
      return quants_offset(format, units - 1) + scale_lines(format) * kLineBytes;
    }
  }
}

// Bytes of a whole tensor. Vectors: rows == 1, cols == n, rounded up to 64. No overflow check: callers bound
// rows and cols below 2^31 first.
constexpr uint64_t tensor_bytes(WeightFormat format, uint64_t rows, uint64_t cols) {
  if (format == WeightFormat::kF32Vector) return round_up(cols * 4, kLineBytes);
  return round_up(rows, kPanelRows) / kPanelRows * panel_bytes(format, cols);
}

constexpr const char* weight_format_name(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32Vector: return "f32-vector";
    case WeightFormat::kF32: return "f32";
    case WeightFormat::kF16: return "f16";
    case WeightFormat::kQ8: return "q8";
    case WeightFormat::kQ4: return "q4";
    case WeightFormat::kQ4M: return "q4m";
    case WeightFormat::kQ5: return "q5";
    case WeightFormat::kQ5M: return "q5m";
    case WeightFormat::kQ6: return "q6";
  }
  return "unknown";
}

}  // namespace lethe
