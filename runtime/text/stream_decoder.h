// Turns the bytes of tokens into text that never ends inside a character.
#pragma once

#include <cstdint>
#include <string_view>

#include "runtime/text/text_sink.h"

namespace lethe {

// However the bytes are cut, the text is that of one decoding of all of them with U+FFFD for what is not UTF-8
// (utf8::replace_invalid). Holds back at most 3 bytes. Copyable; one thread at a time.
class StreamDecoder {
 public:
  // Gives `sink` every character that is now certain. The pieces are only valid during the call.
  void push(std::string_view bytes, const TextSink& sink);
  // The end of the text: an unfinished character becomes U+FFFD. Afterwards as new.
  void flush(const TextSink& sink);

  // The unfinished character, 0 to 3 bytes.
  std::string_view pending() const { return {pending_, pending_size_}; }

 private:
  char pending_[4];
  uint8_t pending_size_ = 0;
};

}  // namespace lethe
