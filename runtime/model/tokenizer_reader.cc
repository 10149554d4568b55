#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cmath>
#include <cstring>

#include "runtime/model/frame.h"
#include "runtime/model/reader.h"
#include "schema/model_generated.h"

namespace lethe {
namespace {

template <typename T>
Status take_array(std::span<const uint8_t> segment, const char* name, uint64_t offset, uint64_t count,
                  std::span<const T>* out) {
  if (offset % kDataAlignment != 0 || offset > segment.size() || count > (segment.size() - offset) / sizeof(T)) {
    return Status::error(ErrorCode::kCorruptModel,
                         "tokenizer: %s, %" PRIu64 " times %zu bytes at %" PRIu64
                         ", is not aligned or outside its %zu bytes",
                         name, count, sizeof(T), offset, segment.size());
  }
  *out = {reinterpret_cast<const T*>(segment.data() + static_cast<size_t>(offset)), static_cast<size_t>(count)};
  return {};
}

Status bad_id(const char* what, uint64_t index, uint64_t id, uint32_t vocab) {
  return Status::error(ErrorCode::kCorruptModel, "tokenizer: %s %" PRIu64 " is token %" PRIu64 " of %u", what, index,
                       id, vocab);
}

Status check_tokens(const TokenizerData& data, uint32_t vocab) {
  if (data.token_offsets[0] != 0 || data.token_offsets[vocab] != data.token_bytes.size()) {
    return Status::error(ErrorCode::kCorruptModel, "tokenizer: texts span %u to %u of %zu bytes", data.token_offsets[0],
                         data.token_offsets[vocab], data.token_bytes.size());
  }
  for (uint32_t id = 0; id < vocab; ++id) {
    if (data.token_offsets[id] > data.token_offsets[id + 1]) {
      return Status::error(ErrorCode::kCorruptModel, "tokenizer: token %u begins at %u, the next at %u", id,
                           data.token_offsets[id], data.token_offsets[id + 1]);
    }
    if (data.kind_of(id) > TokenKind::kUnused) {
      return Status::error(ErrorCode::kUnsupported, "tokenizer: token %u has the unknown kind %u", id,
                           data.token_kinds[id]);
    }
  }
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const uint32_t id = data.byte_tokens[byte];
    if (id == kNoToken) continue;
    if (id >= vocab) return bad_id("byte", byte, id, vocab);
    const std::string_view text = data.token(id);
    if (text.size() != 1 || static_cast<uint8_t>(text[0]) != byte) {
      return Status::error(ErrorCode::kCorruptModel, "tokenizer: token %u is not the byte %u", id, byte);
    }
  }
  return {};
}

// Every search of a hash table ends at an empty slot, and soon.
Status check_load(const char* table, uint64_t used, size_t slots) {
  if (used <= slots / 4 * 3) return {};
  return Status::error(ErrorCode::kCorruptModel, "tokenizer: %" PRIu64 " of %zu %s slots are used, at most 3/4", used,
                       slots, table);
}

// Slots of a hash table or words of a bitset; 0 where the array is optional and absent.
Status check_power_of_two(const char* what, uint64_t count, uint64_t least, bool optional) {
  if ((count == 0 && optional) || (std::has_single_bit(count) && count >= least && count <= kMaxMergeSlots)) return {};
  return Status::error(ErrorCode::kCorruptModel,
                       "tokenizer: %" PRIu64 " %s, must be a power of two from %" PRIu64 " to %" PRIu64, count, what,
                       least, kMaxMergeSlots);
}

Status check_merges(const TokenizerData& data, uint32_t vocab) {
  uint64_t used = 0;
  for (size_t i = 0; i < data.merges.size(); ++i) {
    const MergeSlot& slot = data.merges[i];
    if (slot.left == kNoToken) continue;
    ++used;
    for (const uint32_t id : {slot.left, slot.right, slot.merged}) {
      if (id >= vocab) return bad_id("a part of merge slot", i, id, vocab);
    }
    const std::string_view left = data.token(slot.left);
    const std::string_view right = data.token(slot.right);
    const std::string_view merged = data.token(slot.merged);
    if (merged.size() != left.size() + right.size() || !merged.starts_with(left) || !merged.ends_with(right)) {
      return Status::error(ErrorCode::kCorruptModel, "tokenizer: token %u is not the merge of %u and %u", slot.merged,
                           slot.left, slot.right);
    }
  }
  return check_load("merge", used, data.merges.size());
}

Status check_lookup(TokenizerData* data, uint32_t vocab) {
  uint64_t used = 0;
  for (size_t i = 0; i < data->lookup.size(); ++i) {
    const uint32_t id = data->lookup[i];
    if (id == kNoToken) continue;
    if (id >= vocab) return bad_id("lookup slot", i, id, vocab);
    ++used;
    data->longest_token = std::max(data->longest_token, static_cast<uint32_t>(data->token(id).size()));
  }
  for (size_t id = 0; id < data->scores.size(); ++id) {
    if (!std::isfinite(data->scores[id])) {
      return Status::error(ErrorCode::kCorruptModel, "tokenizer: the score of token %zu is not a number", id);
    }
  }
  return check_load("lookup", used, data->lookup.size());
}

// The replacements are zero-terminated; the trie's walk is checked where it is walked.
Status check_charsmap(const TokenizerData& data) {
  if (!data.charsmap_units.empty() && (data.charsmap_texts.empty() || data.charsmap_texts.back() != '\0')) {
    return Status::error(ErrorCode::kCorruptModel, "tokenizer: the replacements of the charsmap do not end in zero");
  }
  return {};
}

// What the kind of tokenizer cannot do without.
Status check_kind(const TokenizerData& data) {
  const bool byte_level = data.kind == TokenizerKind::kByteLevelBpe;
  const bool unigram = data.kind == TokenizerKind::kUnigram;
  if (data.kind > TokenizerKind::kUnigram || data.space_prefix > SpacePrefix::kEvery ||
      data.space_rule > SpaceRule::kTrim) {
    return Status::error(ErrorCode::kUnsupported, "tokenizer: kind %d, space prefix %d or space rule %d is unknown",
                         static_cast<int>(data.kind), static_cast<int>(data.space_prefix),
                         static_cast<int>(data.space_rule));
  }
  if (data.lookup.empty() && (!byte_level || data.ignore_merges)) {
    return Status::error(ErrorCode::kCorruptModel, "tokenizer: kind %d needs a lookup table",
                         static_cast<int>(data.kind));
  }
  if (byte_level ? data.merges.empty() : data.scores.empty() && (unigram || data.merges.empty())) {
    return Status::error(ErrorCode::kCorruptModel, "tokenizer: kind %d has neither the merges nor the scores it needs",
                         static_cast<int>(data.kind));
  }
  if (!std::isfinite(data.unknown_score)) {
    return Status::error(ErrorCode::kCorruptModel, "tokenizer: the score of unknown characters is not a number");
  }
  return {};
}

Status check_specials(const TokenizerData& data, uint32_t vocab) {
  for (size_t i = 0; i < data.specials.size(); ++i) {
    const uint32_t id = data.specials[i];
    if (id >= vocab) return bad_id("special", i, id, vocab);
    const size_t size = data.token(id).size();
    if (size == 0) return Status::error(ErrorCode::kCorruptModel, "tokenizer: special token %u has no text", id);
    if (i == 0) continue;
    const uint32_t before = data.specials[i - 1];
    const size_t size_before = data.token(before).size();
    if (size > size_before || (size == size_before && id <= before)) {
      return Status::error(ErrorCode::kCorruptModel, "tokenizer: special tokens %u and %u are out of order", before,
                           id);
    }
  }
  for (size_t i = 0; i < data.end_ids.size(); ++i) {
    const int32_t id = data.end_ids[i];
    if (id < 0 || static_cast<uint32_t>(id) >= vocab) return bad_id("end id", i, static_cast<uint32_t>(id), vocab);
  }
  for (const int32_t id : {data.bos_id, data.eos_id, data.unknown_id}) {
    if (id < -1 || id >= static_cast<int32_t>(vocab)) {
      return Status::error(ErrorCode::kCorruptModel, "tokenizer: bos, eos or unknown is token %d of %u", id, vocab);
    }
  }
  if (data.add_bos && data.bos_id < 0) {
    return Status::error(ErrorCode::kCorruptModel, "tokenizer: a bos token is to be added but there is none");
  }
  return {};
}

}  // namespace

