// What a candidate of `lethe evolve` is worth: prompts under a cap, against what the full cache makes of them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lethe/lethe.hpp"
#include "tools/cli/eval_prompt.h"
#include "tools/eval/filler.h"
#include "tools/eval/sweep.h"
#include "tools/eval/task.h"

namespace lethe::cli {

// A text that streams are cut from and needles are hidden in.
struct Corpus {
  std::vector<int32_t> ids;
  std::optional<int32_t> bos;
  eval::Filler filler;
};

enum class Signal {
  kNll,         // minus the NLL per token above the full cache's, of the right reply or of the text: dense
  kScore,       // score / the full cache's score; of a stream: of its tokens' (geometric) mean probability
  kLikelihood,  // (geometric) mean probability of these tokens / the full cache's, at most 1: dense, and no prompt can
                // outweigh the others
};

// One prompt. A stream is its tokens alone; its second half is scored.
struct EvolvePrompt {
  eval::Cell cell;         // of the full cache: what identifies the prompt
  const eval::Task* task;  // null: a stream
  Prompt prompt;
  std::vector<std::string> answers;
};

// `count` prompts that follow from the seed: tasks in turn, then lengths in turn. What is asked for lies anywhere, and
// questions are hidden. `corpus` may be null where no task needs a text. Throws invalid_argument as run_task does, and
// where the text is shorter than a stream.
std::vector<EvolvePrompt> make_evolve_prompts(const api::Model& model, const std::vector<std::string>& tasks,
                                              const std::vector<uint32_t>& lengths, const Corpus* corpus, uint64_t seed,
                                              uint32_t count);

struct Worth {
  double nll;    // per token
  double score;  // NaN where the signal does not need it
};

// By the full cache, or under a cap of `kv_fraction` by policy namm with the parameters of a NAMM file. In a session of
// its own, with one thread: any number of calls at a time.
Worth measure_full(const api::Model& model, const EvolvePrompt& prompt, Signal signal);
Worth measure_namm(const api::Model& model, const EvolvePrompt& prompt, Signal signal, double kv_fraction,
                   std::span<const uint8_t> namm);

// Of the same prompts. kNll, kLikelihood: the mean over prompts. kScore, as the authors have it: for each task the mean
// score divided by the full cache's mean, and the mean of this over tasks, by the number of their prompts; tasks in
// which the full cache scores nothing are left out.
double fitness_of(Signal signal, std::span<const EvolvePrompt> prompts, std::span<const Worth> worths,
                  std::span<const Worth> full);

}  // namespace lethe::cli
