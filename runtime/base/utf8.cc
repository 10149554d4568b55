#include "runtime/base/utf8.h"

#include <algorithm>
#include <cstring>

namespace lethe::utf8 {
namespace {

bool is_continuation(uint8_t byte) { return (byte & 0xC0) == 0x80; }

}  // namespace

Front front(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {Kind::kCharacter, 1, lead};
  // C0, C1 (overlong), F5 to FF (beyond U+10FFFF) and lone continuation bytes begin nothing.
  if (lead < 0xC2 || lead > 0xF4) return {Kind::kInvalid, 1, 0};

  const uint8_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte decides overlong forms, surrogates and the upper end (Unicode 15, table 3-7).
  const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  uint32_t code = lead & (0x7Fu >> length);
  for (uint8_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Kind::kIncomplete, i, 0};
    const bool fits = i == 1 ? byte(1) >= low && byte(1) <= high : is_continuation(byte(i));
    if (!fits) return {Kind::kInvalid, i, 0};
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  return {Kind::kCharacter, length, code};
}

size_t find_invalid(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t eight;
    if (text.size() - at >= sizeof eight) {  // plain ASCII is most of the text there is
      std::memcpy(&eight, text.data() + at, sizeof eight);
      if ((eight & 0x8080808080808080u) == 0) {
        at += sizeof eight;
        continue;
      }
    }
    const Front next = front(text.substr(at));
    if (next.kind != Kind::kCharacter) return at;
    at += next.size;
  }
  return at;
}

size_t complete_prefix(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const size_t at = text.size() - back;
    if (is_continuation(static_cast<uint8_t>(text[at]))) continue;
    const Front last = front(text.substr(at));
    // Bytes after a short subpart are rubbish of their own, so nothing is waiting for more.
    return last.kind == Kind::kIncomplete && last.size == back ? at : text.size();
  }
  return text.size();
}

size_t encode(uint32_t code, std::span<char, 4> out) {
  if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return 0;
  if (code < 0x80) {
    out[0] = static_cast<char>(code);
    return 1;
  }
  const size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (size_t i = length; --i > 0; code >>= 6) out[i] = static_cast<char>(0x80 | (code & 0x3F));
  out[0] = static_cast<char>((0xF00u >> length & 0xF0u) | code);
  return length;
}

size_t replace_invalid(std::string_view text, std::span<char> out) {
  size_t size = 0;
  const auto append = [&](std::string_view piece) {
    if (size < out.size()) std::memcpy(out.data() + size, piece.data(), std::min(piece.size(), out.size() - size));
    size += piece.size();
  };
  while (!text.empty()) {
    const size_t valid = find_invalid(text);
    append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) break;
    append(kReplacement);
    text.remove_prefix(front(text).size);
  }
  return size;
}

}  // namespace lethe::utf8
