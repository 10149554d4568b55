// Builds the frame and FlatBuffer header of a .lethe file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/model/frame.h"
#include "runtime/model/model.h"

namespace lethe {

struct TensorEntry {
  Role role;
  uint16_t layer;
  WeightFormat format;
  uint32_t rows, cols;
  uint32_t segment;
  uint64_t offset;  // in the segment
};

struct SegmentEntry {
  uint64_t offset, bytes, checksum;
};

// Offsets of the arrays in the tokenizer's segment, and what the header itself holds.
struct TokenizerEntry {
  uint32_t segment = 0;
  uint64_t token_offsets = 0, token_bytes = 0, token_bytes_size = 0, token_kinds = 0, byte_tokens = 0;
  uint64_t merges = 0, merge_slots = 0, specials = 0;
  uint32_t special_count = 0;
  TokenizerKind kind = TokenizerKind::kByteLevelBpe;
  uint64_t scores = 0, lookup = 0, lookup_slots = 0, neighbours = 0, neighbour_words = 0;
  uint64_t charsmap_units = 0, charsmap_unit_count = 0, charsmap_texts = 0, charsmap_texts_size = 0;
  std::vector<std::string> split_patterns;
  int32_t bos_id = -1, eos_id = -1, unknown_id = -1;
  float unknown_score = 0;
  bool has_scores = false, add_bos = false, ignore_merges = false, nfc = false, single_precision = false;
  bool prefix_unless_space = false;
  SpaceRule space_rule = SpaceRule::kKeep;
  SpacePrefix space_prefix = SpacePrefix::kNone;
  std::vector<int32_t> end_ids;
  std::string chat_template;  // empty: none
};

struct HeaderEntry {
  uint32_t version = kFormatVersion;
  ModelConfig config = {};
  TokenizerEntry tokenizer;
  std::vector<TensorEntry> tensors;
  std::vector<SegmentEntry> segments;
  std::string source, packer, options;
  uint64_t source_checksum = 0;
  std::vector<uint8_t> namm;          // empty: none
  std::vector<HeadWindow> head_plan;  // [layers * kv_heads]; empty: none
};

// The FlatBuffer. Its size does not depend on the values of numbers, only on counts and strings.
std::vector<uint8_t> build_header(const HeaderEntry& entry);

// The frame that belongs to it.
Frame build_frame(const std::vector<uint8_t>& header, uint64_t file_bytes);

}  // namespace lethe
