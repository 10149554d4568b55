// UTF-8 (RFC 3629: no surrogates, no overlong forms, up to U+10FFFF).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace lethe::utf8 {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

enum class Kind : uint8_t {
  kCharacter,   // a whole character
  kInvalid,     // bytes that begin no character, whatever follows
  kIncomplete,  // the text ends inside a character that more bytes could complete
};

// What stands at the front of a text. `size` is the character's length, or for the other kinds the length of the
// "maximal subpart" (Unicode 15, section 3.9, U+FFFD Substitution of Maximal Subparts), which is at least 1.
struct Front {
  Kind kind;
  uint8_t size;   // bytes
  uint32_t code;  // code point; only for kCharacter
};

// Requires a text that is not empty.
Front front(std::string_view text);

// Offset of the first byte that belongs to no whole character; text.size() when all are.
size_t find_invalid(std::string_view text);

// Length of the text without an incomplete character at its end (0 to 3 bytes less than text.size()).
size_t complete_prefix(std::string_view text);

// Writes 1 to 4 bytes and returns their number; 0 for a surrogate or a number above U+10FFFF.
size_t encode(uint32_t code, std::span<char, 4> out);

// Copies `text` with U+FFFD for every maximal subpart of bytes that are not UTF-8 (what Python's
// bytes.decode("utf-8", "replace") does) and returns the size of the copy. Writes nothing past `out`: when the result
// is greater than out.size(), call again with that much room. Never more than 3 * text.size().
size_t replace_invalid(std::string_view text, std::span<char> out);

}  // namespace lethe::utf8
