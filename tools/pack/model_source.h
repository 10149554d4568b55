// A model to pack, whatever the format of its files: architecture, tokenizer, and where every role's weights are.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/hash.h"
#include "runtime/base/status.h"
#include "runtime/model/model.h"
#include "runtime/os/file.h"
#include "tools/pack/architectures.h"
#include "tools/pack/rope_scaling.h"
#include "tools/pack/source.h"
#include "tools/pack/tokenizer.h"

namespace lethe {

struct SourceWeights {
  bool present() const { return !tensor.data.empty(); }

  SourceTensor tensor;      // of the role's shape, unless transposed; its name says which part of a larger one it is
  std::string file;         // for messages
  bool transposed = false;  // the role's row r is column first_column + r of the tensor
  uint64_t first_column = 0;
  bool interleaved = false;  // rows of Q and K in the order of neighbours: source_row()
  float add = 0;             // to every weight of a vector
};

// Bytes of a source read before its pages are let go.
inline constexpr uint64_t kReadBytes = 16 << 20;

// Owns the maps and the computed vectors that the tensors point into. Not to be copied.
struct ModelSource {
  ModelSource() = default;
  ModelSource(const ModelSource&) = delete;
  ModelSource& operator=(const ModelSource&) = delete;

  ModelConfig config = {};
  PackedTokenizer tokenizer;
  std::vector<SourceWeights> weights;  // [role_slot_count(layers)]
  std::string name;                    // of the file or folder, without folders
  uint64_t bytes = 0, checksum = 0;    // of all files
  std::vector<os::FileMap> maps;

  // Lets go of the pages of a tensor's data that have been read; reading on brings back what is needed.
  void release(std::span<const uint8_t> data) const {
    for (const os::FileMap& map : maps) map.release(data.data(), data.size());
  }
  std::vector<float> rope_factors;  // empty: all 1
};

// Reads and checks everything but the weights themselves. `path` is a GGUF file or a Hugging Face folder. `scaling`
// other than kNone stretches a model that has none of its own. Errors name the file and, where there is one, the
// tensor: kIo, kNotAModel, kCorruptModel, kUnsupported, kInvalidArgument (the scaling does not fit the model).
Status read_model_source(const std::string& path, const RopeScaling& scaling, ModelSource* out);

// Row of the source that becomes row `row` of ours. Interleaved sources store the rows of Q and K so that RoPE turns
// neighbours (2i, 2i + 1); ours turns (i, i + rotary_dim / 2), as the original checkpoints do.
uint64_t source_row(const SourceWeights& weights, const ModelConfig& config, uint64_t row);

// ---- for the readers of each format ----

// What a source says about the model, before what follows from the architecture.
struct ModelDescription {
  const Architecture* architecture = nullptr;
  ModelConfig config = {};
  std::optional<uint32_t> local_period;  // as Architecture::local_period
  std::optional<std::vector<bool>> local_layers;
  RopeScaling scaling;
};

// One format's reader, for one source. The calls come in this order.
class ModelReader {
 public:
  virtual ~ModelReader() = default;
  virtual Status describe(ModelDescription* description, ModelSource* out) = 0;  // with the tokenizer
  virtual Status place_tensors(const ModelDescription& description, ModelSource* out) = 0;
};
std::unique_ptr<ModelReader> make_gguf_reader(const std::string& path);
std::unique_ptr<ModelReader> make_hf_reader(const std::string& folder);

// The status with "FILE: " before its sentence.
Status in_file(const Status& status, const std::string& path);

// Maps a file and adds it to bytes and checksum.
Status map_source(const std::string& path, Hash64* hash, ModelSource* out, std::span<const uint8_t>* bytes);

// Assigns a tensor to the slots of its roles. Errors: kCorruptModel for another shape than the config's.
Status place_tensor(const SourceTensor& tensor, const std::string& file, const TensorPlace& place, bool interleaved,
                    float norm_offset, ModelSource* out);

}  // namespace lethe
