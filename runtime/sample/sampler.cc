#include "runtime/sample/sampler.h"

#include <algorithm>
#include <cmath>

namespace lethe {
namespace {

bool more_likely(const Sampler::Candidate& a, const Sampler::Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

}  // namespace

Status Sampler::configure(const SamplerOptions& options) {
  const auto refuse = [](const char* name, float value, const char* range) {
    return Status::error(ErrorCode::kInvalidArgument, "%s is %g; it must be %s", name, static_cast<double>(value),
                         range);
  };
  // Written so that NaN fails as well.
  if (!(options.temperature >= 0 && std::isfinite(options.temperature))) {
    return refuse("temperature", options.temperature, "0 (greedy) or more");
  }
  if (!(options.top_p > 0 && options.top_p <= 1)) return refuse("top_p", options.top_p, "above 0 and at most 1");
  if (!(options.min_p >= 0 && options.min_p <= 1)) return refuse("min_p", options.min_p, "from 0 to 1");
  if (!(options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty))) {
    return refuse("repetition_penalty", options.repetition_penalty, "above 0");
  }
  if (options.penalty_window > kMaxPenaltyWindow) {
    return Status::error(ErrorCode::kInvalidArgument, "penalty_window is %u; it must be at most %u",
                         options.penalty_window, kMaxPenaltyWindow);
  }
  options_ = options;
  random_ = Random(options.seed);
  return {};
}

void Sampler::reset() {
  accepted_count_ = accepted_end_ = 0;
  random_ = Random(options_.seed);
}

void Sampler::accept(int32_t id) {
  accepted_[accepted_end_] = id;
  accepted_end_ = (accepted_end_ + 1) % kMaxPenaltyWindow;
  accepted_count_ = std::min(accepted_count_ + 1, kMaxPenaltyWindow);
}

// Relative probability. The difference comes first: a tiny temperature then gives 0 instead of infinities.
float Sampler::weight(float logit, float greatest) const { return std::exp((logit - greatest) / options_.temperature); }

Result<int32_t> Sampler::sample(std::span<const float> logits) {
  if (logits.empty() || logits.size() != candidates_.size()) {
    return Status::error(ErrorCode::kInvalidArgument, "%zu logits for a vocabulary of %u", logits.size(), vocab());
  }
  uint32_t not_finite = 0;
  for (uint32_t id = 0; id < vocab(); ++id) {
    not_finite += !std::isfinite(logits[id]);
    candidates_[id] = {logits[id], id};
  }
  if (not_finite > 0) {
    return Status::error(ErrorCode::kInternal, "%u of %u logits are not finite", not_finite, vocab());
  }
  // From the logits as given, so that a token that was accepted twice is penalised once. A huge penalty may overflow.
  constexpr float kMost = 3.4e38f;
  for (uint32_t back = 1; back <= std::min(accepted_count_, options_.penalty_window); ++back) {
    const auto id = static_cast<uint32_t>(accepted_[(accepted_end_ + kMaxPenaltyWindow - back) % kMaxPenaltyWindow]);
    if (id >= vocab()) continue;
    const float logit = logits[id], penalty = options_.repetition_penalty;
    candidates_[id].logit = std::clamp(logit > 0 ? logit / penalty : logit * penalty, -kMost, kMost);
  }

  const Candidate best = *std::min_element(candidates_.begin(), candidates_.end(), more_likely);
  if (options_.temperature == 0) return static_cast<int32_t>(best.id);

  std::span<Candidate> kept = candidates_;
  const bool some_by_rank = options_.top_k > 0 && options_.top_k < vocab();
  if (some_by_rank) kept = keep_top_k(kept);
  if (options_.top_p < 1) kept = keep_top_p(kept, some_by_rank);
  if (options_.min_p > 0) kept = keep_min_p(kept, best.logit);

  double total = 0;
  for (Candidate& candidate : kept) {
    candidate.logit = weight(candidate.logit, best.logit);
    total += static_cast<double>(candidate.logit);
  }
  double left = random_.uniform() * total;
  for (const Candidate& candidate : kept) {
    left -= static_cast<double>(candidate.logit);
    if (left < 0) return static_cast<int32_t>(candidate.id);
  }
  return static_cast<int32_t>(best.id);  // rounding left a crumb
}

// Sorted, because the order of the draw must not depend on how a library partitions.
std::span<Sampler::Candidate> Sampler::keep_top_k(std::span<Candidate> candidates) const {
  std::nth_element(candidates.begin(), candidates.begin() + options_.top_k, candidates.end(), more_likely);
  candidates = candidates.first(options_.top_k);
  std::sort(candidates.begin(), candidates.end(), more_likely);
  return candidates;
}

std::span<Sampler::Candidate> Sampler::keep_top_p(std::span<Candidate> candidates, bool sorted) const {
  const float greatest = std::min_element(candidates.begin(), candidates.end(), more_likely)->logit;
  double total = 0;
  for (const Candidate& candidate : candidates) total += static_cast<double>(weight(candidate.logit, greatest));
  const double enough = static_cast<double>(options_.top_p) * total;

  // A few candidates hold most of the probability: order only as many as are needed, four times more at each try.
  double sum = 0;
  size_t ordered = sorted ? candidates.size() : 0;
  for (size_t kept = 0; kept < candidates.size(); ++kept) {
    if (kept == ordered) {
      ordered = std::min(candidates.size(), std::max<size_t>(64, ordered * 4));
      const auto from = candidates.begin() + static_cast<ptrdiff_t>(kept);
      const auto to = candidates.begin() + static_cast<ptrdiff_t>(ordered);
      std::nth_element(from, to, candidates.end(), more_likely);
      std::sort(from, to, more_likely);
    }
    sum += static_cast<double>(weight(candidates[kept].logit, greatest));
    if (sum >= enough) return candidates.first(kept + 1);
  }
  return candidates;
}

std::span<Sampler::Candidate> Sampler::keep_min_p(std::span<Candidate> candidates, float greatest) const {
  size_t kept = 0;
  for (const Candidate& candidate : candidates) {
    if (weight(candidate.logit, greatest) >= options_.min_p) candidates[kept++] = candidate;
  }
  return candidates.first(kept);
}

Sampler::State Sampler::state() const {
  State state = {.random = random_.state(), .accepted_count = accepted_count_, .zero = 0, .accepted = {}};
  for (uint32_t i = 0; i < accepted_count_; ++i) {
    state.accepted[i] = accepted_[(accepted_end_ + kMaxPenaltyWindow - accepted_count_ + i) % kMaxPenaltyWindow];
  }
  return state;
}

Status Sampler::restore(const State& state) {
  bool sound = state.accepted_count <= kMaxPenaltyWindow && state.zero == 0 && state.random != Random::State{};
  for (uint32_t i = 0; sound && i < state.accepted_count; ++i) {
    sound = static_cast<uint32_t>(state.accepted[i]) < vocab();
  }
  if (!sound) return Status::error(ErrorCode::kCorruptSnapshot, "the saved state of the sampler is damaged");
  random_ = Random(state.random);
  accepted_ = state.accepted;
  accepted_count_ = state.accepted_count;
  accepted_end_ = state.accepted_count % kMaxPenaltyWindow;
  return {};
}

}  // namespace lethe
