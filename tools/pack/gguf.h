// Reader of GGUF files, versions 2 and 3 (ggml/docs/gguf.md): metadata and tensor descriptions as views into the
// file's bytes. Every count, size and offset is checked against the file before it is used.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/base/status.h"
#include "tools/pack/source.h"

namespace lethe {

enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// Errors of all functions: kNotAModel (not GGUF), kCorruptModel (damaged; also: a value has an unexpected type),
// kUnsupported.
class GgufFile {
 public:
  // `bytes` must outlive the reader.
  Status parse(std::span<const uint8_t> bytes);

  std::span<const SourceTensor> tensors() const { return tensors_; }
  const SourceTensor* find_tensor(std::string_view name) const;

  bool has(std::string_view key) const { return find(key) != nullptr; }
  bool is_array(std::string_view key) const { return has(key) && find(key)->type == GgufType::kArray; }

  // Absent keys give nullopt. A bool is an integer, too.
  Status read_uint(std::string_view key, std::optional<uint64_t>* out) const;  // any integer type, not negative
  Status read_float(std::string_view key, std::optional<double>* out) const;
  Status read_bool(std::string_view key, std::optional<bool>* out) const;
  Status read_string(std::string_view key, std::optional<std::string_view>* out) const;
  Status read_strings(std::string_view key, std::optional<std::vector<std::string_view>>* out) const;
  Status read_uints(std::string_view key, std::optional<std::vector<uint64_t>>* out) const;
  Status read_floats(std::string_view key, std::optional<std::vector<float>>* out) const;  // of F32

 private:
  struct Value {
    GgufType type;
    GgufType element;  // of an array
    uint64_t count;    // of an array
    uint64_t begin;    // of the value, or of an array's first element, in bytes_
  };
  class Cursor;

  Status read_metadata(Cursor* cursor, uint64_t count);
  Status read_tensors(Cursor* cursor, uint64_t count);
  const Value* find(std::string_view key) const;

  std::span<const uint8_t> bytes_;
  std::unordered_map<std::string_view, Value> values_;
  std::vector<SourceTensor> tensors_;
  std::unordered_map<std::string_view, size_t> tensor_index_;
};

}  // namespace lethe
