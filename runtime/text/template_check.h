// What a chat template may not contain.
#pragma once

#include <cstdint>
#include <string_view>

#include "runtime/base/status.h"

namespace lethe {

inline constexpr size_t kMaxTemplateBytes = 32 * 1024;

// A chat template is a program that comes with the model file, and the engine that runs it (minja) trusts it: some
// constructs crash it or never end. They are refused before it sees the template:
//   - more than kMaxTemplateBytes, deep nesting, endless tags, comments, words or white space (it recurses over them);
//   - division and remainder by anything but a number other than zero; repetition ("*");
//   - slices with a step other than [::-1]; split() by anything but a text; "append" and "insert";
//   - recursive loops, "loop" as a value, loop.cycle(), call blocks, macros inside loops or macros (never freed);
//   - a namespace used as a value or redefined, and assignment to a member of anything else (a cycle of references).
// Errors are kTemplate with the byte offset. Valid templates of chat models pass; invalid ones may pass as well.
Status check_template(std::string_view source);

}  // namespace lethe
