// A loaded model: a verified view into the mapped file. Weights are never copied.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/memory/arena.h"
#include "runtime/model/activation.h"
#include "runtime/model/frame.h"
#include "runtime/model/quant_format.h"
#include "runtime/os/file.h"

namespace lethe {

enum class Role : uint16_t {  // values of schema/model.fbs
  kTokenEmbedding = 0,
  kOutputNorm = 1,
  kOutput = 2,
  kPositionEmbedding = 3,
  kRopeFactors = 4,
  kOutputNormBias = 5,
  kAttentionNorm = 10,
  kAttentionQ = 11,
  kAttentionK = 12,
  kAttentionV = 13,
  kAttentionO = 14,
  kAttentionQBias = 15,
  kAttentionKBias = 16,
  kAttentionVBias = 17,
  kAttentionOBias = 18,
  kFfnNorm = 20,
  kFfnGate = 21,
  kFfnUp = 22,
  kFfnDown = 23,
  kFfnGateBias = 24,
  kFfnUpBias = 25,
  kFfnDownBias = 26,
  kAttentionNormBias = 30,
  kFfnNormBias = 31,
  kAttentionQNorm = 32,
  kAttentionKNorm = 33,
  kAttentionPostNorm = 34,
  kFfnPostNorm = 35,
};
const char* role_name(Role role);  // "attention.q", ...; "unknown" for other values
bool role_is_per_layer(Role role);

enum class Norm : uint8_t { kRms = 0, kLayer = 1 };  // values of schema/model.fbs
const char* norm_name(Norm norm);                    // "rms-norm", ...
const char* activation_name(Activation activation);  // "silu", ...

struct ModelConfig {
  char name[32];  // architecture of the source, NUL-terminated
  uint32_t layers, embed_dim, heads, kv_heads, head_dim, ffn_dim, vocab, context_length;
  Norm norm;
  Activation activation;
  float norm_eps;
  uint32_t rotary_dim;  // 0: no RoPE
  float rope_base;
  float rope_local_base;      // of local layers; 0: they are rotated as the others
  float rope_magnitude = 1;   // of cos and sin of global layers
  char rope_scaling[48];      // for people; "" for none
  float attention_scale;      // of the scores; 0: 1 / sqrt(head_dim)
  float attention_softcap;    // 0: none
  float logit_softcap;        // 0: none
  float embedding_scale = 1;  // of the embeddings of tokens
  uint32_t window;            // tokens that a query of a local layer sees, itself included; 0: no layer is local
  std::array<uint64_t, kMaxLayers / 64> local_layers;  // bit l % 64 of word l / 64

