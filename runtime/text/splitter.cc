#include "runtime/text/splitter.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace lethe {
namespace {

constexpr uint64_t kAlignment = 16;
// What pcre2_match may take for backtracking points. PCRE2 10.3x and later ask for 20 KiB at first and would double
// it; the patterns of tokenizers never need more than a few frames.
constexpr uint32_t kBacktrackKib = 20;
constexpr uint32_t kMaxNestedGroups = 20;

// PCRE2's sentence about an error, for our own sentence.
struct PcreMessage {
  explicit PcreMessage(int code) {
    if (pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(text), sizeof text) < 0) text[0] = '\0';
  }
  char text[128];
};

}  // namespace

void* Splitter::region_obtain(size_t bytes, void* context) {
  Region& region = *static_cast<Region*>(context);
  if (bytes > region.size - region.used || region.size - region.used - bytes < kAlignment) {
    region.exhausted = true;
    return nullptr;
  }
  region.last = region.used;
  region.used += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return region.base + region.last;
}

void Splitter::region_return(void* block, void* context) {
  Region& region = *static_cast<Region*>(context);
  if (block == region.base + region.last) region.used = region.last;
}

Status Splitter::open(std::span<const std::string_view> patterns, const Scratch& scratch) {
  if (patterns.size() > kMaxPatterns) {
    return Status::error(ErrorCode::kUnsupported, "the tokenizer has %zu split patterns; at most %zu are supported",
                         patterns.size(), kMaxPatterns);
  }
  region_ = {.base = scratch.region.data(), .size = scratch.region.size()};
  pcre2_general_context* general = pcre2_general_context_create(region_obtain, region_return, &region_);
  pcre2_compile_context* compile_context = general == nullptr ? nullptr : pcre2_compile_context_create(general);
  pcre2_match_context* match_context = general == nullptr ? nullptr : pcre2_match_context_create(general);
  // One pair of offsets: the whole match. Created before the patterns so that it cannot be the one that fails.
  match_data_ = general == nullptr ? nullptr : pcre2_match_data_create(1, general);
  if (compile_context == nullptr || match_context == nullptr || match_data_ == nullptr) {
    return Status::error(ErrorCode::kOutOfMemory, "the splitter's region of %zu bytes is too small",
                         scratch.region.size());
  }
  pcre2_set_parens_nest_limit(compile_context, kMaxNestedGroups);
  pcre2_set_match_limit(match_context, kMatchSteps);
  pcre2_set_heap_limit(match_context, kBacktrackKib);
  match_context_ = match_context;

  for (const std::string_view pattern : patterns) LETHE_RETURN_IF_ERROR(compile(pattern, compile_context));
  if (region_.size - region_.used < kBacktrackKib * 1024 + kAlignment) {
    return Status::error(ErrorCode::kUnsupported, "the %zu split patterns take %llu of %llu bytes", pattern_count_,
                         static_cast<unsigned long long>(region_.used), static_cast<unsigned long long>(region_.size));
  }
  return {};
}

Status Splitter::compile(std::string_view pattern, void* compile_context) {
  if (pattern.size() > kMaxPatternBytes) {
    return Status::error(ErrorCode::kUnsupported, "split pattern %zu has %zu bytes; at most %zu are supported",
                         pattern_count_, pattern.size(), kMaxPatternBytes);
  }
  int code = 0;
  PCRE2_SIZE offset = 0;
  // \C would match half a character. Items at a pattern's start can only lower the limits set above.
  pcre2_code* compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                       PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset,
                                       static_cast<pcre2_compile_context*>(compile_context));
  if (compiled == nullptr) {
    return Status::error(ErrorCode::kUnsupported, "split pattern %zu of the tokenizer, byte %zu: %s", pattern_count_,
                         offset, PcreMessage(code).text);
  }
  codes_[pattern_count_++] = compiled;
  return {};
}

Status Splitter::split(std::string_view text, PieceSink sink, void* context) const {
  if (text.empty()) return {};
  return split_stage(0, text, sink, context);
}

// Recursion as deep as there are patterns. The match data is shared: its offsets are read before going deeper.
Status Splitter::split_stage(size_t stage, std::string_view text, PieceSink sink, void* context) const {
  if (stage == pattern_count_) return sink(context, text);
  auto* match_data = static_cast<pcre2_match_data*>(match_data_);
  size_t at = 0;
  while (at < text.size()) {
    const int found = pcre2_match(
        static_cast<const pcre2_code*>(codes_[stage]), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
        PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, match_data, static_cast<pcre2_match_context*>(match_context_));
    size_t start = text.size(), end = text.size();
    if (found >= 0) {
      const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(match_data);
      start = offsets[0];
      end = offsets[1];
      // \K can put the start anywhere.
      if (start < at || end <= start || end > text.size()) {
        return Status::error(ErrorCode::kUnsupported, "split pattern %zu matches bytes %zu to %zu from byte %zu", stage,
                             start, end, at);
      }
    } else if (found != PCRE2_ERROR_NOMATCH) {
      return Status::error(ErrorCode::kUnsupported, "split pattern %zu on %zu bytes of text: %s", stage, text.size(),
                           PcreMessage(found).text);
    }
    if (start > at) LETHE_RETURN_IF_ERROR(split_stage(stage + 1, text.substr(at, start - at), sink, context));
    if (end > start) LETHE_RETURN_IF_ERROR(split_stage(stage + 1, text.substr(start, end - start), sink, context));
    at = end;
  }
  return {};
}

}  // namespace lethe
