// A loaded model: a verified view into the mapped file. Weights are never copied.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/memory/arena.h"
#include "runtime/model/quant_format.h"
#include "runtime/os/file.h"

namespace lethe {

enum class Role : uint16_t {  // values of schema/model.fbs
  kTokenEmbedding = 0,
  kOutputNorm = 1,
  kOutput = 2,
  kAttentionNorm = 10,
  kAttentionQ = 11,
  kAttentionK = 12,
  kAttentionV = 13,
  kAttentionO = 14,
  kFfnNorm = 20,
  kFfnGate = 21,
  kFfnUp = 22,
  kFfnDown = 23,
};
const char* role_name(Role role);  // "attention.q", ...; "unknown" for other values
bool role_is_per_layer(Role role);

struct ModelConfig {
  char name[32];  // architecture of the source, NUL-terminated
  uint32_t layers, embed_dim, heads, kv_heads, head_dim, ffn_dim, vocab, context_length;
  float norm_eps;
  float rope_base;
  uint32_t rotary_dim;
};

struct Tensor {
  Role role;
  uint16_t layer;
  WeightFormat format;
  uint32_t rows, cols;  // N outputs, K inputs; vectors: 1, n
  const uint8_t* data;  // in the mapped file, 64-byte aligned
  uint64_t bytes;
};

enum class TokenKind : uint8_t { kNormal = 0, kControl = 1, kUserDefined = 2, kByte = 3, kUnused = 4 };

struct MergeSlot {
  uint32_t left, right, rank, merged;  // left == kNoToken marks an empty slot
};
inline constexpr uint32_t kNoToken = 0xffffffffu;

// Slot where the search for (left, right) begins; the search goes on to the next slot, wrapping, until it meets the
// pair or an empty slot. `slots` is a power of two. Part of the file format.
constexpr uint64_t merge_hash(uint32_t left, uint32_t right, uint64_t slots) {
  const uint64_t key = (static_cast<uint64_t>(left) << 32 | right) * 0x9e3779b97f4a7c15ull;
  return (key ^ key >> 32) & (slots - 1);
}

// Views into the mapped file, verified: every id < vocab, offsets ascending, a quarter of the merge slots empty.
struct TokenizerData {
  std::span<const uint32_t> token_offsets;  // [vocab + 1]
  std::string_view token_bytes;
  std::span<const uint8_t> token_kinds;   // [vocab] TokenKind
  std::span<const uint32_t> byte_tokens;  // [256] kNoToken: the vocabulary has no token of this byte alone
  std::span<const MergeSlot> merges;
  std::span<const uint32_t> specials;  // longest text first
  std::span<const std::string_view> split_patterns;
  std::span<const int32_t> end_ids;
  std::string_view chat_template;  // empty when the model has none
  int32_t bos_id, eos_id;          // -1: none
  bool add_bos;

  std::string_view token(uint32_t id) const {
    return token_bytes.substr(token_offsets[id], token_offsets[id + 1] - token_offsets[id]);
  }
};

struct Provenance {
  std::string_view source, packer, options;
  uint64_t source_checksum;
};

// Immutable after open(); safe to use from any number of threads. Owns the map and one small private block of tables.
class Model {
 public:
  // Maps and verifies `path` without reading the weights themselves: frame, FlatBuffer, every offset, size and shape,
  // the set of tensors the architecture needs, the tokenizer's tables and their checksum. Errors: kIo, kNotAModel,
  // kCorruptModel, kUnsupported, kOutOfMemory. The caller destroys the model with close().
  static Result<Model*> open(const char* path);
  static void close(Model* model);

  const ModelConfig& config() const;
  const TokenizerData& tokenizer() const;
  const Provenance& provenance() const;
  std::span<const Tensor> tensors() const;              // in file order
  const Tensor* find(Role role, uint32_t layer) const;  // null when absent; constant time
  uint64_t file_bytes() const;
  uint64_t private_bytes() const;  // of the tables: what the ledger counts under kModel
  uint64_t identity() const;       // XXH64 of the header: names the model in saved sessions
  uint32_t segment_count() const;

  // Sessions that use the model, so that closing it under them can be refused. Thread-safe.
  void retain() const;
  void release() const;
  uint32_t users() const;

  // Reads segment `index` and compares its checksum: kCorruptModel names the segment.
  Status verify_segment(uint32_t index) const;

 private:
  struct State;
  explicit Model(State* state) : state_(state) {}
  State* state_;
};

}  // namespace lethe
