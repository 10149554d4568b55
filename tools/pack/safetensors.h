// Reader of safetensors files (huggingface/safetensors, README, "Format"): u64 length of the header, a JSON object with
// type, shape and place of every tensor, then the data. Every number is checked against the file before it is used.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "tools/pack/source.h"

namespace lethe {

class SafetensorsFile {
 public:
  // `bytes` must outlive the reader. Errors: kNotAModel (not safetensors), kCorruptModel. Tensors of types other than
  // F32, F16 and BF16 are only checked to lie in the file: not all that a file holds need be packed.
  Status parse(std::span<const uint8_t> bytes);

  struct Entry {
    SourceTensor tensor;  // rows: of all but the last dimension
    std::string dtype;    // as the file says
    bool supported;       // otherwise tensor.type means nothing
  };
  std::span<const Entry> entries() const { return entries_; }  // in order of name
  const Entry* find(std::string_view name) const;

 private:
  std::vector<Entry> entries_;
};

}  // namespace lethe
