// SentencePiece's normalisation of text: replacements, spaces, and the space in front.
#pragma once

#include <string_view>

#include "runtime/base/status.h"
#include "runtime/model/model.h"

namespace lethe {

inline constexpr std::string_view kVisibleSpace = "\xe2\x96\x81";  // U+2581, SentencePiece's way to write a space

// Gives `sink` the normalised `text` (valid UTF-8) piece by piece, none of them empty: what the model's charsmap
// replaces (the longest match at each place), then as the options of TokenizerData say, with ' ' for U+2581. `prefix`:
// a space comes first, as the options say. Works without memory of its own (SentencePiece's normalizer.cc). An error of
// the sink ends it.
using NormalisedSink = Status (*)(void* context, std::string_view text);
Status normalise(const TokenizerData& data, std::string_view text, bool prefix, NormalisedSink sink, void* context);

}  // namespace lethe
