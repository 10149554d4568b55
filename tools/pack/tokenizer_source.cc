#include "tools/pack/tokenizer_source.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <set>

#include "runtime/model/quant_format.h"
#include "runtime/text/normaliser.h"
#include "runtime/text/splitter.h"
#include "runtime/text/symbol.h"

namespace lethe {
namespace {

// Texts of control tokens that end a reply, besides the declared end of sequence.
constexpr std::string_view kEndTexts[] = {"<|endoftext|>", "<|im_end|>", "<|eot_id|>",      "<|eom_id|>",     "<|end|>",
                                          "<end_of_turn>", "<|EOT|>",    "<|end_of_text|>", "<|end_of_turn|>"};

// What a character without a token costs in the unigram model, below the least score (SentencePiece's unk penalty).
constexpr float kUnknownPenalty = 10;

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

// A power of two of which `count` are at most `percent`.
uint64_t slots_for(uint64_t count, uint64_t percent) {
  uint64_t slots = 4;
  while (slots / 4 * percent / 25 < count) slots *= 2;
  return slots;
}

class TokenizerBuilder {
 public:
  TokenizerBuilder(const TokenizerSource& source, PackedTokenizer* out) : source_(source), out_(*out) {}

  Status run() {
    LETHE_RETURN_IF_ERROR(place_tokens());
    LETHE_RETURN_IF_ERROR(place_merges());
    place_lookup();
    LETHE_RETURN_IF_ERROR(place_charsmap());
    LETHE_RETURN_IF_ERROR(take_options());
    return check_patterns();
  }

 private:
  bool byte_level() const { return source_.kind == TokenizerKind::kByteLevelBpe; }

  // Appends an array at the next multiple of 64 bytes and returns its offset.
  template <typename Array>
  uint64_t store(const Array& array) {
    const size_t offset = round_up(out_.segment.size(), kDataAlignment);
    const size_t bytes = array.size() * sizeof(array[0]);
    out_.segment.resize(offset + bytes);
    if (bytes != 0) std::memcpy(out_.segment.data() + offset, array.data(), bytes);
    return offset;
  }

  Status place_tokens() {
    if (source_.tokens.empty() || source_.tokens.size() > kMaxVocab) {
      return Status::error(ErrorCode::kCorruptModel, "the tokenizer has %zu tokens; 1 to %u are possible",
                           source_.tokens.size(), kMaxVocab);
    }
    out_.vocab = static_cast<uint32_t>(source_.tokens.size());
    std::vector<uint32_t> offsets = {0}, specials;
    std::string bytes;
    std::vector<uint8_t> kinds;
    std::vector<float> scores;
    std::array<uint32_t, 256> byte_tokens;
    byte_tokens.fill(kNoToken);
    const TokenKind byte_kind = byte_level() ? TokenKind::kNormal : TokenKind::kByte;
    for (uint32_t id = 0; id < out_.vocab; ++id) {
      const SourceToken& token = source_.tokens[id];
      bytes += token.text;
      if (bytes.size() > UINT32_MAX) {
        return Status::error(ErrorCode::kUnsupported, "the texts of all tokens exceed 4 GiB");
      }
      if (!std::isfinite(token.score)) {
        return Status::error(ErrorCode::kCorruptModel, "the score of token %u is not a number", id);
      }
      offsets.push_back(static_cast<uint32_t>(bytes.size()));
      scores.push_back(token.score);
      kinds.push_back(static_cast<uint8_t>(static_cast<uint8_t>(token.kind) | (token.strip_left ? kStripLeft : 0) |
                                           (token.strip_right ? kStripRight : 0)));
      if (token.kind == byte_kind && token.text.size() == 1) {
        uint32_t& slot = byte_tokens[static_cast<uint8_t>(token.text[0])];
        if (slot == kNoToken) slot = id;
      }
      if (token.kind == TokenKind::kControl || token.kind == TokenKind::kUserDefined) {
        if (token.text.empty()) {
          return Status::error(ErrorCode::kCorruptModel, "special token %u has no text", id);
        }
        specials.push_back(id);
      }
    }
    std::sort(specials.begin(), specials.end(), [this](uint32_t a, uint32_t b) {
      const size_t size_a = source_.tokens[a].text.size(), size_b = source_.tokens[b].text.size();
      return size_a != size_b ? size_a > size_b : a < b;
    });
    TokenizerEntry& entry = out_.entry;
    entry.token_offsets = store(offsets);
    entry.token_bytes = store(bytes);
    entry.token_bytes_size = bytes.size();
    entry.token_kinds = store(kinds);
    entry.byte_tokens = store(byte_tokens);
    entry.specials = store(specials);
    entry.special_count = static_cast<uint32_t>(specials.size());
    entry.has_scores = source_.use_scores;
    if (source_.use_scores) entry.scores = store(scores);
    return {};
  }

