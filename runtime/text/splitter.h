// Pre-tokenizer: cuts a text into the pieces inside which byte pairs may merge.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/memory/arena.h"

namespace lethe {

// Applies the model's split patterns one after the other: at each stage every match and every gap between matches
// becomes a piece, and the next stage runs inside each piece as a subject of its own (Hugging Face's Sequence of
// Split with behaviour "isolated").
//
// Patterns are PCRE2 (UTF, UCP, no JIT) and come from the model file, so they are not trusted: PCRE2 lives in one
// fixed region and works under limits, and a pattern that wants more ends in an error. Nothing is obtained from the
// heap. One thread at a time. Trivially destructible: whoever owns the arena's block frees everything.
class Splitter {
 public:
  static constexpr size_t kMaxPatterns = 8;
  static constexpr size_t kMaxPatternBytes = 16384;
  // For compiled patterns and the matcher's stack of backtracking points. GPT-2's and SmolLM's take about half.
  static constexpr uint64_t kRegionBytes = 64 * 1024;
  // Steps of the matcher from one position of the text, some ten milliseconds. Sound patterns take at most one for
  // every byte of a match.
  static constexpr uint32_t kMatchSteps = 1'000'000;

  struct Scratch {
    std::span<uint8_t> region;  // [kRegionBytes]
  };
  static Scratch layout(Arena& arena) { return {arena.take<uint8_t>(kRegionBytes)}; }

  Splitter() = default;
  Splitter(const Splitter&) = delete;  // PCRE2 keeps the address of the region below
  Splitter& operator=(const Splitter&) = delete;

  // Compiles the patterns; they need not outlive the call. kUnsupported: a pattern is not valid, there are too many,
  // or they do not fit the region. An object is opened once.
  Status open(std::span<const std::string_view> patterns, const Scratch& scratch);

  // Called with each piece, in order; pieces are not empty and together are the text. An error stops the split.
  using PieceSink = Status (*)(void* context, std::string_view piece);

  // Requires `text` to be valid UTF-8. kUnsupported: a pattern needs more steps or memory than the limits.
  Status split(std::string_view text, PieceSink sink, void* context) const;

  uint64_t region_used() const { return region_.used; }  // bytes

 private:
  // Stack-like: only the block obtained last can be given back. PCRE2 frees in that order wherever it matters.
  struct Region {
    uint8_t* base = nullptr;
    uint64_t size = 0, used = 0, last = 0;
    bool exhausted = false;
  };
  static void* region_obtain(size_t bytes, void* region);
  static void region_return(void* block, void* region);

  Status compile(std::string_view pattern, void* compile_context);
  Status split_stage(size_t stage, std::string_view text, PieceSink sink, void* context) const;

  Region region_;
  void* codes_[kMaxPatterns] = {};  // pcre2_code, pcre2_match_data, pcre2_match_context
  size_t pattern_count_ = 0;
  void* match_data_ = nullptr;
  void* match_context_ = nullptr;
};

}  // namespace lethe
