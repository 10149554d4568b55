// Unicode Normalization Form C.
#pragma once

#include <span>
#include <string_view>

#include "runtime/base/status.h"

namespace lethe::nfc {

// Most code points between two places where nothing can compose: a character with its combining marks.
inline constexpr size_t kMaxRun = 128;

// Gives `sink` the NFC of `text` (valid UTF-8) character by character (Unicode Standard Annex #15, section 9). An error
// of the sink ends it. kUnsupported: more than kMaxRun combining marks in a row.
using Sink = Status (*)(void* context, std::string_view character);
Status normalise(std::string_view text, Sink sink, void* context);

// Whether `text` is its own NFC; false also where normalise() gives up.
bool is_normal(std::string_view text);

}  // namespace lethe::nfc
