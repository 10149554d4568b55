// A generated task, run: prompts of a length, a cache under a cap, replies, scores.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lethe/lethe.hpp"
#include "tools/cli/eval_prompt.h"
#include "tools/cli/mean.h"
#include "tools/eval/task.h"

namespace lethe::cli {

struct TaskRun {
  const eval::Task* task;
  uint32_t length, trials;  // most tokens of a prompt
  uint64_t seed;
  bool question_hidden;
  const eval::Filler* filler;  // null: none
  std::optional<double> kv_fraction;
  lethe_session_params params;
};

struct Trial {
  double depth;
  size_t tokens;  // of the prompt
  double score;   // 0 ... 1
  double nll;     // of the right reply, nats per token
  std::string reply;
  std::vector<std::string> answers;
};

struct TaskResult {
  std::vector<Trial> trials;
  Mean score, nll;
  uint64_t kv_bytes;  // of the pool, policy state included
  double kv_share;    // of the full f16 cache of a prompt and its reply
  uint32_t cache_tokens;
  const char* policy;
  uint64_t evictions;
  double seconds;
};

// Throws invalid_argument where the length is too short for the task, or the task needs a filler and has none.
TaskResult run_task(const api::Model& model, TaskRun run, const std::function<void(uint32_t done)>& on_trial);

// What prompts are made of: throws invalid_argument with what there is where a task (or the stream, tools/eval/sweep.h)
// is unknown or needs a text that is not there, or a length is below 16 tokens.
void check_prompts(const std::vector<std::string>& tasks, const std::vector<uint32_t>& lengths, bool has_text);

// No text of a prompt is longer: a token of the haystacks is a few bytes, and the search for the length may try twice
// as many.
size_t most_text_bytes(uint32_t length);

struct FittedPrompt {
  Prompt prompt;
  std::vector<std::string> answers;
};
// The longest prompt of at most recipe.length tokens. Throws as run_task; `maker` takes most_text_bytes of it.
FittedPrompt fit_prompt(PromptMaker& maker, const eval::Task& task, const eval::Recipe& recipe, bool question_hidden);

// One prompt through a session that is empty: the context, then the question, then a greedy reply of at most
// `reply_tokens` (or the prompt's recalls). `score` and `nll` of the result are set for recalls; with a reply only nll.
struct Reply {
  std::string text;
  double score, nll;
};
Reply answer(api::Session& session, const Prompt& prompt, uint32_t reply_tokens);

}  // namespace lethe::cli
