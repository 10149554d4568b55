#include "tools/pack/gguf.h"

#include <bit>
#include <cinttypes>
#include <cstring>

namespace lethe {
namespace {

constexpr uint64_t kMaxName = 1024;  // bytes of a key or a tensor's name; ggml allows 64 for tensors
constexpr uint32_t kMaxDimensions = 4;
constexpr int kMaxArrayDepth = 4;
constexpr uint64_t kMaxAlignment = 1 << 20;

Status corrupt(const char* what, uint64_t at) {
  return Status::error(ErrorCode::kCorruptModel, "GGUF: %s at byte %" PRIu64, what, at);
}

// Bytes of a value of fixed size, 0 for strings and arrays and for unknown types.
uint32_t scalar_bytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool: return 1;
    case GgufType::kUint16:
    case GgufType::kInt16: return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32: return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64: return 8;
    case GgufType::kString:
    case GgufType::kArray: return 0;
  }
  return 0;
}

template <typename T>
T load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// An integer of any type, or a bool; false for other types and for negative values.
bool load_uint(GgufType type, const uint8_t* at, uint64_t* out) {
  int64_t value = 0;
  switch (type) {
    case GgufType::kUint8: value = *at; break;
    case GgufType::kBool: value = *at != 0; break;
    case GgufType::kInt8: value = load<int8_t>(at); break;
    case GgufType::kUint16: value = load<uint16_t>(at); break;
    case GgufType::kInt16: value = load<int16_t>(at); break;
    case GgufType::kUint32: value = load<uint32_t>(at); break;
    case GgufType::kInt32: value = load<int32_t>(at); break;
    case GgufType::kUint64:
    case GgufType::kInt64: value = load<int64_t>(at); break;  // beyond int64 is refused like a negative value
    default: return false;
  }
  *out = static_cast<uint64_t>(value);
  return value >= 0;
}

const char* ggml_number_name(uint32_t type) {
  static constexpr const char* kNames[] = {
      "F32",   "F16",    "Q4_0", "Q4_1", "Q4_2", "Q4_3",    "Q5_0",   "Q5_1",    "Q8_0",  "Q8_1",   "Q2_K",
      "Q3_K",  "Q4_K",   "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S",
      "IQ2_S", "IQ4_XS", "I8",   "I16",  "I32",  "I64",     "F64",    "IQ1_M",   "BF16"};
  return type < std::size(kNames) ? kNames[type] : "unknown";
}

}  // namespace

const char* ggml_type_name(GgmlType type) { return ggml_number_name(static_cast<uint32_t>(type)); }

GgmlBlock ggml_block(GgmlType type) {
  switch (type) {
    case GgmlType::kF32: return {1, 4};
    case GgmlType::kF16:
    case GgmlType::kBF16: return {1, 2};
    case GgmlType::kQ4_0: return {32, 18};
    case GgmlType::kQ4_1: return {32, 20};
    case GgmlType::kQ5_0: return {32, 22};
    case GgmlType::kQ5_1: return {32, 24};
    case GgmlType::kQ8_0: return {32, 34};
    case GgmlType::kQ4_K: return {256, 144};
    case GgmlType::kQ5_K: return {256, 176};
    case GgmlType::kQ6_K: return {256, 210};
  }
  return {0, 0};
}

