#include "tools/pack/safetensors.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>

#include "tools/pack/json_file.h"

namespace lethe {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxHeader = 100'000'000;  // as the reference implementation
constexpr size_t kMaxDimensions = 8;

struct Dtype {
  std::string_view name;
  GgmlType type;
};
constexpr Dtype kDtypes[] = {{"F32", GgmlType::kF32}, {"F16", GgmlType::kF16}, {"BF16", GgmlType::kBF16}};

Status damaged(const std::string& name, const char* what) {
  return Status::error(ErrorCode::kCorruptModel, "tensor %.100s: %s", name.c_str(), what);
}

// Rows and columns of a shape; false when it is not one or has more elements than bytes can be counted.
bool read_shape(const Json& shape, SourceTensor* out) {
  if (!shape.is_array() || shape.size() > kMaxDimensions) return false;
  out->rows = out->cols = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (!shape[i].is_number_unsigned()) return false;
    const auto size = shape[i].get<uint64_t>();
    uint64_t* to = i + 1 == shape.size() ? &out->cols : &out->rows;
    if (__builtin_mul_overflow(*to, size, to)) return false;
  }
  uint64_t bytes;
  return !__builtin_mul_overflow(out->rows, out->cols, &bytes) && !__builtin_mul_overflow(bytes, 8, &bytes);
}

Status read_entry(const std::string& name, const Json& description, std::span<const uint8_t> data,
                  SafetensorsFile::Entry* out) {
  SourceTensor& tensor = out->tensor;
  tensor.name = name;
  const auto field = [&](const char* key) -> const Json* {
    const auto found = description.is_object() ? description.find(key) : description.end();
    return found == description.end() ? nullptr : &*found;
  };
  const Json* dtype = field("dtype");
  const Json* shape = field("shape");
  const Json* offsets = field("data_offsets");
  if (dtype == nullptr || !dtype->is_string()) return damaged(name, "dtype is missing");
  if (shape == nullptr || !read_shape(*shape, &tensor)) return damaged(name, "the shape is impossible");
  if (offsets == nullptr || !offsets->is_array() || offsets->size() != 2 || !(*offsets)[0].is_number_unsigned() ||
      !(*offsets)[1].is_number_unsigned()) {
    return damaged(name, "data_offsets are missing");
  }
  const auto begin = (*offsets)[0].get<uint64_t>();
  const auto end = (*offsets)[1].get<uint64_t>();
  if (begin > end || end > data.size()) {
    return Status::error(ErrorCode::kCorruptModel,
                         "tensor %.100s: bytes %" PRIu64 " to %" PRIu64
                         " lie outside the %zu of the file; is it truncated?",
                         name.c_str(), begin, end, data.size());
  }
  tensor.data = data.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));

  out->dtype = dtype->get<std::string>();
  const auto* known =
      std::find_if(std::begin(kDtypes), std::end(kDtypes), [out](const Dtype& d) { return d.name == out->dtype; });
  out->supported = known != std::end(kDtypes);
  if (!out->supported) return {};
  tensor.type = known->type;
  const uint64_t expected = tensor.rows * tensor.cols * ggml_block(tensor.type).bytes;
  if (expected != end - begin || expected == 0) {
    return Status::error(ErrorCode::kCorruptModel,
                         "tensor %.100s: %" PRIu64 " x %" PRIu64 " of %s are not %" PRIu64 " bytes", name.c_str(),
                         tensor.rows, tensor.cols, out->dtype.c_str(), end - begin);
  }
  return {};
}

}  // namespace

Status SafetensorsFile::parse(std::span<const uint8_t> bytes) {
  uint64_t length = 0;
  if (bytes.size() < sizeof length)
    return Status::error(ErrorCode::kNotAModel, "no safetensors file: %zu bytes", bytes.size());
  std::memcpy(&length, bytes.data(), sizeof length);
  bytes = bytes.subspan(sizeof length);
  if (length > kMaxHeader || bytes.empty() || bytes[0] != '{') {
    return Status::error(ErrorCode::kNotAModel, "no safetensors file: a header of %" PRIu64 " bytes", length);
  }
  if (length > bytes.size()) {
    return Status::error(ErrorCode::kCorruptModel,
                         "the header of %" PRIu64 " bytes is longer than the file; is it truncated?", length);
  }
  Json header;
  LETHE_RETURN_IF_ERROR(parse_json_object(bytes.first(static_cast<size_t>(length)), &header));
  entries_.clear();
  for (const auto& [name, description] : header.items()) {
    if (name == "__metadata__") continue;
    LETHE_RETURN_IF_ERROR(
        read_entry(name, description, bytes.subspan(static_cast<size_t>(length)), &entries_.emplace_back()));
  }
  return {};
}

const SafetensorsFile::Entry* SafetensorsFile::find(std::string_view name) const {
  const auto found = std::lower_bound(entries_.begin(), entries_.end(), name,
                                      [](const Entry& e, std::string_view n) { return e.tensor.name < n; });
  return found != entries_.end() && found->tensor.name == name ? &*found : nullptr;
}

}  // namespace lethe
