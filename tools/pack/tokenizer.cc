#include "tools/pack/tokenizer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cinttypes>
#include <cstring>
#include <string>
#include <unordered_map>

#include "runtime/model/quant_format.h"
#include "runtime/text/patterns.h"

namespace lethe {
namespace {

// GGUF's names of the pre-tokenizers whose patterns are known.
struct PreTokenizer {
  std::string_view name;
  std::span<const std::string_view> patterns;
};
constexpr PreTokenizer kPreTokenizers[] = {{"gpt-2", kGpt2Patterns}, {"smollm", kSmolLmPatterns}};

// Texts of control tokens that end a reply, besides the declared end of sequence.
constexpr std::string_view kEndTexts[] = {"<|endoftext|>", "<|im_end|>", "<|eot_id|>",      "<|eom_id|>",     "<|end|>",
                                          "<end_of_turn>", "<|EOT|>",    "<|end_of_text|>", "<|end_of_turn|>"};

// GPT-2 writes each byte as a printable character: itself where it is printable Latin-1, else the next of U+0100...
// (Radford et al. 2019, bytes_to_unicode of the published code).
std::array<int16_t, 512> make_byte_of_character() {
  std::array<int16_t, 512> table;
  table.fill(-1);
  int16_t next = 256;
  for (int16_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
    table[static_cast<size_t>(printable ? byte : next++)] = byte;
  }
  return table;
}

// The bytes that a token's characters stand for; false when one of them stands for none.
bool decode_bytes(std::string_view text, std::string* out) {
  static const std::array<int16_t, 512> table = make_byte_of_character();
  out->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    uint32_t character = static_cast<uint8_t>(text[i]);
    if (character >= 0x80) {  // only U+0080 to U+07FF can be in the table: two bytes
      if ((character & 0xe0) != 0xc0 || i + 1 == text.size() || (text[i + 1] & 0xc0) != 0x80) return false;
      character = (character & 31u) << 6 | (static_cast<uint8_t>(text[++i]) & 63u);
      if (character < 0x80) return false;
    }
    if (character >= table.size() || table[character] < 0) return false;
    out->push_back(static_cast<char>(table[character]));
  }
  return true;
}

Status missing(const char* key) { return Status::error(ErrorCode::kCorruptModel, "GGUF: %s is missing", key); }

class TokenizerPacker {
 public:
  TokenizerPacker(const GgufFile& file, PackedTokenizer* out) : file_(file), out_(*out) {}

  Status run() {
    LETHE_RETURN_IF_ERROR(read_kind());
    LETHE_RETURN_IF_ERROR(read_tokens());
    LETHE_RETURN_IF_ERROR(read_merges());
    LETHE_RETURN_IF_ERROR(read_special_ids());
    store_tables();
    return {};
  }

 private:
  Status read_kind() {
    std::optional<std::string_view> model;
    std::optional<std::string_view> pre;
    LETHE_RETURN_IF_ERROR(file_.read_string("tokenizer.ggml.model", &model));
    LETHE_RETURN_IF_ERROR(file_.read_string("tokenizer.ggml.pre", &pre));
    if (!model.has_value()) return missing("tokenizer.ggml.model");
    if (*model != "gpt2") return unsupported("tokenizer", *model);
    if (!pre.has_value()) return missing("tokenizer.ggml.pre");
    for (const PreTokenizer& known : kPreTokenizers) {
      if (known.name != *pre) continue;
      out_.entry.split_patterns.assign(known.patterns.begin(), known.patterns.end());
      return {};
    }
    return unsupported("pre-tokenizer", *pre);
  }

  static Status unsupported(const char* what, std::string_view name) {
    return Status::error(ErrorCode::kUnsupported, "%s %.*s is unknown", what,
                         static_cast<int>(std::min<size_t>(name.size(), 64)), name.data());
  }

