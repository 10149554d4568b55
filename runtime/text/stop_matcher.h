// Finds stop strings in a stream of text and holds back what may become one.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/text/text_sink.h"

namespace lethe {

// The stop string that is complete first ends the text; of several that end at the same byte the longest. One
// automaton per string (Knuth, Morris and Pratt, "Fast Pattern Matching in Strings", 1977). Copyable; one thread at a
// time.
class StopMatcher {
 public:
  static constexpr size_t kMaxStops = 8;
  static constexpr size_t kMaxStopBytes = 64;

  // Copies the strings and starts anew. kInvalidArgument: too many, empty, too long, or not UTF-8.
  Status open(std::span<const std::string_view> stops);

  // Passes on the text that cannot belong to a stop string, up to the stop string if one is found. True when it is:
  // then the rest of `text` is dropped, and so is everything fed before the next reset. When `text` is whole
  // characters, so is what is passed on.
  bool feed(std::string_view text, const TextSink& sink);
  // The end of the text: passes on what was held back, unless a stop string was found. Then as after reset.
  void flush(const TextSink& sink);
  // For a new text with the same stop strings.
  void reset();

  bool hit() const { return hit_; }

 private:
  struct Stop {
    char text[kMaxStopBytes];
    uint8_t size;
    uint8_t border[kMaxStopBytes];  // length of the longest proper border of the first i + 1 bytes
    uint8_t matched;                // bytes of `text` that the stream ends with
  };
  // The beginning of a stop string with which the stream ends, the longest of all. It is all that is held back.
  std::string_view held() const;

  Stop stops_[kMaxStops];
  uint8_t stop_count_ = 0;
  bool hit_ = false;
};

}  // namespace lethe
