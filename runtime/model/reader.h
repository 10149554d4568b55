// Reads a .lethe file that lies in memory: verifies all of it except the weights, then fills the model's tables.
// Internal to runtime/model, its tests and its fuzz target.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/memory/arena.h"
#include "runtime/model/model.h"

namespace lethe {

namespace fbs {
struct Header;
struct Tokenizer;
}  // namespace fbs

// All of a model. Views point into the file's bytes and into the tables.
struct ModelContents {
  ModelConfig config;
  TokenizerData tokenizer;
  Provenance provenance;
  std::span<const uint8_t> namm;
  std::span<const HeadWindow> head_plan;
  std::span<const Tensor> tensors;         // in file order
  std::span<const Tensor* const> by_slot;  // [role_slot_count(layers)], null where absent
};

// In two steps, so that the caller can provide exactly the memory that the tables need.
class ModelReader {
 public:
  // `file` is 64-byte aligned and outlives the reader and everything read. Verifies the frame, the header's checksum,
  // the FlatBuffer, the segments and the architecture. Errors: kNotAModel, kCorruptModel, kUnsupported.
  Status open(std::span<const uint8_t> file);

  struct Tables {
    std::span<Tensor> tensors;
    std::span<const Tensor*> by_slot;
    std::span<std::string_view> split_patterns;
    std::span<uint32_t> specials;
    std::span<HeadWindow> head_plan;
  };
  // After open(). Runs over a measuring arena and over the real block alike.
  Tables take_tables(Arena& arena) const;

  // After open(). Verifies the tensors and the tokenizer and fills `tables` (from take_tables) and `contents`.
  Status read(const Tables& tables, ModelContents* contents) const;

  uint32_t segment_count() const;
  std::span<const uint8_t> segment(uint32_t index) const;  // requires index < segment_count()
  uint64_t segment_checksum(uint32_t index) const;         // as the header says
  uint32_t tokenizer_segment() const;
  uint64_t identity() const { return identity_; }

 private:
  Status read_frame();
  Status check_segments() const;
  Status read_config();
  Status read_tensors(const Tables& tables) const;
  Status read_head_plan(const Tables& tables) const;

  std::span<const uint8_t> file_;
  std::span<const uint8_t> header_bytes_;
  const fbs::Header* header_ = nullptr;
  ModelConfig config_ = {};
  uint64_t identity_ = 0;
};

// Verifies the tokenizer's arrays in their `segment` and fills `out`, all but split_patterns. `specials` has room for
// special_count ids, which are at most `vocab`.
Status read_tokenizer(const fbs::Tokenizer& tokenizer, std::span<const uint8_t> segment, uint32_t vocab,
                      std::span<uint32_t> specials, TokenizerData* out);

}  // namespace lethe