  Status place_merges() {
    if (source_.use_scores) return {};
    const uint64_t slots = slots_for(source_.merges.size(), 75);
    if (slots > kMaxMergeSlots) {
      return Status::error(ErrorCode::kUnsupported, "%zu merges are too many", source_.merges.size());
    }
    std::vector<MergeSlot> table(slots, {kNoToken, kNoToken, 0, kNoToken});
    uint32_t rank = 0;
    for (const SourceMerge& merge : source_.merges) {
      const auto text = [this](uint32_t id) { return source_.tokens[id].text; };
      if (text(merge.merged) != text(merge.left) + text(merge.right)) {  // an added token took an id over
        return Status::error(ErrorCode::kCorruptModel, "merge %u: token %u is not tokens %u and %u", rank, merge.merged,
                             merge.left, merge.right);
      }
      uint64_t at = merge_hash(merge.left, merge.right, slots);
      while (table[at].left != kNoToken && (table[at].left != merge.left || table[at].right != merge.right)) {
        at = (at + 1) & (slots - 1);
      }
      if (table[at].left == kNoToken) table[at] = {merge.left, merge.right, rank, merge.merged};
      ++rank;
    }
    out_.entry.merges = store(table);
    out_.entry.merge_slots = slots;
    return {};
  }

  using Pairs = std::set<std::pair<uint32_t, uint32_t>>;
  static void add_pairs(std::string_view text, Pairs* pairs) {
    Character last = front_character(text);
    for (text.remove_prefix(last.size); !text.empty(); text.remove_prefix(last.size)) {
      const Character next = front_character(text);
      pairs->emplace(last.code, next.code);
      last = next;
    }
  }

  // The table of texts and, for SentencePiece kinds, which characters are neighbours in one of them.
  void place_lookup() {
    if (byte_level() && !source_.ignore_merges) return;
    const auto ids = ids_by_text(source_);
    const uint64_t slots = slots_for(ids.size(), 50);
    std::vector<uint32_t> lookup(slots, kNoToken);
    Pairs pairs;
    // In order of id, so that the file does not depend on the order of the map.
    for (uint32_t id = 0; id < out_.vocab; ++id) {
      const auto found = ids.find(source_.tokens[id].text);
      if (found == ids.end() || found->second != id) continue;
      const std::string_view text = source_.tokens[id].text;
      uint64_t hash = kTextHashSeed;
      for (const char byte : text) hash = text_hash_step(hash, byte);
      uint64_t at = text_hash_slot(hash, slots);
      while (lookup[at] != kNoToken) at = (at + 1) & (slots - 1);
      lookup[at] = id;
      if (!byte_level()) add_pairs(text, &pairs);
    }
    out_.entry.lookup = store(lookup);
    out_.entry.lookup_slots = slots;
    if (byte_level()) return;
    for (const SourceMerge& merge : source_.merges) add_pairs(source_.tokens[merge.merged].text, &pairs);
    // At most one bit in eight is set: so often is a place to cut missed.
    std::vector<uint64_t> neighbours(std::max<uint64_t>(slots_for(8 * pairs.size(), 100) / 64, 1));
    for (const auto& [left, right] : pairs) {
      const uint64_t bit = merge_hash(left, right, 64 * neighbours.size());
      neighbours[bit / 64] |= uint64_t{1} << (bit % 64);
    }
    out_.entry.neighbours = store(neighbours);
    out_.entry.neighbour_words = neighbours.size();
  }

  // u32 bytes of the trie, the trie, the replacements (SentencePiece's Normalizer::DecodePrecompiledCharsMap).
  Status place_charsmap() {
    const std::string& map = source_.charsmap;
    if (map.empty()) return {};
    uint32_t trie_bytes = 0;
    if (map.size() >= sizeof trie_bytes) std::memcpy(&trie_bytes, map.data(), sizeof trie_bytes);
    if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes >= map.size() - sizeof trie_bytes || map.back() != '\0') {
      return Status::error(ErrorCode::kCorruptModel,
                           "the normaliser's charsmap of %zu bytes with a trie of %u bytes is damaged", map.size(),
                           trie_bytes);
    }
    std::vector<uint32_t> units(trie_bytes / 4);
    std::memcpy(units.data(), map.data() + sizeof trie_bytes, trie_bytes);
    const std::string texts = map.substr(sizeof trie_bytes + trie_bytes);
    out_.entry.charsmap_units = store(units);
    out_.entry.charsmap_unit_count = units.size();
    out_.entry.charsmap_texts = store(texts);
    out_.entry.charsmap_texts_size = texts.size();
    return {};
  }

