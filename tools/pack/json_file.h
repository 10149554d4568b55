// JSON from files of strangers.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>

#include "runtime/base/status.h"

namespace lethe {

// Parses a JSON object. Errors: kCorruptModel for anything else, and for a nesting so deep that copying or printing the
// values, which the library does by recursion, would exhaust the stack.
Status parse_json_object(std::span<const uint8_t> bytes, nlohmann::json* out);

}  // namespace lethe
