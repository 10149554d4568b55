// What the encoders of a piece of text produce.
#pragma once

#include <cstdint>
#include <string_view>

#include "runtime/base/utf8.h"

namespace lethe {

// An element of a linked list through an array. In lists over characters a symbol lies at the index of the first of the
// bytes that it covers, so that it reaches to its next symbol or to the end of the piece.
struct Symbol {
  uint32_t id;              // kNoToken: no token covers these bytes
  uint32_t previous, next;  // kNoToken at both ends of the list
};

struct Character {
  uint32_t size;  // bytes
  uint32_t code;  // code point
};

// The character at the front of a text that is not empty. A byte that is not UTF-8 counts as a character above all code
// points.
inline Character front_character(std::string_view text) {
  const utf8::Front front = utf8::front(text);
  if (front.kind == utf8::Kind::kCharacter) return {front.size, front.code};
  return {1, 0x110000u + static_cast<uint8_t>(text[0])};
}

// Unicode's White_Space.
constexpr bool is_white_space(uint32_t code) {
  return (code >= 0x09 && code <= 0x0d) || code == 0x20 || code == 0x85 || code == 0xa0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f ||
         code == 0x3000;
}

}  // namespace lethe
