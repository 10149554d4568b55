// Packs a GGUF file or a Hugging Face folder into a .lethe file (schema/README.md).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/model/model.h"
#include "tools/pack/importance.h"
#include "tools/pack/rope_scaling.h"

namespace lethe {

// keep: every tensor in the format that holds its numbers without loss (Q4_1 -> q4m, Q4_0 -> q4, Q5_1 -> q5m,
// Q5_0 -> q5, Q8_0 -> q8, F16 -> f16, F32 and BF16 -> f32), or with the same quants and rounded scales (Q4_K -> q4m,
// Q5_K -> q5m, Q6_K -> q6). q4: 4 bits (Q4_0 stays as it is), embedding and output 8 bits. Norms are always
// f32.
enum class PackType { kKeep, kQ4, kQ8, kF16, kF32 };
const char* pack_type_name(PackType type);  // "keep", "q4", ...

struct PackOptions {
  std::string input;  // a GGUF file, or a folder with config.json and safetensors
  std::string output;
  PackType type = PackType::kKeep;
  // Called after every stripe of a tensor with the weights done and in all.
  std::function<void(uint64_t done, uint64_t total)> progress;
  // Stretches the context of a model that was trained without a scaling: parse_rope_scaling().
  RopeScaling rope_scaling = {};
  const Importance* importance = nullptr;  // for q4: what the search weighs errors with
  std::span<const uint8_t> namm = {};      // a NAMM file that the model carries; empty: namm_for's
  std::function<std::span<const uint8_t>(const ModelConfig&)> namm_for = {};  // null, or an empty answer: none
  std::string head_plan = {};  // a head plan (head_plan.h) that the model carries; empty: none
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
  uint64_t source_checksum = 0;                           // XXH64 of the input's files
  std::array<uint32_t, kWeightFormatCount> tensors = {};  // by WeightFormat
  std::vector<PackedTensorError> errors;                  // empty: every weight is stored exactly
  double seconds = 0;
};

// Memory: the tokenizer's tables, one panel of 16 rows and 16 MiB of the source, whatever the size of the model (and
// one tensor, where the source stores it transposed); the input is mapped. The same input and options give the same
// bytes. The output appears complete or not at all. Errors name the file and, where there is one, the tensor:
// kInvalidArgument (the output is the input, the RoPE scaling does not fit), kIo, kDiskFull, kNotAModel, kCorruptModel
// (also of the NAMM file and the head plan), kUnsupported.
Status pack_model(const PackOptions& options, PackReport* report);

}  // namespace lethe