  Status read_tokens() {
    std::optional<std::vector<std::string_view>> texts;
    std::optional<std::vector<uint64_t>> types;
    LETHE_RETURN_IF_ERROR(file_.read_strings("tokenizer.ggml.tokens", &texts));
    LETHE_RETURN_IF_ERROR(file_.read_uints("tokenizer.ggml.token_type", &types));
    if (!texts.has_value()) return missing("tokenizer.ggml.tokens");
    if (!types.has_value()) return missing("tokenizer.ggml.token_type");
    if (texts->empty() || texts->size() > kMaxVocab || texts->size() != types->size()) {
      return Status::error(ErrorCode::kCorruptModel, "GGUF: %zu tokens with %zu types; at most %u are possible",
                           texts->size(), types->size(), kMaxVocab);
    }
    out_.vocab = static_cast<uint32_t>(texts->size());
    byte_tokens_.fill(kNoToken);
    offsets_.push_back(0);
    std::string text;
    for (uint32_t id = 0; id < out_.vocab; ++id) {
      TokenKind kind = TokenKind::kNormal;
      LETHE_RETURN_IF_ERROR(token_kind(id, (*types)[id], &kind));
      // Special tokens are written as they are; the others in GPT-2's alphabet.
      const bool literal = kind != TokenKind::kNormal;
      if (literal) {
        text = (*texts)[id];
      } else if (!decode_bytes((*texts)[id], &text)) {
        return Status::error(ErrorCode::kCorruptModel, "GGUF: token %u is not written in GPT-2's byte alphabet", id);
      }
      if (bytes_.size() + text.size() > UINT32_MAX) {
        return Status::error(ErrorCode::kUnsupported, "the texts of all tokens exceed 4 GiB");
      }
      bytes_ += text;
      offsets_.push_back(static_cast<uint32_t>(bytes_.size()));
      kinds_.push_back(static_cast<uint8_t>(kind));
      if (!literal) {
        ids_.emplace((*texts)[id], id);  // the first of equal texts
        if (text.size() == 1) {
          uint32_t& slot = byte_tokens_[static_cast<uint8_t>(text[0])];
          if (slot == kNoToken) slot = id;
        }
      }
      if (kind == TokenKind::kControl || kind == TokenKind::kUserDefined) {
        if (text.empty()) return Status::error(ErrorCode::kCorruptModel, "GGUF: special token %u has no text", id);
        specials_.push_back(id);
      }
    }
    std::sort(specials_.begin(), specials_.end(), [this](uint32_t a, uint32_t b) {
      return token(a).size() != token(b).size() ? token(a).size() > token(b).size() : a < b;
    });
    return {};
  }

  static Status token_kind(uint32_t id, uint64_t type, TokenKind* kind) {
    switch (type) {
      case 1: *kind = TokenKind::kNormal; return {};
      case 2:  // unknown: a special token as well
      case 3: *kind = TokenKind::kControl; return {};
      case 4: *kind = TokenKind::kUserDefined; return {};
      case 5: *kind = TokenKind::kUnused; return {};
      default: return Status::error(ErrorCode::kUnsupported, "GGUF: token %u has type %" PRIu64, id, type);
    }
  }

  std::string_view token(uint32_t id) const {
    return std::string_view(bytes_).substr(offsets_[id], offsets_[id + 1] - offsets_[id]);
  }

  Status read_merges() {
    std::optional<std::vector<std::string_view>> merges;
    LETHE_RETURN_IF_ERROR(file_.read_strings("tokenizer.ggml.merges", &merges));
    if (!merges.has_value()) return missing("tokenizer.ggml.merges");
    // A quarter of the slots stays empty, so that a search for a pair that is not there ends soon.
    uint64_t slots = 4;
    while (slots / 4 * 3 < merges->size()) slots *= 2;
    if (slots > kMaxMergeSlots) {
      return Status::error(ErrorCode::kUnsupported, "%zu merges are too many", merges->size());
    }
    merges_.assign(slots, {kNoToken, kNoToken, 0, kNoToken});
    std::string joined;
    for (uint32_t rank = 0; rank < merges->size(); ++rank) {
      const std::string_view merge = (*merges)[rank];
      const size_t space = merge.find(' ', 1);
      const std::string_view left = merge.substr(0, space);
      const std::string_view right = space == std::string_view::npos ? "" : merge.substr(space + 1);
      joined.assign(left).append(right);
      const auto left_id = ids_.find(left);
      const auto right_id = ids_.find(right);
      const auto merged_id = ids_.find(joined);
      if (left_id == ids_.end() || right_id == ids_.end() || merged_id == ids_.end()) {
        return Status::error(ErrorCode::kCorruptModel, "GGUF: merge %u (%.*s) is not made of tokens", rank,
                             static_cast<int>(std::min<size_t>(merge.size(), 64)), merge.data());
      }
      insert_merge({left_id->second, right_id->second, rank, merged_id->second});
    }
    return {};
  }

