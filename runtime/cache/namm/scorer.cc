#include "runtime/cache/namm/scorer.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lethe::namm {

constexpr float kLeastDeviation = 1e-7f;  // as in the authors' code

void Scorer::carve(Arena& arena, const Shape& shape) {
  shape_ = shape;
  switch (shape.network) {
    case Network::kBam: bam_.carve(arena, shape); break;
    case Network::kMlp: mlp_.carve(arena, shape); break;
    case Network::kLinear: linear_.carve(arena, shape); break;
  }
  means_ = arena.take<float>(shape.moments());
  inverse_deviations_ = arena.take<float>(shape.moments());
}

void Scorer::fill(const Parameters& parameters) {
  switch (shape_.network) {
    case Network::kBam: bam_.fold(bam_weights(parameters)); break;
    case Network::kMlp: mlp_.fill(mlp_weights(parameters)); break;
    case Network::kLinear: linear_.fill(linear_weights(parameters)); break;
  }
  std::copy(parameters.means.begin(), parameters.means.end(), means_.begin());
  std::transform(parameters.variances.begin(), parameters.variances.end(), inverse_deviations_.begin(),
                 [](float variance) { return 1 / std::max(std::sqrt(variance), kLeastDeviation); });
}

void Scorer::score(const KvPoolView& pool, const KvList& list, std::span<float> work, std::span<float> scores) const {
  const Moments moments{means_, inverse_deviations_};
  const size_t count = feature_floats(list.length, shape_.width());
  float* const features = work.data();
  // `scores` are still free, and as long as the list.
  read_features(shape_, &moments, pool, list, {scores, work.subspan(count)}, features);
  switch (shape_.network) {
    case Network::kBam: bam_scores(bam_, features, scores); break;
    case Network::kMlp: mlp_scores(mlp_, features, scores); break;
    case Network::kLinear: linear_scores(linear_, features, scores); break;
  }
  scores[list.length - 1] = std::numeric_limits<float>::max();
}

}  // namespace lethe::namm
