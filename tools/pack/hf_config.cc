#include "tools/pack/hf_config.h"

#include <algorithm>
#include <cmath>

#include "runtime/model/frame.h"

namespace lethe {
namespace {

using Json = nlohmann::json;
using Keys = std::initializer_list<const char*>;  // names of one thing; the first that is present counts

std::string text_of(const Json& value) {
  if (value.is_structured()) return value.type_name();
  return value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 64);
}

Status wrong_value(const char* key, const Json& value, const char* expected) {
  return Status::error(ErrorCode::kCorruptModel, "%s is %s, not %s", key, text_of(value).c_str(), expected);
}

// Null when the key is absent or null.
const Json* find(const Json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

// The functions leave `out` as it is when no key is present.
Status read_number(const Json& object, Keys keys, double* out) {
  for (const char* key : keys) {
    const Json* value = find(object, key);
    if (value == nullptr) continue;
    if (!value->is_number()) return wrong_value(key, *value, "a number");
    *out = value->get<double>();
    return {};
  }
  return {};
}

Status read_float(const Json& object, Keys keys, float* out) {
  double value = static_cast<double>(*out);
  LETHE_RETURN_IF_ERROR(read_number(object, keys, &value));
  *out = static_cast<float>(value);
  return {};
}

// A dimension; check_config judges its size.
Status read_dim(const Json& object, Keys keys, std::optional<uint32_t> fallback, uint32_t* out) {
  for (const char* key : keys) {
    const Json* value = find(object, key);
    if (value == nullptr) continue;
    if (!value->is_number_unsigned() || value->get<uint64_t>() > UINT32_MAX) {
      return wrong_value(key, *value, "a dimension");
    }
    *out = static_cast<uint32_t>(value->get<uint64_t>());
    return {};
  }
  if (!fallback.has_value()) return Status::error(ErrorCode::kCorruptModel, "%s is missing", *keys.begin());
  *out = *fallback;
  return {};
}

bool is_true(const Json& object, const char* key) {
  const Json* value = find(object, key);
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

// Keys that change the calculation. Each may be present with the value that changes nothing.
Status refuse_unsupported_keys(const Json& config) {
  static const std::pair<const char*, Json> kNeutral[] = {{"quantization_config", nullptr},
                                                          {"use_bidirectional_attention", false},
                                                          {"rope_interleaved", false},
                                                          {"scale_attn_by_inverse_layer_idx", false},
                                                          {"scale_attn_weights", true},
                                                          {"add_cross_attention", false},
                                                          {"is_encoder_decoder", false},
                                                          {"num_local_experts", 0},
                                                          {"num_experts", 0}};
  for (const auto& [key, neutral] : kNeutral) {
    const Json* value = find(config, key);
    if (value == nullptr || *value == neutral) continue;
    return Status::error(ErrorCode::kUnsupported, "%s is %s", key, text_of(*value).c_str());
  }
  return {};
}

Status read_dims(const Json& json, const Architecture& architecture, ModelConfig* config) {
  LETHE_RETURN_IF_ERROR(read_dim(json, {"vocab_size"}, {}, &config->vocab));
  if (config->vocab > kMaxVocab) {  // the tokenizer makes tables of this size before all numbers are checked
    return Status::error(ErrorCode::kCorruptModel, "vocab_size is %u, can be %u at most", config->vocab, kMaxVocab);
  }
  LETHE_RETURN_IF_ERROR(read_dim(json, {"num_hidden_layers", "n_layer"}, {}, &config->layers));
  LETHE_RETURN_IF_ERROR(read_dim(json, {"hidden_size", "n_embd"}, {}, &config->embed_dim));
  LETHE_RETURN_IF_ERROR(read_dim(json, {"num_attention_heads", "n_head"}, {}, &config->heads));
  LETHE_RETURN_IF_ERROR(read_dim(json, {"num_key_value_heads"}, config->heads, &config->kv_heads));
  const uint32_t even_share = config->heads == 0 ? 0 : config->embed_dim / config->heads;
  LETHE_RETURN_IF_ERROR(read_dim(json, {"head_dim"}, even_share, &config->head_dim));
  std::optional<uint32_t> ffn_dim;
  if (architecture.ffn_ratio != 0) ffn_dim = architecture.ffn_ratio * config->embed_dim;
  LETHE_RETURN_IF_ERROR(read_dim(json, {"intermediate_size", "n_inner"}, ffn_dim, &config->ffn_dim));
  return read_dim(json, {"max_position_embeddings", "n_positions"}, {}, &config->context_length);
}

Status read_activation(const Json& json, Activation* out) {
  static constexpr std::pair<std::string_view, Activation> kNames[] = {
      {"silu", Activation::kSilu},         {"swish", Activation::kSilu}, {"gelu_pytorch_tanh", Activation::kGeluTanh},
      {"gelu_new", Activation::kGeluTanh}, {"gelu", Activation::kGelu},  {"relu", Activation::kRelu}};
  for (const char* key : {"hidden_activation", "hidden_act", "activation_function"}) {
    const Json* value = find(json, key);
    if (value == nullptr) continue;
    const std::string name = value->is_string() ? value->get<std::string>() : "";
    const auto* known =
        std::find_if(std::begin(kNames), std::end(kNames), [&](const auto& n) { return n.first == name; });
    if (known == std::end(kNames)) return Status::error(ErrorCode::kUnsupported, "%s is '%.64s'", key, name.c_str());
    *out = known->second;
    return {};
  }
  return {};
}

Status read_attention(const Json& json, const Architecture& architecture, ModelConfig* config) {
  config->norm = architecture.norm;
  config->activation = architecture.activation;
  LETHE_RETURN_IF_ERROR(read_activation(json, &config->activation));
  config->norm_eps = 1e-6f;
  LETHE_RETURN_IF_ERROR(
      read_float(json, {"rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon"}, &config->norm_eps));
  LETHE_RETURN_IF_ERROR(read_float(json, {"attn_logit_softcapping"}, &config->attention_softcap));
  LETHE_RETURN_IF_ERROR(read_float(json, {"final_logit_softcapping"}, &config->logit_softcap));
  double query_scalar = 0;
  LETHE_RETURN_IF_ERROR(read_number(json, {"query_pre_attn_scalar"}, &query_scalar));
  if (query_scalar != 0) config->attention_scale = static_cast<float>(1 / std::sqrt(query_scalar));
  return {};
}

Status read_layers(const Json& json, ModelDescription* description) {
  ModelConfig& config = description->config;
  LETHE_RETURN_IF_ERROR(read_dim(json, {"sliding_window"}, 0, &config.window));
  if (find(json, "use_sliding_window") != nullptr && !is_true(json, "use_sliding_window")) config.window = 0;
  if (const Json* types = find(json, "layer_types")) {
    std::vector<bool>& local = description->local_layers.emplace();
    for (const Json& type : *types) {
      if (type != "full_attention" && type != "sliding_attention") {
        return Status::error(ErrorCode::kUnsupported, "layer_types holds %s", text_of(type).c_str());
      }
      local.push_back(type == "sliding_attention");
    }
  } else if (find(json, "max_window_layers") != nullptr) {
    uint32_t first_local = 0;
    LETHE_RETURN_IF_ERROR(read_dim(json, {"max_window_layers"}, {}, &first_local));
    std::vector<bool>& local = description->local_layers.emplace();
    for (uint32_t layer = 0; layer < std::min(config.layers, kMaxLayers); ++layer)
      local.push_back(layer >= first_local);
  } else if (find(json, "sliding_window_pattern") != nullptr) {
    LETHE_RETURN_IF_ERROR(read_dim(json, {"sliding_window_pattern"}, {}, &description->local_period.emplace()));
  }
  return {};
}

Status read_scaling(const Json& rope, ModelConfig* config, RopeScaling* out) {
  using Type = RopeScaling::Type;
  std::string type = "default";
  for (const char* key : {"rope_type", "type"}) {
    const Json* value = find(rope, key);
    if (value == nullptr) continue;
    if (!value->is_string()) return wrong_value(key, *value, "a name");
    type = value->get<std::string>();
    break;
  }
  static constexpr std::pair<std::string_view, Type> kTypes[] = {{"default", Type::kNone}, {"linear", Type::kLinear},
                                                                 {"dynamic", Type::kNtk},  {"ntk", Type::kNtk},
                                                                 {"yarn", Type::kYarn},    {"llama3", Type::kLlama3}};
  const auto* known =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.first == type; });
  if (known == std::end(kTypes)) {
    return Status::error(ErrorCode::kUnsupported, "RoPE scaling of type '%.64s'", type.c_str());
  }
  out->type = known->second;
  if (out->type == Type::kNone) return {};
  out->original_context = config->context_length;
  const std::pair<const char*, double*> numbers[] = {{"factor", &out->factor},
                                                     {"alpha", &out->alpha},
                                                     {"original_max_position_embeddings", &out->original_context},
                                                     {"beta_fast", &out->beta_fast},
                                                     {"beta_slow", &out->beta_slow},
                                                     {"attention_factor", &out->attention_factor},
                                                     {"mscale", &out->mscale},
                                                     {"mscale_all_dim", &out->mscale_all_dim},
                                                     {"low_freq_factor", &out->low_freq_factor},
                                                     {"high_freq_factor", &out->high_freq_factor}};
  for (const auto& [key, to] : numbers) LETHE_RETURN_IF_ERROR(read_number(rope, {key}, to));
  if (out->type == Type::kYarn && find(rope, "factor") == nullptr) {
    out->factor = config->context_length / out->original_context;
  }
  out->truncate = find(rope, "truncate") == nullptr || is_true(rope, "truncate");
  if (type == "dynamic") {
    // Transformers recomputes the base while the text grows, which turns keys that are cached already. Ours is the one
    // that it reaches at `factor` times the trained length.
    out->alpha = out->factor;
    config->context_length = static_cast<uint32_t>(
        std::clamp(static_cast<double>(config->context_length) * out->factor, 0.0, static_cast<double>(UINT32_MAX)));
  }
  return {};
}

Status read_rope(const Json& json, const Architecture& architecture, ModelConfig* config, RopeScaling* scaling) {
  config->rope_base = 10000;
  if (architecture.learned_positions) return {};
  const Json empty = Json::object();
  const Json* parameters = find(json, "rope_parameters");
  const Json* global = parameters == nullptr ? &empty : parameters;
  if (const Json* by_layer = find(*global, "full_attention")) global = by_layer;
  const Json* local = parameters == nullptr ? nullptr : find(*parameters, "sliding_attention");
  if (local == nullptr) local = &empty;

  LETHE_RETURN_IF_ERROR(read_float(json, {"rope_theta"}, &config->rope_base));
  LETHE_RETURN_IF_ERROR(read_float(*global, {"rope_theta"}, &config->rope_base));
  LETHE_RETURN_IF_ERROR(read_float(json, {"rope_local_base_freq"}, &config->rope_local_base));
  LETHE_RETURN_IF_ERROR(read_float(*local, {"rope_theta"}, &config->rope_local_base));
  double rotated = 1;
  LETHE_RETURN_IF_ERROR(read_number(json, {"partial_rotary_factor"}, &rotated));
  LETHE_RETURN_IF_ERROR(read_number(*global, {"partial_rotary_factor"}, &rotated));
  if (!(rotated > 0 && rotated <= 1)) {
    return Status::error(ErrorCode::kCorruptModel, "partial_rotary_factor is %g", rotated);
  }
  config->rotary_dim = static_cast<uint32_t>(config->head_dim * rotated);

  RopeScaling none;
  LETHE_RETURN_IF_ERROR(read_scaling(*local, config, &none));
  if (none.type != RopeScaling::Type::kNone) {
    return Status::error(ErrorCode::kUnsupported, "RoPE scaling of sliding_attention");
  }
  const Json* old = find(json, "rope_scaling");
  return read_scaling(parameters == nullptr && old != nullptr ? *old : *global, config, scaling);
}

// The keys of the text model, over the defaults of its class.
Json text_config(const Json& file, const Architecture& architecture) {
  Json out = Json::parse(architecture.hf_defaults);
  out.update(file);
  if (const Json* text = find(file, "text_config"); text != nullptr && text->is_object()) out.update(*text);
  return out;
}

}  // namespace

std::optional<bool> tied_embeddings(const Json& file) {
  const Json* value = find(file, "tie_word_embeddings");
  if (value == nullptr || !value->is_boolean()) return {};
  return value->get<bool>();
}

Status read_hf_config(const Json& file, ModelDescription* description) {
  const Json* type = find(file, "model_type");
  if (type == nullptr || !type->is_string()) {
    return Status::error(ErrorCode::kCorruptModel, "model_type is missing");
  }
  const auto name = type->get<std::string>();
  description->architecture = find_hf_architecture(name);
  if (description->architecture == nullptr) return unknown_architecture(name, false);
  const Architecture& architecture = *description->architecture;
  const Json json = text_config(file, architecture);
  LETHE_RETURN_IF_ERROR(refuse_unsupported_keys(json));
  LETHE_RETURN_IF_ERROR(read_dims(json, architecture, &description->config));
  LETHE_RETURN_IF_ERROR(read_attention(json, architecture, &description->config));
  LETHE_RETURN_IF_ERROR(read_layers(json, description));
  return read_rope(json, architecture, &description->config, &description->scaling);
}

}  // namespace lethe
