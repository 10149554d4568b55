#include "tools/pack/json_file.h"

namespace lethe {
namespace {

constexpr uint32_t kMaxDepth = 64;

bool is_shallow(std::span<const uint8_t> bytes) {
  uint32_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const uint8_t c = bytes[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) return false;
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return true;
}

}  // namespace

Status parse_json_object(std::span<const uint8_t> bytes, nlohmann::json* out) {
  if (!is_shallow(bytes)) return Status::error(ErrorCode::kCorruptModel, "JSON nested deeper than %u", kMaxDepth);
  *out = nlohmann::json::parse(bytes.begin(), bytes.end(), nullptr, false);
  if (!out->is_object()) return Status::error(ErrorCode::kCorruptModel, "not a JSON object");
  return {};
}

}  // namespace lethe
