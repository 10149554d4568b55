// config.json of a Hugging Face model.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "runtime/base/status.h"
#include "tools/pack/model_source.h"

namespace lethe {

// Parses a JSON file that must hold an object. Errors: kCorruptModel.
Status parse_json_object(std::span<const uint8_t> bytes, nlohmann::json* out);

// The architecture and everything else that a config says about the model. Understands the keys of transformers 4
// (rope_theta, rope_scaling) and 5 (rope_parameters). Errors: kUnsupported, kCorruptModel.
Status read_hf_config(const nlohmann::json& file, ModelDescription* description);

// Whether the output is the embedding; nullopt when the config leaves it open.
std::optional<bool> tied_embeddings(const nlohmann::json& file);

}  // namespace lethe
