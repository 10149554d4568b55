// Scalings of RoPE beyond the trained length. All are resolved here, into what the runtime knows: the base, a factor
// by which each frequency is divided, and the magnitude of cos and sin.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/model/model.h"

namespace lethe {

// Sources:
//   linear  kaiokendev, "Things I'm Learning While Training SuperHOT" (2023): positions divided by the factor.
//   NTK     bloc97, "NTK-Aware Scaled RoPE" (2023), with alpha as transformers' "dynamic" scaling and NAMM have it
//           (Cetin et al. 2025): base * (alpha * factor - (alpha - 1))^(d / (d - 2)), fixed at the scaled length.
//   YaRN    Peng et al. 2023 (arXiv:2309.00071), sections 3.2 to 3.4; options as in transformers.
//   Llama 3 Meta's llama-models, apply_scaling; as in transformers.
struct RopeScaling {
  enum class Type { kNone, kLinear, kNtk, kYarn, kLlama3 };
  Type type = Type::kNone;
  double factor = 1;
  double original_context = 0;  // trained length in tokens; YaRN and Llama 3
  double alpha = 2;             // NTK
  double beta_fast = 32, beta_slow = 1;
  double attention_factor = 0;  // YaRN's magnitude; 0: from the factor, and from these two when both are set
  double mscale = 0, mscale_all_dim = 0;
  bool truncate = true;                              // YaRN's range of dimensions to whole numbers
  double low_freq_factor = 1, high_freq_factor = 4;  // Llama 3
};

// "TYPE:FACTOR" with linear, ntk or yarn, for a model that was trained without scaling. kInvalidArgument.
Status parse_rope_scaling(std::string_view text, RopeScaling* out);

// The inverse, for linear, ntk and yarn.
std::string rope_scaling_option(const RopeScaling& scaling);

// Sets rope_base, rope_magnitude and rope_scaling of `config` and multiplies `factors` [rotary_dim / 2], which is
// empty as long as all of them are 1. Errors: kCorruptModel for impossible numbers.
Status apply_rope_scaling(const RopeScaling& scaling, ModelConfig* config, std::vector<float>* factors);

}  // namespace lethe
