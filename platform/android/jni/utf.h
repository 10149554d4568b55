// UTF-8 and UTF-16. Nothing here knows of the JVM: its own functions for "UTF-8" (NewStringUTF, GetStringUTFChars) take
// and give another encoding, in which emoji are six bytes, and abort or garble on this one.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace lethe::jni {

// Replaces `out` by `text` in UTF-16, with U+FFFD for every maximal subpart of bytes that are not UTF-8 (Unicode 15,
// section 3.9). Such bytes come only from an error sentence that was cut to its buffer.
void to_utf16(std::string_view text, std::u16string* out);

inline constexpr size_t kNoSurrogate = static_cast<size_t>(-1);
// Appends `text` in UTF-8 to `out` and returns kNoSurrogate, or the index of the first surrogate that has no partner:
// such a text has no UTF-8, and `out` then holds what stands before it.
size_t to_utf8(std::u16string_view text, std::string* out);

}  // namespace lethe::jni