// Reads forwards and never past the end.
class GgufFile::Cursor {
 public:
  explicit Cursor(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  uint64_t at() const { return at_; }

  Status skip(uint64_t bytes) {
    if (bytes > bytes_.size() - at_) return corrupt("the file ends inside a value", at_);
    at_ += bytes;
    return {};
  }

  template <typename T>
  Status read(T* out) {
    const uint64_t begin = at_;
    LETHE_RETURN_IF_ERROR(skip(sizeof(T)));
    *out = load<T>(bytes_.data() + begin);
    return {};
  }

  Status read(std::string_view* out) {
    uint64_t size = 0;
    LETHE_RETURN_IF_ERROR(read(&size));
    const uint64_t begin = at_;
    LETHE_RETURN_IF_ERROR(skip(size));
    *out = {reinterpret_cast<const char*>(bytes_.data() + begin), static_cast<size_t>(size)};
    return {};
  }

  Status read_name(std::string_view* out) {
    LETHE_RETURN_IF_ERROR(read(out));
    if (out->empty() || out->size() > kMaxName) return corrupt("an impossible name", at_);
    return {};
  }

  // Moves past one value. Work is linear in the bytes passed: no element takes less than one.
  Status skip_value(GgufType type, int depth) {
    if (const uint32_t bytes = scalar_bytes(type); bytes != 0) return skip(bytes);
    if (type == GgufType::kString) {
      std::string_view ignored;
      return read(&ignored);
    }
    if (type != GgufType::kArray || depth == kMaxArrayDepth) return corrupt("an unknown value type", at_);
    GgufType element;
    uint64_t count = 0;
    LETHE_RETURN_IF_ERROR(read(&element));
    LETHE_RETURN_IF_ERROR(read(&count));
    return skip_elements(element, count, depth);
  }

  Status skip_elements(GgufType element, uint64_t count, int depth) {
    if (const uint32_t bytes = scalar_bytes(element); bytes != 0) {
      if (count > bytes_.size() / bytes) return corrupt("an array is longer than the file", at_);
      return skip(count * bytes);
    }
    for (uint64_t i = 0; i < count; ++i) LETHE_RETURN_IF_ERROR(skip_value(element, depth + 1));
    return {};
  }

 private:
  std::span<const uint8_t> bytes_;
  uint64_t at_ = 0;
};

Status GgufFile::parse(std::span<const uint8_t> bytes) {
  bytes_ = bytes;
  Cursor cursor(bytes);
  uint32_t magic = 0;
  uint32_t version = 0;
  if (!cursor.read(&magic).ok() || magic != 0x46554747u) {
    return Status::error(ErrorCode::kNotAModel, "the file does not begin with GGUF");
  }
  LETHE_RETURN_IF_ERROR(cursor.read(&version));
  if (version != 2 && version != 3) {
    return Status::error(ErrorCode::kUnsupported, "GGUF version %u%s, only 2 and 3 can be read", version,
                         version > 0xffff ? " (big endian)" : "");
  }
  uint64_t tensor_count = 0;
  uint64_t value_count = 0;
  LETHE_RETURN_IF_ERROR(cursor.read(&tensor_count));
  LETHE_RETURN_IF_ERROR(cursor.read(&value_count));
  LETHE_RETURN_IF_ERROR(read_metadata(&cursor, value_count));
  return read_tensors(&cursor, tensor_count);
}

Status GgufFile::read_metadata(Cursor* cursor, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    std::string_view key;
    Value value = {};
    LETHE_RETURN_IF_ERROR(cursor->read_name(&key));
    LETHE_RETURN_IF_ERROR(cursor->read(&value.type));
    if (value.type == GgufType::kArray) {
      LETHE_RETURN_IF_ERROR(cursor->read(&value.element));
      LETHE_RETURN_IF_ERROR(cursor->read(&value.count));
      value.begin = cursor->at();
      LETHE_RETURN_IF_ERROR(cursor->skip_elements(value.element, value.count, 0));
    } else {
      value.begin = cursor->at();
      LETHE_RETURN_IF_ERROR(cursor->skip_value(value.type, 0));
    }
    if (!values_.emplace(key, value).second) {
      return Status::error(ErrorCode::kCorruptModel, "GGUF: key %.*s occurs twice",
                           static_cast<int>(std::min<size_t>(key.size(), 64)), key.data());
    }
  }
  return {};
}

Status GgufFile::read_tensors(Cursor* cursor, uint64_t count) {
  std::optional<uint64_t> alignment;
  LETHE_RETURN_IF_ERROR(read_uint("general.alignment", &alignment));
  const uint64_t align = alignment.value_or(32);
  if (!std::has_single_bit(align) || align > kMaxAlignment) {
    return Status::error(ErrorCode::kCorruptModel, "GGUF: an alignment of %" PRIu64 " bytes", align);
  }
  struct Range {
    uint64_t offset, bytes;
  };
  std::vector<Range> ranges;  // relative to the data's start, which is known after the last descriptor
  for (uint64_t i = 0; i < count; ++i) {
    std::string_view name;
    uint32_t dimensions = 0;
    uint64_t shape[kMaxDimensions] = {1, 1, 1, 1};
    uint32_t type = 0;
    uint64_t offset = 0;
    LETHE_RETURN_IF_ERROR(cursor->read_name(&name));
    LETHE_RETURN_IF_ERROR(cursor->read(&dimensions));
    if (dimensions == 0 || dimensions > kMaxDimensions) return corrupt("an impossible tensor shape", cursor->at());
    for (uint32_t d = 0; d < dimensions; ++d) LETHE_RETURN_IF_ERROR(cursor->read(&shape[d]));
    LETHE_RETURN_IF_ERROR(cursor->read(&type));
    LETHE_RETURN_IF_ERROR(cursor->read(&offset));

    SourceTensor tensor = {std::string(name), static_cast<GgmlType>(type), 0, shape[0], {}};
    const char* label = tensor.name.c_str();
    const GgmlBlock block = ggml_block(tensor.type);
    if (block.elements == 0) {
      return Status::error(ErrorCode::kUnsupported,
                           "tensor %.100s has type %s (%u); supported: F32, F16, BF16, Q8_0, "
                           "Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K",
                           label, ggml_number_name(type), type);
    }
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(shape[1], shape[2], &tensor.rows) ||
        __builtin_mul_overflow(tensor.rows, shape[3], &tensor.rows) || tensor.rows == 0 || tensor.cols == 0 ||
        tensor.cols % block.elements != 0 ||
        __builtin_mul_overflow(tensor.cols / block.elements, block.bytes, &bytes) ||
        __builtin_mul_overflow(bytes, tensor.rows, &bytes)) {
      return Status::error(ErrorCode::kCorruptModel,
                           "tensor %.100s: shape [%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64
                           "] of %s is impossible",
                           label, shape[0], shape[1], shape[2], shape[3], ggml_type_name(tensor.type));
    }
    if (offset % align != 0) {
      return Status::error(ErrorCode::kCorruptModel, "tensor %.100s: offset %" PRIu64 " is not a multiple of %" PRIu64,
                           label, offset, align);
    }
    tensors_.push_back(std::move(tensor));
    ranges.push_back({offset, bytes});
  }
  const uint64_t begin = (cursor->at() + align - 1) / align * align;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    SourceTensor& tensor = tensors_[i];
    const auto [offset, bytes] = ranges[i];
    if (begin > bytes_.size() || offset > bytes_.size() - begin || bytes > bytes_.size() - begin - offset) {
      return Status::error(ErrorCode::kCorruptModel,
                           "tensor %.100s: %" PRIu64 " bytes at %" PRIu64 " + %" PRIu64
                           " lie outside the file of %zu bytes; is it truncated?",
                           tensor.name.c_str(), bytes, begin, offset, bytes_.size());
    }
    tensor.data = bytes_.subspan(static_cast<size_t>(begin + offset), static_cast<size_t>(bytes));
    if (!tensor_index_.emplace(tensor.name, i).second) {
      return Status::error(ErrorCode::kCorruptModel, "GGUF: tensor %.100s occurs twice", tensor.name.c_str());
    }
  }
  return {};
}

const SourceTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufFile::Value* GgufFile::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

namespace {

Status wrong_type(std::string_view key, const char* expected) {
  return Status::error(ErrorCode::kCorruptModel, "GGUF: %.*s is not %s", static_cast<int>(key.size()), key.data(),
                       expected);
}

std::string_view load_string(const uint8_t* at) {
  return {reinterpret_cast<const char*>(at + 8), static_cast<size_t>(load<uint64_t>(at))};
}

}  // namespace

Status GgufFile::read_uint(std::string_view key, std::optional<uint64_t>* out) const {
  const Value* value = find(key);
  if (value == nullptr) return {};
  uint64_t number = 0;
  if (!load_uint(value->type, bytes_.data() + value->begin, &number)) return wrong_type(key, "an integer >= 0");
  *out = number;
  return {};
}

Status GgufFile::read_float(std::string_view key, std::optional<double>* out) const {
  const Value* value = find(key);
  if (value == nullptr) return {};
  const uint8_t* at = bytes_.data() + value->begin;
  if (value->type == GgufType::kFloat32) {
    *out = load<float>(at);
  } else if (value->type == GgufType::kFloat64) {
    *out = load<double>(at);
  } else {
    return wrong_type(key, "a float");
  }
  return {};
}

Status GgufFile::read_bool(std::string_view key, std::optional<bool>* out) const {
  const Value* value = find(key);
  if (value == nullptr) return {};
  if (value->type != GgufType::kBool) return wrong_type(key, "a bool");
  *out = bytes_[value->begin] != 0;
  return {};
}

Status GgufFile::read_string(std::string_view key, std::optional<std::string_view>* out) const {
  const Value* value = find(key);
  if (value == nullptr) return {};
  if (value->type != GgufType::kString) return wrong_type(key, "a string");
  *out = load_string(bytes_.data() + value->begin);
  return {};
}

Status GgufFile::read_strings(std::string_view key, std::optional<std::vector<std::string_view>>* out) const {
  const Value* value = find(key);
  if (value == nullptr) return {};
  if (value->type != GgufType::kArray || value->element != GgufType::kString) {
    return wrong_type(key, "an array of strings");
  }
  const uint8_t* at = bytes_.data() + value->begin;
  out->emplace().reserve(value->count);  // each takes 8 bytes of the file at least
  for (uint64_t i = 0; i < value->count; ++i) {
    (*out)->push_back(load_string(at));
    at += 8 + (*out)->back().size();
  }
  return {};
}

Status GgufFile::read_uints(std::string_view key, std::optional<std::vector<uint64_t>>* out) const {
  const Value* value = find(key);
  if (value == nullptr) return {};
  const uint32_t size = value->type == GgufType::kArray ? scalar_bytes(value->element) : 0;
  if (size == 0) return wrong_type(key, "an array of integers");
  out->emplace().reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    uint64_t number = 0;
    if (!load_uint(value->element, bytes_.data() + value->begin + i * size, &number)) {
      return wrong_type(key, "an array of integers >= 0");
    }
    (*out)->push_back(number);
  }
  return {};
}

Status GgufFile::read_floats(std::string_view key, std::optional<std::vector<float>>* out) const {
  const Value* value = find(key);
  if (value == nullptr) return {};
  if (value->type != GgufType::kArray || value->element != GgufType::kFloat32) {
    return wrong_type(key, "an array of F32 numbers");
  }
  out->emplace(value->count);
  if (value->count != 0) std::memcpy((*out)->data(), bytes_.data() + value->begin, value->count * sizeof(float));
  return {};
}

}  // namespace lethe