  void insert_merge(const MergeSlot& merge) {
    const uint64_t mask = merges_.size() - 1;
    uint64_t at = merge_hash(merge.left, merge.right, merges_.size());
    while (merges_[at].left != kNoToken) {
      if (merges_[at].left == merge.left && merges_[at].right == merge.right) return;  // the first rank counts
      at = (at + 1) & mask;
    }
    merges_[at] = merge;
  }

  Status read_id(const char* key, int32_t* out) {
    std::optional<uint64_t> id;
    LETHE_RETURN_IF_ERROR(file_.read_uint(key, &id));
    if (!id.has_value()) return {};
    if (*id >= out_.vocab) {
      return Status::error(ErrorCode::kCorruptModel, "GGUF: %s is %" PRIu64 " of %u tokens", key, *id, out_.vocab);
    }
    *out = static_cast<int32_t>(*id);
    return {};
  }

  Status read_special_ids() {
    TokenizerEntry& entry = out_.entry;
    int32_t end_of_turn = -1;
    int32_t end_of_message = -1;
    LETHE_RETURN_IF_ERROR(read_id("tokenizer.ggml.bos_token_id", &entry.bos_id));
    LETHE_RETURN_IF_ERROR(read_id("tokenizer.ggml.eos_token_id", &entry.eos_id));
    LETHE_RETURN_IF_ERROR(read_id("tokenizer.ggml.eot_token_id", &end_of_turn));
    LETHE_RETURN_IF_ERROR(read_id("tokenizer.ggml.eom_token_id", &end_of_message));
    for (const int32_t id : {entry.eos_id, end_of_turn, end_of_message}) {
      if (id >= 0) entry.end_ids.push_back(id);
    }
    for (const uint32_t id : specials_) {
      const bool is_control = kinds_[id] == static_cast<uint8_t>(TokenKind::kControl);
      if (is_control && std::find(std::begin(kEndTexts), std::end(kEndTexts), token(id)) != std::end(kEndTexts)) {
        entry.end_ids.push_back(static_cast<int32_t>(id));
      }
    }
    std::sort(entry.end_ids.begin(), entry.end_ids.end());
    entry.end_ids.erase(std::unique(entry.end_ids.begin(), entry.end_ids.end()), entry.end_ids.end());

    std::optional<bool> add_bos;
    std::optional<std::string_view> chat_template;
    LETHE_RETURN_IF_ERROR(file_.read_bool("tokenizer.ggml.add_bos_token", &add_bos));
    LETHE_RETURN_IF_ERROR(file_.read_string("tokenizer.chat_template", &chat_template));
    entry.add_bos = add_bos.value_or(false);
    entry.chat_template = chat_template.value_or("");
    if (entry.add_bos && entry.bos_id < 0) {
      return Status::error(ErrorCode::kCorruptModel, "GGUF: add_bos_token is true but there is no bos_token_id");
    }
    return {};
  }

  // Appends an array at the next multiple of 64 bytes and returns its offset.
  template <typename Array>
  uint64_t store(const Array& array) {
    const size_t offset = round_up(out_.segment.size(), kDataAlignment);
    const size_t bytes = array.size() * sizeof(array[0]);
    out_.segment.resize(offset + bytes);
    if (bytes != 0) std::memcpy(out_.segment.data() + offset, array.data(), bytes);
    return offset;
  }

  void store_tables() {
    TokenizerEntry& entry = out_.entry;
    entry.token_offsets = store(offsets_);
    entry.token_bytes = store(bytes_);
    entry.token_bytes_size = bytes_.size();
    entry.token_kinds = store(kinds_);
    entry.byte_tokens = store(byte_tokens_);
    entry.merges = store(merges_);
    entry.merge_slots = merges_.size();
    entry.specials = store(specials_);
    entry.special_count = static_cast<uint32_t>(specials_.size());
  }

  const GgufFile& file_;
  PackedTokenizer& out_;
  std::vector<uint32_t> offsets_;
  std::string bytes_;  // of all tokens
  std::vector<uint8_t> kinds_;
  std::array<uint32_t, 256> byte_tokens_;
  std::vector<MergeSlot> merges_;
  std::vector<uint32_t> specials_;
  std::unordered_map<std::string_view, uint32_t> ids_;  // of normal tokens, in GPT-2's alphabet
};

}  // namespace

Status pack_gguf_tokenizer(const GgufFile& file, PackedTokenizer* out) {
  *out = {};
  return TokenizerPacker(file, out).run();
}

}  // namespace lethe
