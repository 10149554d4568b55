#include "runtime/cache/namm/parameters.h"

#include <algorithm>
#include <cmath>

namespace lethe::namm {
namespace {

// Hands out consecutive parts.
class Cutter {
 public:
  explicit Cutter(std::span<const float> rest) : rest_(rest) {}
  std::span<const float> next(size_t count) {
    const std::span<const float> part = rest_.first(count);
    rest_ = rest_.subspan(count);
    return part;
  }

 private:
  std::span<const float> rest_;
};

}  // namespace

uint32_t Shape::width() const {
  uint32_t sum = 0;
  for (const Input input : list()) sum += info_of(input).width;
  return sum;
}

uint32_t Shape::moments() const {
  uint32_t sum = 0;
  for (const Input input : list()) sum += info_of(input).is_standardised ? info_of(input).width : 0;
  return sum;
}

uint32_t Shape::state_parts() const {
  uint32_t parts = 0;
  for (const Input input : list()) parts |= info_of(input).state_parts;
  return parts;
}

uint32_t Shape::weight_count() const {
  const uint32_t d = width(), h = hidden;
  switch (network) {
    case Network::kBam: return d * 3 * h + 3 * h + h * 2 * d + 2 * d + d + 1;
    case Network::kMlp: return d * h + h + h + 1;
    case Network::kLinear: return d + 1;
  }
  return 0;
}

Status check_shape(const Shape& shape) {
  if (static_cast<size_t>(shape.network) >= kNetworkNames.size()) {
    return Status::error(ErrorCode::kInvalidArgument, "NAMM network %u is unknown",
                         static_cast<uint32_t>(shape.network));
  }
  if (shape.network == Network::kLinear) {
    if (shape.hidden != 0) {
      return Status::error(ErrorCode::kInvalidArgument, "a linear NAMM of %u hidden units: it has none", shape.hidden);
    }
  } else if (shape.hidden == 0 || shape.hidden > kMaxHidden) {
    return Status::error(ErrorCode::kInvalidArgument, "a NAMM of %u hidden units: it must have 1 to %u", shape.hidden,
                         kMaxHidden);
  }
  if (shape.input_count == 0 || shape.input_count > kInputKinds) {
    return Status::error(ErrorCode::kInvalidArgument, "a NAMM of %u inputs: it must have 1 to %u", shape.input_count,
                         kInputKinds);
  }
  uint32_t seen = 0;
  for (const Input input : shape.list()) {
    const auto kind = static_cast<uint32_t>(input);
    if (kind >= kInputKinds || (seen >> kind & 1) != 0) {
      return Status::error(ErrorCode::kInvalidArgument, "NAMM input %u is %s", kind,
                           kind >= kInputKinds ? "unknown" : "named twice");
    }
    seen |= 1u << kind;
  }
  return {};
}

Result<Parameters> view_parameters(const Shape& shape, std::span<const float> flat, uint32_t interval,
                                   bool rectangular) {
  LETHE_RETURN_IF_ERROR(check_shape(shape));
  if (interval == 0 || interval % kHop != 0) {
    return Status::error(ErrorCode::kInvalidArgument, "a NAMM that acts every %u tokens: it must be a multiple of %u",
                         interval, kHop);
  }
  if (flat.size() != shape.parameter_count()) {
    return Status::error(ErrorCode::kInvalidArgument, "a NAMM of this shape has %u parameters, not %zu",
                         shape.parameter_count(), flat.size());
  }
  const auto bad = std::find_if(flat.begin(), flat.end(), [](float value) { return !std::isfinite(value); });
  if (bad != flat.end()) {
    return Status::error(ErrorCode::kInvalidArgument, "NAMM parameter %td of %zu is not finite", bad - flat.begin(),
                         flat.size());
  }
  Cutter cut(flat);
  Parameters parameters;
  parameters.shape = shape;
  parameters.interval = interval;
  parameters.rectangular = rectangular;
  parameters.weights = cut.next(shape.weight_count());
  parameters.means = cut.next(shape.moments());
  parameters.variances = cut.next(shape.moments());
  if (std::any_of(parameters.variances.begin(), parameters.variances.end(), [](float value) { return value < 0; })) {
    return Status::error(ErrorCode::kInvalidArgument, "a variance of a NAMM's inputs is negative");
  }
  return parameters;
}

BamWeights bam_weights(const Parameters& parameters) {
  const size_t d = parameters.shape.width(), h = parameters.shape.hidden;
  Cutter cut(parameters.weights);
  BamWeights weights;
  weights.qkv = cut.next(d * 3 * h);
  weights.qkv_bias = cut.next(3 * h);
  weights.out = cut.next(h * 2 * d);
  weights.out_bias = cut.next(2 * d);
  weights.score = cut.next(d);
  weights.score_bias = cut.next(1);
  return weights;
}

MlpWeights mlp_weights(const Parameters& parameters) {
  const size_t d = parameters.shape.width(), h = parameters.shape.hidden;
  Cutter cut(parameters.weights);
  MlpWeights weights;
  weights.hidden = cut.next(d * h);
  weights.hidden_bias = cut.next(h);
  weights.score = cut.next(h);
  weights.score_bias = cut.next(1);
  return weights;
}

LinearWeights linear_weights(const Parameters& parameters) {
  Cutter cut(parameters.weights);
  LinearWeights weights;
  weights.score = cut.next(parameters.shape.width());
  weights.score_bias = cut.next(1);
  return weights;
}

}  // namespace lethe::namm