  bool is_local(uint32_t layer) const { return (local_layers[layer / 64] >> (layer % 64) & 1) != 0; }
  void set_local(uint32_t layer) { local_layers[layer / 64] |= uint64_t{1} << (layer % 64); }
  uint32_t window_of(uint32_t layer) const { return is_local(layer) ? window : 0; }  // 0: all tokens are seen
  float score_scale() const;
};

// What the queries of a KV head see: the first `sinks` tokens and the last `window`, their own included. A window of 0:
// what the layer sees.
struct HeadWindow {
  uint32_t sinks = 0, window = 0;
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
inline constexpr uint8_t kTokenKindMask = 0x3f;  // the other bits of an entry of token_kinds:
inline constexpr uint8_t kStripLeft = 0x40;      // a special token takes the white space on its left along
inline constexpr uint8_t kStripRight = 0x80;

enum class TokenizerKind : uint8_t { kByteLevelBpe = 0, kSentencePieceBpe = 1, kUnigram = 2 };  // of schema/model.fbs
enum class SpacePrefix : uint8_t { kNone = 0, kStart = 1, kFirst = 2, kEvery = 3 };             // of schema/model.fbs
enum class SpaceRule : uint8_t { kKeep = 0, kCollapse = 1, kTrim = 2 };                         // of schema/model.fbs

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

// The lookup of a token by its text: FNV-1a over the bytes, folded; the search goes on as that of merges. Part of the
// file format.
inline constexpr uint64_t kTextHashSeed = 0xcbf29ce484222325ull;
constexpr uint64_t text_hash_step(uint64_t hash, char byte) {
  return (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3ull;
}
constexpr uint64_t text_hash_slot(uint64_t hash, uint64_t slots) { return (hash ^ hash >> 32) & (slots - 1); }

// Views into the mapped file, verified: every id < vocab, offsets ascending, at least a quarter of the slots of both
// hash tables empty. Only `specials` is the loader's own.
struct TokenizerData {
  std::span<const uint32_t> token_offsets;  // [vocab + 1]
  std::string_view token_bytes;
  std::span<const uint8_t> token_kinds;   // [vocab]; see kind_of()
  std::span<const uint32_t> byte_tokens;  // [256] kNoToken: the vocabulary has no token of this byte alone
  std::span<const MergeSlot> merges;
  std::span<const uint32_t> specials;  // sorted by text, then id
  std::span<const std::string_view> split_patterns;
  std::span<const int32_t> end_ids;
  std::string_view chat_template;  // empty when the model has none
  int32_t bos_id, eos_id;          // -1: none
  bool add_bos;
  TokenizerKind kind = TokenizerKind::kByteLevelBpe;
  bool ignore_merges = false;        // a piece that is a token becomes it without merging
  bool nfc = false;                  // text becomes Unicode NFC before it is split
  bool single_precision = false;     // of unigram sums; see schema/model.fbs
  bool prefix_unless_space = false;  // no prefix before text that begins with a space
  SpacePrefix space_prefix = SpacePrefix::kNone;
  SpaceRule space_rule = SpaceRule::kKeep;
  int32_t unknown_id = -1;                    // for what no token and no byte token covers; -1: left out
  float unknown_score = 0;                    // of a character without a token (unigram)
  std::span<const float> scores = {};         // [vocab] or empty
  std::span<const uint32_t> lookup = {};      // slots of ids, kNoToken: empty
  std::span<const uint64_t> neighbours = {};  // bitset; see may_join()
  std::span<const uint32_t> charsmap_units = {};
  std::string_view charsmap_texts = {};
  uint32_t longest_token = 0;  // bytes, of the tokens in `lookup`

  std::string_view token(uint32_t id) const {
    return token_bytes.substr(token_offsets[id], token_offsets[id + 1] - token_offsets[id]);
  }
  TokenKind kind_of(uint32_t id) const { return static_cast<TokenKind>(token_kinds[id] & kTokenKindMask); }
  // The token with `text`, whose hash (steps from kTextHashSeed over its bytes) is `hash`; kNoToken: none. Control,
  // byte and unused tokens are not found.
  uint32_t find(std::string_view text, uint64_t hash) const {
    if (lookup.empty()) return kNoToken;
    for (uint64_t at = text_hash_slot(hash, lookup.size());; at = (at + 1) & (lookup.size() - 1)) {
      if (lookup[at] == kNoToken || token(lookup[at]) == text) return lookup[at];
    }
  }
  uint32_t find(std::string_view text) const {
    uint64_t hash = kTextHashSeed;
    for (const char byte : text) hash = text_hash_step(hash, byte);
    return find(text, hash);
  }
  // False when the code points `left` and `right` are neighbours in no token, so that text can be cut between them
  // without a change in its tokens.
  bool may_join(uint32_t left, uint32_t right) const {
    if (neighbours.empty()) return true;
    const uint64_t bit = merge_hash(left, right, 64 * neighbours.size());
    return (neighbours[bit / 64] >> (bit % 64) & 1) != 0;
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
  std::span<const uint8_t> namm() const;  // a NAMM file (cache/namm/file.h), not looked into; empty when there is none
  std::span<const HeadWindow> head_plan() const;        // [layers * kv_heads]; empty when there is none
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
