// Packs a GGUF file into a .lethe file (schema/README.md).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/model/model.h"

namespace lethe {

// keep: every tensor in the format that holds its numbers without loss (Q4_1 -> q4m, Q4_0 -> q4, Q8_0 -> q8,
// F16 -> f16, F32 and BF16 -> f32). q4: 4 bits (Q4_0 stays as it is), embedding and output 8 bits. Norms are always
// f32.
enum class PackType { kKeep, kQ4, kQ8, kF16, kF32 };
const char* pack_type_name(PackType type);  // "keep", "q4", ...

struct PackOptions {
  std::string input;
  std::string output;
  PackType type = PackType::kKeep;
  // Called after every stripe of a tensor with the source bytes done and in all.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

// One tensor whose stored weights differ from the source's.
struct PackedTensorError {
  std::string name;
  WeightFormat format;
  double max_abs;  // of |source - stored| over all weights
  double rms;
};

struct PackReport {
  uint64_t bytes_in = 0;
  uint64_t bytes_out = 0;
  uint64_t source_checksum = 0;                           // XXH64 of the input
  std::array<uint32_t, kWeightFormatCount> tensors = {};  // by WeightFormat
  std::vector<PackedTensorError> errors;                  // empty: every weight is stored exactly
  double seconds = 0;
};

// Memory: the tokenizer's tables and one panel of 16 rows, whatever the size of the file; the input is mapped. The
// same input and type give the same bytes. The output appears complete or not at all. Errors: kInvalidArgument (the
// output is the input), kIo, kDiskFull, kNotAModel, kCorruptModel, kUnsupported.
Status pack_gguf(const PackOptions& options, PackReport* report);

}  // namespace lethe
