#include "tools/pack/rope_scaling.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <utility>

namespace lethe {
namespace {

using Type = RopeScaling::Type;

constexpr double kMaxFactor = 1e6;

const char* type_name(Type type) {
  switch (type) {
    case Type::kNone: return "none";
    case Type::kLinear: return "linear";
    case Type::kNtk: return "ntk";
    case Type::kYarn: return "yarn";
    case Type::kLlama3: return "llama3";
  }
  return "unknown";
}

// Transformers' get_mscale.
double magnitude(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1; }

double yarn_magnitude(const RopeScaling& s) {
  if (s.attention_factor != 0) return s.attention_factor;
  if (s.mscale != 0 && s.mscale_all_dim != 0) {
    return magnitude(s.factor, s.mscale) / magnitude(s.factor, s.mscale_all_dim);
  }
  return magnitude(s.factor, 1);
}

// By how much the frequency of pair `i` of `dim` / 2 is divided.
class Divisor {
 public:
  Divisor(const RopeScaling& scaling, double base, double dim) : s_(scaling), base_(base), dim_(dim) {
    const auto dimension_of = [&](double rotations) {  // the one that turns so often over the trained length
      return dim * std::log(s_.original_context / (rotations * 2 * std::numbers::pi)) / (2 * std::log(base));
    };
    low_ = dimension_of(s_.beta_fast);
    high_ = dimension_of(s_.beta_slow);
    if (s_.truncate) {
      low_ = std::floor(low_);
      high_ = std::ceil(high_);
    }
    low_ = std::max(low_, 0.0);
    high_ = std::min(high_, dim - 1);
    if (low_ == high_) high_ += 0.001;
  }

  double operator()(uint32_t i) const {
    switch (s_.type) {
      case Type::kLinear: return s_.factor;
      case Type::kYarn: {
        const double interpolated = std::clamp((i - low_) / (high_ - low_), 0.0, 1.0);
        return 1 / (interpolated / s_.factor + (1 - interpolated));
      }
      case Type::kLlama3: {
        const double turns = s_.original_context * std::pow(base_, -2.0 * i / dim_) / (2 * std::numbers::pi);
        if (turns < s_.low_freq_factor) return s_.factor;
        if (turns > s_.high_freq_factor) return 1;
        const double smooth = (turns - s_.low_freq_factor) / (s_.high_freq_factor - s_.low_freq_factor);
        return 1 / ((1 - smooth) / s_.factor + smooth);
      }
      case Type::kNone:
      case Type::kNtk: break;  // NTK changes the base
    }
    return 1;
  }

 private:
  const RopeScaling& s_;
  double base_, dim_, low_, high_;
};

Status check(const RopeScaling& s) {
  const auto impossible = [](const char* name, double value) {
    return Status::error(ErrorCode::kCorruptModel, "RoPE scaling: %s is %g", name, value);
  };
  if (!(s.factor > 0 && s.factor <= kMaxFactor)) return impossible("the factor", s.factor);
  const bool needs_context = s.type == Type::kYarn || s.type == Type::kLlama3;
  if (needs_context && !(s.original_context >= 1)) return impossible("the original context", s.original_context);
  if (s.type == Type::kNtk && !(s.alpha * s.factor - (s.alpha - 1) > 0)) return impossible("alpha", s.alpha);
  if (s.type == Type::kYarn) {
    for (const auto& [name, value] : {std::pair{"beta_fast", s.beta_fast}, {"beta_slow", s.beta_slow}}) {
      if (!(value > 0)) return impossible(name, value);
    }
    if (const double m = yarn_magnitude(s); !(m > 0 && m < kMaxFactor)) return impossible("the attention factor", m);
  }
  if (s.type == Type::kLlama3 && !(s.low_freq_factor > 0 && s.high_freq_factor > s.low_freq_factor)) {
    return impossible("high_freq_factor", s.high_freq_factor);
  }
  return {};
}

}  // namespace

Status parse_rope_scaling(std::string_view text, RopeScaling* out) {
  const size_t colon = std::min(text.find(':'), text.size());
  for (const Type type : {Type::kLinear, Type::kNtk, Type::kYarn}) {
    if (text.substr(0, colon) != type_name(type) || colon == text.size()) continue;
    const auto [end, error] = std::from_chars(text.data() + colon + 1, text.data() + text.size(), out->factor);
    if (error != std::errc() || end != text.data() + text.size() || !(out->factor > 1 && out->factor <= kMaxFactor)) {
      break;
    }
    out->type = type;
    return {};
  }
  return Status::error(ErrorCode::kInvalidArgument,
                       "RoPE scaling '%.*s' is not TYPE:FACTOR with linear, ntk or yarn and a factor above 1",
                       static_cast<int>(std::min<size_t>(text.size(), 64)), text.data());
}

std::string rope_scaling_option(const RopeScaling& scaling) {
  char text[48];
  std::snprintf(text, sizeof text, "%s:%g", type_name(scaling.type), scaling.factor);
  return text;
}

Status apply_rope_scaling(const RopeScaling& scaling, ModelConfig* config, std::vector<float>* factors) {
  if (scaling.type == Type::kNone) return {};
  LETHE_RETURN_IF_ERROR(check(scaling));
  const double dim = config->rotary_dim;
  if (config->rotary_dim < 4) {
    return Status::error(ErrorCode::kUnsupported, "RoPE scaling of %u rotated dimensions", config->rotary_dim);
  }
  std::snprintf(config->rope_scaling, sizeof config->rope_scaling, "%s x%g", type_name(scaling.type), scaling.factor);
  if (scaling.type == Type::kNtk) {
    const double stretch = scaling.alpha * scaling.factor - (scaling.alpha - 1);
    config->rope_base = static_cast<float>(static_cast<double>(config->rope_base) * std::pow(stretch, dim / (dim - 2)));
    return {};
  }
  if (scaling.type == Type::kYarn) config->rope_magnitude = static_cast<float>(yarn_magnitude(scaling));
  const Divisor divisor(scaling, static_cast<double>(config->rope_base), dim);
  if (factors->empty()) factors->resize(config->rotary_dim / 2, 1.0f);
  for (uint32_t i = 0; i < factors->size(); ++i) {
    (*factors)[i] = static_cast<float>(static_cast<double>((*factors)[i]) * divisor(i));
  }
  return {};
}

}  // namespace lethe