  Status take_options() {
    TokenizerEntry& entry = out_.entry;
    entry.kind = source_.kind;
    entry.split_patterns = source_.patterns;
    entry.bos_id = source_.bos_id;
    entry.eos_id = source_.eos_id;
    entry.unknown_id = source_.unknown_id;
    entry.add_bos = source_.add_bos;
    entry.ignore_merges = source_.ignore_merges;
    entry.nfc = source_.nfc;
    entry.single_precision = source_.single_precision;
    entry.space_rule = source_.space_rule;
    entry.prefix_unless_space = source_.prefix_unless_space;
    entry.space_prefix = source_.space_prefix;
    entry.chat_template = source_.chat_template;
    entry.end_ids = source_.end_ids;
    if (entry.eos_id >= 0) entry.end_ids.push_back(entry.eos_id);
    float least = 0;
    for (uint32_t id = 0; id < out_.vocab; ++id) {
      const SourceToken& token = source_.tokens[id];
      if (token.kind == TokenKind::kNormal) least = std::min(least, token.score);
      if (token.kind != TokenKind::kControl) continue;
      if (std::find(std::begin(kEndTexts), std::end(kEndTexts), token.text) != std::end(kEndTexts)) {
        entry.end_ids.push_back(static_cast<int32_t>(id));
      }
    }
    entry.unknown_score = source_.use_scores ? least - kUnknownPenalty : 0;
    std::sort(entry.end_ids.begin(), entry.end_ids.end());
    entry.end_ids.erase(std::unique(entry.end_ids.begin(), entry.end_ids.end()), entry.end_ids.end());
    std::vector<int32_t> ids = entry.end_ids;
    ids.insert(ids.end(), {entry.bos_id, entry.eos_id, entry.unknown_id});
    for (const int32_t id : ids) {
      if (id < -1 || id >= static_cast<int32_t>(out_.vocab)) {
        return Status::error(ErrorCode::kCorruptModel, "a special id is %d of %u tokens", id, out_.vocab);
      }
    }
    if (entry.add_bos && entry.bos_id < 0) {
      return Status::error(ErrorCode::kCorruptModel, "a bos token is to be added but the tokenizer has none");
    }
    return {};
  }

  // What the loaded model would say about them, said here.
  Status check_patterns() const {
    if (source_.patterns.size() > kMaxSplitPatterns) {
      return Status::error(ErrorCode::kUnsupported, "%zu split patterns are too many", source_.patterns.size());
    }
    const std::vector<std::string_view> patterns(source_.patterns.begin(), source_.patterns.end());
    std::vector<uint8_t> region(Splitter::kRegionBytes);
    return Splitter().open(patterns, {region});
  }

  const TokenizerSource& source_;
  PackedTokenizer& out_;
};

}  // namespace

Status build_tokenizer(const TokenizerSource& source, PackedTokenizer* out) {
  *out = {};
  return TokenizerBuilder(source, out).run();
}

std::unordered_map<std::string_view, uint32_t> ids_by_text(const TokenizerSource& source) {
  std::unordered_map<std::string_view, uint32_t> ids;
  for (uint32_t id = 0; id < source.tokens.size(); ++id) {
    const SourceToken& token = source.tokens[id];
    const bool user_defined = token.kind == TokenKind::kUserDefined && source.kind != TokenizerKind::kByteLevelBpe;
    const bool findable = (token.kind == TokenKind::kNormal && token.reachable) || user_defined;
    if (findable && !token.text.empty()) ids.emplace(token.text, id);
  }
  return ids;
}

bool add_merge(const std::unordered_map<std::string_view, uint32_t>& ids, std::string_view left, std::string_view right,
               TokenizerSource* source) {
  const auto left_id = ids.find(left), right_id = ids.find(right);
  const auto merged_id = ids.find(std::string(left).append(right));
  if (left_id == ids.end() || right_id == ids.end() || merged_id == ids.end()) return false;
  source->merges.push_back({left_id->second, right_id->second, merged_id->second});
  return true;
}

bool decode_gpt2_bytes(std::string_view text, std::string* out) {
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

std::string decode_visible_spaces(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const bool space = text.starts_with(kVisibleSpace);
    out += space ? ' ' : text[0];
    text.remove_prefix(space ? kVisibleSpace.size() : 1);
  }
  return out;
}

int32_t byte_of_token(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  int32_t byte = 0;
  for (const char digit : text.substr(3, 2)) {
    const size_t value = std::string_view("0123456789ABCDEF").find(digit);
    if (value == std::string_view::npos) return -1;
    byte = byte * 16 + static_cast<int32_t>(value);
  }
  return byte;
}

}  // namespace lethe
