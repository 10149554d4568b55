// config.json of a Hugging Face model.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "runtime/base/status.h"
#include "tools/pack/model_source.h"

namespace lethe {

// The architecture and everything else that a config says about the model. Understands the keys of transformers 4
// (rope_theta, rope_scaling) and 5 (rope_parameters). Errors: kUnsupported, kCorruptModel.
Status read_hf_config(const nlohmann::json& file, ModelDescription* description);

// Whether the output is the embedding; nullopt when the config leaves it open.
std::optional<bool> tied_embeddings(const nlohmann::json& file);

}  // namespace lethe
