#include "platform/android/jni/utf.h"

#include <cstdint>

namespace lethe::jni {
namespace {

// What begins with a certain byte: how long it is, and the range of its second byte (Unicode 15, table 3-7).
struct Lead {
  int size;  // bytes; 0: begins nothing
  uint8_t first, last;
};

Lead lead_of(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

bool is_high(char16_t unit) { return unit >= 0xD800 && unit < 0xDC00; }
bool is_low(char16_t unit) { return unit >= 0xDC00 && unit < 0xE000; }

void append_utf16(uint32_t code, std::u16string* out) {
  if (code >= 0x10000) {
    out->push_back(static_cast<char16_t>(0xD800 + ((code - 0x10000) >> 10)));
    code = 0xDC00 + ((code - 0x10000) & 0x3FF);
  }
  out->push_back(static_cast<char16_t>(code));
}

void append_utf8(uint32_t code, std::string* out) {
  const auto put = [&](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
    return;
  }
  if (code < 0x800) {
    put(0xC0 | code >> 6);
  } else {
    if (code < 0x10000) {
      put(0xE0 | code >> 12);
    } else {
      put(0xF0 | code >> 18);
      put(0x80 | (code >> 12 & 0x3F));
    }
    put(0x80 | (code >> 6 & 0x3F));
  }
  put(0x80 | (code & 0x3F));
}

}  // namespace

void to_utf16(std::string_view text, std::u16string* out) {
  out->clear();
  for (size_t i = 0; i < text.size();) {
    const auto front = static_cast<uint8_t>(text[i++]);
    Lead lead = lead_of(front);
    uint32_t code = lead.size == 1 ? front : front & (0x7Fu >> lead.size);
    int left = lead.size - 1;
    for (; left > 0 && i < text.size(); --left) {
      const auto byte = static_cast<uint8_t>(text[i]);
      if (byte < lead.first || byte > lead.last) break;  // stands at the front of what comes next
      lead.first = 0x80, lead.last = 0xBF;
      code = code << 6 | (byte & 0x3F);
      ++i;
    }
    append_utf16(left == 0 ? code : 0xFFFD, out);
  }
}

size_t to_utf8(std::u16string_view text, std::string* out) {
  for (size_t i = 0; i < text.size(); ++i) {
    uint32_t code = text[i];
    if (is_high(text[i]) && i + 1 < text.size() && is_low(text[i + 1])) {
      code = 0x10000 + ((code - 0xD800) << 10) + (text[++i] - 0xDC00u);
    } else if (is_high(text[i]) || is_low(text[i])) {
      return i;
    }
    append_utf8(code, out);
  }
  return kNoSurrogate;
}

}  // namespace lethe::jni
