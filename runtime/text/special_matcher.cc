#include "runtime/text/special_matcher.h"

#include <algorithm>

#include "runtime/text/normaliser.h"
#include "runtime/text/symbol.h"

namespace lethe {
namespace {

bool continues_character(char byte) { return (static_cast<uint8_t>(byte) & 0xc0) == 0x80; }

// Bytes of the white space at the front of `text`; 0: there is none.
size_t white_space_size(std::string_view text) {
  const Character front = front_character(text);
  return is_white_space(front.code) ? front.size : 0;
}

size_t skip_white_space(std::string_view text, size_t at) {
  for (size_t size = 1; size != 0 && at < text.size(); at += size) size = white_space_size(text.substr(at));
  return at;
}

// Where the white space begins that ends at `end`; `from` at the earliest.
size_t white_space_before(std::string_view text, size_t from, size_t end) {
  while (end > from) {
    size_t begin = end - 1;
    while (begin > from && continues_character(text[begin])) --begin;
    if (white_space_size(text.substr(begin)) != end - begin) break;
    end = begin;
  }
  return end;
}

}  // namespace

void SpecialMatcher::open(const TokenizerData& data) {
  data_ = &data;
  visible_spaces_ = data.kind != TokenizerKind::kByteLevelBpe;
  for (const uint32_t id : data.specials) front_[static_cast<uint8_t>(data.token(id)[0])] = true;
  if (visible_spaces_ && front_[static_cast<uint8_t>(' ')]) front_[static_cast<uint8_t>(kVisibleSpace[0])] = true;
}

SpecialMatcher::Match SpecialMatcher::find(std::string_view text, size_t from, bool control) const {
  for (size_t at = from; at < text.size(); ++at) {
    if (!front_[static_cast<uint8_t>(text[at])] || continues_character(text[at])) continue;
    Match match = match_at(text, at, control);
    if (match.id == kNoToken) continue;
    const uint8_t kind = data_->token_kinds[match.id];
    if ((kind & kStripLeft) != 0) match.begin = white_space_before(text, from, match.begin);
    if ((kind & kStripRight) != 0) match.end = skip_white_space(text, match.end);
    return match;
  }
  return {kNoToken, text.size(), text.size()};
}

// Byte by byte, the range of the sorted specials that begin with the bytes so far; its first ones may end here.
SpecialMatcher::Match SpecialMatcher::match_at(std::string_view text, size_t at, bool control) const {
  Match best = {kNoToken, at, at};
  const uint32_t* low = data_->specials.data();
  const uint32_t* high = low + data_->specials.size();
  size_t depth = 0;
  const auto byte_of = [&](uint32_t id) { return static_cast<uint8_t>(data_->token(id)[depth]); };
  for (size_t end = at;; ++depth) {
    const bool whole = end == text.size() || !continues_character(text[end]);
    for (bool found = false; low != high && data_->token(*low).size() == depth; ++low) {
      const bool allowed = control || data_->kind_of(*low) == TokenKind::kUserDefined;
      if (!allowed || !whole || found) continue;
      best = {*low, at, end};
      found = true;
    }
    if (low == high || end == text.size()) return best;
    const bool space = visible_spaces_ && text.substr(end).starts_with(kVisibleSpace);
    const auto byte = static_cast<uint8_t>(space ? ' ' : text[end]);
    end += space ? kVisibleSpace.size() : 1;
    low = std::partition_point(low, high, [&](uint32_t id) { return byte_of(id) < byte; });
    high = std::partition_point(low, high, [&](uint32_t id) { return byte_of(id) == byte; });
  }
}

}  // namespace lethe
