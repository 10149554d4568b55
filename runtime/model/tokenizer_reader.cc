#include <bit>
#include <cinttypes>
#include <cstring>

#include "runtime/model/frame.h"
#include "runtime/model/reader.h"
#include "schema/model_generated.h"

namespace lethe {
namespace {

// `count` elements of T at `offset` of the segment. `count` is bounded by the caller, so that the product cannot wrap.
template <typename T>
Status take_array(std::span<const uint8_t> segment, const char* name, uint64_t offset, uint64_t count,
                  std::span<const T>* out) {
  const uint64_t bytes = count * sizeof(T);
  if (offset % kDataAlignment != 0 || offset > segment.size() || bytes > segment.size() - offset) {
    return Status::error(ErrorCode::kCorruptModel,
                         "tokenizer: %s, %" PRIu64 " bytes at %" PRIu64 ", is not aligned or outside its %zu bytes",
                         name, bytes, offset, segment.size());
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
    if (data.token_kinds[id] > static_cast<uint8_t>(TokenKind::kUnused)) {
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
  if (used > data.merges.size() / 4 * 3) {
    return Status::error(ErrorCode::kCorruptModel, "tokenizer: %" PRIu64 " of %zu merge slots are used, at most 3/4",
                         used, data.merges.size());
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
  for (const int32_t id : {data.bos_id, data.eos_id}) {
    if (id < -1 || id >= static_cast<int32_t>(vocab)) {
      return Status::error(ErrorCode::kCorruptModel, "tokenizer: bos or eos is token %d of %u", id, vocab);
    }
  }
  if (data.add_bos && data.bos_id < 0) {
    return Status::error(ErrorCode::kCorruptModel, "tokenizer: a bos token is to be added but there is none");
  }
  return {};
}

}  // namespace

Status read_tokenizer(const fbs::Tokenizer& tokenizer, std::span<const uint8_t> segment, uint32_t vocab,
                      TokenizerData* out) {
  if (tokenizer.kind() != fbs::TokenizerKind::ByteLevelBpe) {
    return Status::error(ErrorCode::kUnsupported, "tokenizer: kind %d is unknown", static_cast<int>(tokenizer.kind()));
  }
  const uint64_t slots = tokenizer.merge_slots();
  if (!std::has_single_bit(slots) || slots < 4 || slots > kMaxMergeSlots) {
    return Status::error(ErrorCode::kCorruptModel,
                         "tokenizer: %" PRIu64 " merge slots, must be a power of two from 4 to %" PRIu64, slots,
                         kMaxMergeSlots);
  }
  if (tokenizer.special_count() > vocab) {
    return Status::error(ErrorCode::kCorruptModel, "tokenizer: %u special tokens of %u", tokenizer.special_count(),
                         vocab);
  }
  *out = {};
  std::span<const char> text;
  LETHE_RETURN_IF_ERROR(
      take_array(segment, "token_offsets", tokenizer.token_offsets(), uint64_t{vocab} + 1, &out->token_offsets));
  LETHE_RETURN_IF_ERROR(
      take_array(segment, "token_bytes", tokenizer.token_bytes(), tokenizer.token_bytes_size(), &text));
  LETHE_RETURN_IF_ERROR(take_array(segment, "token_kinds", tokenizer.token_kinds(), vocab, &out->token_kinds));
  LETHE_RETURN_IF_ERROR(take_array(segment, "byte_tokens", tokenizer.byte_tokens(), 256, &out->byte_tokens));
  LETHE_RETURN_IF_ERROR(take_array(segment, "merges", tokenizer.merges(), slots, &out->merges));
  LETHE_RETURN_IF_ERROR(
      take_array(segment, "specials", tokenizer.specials(), tokenizer.special_count(), &out->specials));
  out->token_bytes = {text.data(), text.size()};
  if (const auto* ids = tokenizer.end_ids(); ids != nullptr) out->end_ids = {ids->data(), ids->size()};
  if (const auto* chat = tokenizer.chat_template(); chat != nullptr) out->chat_template = {chat->c_str(), chat->size()};
  out->bos_id = tokenizer.bos_id();
  out->eos_id = tokenizer.eos_id();
  out->add_bos = tokenizer.add_bos();

  LETHE_RETURN_IF_ERROR(check_tokens(*out, vocab));
  LETHE_RETURN_IF_ERROR(check_merges(*out, vocab));
  return check_specials(*out, vocab);
}

}  // namespace lethe
