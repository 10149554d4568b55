// What every source says about its tokenizer, and the step from there to the tables of a .lethe file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/model/model.h"
#include "tools/pack/tokenizer.h"

namespace lethe {

struct SourceToken {
  // As the model file has it: raw bytes in byte-level BPE; ' ' instead of U+2581 and one raw byte instead of <0x0A> in
  // SentencePiece kinds.
  std::string text;
  float score = 0;
  TokenKind kind = TokenKind::kUnused;
  bool strip_left = false, strip_right = false;  // of special tokens
  bool reachable = true;                         // of normal ones: false keeps it out of the lookup by text
};

struct SourceMerge {
  uint32_t left, right, merged;  // ids
};

struct TokenizerSource {
  TokenizerKind kind = TokenizerKind::kByteLevelBpe;
  std::vector<SourceToken> tokens;  // by id
  std::vector<SourceMerge> merges;  // in order of rank; of several of the same pair the first counts
  bool use_scores = false;          // SentencePiece kinds; otherwise merges
  std::string charsmap;             // SentencePiece's precompiled_charsmap, or empty
  std::vector<std::string> patterns;
  int32_t bos_id = -1, eos_id = -1, unknown_id = -1;
  std::vector<int32_t> end_ids;  // declared ones besides eos_id
  std::string chat_template;
  bool add_bos = false, ignore_merges = false, nfc = false, single_precision = false;
  bool prefix_unless_space = false;
  SpaceRule space_rule = SpaceRule::kKeep;
  SpacePrefix space_prefix = SpacePrefix::kNone;
};

// Adds the control tokens that are known to end a reply to the end ids and lays everything out. kCorruptModel: ids or
// texts contradict each other; kUnsupported: too large, or a split pattern that PCRE2 refuses.
Status build_tokenizer(const TokenizerSource& source, PackedTokenizer* out);

// The ids of normal and user-defined tokens by their text, the first of equals.
std::unordered_map<std::string_view, uint32_t> ids_by_text(const TokenizerSource& source);

// Appends the merge that is written `left`, `right` in the tokens' own texts; false when they are no tokens.
bool add_merge(const std::unordered_map<std::string_view, uint32_t>& ids, std::string_view left, std::string_view right,
               TokenizerSource* source);

// A token written in GPT-2's alphabet of bytes as the bytes; false when a character is not of that alphabet.
bool decode_gpt2_bytes(std::string_view text, std::string* out);

// A token as SentencePiece writes it: with ' ' for U+2581.
std::string decode_visible_spaces(std::string_view text);

// The byte of a token that is written like <0x0A>; -1: it is not.
int32_t byte_of_token(std::string_view text);

}  // namespace lethe
