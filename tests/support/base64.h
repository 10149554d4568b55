// Base64, as vectors of texts are written.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lethe::test {

inline std::string from_base64(std::string_view text) {
  const std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t value = 0, bits = 0;
  for (const char digit : text) {
    if (digit == '=') break;
    value = value << 6 | static_cast<uint32_t>(digits.find(digit));
    if ((bits += 6) >= 8) bytes += static_cast<char>(value >> (bits -= 8));
  }
  return bytes;
}

}  // namespace lethe::test
