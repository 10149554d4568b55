#include "tools/evolve/start.h"

#include <algorithm>
#include <span>

namespace lethe::evolve {
namespace {

using namm::Input;
using namm::Network;
using namm::Shape;

// Where the numbers of an input stand: among all of the shape, and among those that are standardised.
struct Place {
  uint32_t number = 0, moment = 0;
  bool found = false;
};

Place place_of(const Shape& shape, Input wanted) {
  Place place;
  for (const Input input : shape.list()) {
    if (input == wanted) {
      place.found = true;
      return place;
    }
    const namm::InputInfo& info = namm::info_of(input);
    place.number += info.width;
    place.moment += info.is_standardised ? info.width : 0;
  }
  return place;
}

bool is_same(const Shape& a, const Shape& b) {
  return a.network == b.network && a.hidden == b.hidden && std::ranges::equal(a.list(), b.list());
}

// score [width] and its constant, in a network that is zero otherwise.
std::vector<float> as_network(const Shape& shape, std::span<const float> score, float constant) {
  std::vector<float> weights(shape.weight_count());
  if (shape.network != Network::kMlp) {  // both end with the read-out of the inputs
    std::ranges::copy(score, weights.end() - 1 - static_cast<ptrdiff_t>(score.size()));
    weights.back() = constant;
    return weights;
  }
  // relu(y) - relu(-y) = y
  const size_t units = shape.hidden, bias = score.size() * units, read_out = bias + units;
  for (size_t unit = 0; unit < 2; ++unit) {
    const float sign = unit == 0 ? 1.0f : -1.0f;
    for (size_t i = 0; i < score.size(); ++i) weights[i * units + unit] = sign * score[i];
    weights[bias + unit] = sign * constant;
    weights[read_out + unit] = sign;
  }
  return weights;
}

}  // namespace

Result<std::vector<float>> start_from(const namm::Parameters& from, const Shape& shape, FrozenMoments& moments) {
  const bool same = is_same(from.shape, shape);
  if (!same && (from.shape.network != Network::kLinear || (shape.network == Network::kMlp && shape.hidden < 2))) {
    return Status::error(ErrorCode::kInvalidArgument,
                         "a run of another network or other inputs begins with a linear NAMM, not with %s",
                         namm::network_name(from.shape.network));
  }
  std::vector<float> score(shape.width());
  Place source;
  for (const Input input : from.shape.list()) {
    const namm::InputInfo& info = namm::info_of(input);
    const Place target = place_of(shape, input);
    if (!target.found) {
      return Status::error(ErrorCode::kInvalidArgument, "the NAMM to begin with has the input %.*s, the run has not",
                           static_cast<int>(info.name.size()), info.name.data());
    }
    if (info.is_standardised) {
      std::copy_n(from.means.begin() + source.moment, info.width, moments.means.begin() + target.moment);
      std::copy_n(from.variances.begin() + source.moment, info.width, moments.variances.begin() + target.moment);
      source.moment += info.width;
    }
    if (!same) std::copy_n(from.weights.begin() + source.number, info.width, score.begin() + target.number);
    source.number += info.width;
  }
  if (same) return std::vector<float>(from.weights.begin(), from.weights.end());
  return as_network(shape, score, from.weights.back());
}

}  // namespace lethe::evolve