Status read_tokenizer(const fbs::Tokenizer& tokenizer, std::span<const uint8_t> segment, uint32_t vocab,
                      std::span<uint32_t> specials, TokenizerData* out) {
  const uint64_t slots = tokenizer.merge_slots();
  const bool byte_level = tokenizer.kind() == fbs::TokenizerKind::ByteLevelBpe;
  LETHE_RETURN_IF_ERROR(check_power_of_two("merge slots", slots, 4, !byte_level));
  LETHE_RETURN_IF_ERROR(check_power_of_two("lookup slots", tokenizer.lookup_slots(), 4, true));
  LETHE_RETURN_IF_ERROR(check_power_of_two("words of neighbours", tokenizer.neighbour_words(), 1, true));
  *out = {};
  std::span<const char> text, replacements;
  std::span<const uint32_t> special_ids;
  const auto take = [&](const char* name, uint64_t offset, uint64_t count, auto* array) {
    return take_array(segment, name, offset, count, array);
  };
  LETHE_RETURN_IF_ERROR(take("token_offsets", tokenizer.token_offsets(), uint64_t{vocab} + 1, &out->token_offsets));
  LETHE_RETURN_IF_ERROR(take("token_bytes", tokenizer.token_bytes(), tokenizer.token_bytes_size(), &text));
  LETHE_RETURN_IF_ERROR(take("token_kinds", tokenizer.token_kinds(), vocab, &out->token_kinds));
  LETHE_RETURN_IF_ERROR(take("byte_tokens", tokenizer.byte_tokens(), 256, &out->byte_tokens));
  LETHE_RETURN_IF_ERROR(take("merges", tokenizer.merges(), slots, &out->merges));
  LETHE_RETURN_IF_ERROR(take("specials", tokenizer.specials(), specials.size(), &special_ids));
  LETHE_RETURN_IF_ERROR(take("scores", tokenizer.scores(), tokenizer.has_scores() ? vocab : 0, &out->scores));
  LETHE_RETURN_IF_ERROR(take("lookup", tokenizer.lookup(), tokenizer.lookup_slots(), &out->lookup));
  LETHE_RETURN_IF_ERROR(take("neighbours", tokenizer.neighbours(), tokenizer.neighbour_words(), &out->neighbours));
  LETHE_RETURN_IF_ERROR(
      take("charsmap_units", tokenizer.charsmap_units(), tokenizer.charsmap_unit_count(), &out->charsmap_units));
  LETHE_RETURN_IF_ERROR(
      take("charsmap_texts", tokenizer.charsmap_texts(), tokenizer.charsmap_texts_size(), &replacements));
  out->token_bytes = {text.data(), text.size()};
  out->charsmap_texts = {replacements.data(), replacements.size()};
  if (const auto* ids = tokenizer.end_ids(); ids != nullptr) out->end_ids = {ids->data(), ids->size()};
  if (const auto* chat = tokenizer.chat_template(); chat != nullptr) out->chat_template = {chat->c_str(), chat->size()};
  out->bos_id = tokenizer.bos_id();
  out->eos_id = tokenizer.eos_id();
  out->add_bos = tokenizer.add_bos();
  out->kind = static_cast<TokenizerKind>(tokenizer.kind());
  out->ignore_merges = tokenizer.ignore_merges();
  out->nfc = tokenizer.nfc();
  out->single_precision = tokenizer.single_precision();
  out->space_rule = static_cast<SpaceRule>(tokenizer.space_rule());
  out->prefix_unless_space = tokenizer.prefix_unless_space();
  out->space_prefix = static_cast<SpacePrefix>(tokenizer.space_prefix());
  out->unknown_id = tokenizer.unknown_id();
  out->unknown_score = tokenizer.unknown_score();

  LETHE_RETURN_IF_ERROR(check_kind(*out));
  LETHE_RETURN_IF_ERROR(check_tokens(*out, vocab));
  LETHE_RETURN_IF_ERROR(check_merges(*out, vocab));
  LETHE_RETURN_IF_ERROR(check_lookup(out, vocab));
  LETHE_RETURN_IF_ERROR(check_charsmap(*out));
  out->specials = special_ids;
  LETHE_RETURN_IF_ERROR(check_specials(*out, vocab));
  std::copy(special_ids.begin(), special_ids.end(), specials.begin());
  std::sort(specials.begin(), specials.end(), [out](uint32_t a, uint32_t b) {
    const int order = out->token(a).compare(out->token(b));
    return order != 0 ? order < 0 : a < b;
  });
  out->specials = specials;
  return {};
}

}  // namespace lethe
