// JSON on stdout, written as it comes: no tree and no buffer beyond stdio's, so that an answer of any length takes no
// memory.
#pragma once

#include <concepts>
#include <cstdint>
#include <string_view>

namespace lethe::cli {

// The caller opens and closes objects and arrays in order; the writer sets commas and escapes. At most 31 levels.
// Bytes that are not UTF-8 become U+FFFD; numbers that JSON lacks (NaN, infinity) become null.
class JsonWriter {
 public:
  JsonWriter() = default;

  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name);

  JsonWriter& value(std::string_view text);
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(bool flag);
  JsonWriter& value(double number);
  template <std::signed_integral Integer>
  JsonWriter& value(Integer number) {
    return integer(number < 0, static_cast<uint64_t>(number < 0 ? -(number + 1) : number) + (number < 0 ? 1u : 0u));
  }
  template <std::unsigned_integral Integer>
  JsonWriter& value(Integer number) {
    return integer(false, number);
  }

  // key(name).value(of)
  template <typename T>
  JsonWriter& member(std::string_view name, const T& of) {
    return key(name).value(of);
  }

  // A string in pieces, each of whole characters.
  JsonWriter& begin_string();
  JsonWriter& piece(std::string_view text);
  JsonWriter& end_string();

  // Ends the document with a newline and flushes: throws as flush_output does.
  void finish();

 private:
  JsonWriter& open(char bracket);
  JsonWriter& close(char bracket);
  JsonWriter& integer(bool negative, uint64_t magnitude);
  void separate();

  uint32_t has_items_ = 0;  // bit d: level d holds something already
  uint32_t depth_ = 0;
  bool after_key_ = false;
};

}  // namespace lethe::cli
