// Tasks whose prompts are generated: something to remember, a lot of text, and a question about it. Pure functions of a
// recipe, without a model or a session; sources of tasks and scores are in docs/evaluation.md.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tools/eval/filler.h"

namespace lethe::eval {

// A cue and what is to follow it.
struct Recall {
  std::string cue, answer;
};

// One prompt. The reply is generated after context, question and reply_start; a sample with recalls has no reply: each
// cue is appended to the context, and the model must give its answer, before the next.
struct Sample {
  std::string context;               // instruction and haystack
  std::string question;              // begins with its own separation from the context
  std::string reply_start;           // the first words of the reply, given to the model; begins with a space
  std::string gold;                  // how the right reply goes on
  std::vector<std::string> answers;  // what is looked for in the reply
  std::vector<Recall> recalls;
};

// All that a sample depends on.
struct Recipe {
  uint64_t seed;
  double depth;          // of what is asked for: 0 the front of the haystack, 1 its end
  uint32_t length;       // tokens that the prompt is to have (some tasks choose their frequencies by it)
  size_t size;           // of the haystack, in the task's own units; more of them never make a shorter prompt
  const Filler* filler;  // where the task takes one
};

enum class FillerUse {
  kNone,      // the task has a haystack of its own kind
  kOptional,  // the repeated sentences, unless there is a text
  kRequired,  // needs a text
};

using Answers = std::span<const std::string>;

struct Task {
  const char* name;
  const char* summary;  // one line for --help
  FillerUse filler;
  bool has_depth;
  uint32_t reply_tokens;  // longest reply; 0: the samples have recalls
  Sample (*make)(const Recipe& recipe);
  double (*score)(Answers answers, std::string_view reply);  // 0 ... 1; null with recalls
};

std::span<const Task* const> tasks();
// Null when there is none of this name.
const Task* find_task(std::string_view name);

// Depth of what trial `trial` asks for: the middles of `trials` equal parts.
inline double trial_depth(uint32_t trial, uint32_t trials) { return (trial + 0.5) / trials; }

// The seed of a trial's sample: trial t of a seed is the same however many there are.
uint64_t trial_seed(uint64_t seed, uint32_t trial);

// The sample with the largest haystack whose prompt has at most `recipe.length` tokens (`recipe.size` is not looked
// at); nothing when even the smallest has more, and then `*smallest` (may be null) is how many.
std::optional<Sample> fit(const Task& task, Recipe recipe, const std::function<size_t(const Sample&)>& count_tokens,
                          size_t* smallest);

}  // namespace lethe::eval
