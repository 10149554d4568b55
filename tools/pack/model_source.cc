#include "tools/pack/model_source.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "runtime/model/roles.h"
#include "tools/pack/convert.h"

namespace lethe {
namespace {

size_t slot_of(const ModelSource& source, Role role, uint32_t layer) {
  return static_cast<size_t>(role_slot(role, layer, source.config.layers));
}

// The model's own scaling was part of its training, and two of them do not add up.
Status scaled_already() {
  return Status::error(ErrorCode::kInvalidArgument, "RoPE scaling of a model that is scaled already");
}

Status stretch(const RopeScaling& wanted, ModelDescription* description) {
  if (wanted.type == RopeScaling::Type::kNone) return {};
  ModelConfig& config = description->config;
  if (config.rotary_dim == 0) {
    return Status::error(ErrorCode::kInvalidArgument, "RoPE scaling of a model without RoPE");
  }
  if (description->scaling.type != RopeScaling::Type::kNone) return scaled_already();
  const double context = static_cast<double>(config.context_length) * wanted.factor;
  if (context > kMaxContext) {
    return Status::error(ErrorCode::kInvalidArgument, "RoPE scaling to %g tokens; the most are %u", context,
                         kMaxContext);
  }
  description->scaling = wanted;
  description->scaling.original_context = config.context_length;
  config.context_length = static_cast<uint32_t>(context);
  return {};
}

// Derives what follows from the architecture, and checks the numbers. Sets out->config and makes room for the weights.
Status finish_config(const ModelDescription& description, ModelSource* out) {
  const Architecture& architecture = *description.architecture;
  ModelConfig& config = out->config;
  config = description.config;
  std::snprintf(config.name, sizeof config.name, "%s", architecture.name);
  if (architecture.scaled_embeddings) config.embedding_scale = std::sqrt(static_cast<float>(config.embed_dim));
  if (config.layers > kMaxLayers) return check_config(config);
  if (description.local_layers.has_value() && description.local_layers->size() != config.layers) {
    return Status::error(ErrorCode::kCorruptModel, "%zu layers are local or global, the model has %u",
                         description.local_layers->size(), config.layers);
  }
  const uint32_t period = description.local_period.value_or(architecture.local_period);
  bool any_local = false;
  for (uint32_t layer = 0; config.window != 0 && layer < config.layers; ++layer) {
    const bool local = description.local_layers.has_value() ? (*description.local_layers)[layer]
                                                            : period == 0 || (layer + 1) % period != 0;
    if (local) config.set_local(layer);
    any_local |= local;
  }
  if (!any_local) config.window = 0;
  if (config.window == 0) config.rope_local_base = 0;
  LETHE_RETURN_IF_ERROR(check_config(config));
  out->weights.resize(role_slot_count(config.layers));
  return {};
}

Status check_present(const ModelSource& source, std::span<const Role> required) {
  const auto present = [&](Role role, uint32_t layer) {
    return source.weights[slot_of(source, role, layer)].present();
  };
  LETHE_RETURN_IF_ERROR(check_roles(source.config, present));
  for (const Role role : required) {  // of the roles that may be absent elsewhere; check_roles saw the other layers
    if (!present(role, 0)) return missing_tensor(role, 0);
  }
  return {};
}

// Factors of the source and those of the scaling become one tensor of ours.
Status add_rope_factors(const RopeScaling& scaling, ModelSource* out) {
  SourceWeights& weights = out->weights[slot_of(*out, Role::kRopeFactors, 0)];
  std::vector<float>& factors = out->rope_factors;
  if (weights.present()) {
    factors.resize(tensor_bytes(WeightFormat::kF32Vector, 1, weights.tensor.cols) / sizeof(float));
    PanelConverter converter(weights.tensor, WeightFormat::kF32Vector);
    LETHE_RETURN_IF_ERROR(converter.convert_vector(reinterpret_cast<uint8_t*>(factors.data())));
    factors.resize(weights.tensor.cols);
    std::snprintf(out->config.rope_scaling, sizeof out->config.rope_scaling, "factors of the source");
  }
  LETHE_RETURN_IF_ERROR(apply_rope_scaling(scaling, &out->config, &factors));
  if (factors.empty()) return {};
  for (const float factor : factors) {
    if (std::isfinite(factor) && factor > 0) continue;
    return Status::error(ErrorCode::kCorruptModel, "RoPE's frequencies are divided by %g", static_cast<double>(factor));
  }
  const std::span<const uint8_t> data(reinterpret_cast<const uint8_t*>(factors.data()), factors.size() * sizeof(float));
  weights = {};
  weights.tensor = {"rope_factors", GgmlType::kF32, 1, factors.size(), data};
  weights.file = out->name;
  return {};
}

bool is_norm(Role role) {
  switch (role) {
    case Role::kOutputNorm:
    case Role::kAttentionNorm:
    case Role::kAttentionQNorm:
    case Role::kAttentionKNorm:
    case Role::kAttentionPostNorm:
    case Role::kFfnNorm:
    case Role::kFfnPostNorm: return true;
    default: return false;
  }
}

bool is_rotated(Role role) {
  return role == Role::kAttentionQ || role == Role::kAttentionK || role == Role::kAttentionQBias ||
         role == Role::kAttentionKBias;
}

}  // namespace

uint64_t source_row(const SourceWeights& weights, const ModelConfig& config, uint64_t row) {
  if (!weights.interleaved) return row;
  const uint64_t in_head = row % config.head_dim;
  if (in_head >= config.rotary_dim) return row;
  const uint64_t half = config.rotary_dim / 2;
  return row - in_head + in_head % half * 2 + in_head / half;
}

Status in_file(const Status& status, const std::string& path) {
  if (status.ok() || status.code() == ErrorCode::kIo) return status;  // the system's errors name it
  const std::string name = std::filesystem::path(path).filename().string();
  return Status::error(status.code(), "%.60s: %s", name.c_str(), status.message());
}

Status map_source(const std::string& path, Hash64* hash, ModelSource* out, std::span<const uint8_t>* bytes) {
  Result<os::FileMap> map = os::FileMap::open(path.c_str());
  if (!map.ok()) return map.status();
  *bytes = {map.value().data(), static_cast<size_t>(map.value().size())};
  out->maps.push_back(std::move(map).value());
  out->bytes += bytes->size();
  for (size_t at = 0; at < bytes->size(); at += kReadBytes) {
    const std::span<const uint8_t> part = bytes->subspan(at, std::min<size_t>(kReadBytes, bytes->size() - at));
    hash->update(part.data(), part.size());
    out->release(part);
  }
  return {};
}

Status place_tensor(const SourceTensor& tensor, const std::string& file, const TensorPlace& place, bool interleaved,
                    float norm_offset, ModelSource* out) {
  const TensorName& name = *place.name;
  Shape shapes[3];
  Role roles[3];
  uint64_t rows = 0;
  for (uint8_t i = 0; i < name.count; ++i) {
    roles[i] = name.roles[i];
    if (place.is_bias) bias_role(name.roles[i], &roles[i]);
    shapes[i] = role_shape(roles[i], out->config);
    rows += role_is_vector(roles[i]) ? shapes[i].cols : shapes[i].rows;
  }
  const bool vector = role_is_vector(roles[0]);
  const bool transposed = name.transposed && !vector;
  uint64_t expected[2] = {vector ? 1 : rows, vector ? rows : shapes[0].cols};
  if (transposed) std::swap(expected[0], expected[1]);
  if (tensor.rows != expected[0] || tensor.cols != expected[1]) {
    return Status::error(
        ErrorCode::kCorruptModel, "tensor %.100s has %llu rows of %llu, the architecture needs %llu rows of %llu",
        tensor.name.c_str(), static_cast<unsigned long long>(tensor.rows), static_cast<unsigned long long>(tensor.cols),
        static_cast<unsigned long long>(expected[0]), static_cast<unsigned long long>(expected[1]));
  }
  const GgmlBlock block = ggml_block(tensor.type);
  if (block.elements != 1 && (transposed || (vector && name.count > 1))) {
    return Status::error(ErrorCode::kUnsupported, "tensor %.100s cannot be cut: its type is %s", tensor.name.c_str(),
                         ggml_type_name(tensor.type));
  }
  uint64_t first = 0;
  for (uint8_t i = 0; i < name.count; ++i) {
    const int32_t slot = role_slot(roles[i], place.layer, out->config.layers);
    if (slot < 0) {
      return Status::error(ErrorCode::kUnsupported, "tensor %.100s has no place in a model of %u layers",
                           tensor.name.c_str(), out->config.layers);
    }
    SourceWeights& weights = out->weights[static_cast<size_t>(slot)];
    if (weights.present()) {
      return Status::error(ErrorCode::kCorruptModel, "tensors %.100s and %.100s are the same part of the model",
                           weights.tensor.name.c_str(), tensor.name.c_str());
    }
    weights.tensor = tensor;
    weights.file = file;
    SourceTensor& view = weights.tensor;
    if (name.count > 1) view.name += std::string(" (") + role_name(roles[i]) + ")";
    weights.interleaved = interleaved && is_rotated(roles[i]);
    if (is_norm(roles[i])) weights.add = norm_offset;
    const uint64_t count = vector ? shapes[i].cols : shapes[i].rows;
    if (transposed) {
      weights.transposed = true;
      weights.first_column = first;
    } else if (name.count > 1) {
      const uint64_t unit = vector ? block.bytes : tensor.cols / block.elements * block.bytes;
      view.rows = shapes[i].rows;
      view.cols = shapes[i].cols;
      view.data = tensor.data.subspan(static_cast<size_t>(first * unit), static_cast<size_t>(count * unit));
    }
    first += count;
  }
  return {};
}

Status read_model_source(const std::string& path, const RopeScaling& scaling, ModelSource* out) {
  std::error_code ignored;  // a path that is not there is reported by the reader of files
  const bool is_folder = std::filesystem::is_directory(path, ignored);
  const std::filesystem::path normal = std::filesystem::absolute(path, ignored).lexically_normal();
  out->name = (normal.has_filename() ? normal : normal.parent_path()).filename().string();
  const std::unique_ptr<ModelReader> reader = is_folder ? make_hf_reader(path) : make_gguf_reader(path);
  ModelDescription description;
  LETHE_RETURN_IF_ERROR(reader->describe(&description, out));
  LETHE_RETURN_IF_ERROR(stretch(scaling, &description));
  LETHE_RETURN_IF_ERROR(in_file(finish_config(description, out), out->name));
  LETHE_RETURN_IF_ERROR(reader->place_tensors(description, out));
  if (scaling.type != RopeScaling::Type::kNone && out->weights[slot_of(*out, Role::kRopeFactors, 0)].present()) {
    return scaled_already();
  }
  LETHE_RETURN_IF_ERROR(in_file(add_rope_factors(description.scaling, out), out->name));
  LETHE_RETURN_IF_ERROR(in_file(check_config(out->config), out->name));  // with the scaled base
  return in_file(check_present(*out, description.architecture->required), out->name);
}

}  // namespace lethe
