// Chooses the next token from logits.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "runtime/base/status.h"
#include "runtime/memory/arena.h"
#include "runtime/sample/random.h"

namespace lethe {

struct SamplerOptions {
  float temperature = 0;         // 0: greedy
  uint32_t top_k = 0;            // keep the k most likely; 0: all
  float top_p = 1;               // keep the fewest most likely whose probabilities reach p; 1: all
  float min_p = 0;               // keep those at least min_p times as likely as the most likely; 0: all
  float repetition_penalty = 1;  // 1: none
  uint32_t penalty_window = 64;  // of the last accepted tokens that are penalised; at most kMaxPenaltyWindow
  uint64_t seed = 0;
};

// The steps and their order are Hugging Face's (transformers, generation/logits_process.py): repetition penalty
// (Keskar et al., "CTRL", 2019, with multiplication below zero), temperature, top-k (Fan et al., 2018), top-p (Holtzman
// et al., 2020), min-p (Nguyen et al., 2024), draw. Probabilities are renormalised after each step. Equally likely
// tokens rank by id, so the same seed, options and logits give the same tokens. One thread at a time; obtains nothing.
class Sampler {
 public:
  static constexpr uint32_t kMaxPenaltyWindow = 256;

  struct Candidate {
    float logit;
    uint32_t id;
  };
  struct Scratch {
    std::span<Candidate> candidates;  // [vocab]
  };
  static Scratch layout(Arena& arena, uint32_t vocab) { return {arena.take<Candidate>(vocab)}; }

  // The memory of `scratch` outlives the object. Options are the defaults until configure().
  void open(const Scratch& scratch) { candidates_ = scratch.candidates; }

  // Takes the options and seeds the generator; accepted tokens stay. kInvalidArgument names the option that is
  // impossible, and then nothing changes.
  Status configure(const SamplerOptions& options);
  const SamplerOptions& options() const { return options_; }
  // Forgets the accepted tokens and seeds the generator again.
  void reset();

  // Notes a token of the text, from the prompt or sampled, for the repetition penalty.
  void accept(int32_t id);

  // The next token. logits [vocab] are not changed. kInternal: a logit is not finite, with the number of them.
  Result<int32_t> sample(std::span<const float> logits);

  // What a snapshot holds: the generator and the accepted tokens, oldest first. Plain data, no padding.
  struct State {
    Random::State random;
    uint32_t accepted_count;
    uint32_t zero;
    std::array<int32_t, kMaxPenaltyWindow> accepted;
  };
  State state() const;
  // kCorruptSnapshot when `state` cannot come from state() with this vocabulary.
  Status restore(const State& state);

 private:
  uint32_t vocab() const { return static_cast<uint32_t>(candidates_.size()); }
  // Each moves the survivors to the front and returns them.
  std::span<Candidate> keep_top_k(std::span<Candidate> candidates) const;
  std::span<Candidate> keep_top_p(std::span<Candidate> candidates, bool sorted) const;
  std::span<Candidate> keep_min_p(std::span<Candidate> candidates, float greatest) const;
  float weight(float logit, float greatest) const;

  SamplerOptions options_;
  Random random_;
  std::span<Candidate> candidates_;
  std::array<int32_t, kMaxPenaltyWindow> accepted_ = {};  // ring
  uint32_t accepted_end_ = 0;                             // where the next goes
  uint32_t accepted_count_ = 0;
};
static_assert(sizeof(Sampler::State) == 32 + 8 + 4 * Sampler::kMaxPenaltyWindow);

}  // namespace lethe
