// The first 64 bytes of a .lethe file and the file's fixed numbers (schema/README.md). Shared by reader and packer.
#pragma once

#include <bit>
#include <cstdint>

namespace lethe {

static_assert(std::endian::native == std::endian::little, "model files are little endian and used in place");

inline constexpr char kFrameMagic[8] = {'L', 'E', 'T', 'H', 'E', 'M', 'D', 'L'};
inline constexpr uint32_t kFormatVersion = 2;
inline constexpr uint64_t kSegmentAlignment = 16384;
inline constexpr uint64_t kDataAlignment = 64;  // of tensors and tokenizer arrays in their segment
inline constexpr uint64_t kMaxHeaderBytes = 64ull << 20;

struct Frame {
  char magic[8];
  uint32_t version;
  uint32_t zero;
  uint64_t header_offset;  // sizeof(Frame)
  uint64_t header_bytes;
  uint64_t file_bytes;
  uint64_t header_checksum;  // XXH64 of the header
  uint64_t reserved[2];      // zero
};
static_assert(sizeof(Frame) == 64);

// What a loader accepts and the packer therefore writes. Generous for real models, small enough that no product of
// two of them overflows.
inline constexpr uint32_t kMaxLayers = 1024;
inline constexpr uint32_t kMaxDim = 1u << 20;  // embed_dim, ffn_dim, heads * head_dim
inline constexpr uint32_t kMaxHeadDim = 512;
inline constexpr uint32_t kMaxVocab = 1u << 22;
inline constexpr uint32_t kMaxContext = 1u << 28;
inline constexpr uint32_t kMaxSegments = 2 * kMaxLayers;
inline constexpr uint32_t kMaxSplitPatterns = 8;
inline constexpr uint64_t kMaxMergeSlots = 1ull << 26;

}  // namespace lethe
