#include "tools/cli/task_run.h"

#include <algorithm>

#include "runtime/os/process.h"
#include "tools/cli/failure.h"
#include "tools/cli/kv_budget.h"
#include "tools/cli/logits.h"
#include "tools/eval/sweep.h"

namespace lethe::cli {
namespace {

std::vector<std::pair<Prompt, Trial>> make_prompts(const api::Model& model, const TaskRun& run) {
  PromptMaker maker(model, most_text_bytes(run.length));
  std::vector<std::pair<Prompt, Trial>> prompts;
  for (uint32_t trial = 0; trial < run.trials; ++trial) {
    const eval::Recipe recipe{.seed = eval::trial_seed(run.seed, trial),
                              .depth = eval::trial_depth(trial, run.trials),
                              .length = run.length,
                              .size = 0,
                              .filler = run.filler};
    auto [prompt, answers] = fit_prompt(maker, *run.task, recipe, run.question_hidden);
    const size_t tokens = prompt.tokens();
    prompts.emplace_back(std::move(prompt), Trial{recipe.depth, tokens, 0, 0, {}, std::move(answers)});
  }
  return prompts;
}

}  // namespace

void check_prompts(const std::vector<std::string>& tasks, const std::vector<uint32_t>& lengths, bool has_text) {
  for (const std::string& name : tasks) {
    const eval::Task* task = eval::find_task(name);
    if (task == nullptr && name != eval::kStreamTask) {
      std::string all = eval::kStreamTask;
      for (const eval::Task* other : eval::tasks()) all += std::string(", ") + other->name;
      fail(LETHE_ERROR_INVALID_ARGUMENT, "--tasks names '%s'; there are %s", name.c_str(), all.c_str());
    }
    if ((task == nullptr || task->filler == eval::FillerUse::kRequired) && !has_text) {
      fail(LETHE_ERROR_INVALID_ARGUMENT, "%s needs a text: give one, such as --text book.txt", name.c_str());
    }
  }
  for (const uint32_t length : lengths) {
    if (length < 16) fail(LETHE_ERROR_INVALID_ARGUMENT, "--lengths has %u: at least 16 tokens", length);
  }
}

size_t most_text_bytes(uint32_t length) { return size_t{16} * length + (64 << 10); }

FittedPrompt fit_prompt(PromptMaker& maker, const eval::Task& task, const eval::Recipe& recipe, bool question_hidden) {
  const PromptStyle style{.templated = true, .asked_before = !question_hidden};
  size_t smallest = 0;
  std::optional<eval::Sample> sample =
      eval::fit(task, recipe, [&](const eval::Sample& tried) { return maker.make(tried, style).tokens(); }, &smallest);
  if (!sample) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--length is %u tokens; the shortest prompt of %s has %zu", recipe.length,
         task.name, smallest);
  }
  return {maker.make(*sample, style), std::move(sample->answers)};
}

Reply answer(api::Session& session, const Prompt& prompt, uint32_t reply_tokens) {
  const auto feed = [&](size_t begin, size_t end) {
    if (end > begin) check(session.feed(prompt.ids.data() + begin, end - begin));
  };
  feed(0, prompt.question_at);
  feed(prompt.question_at, prompt.ids.size());
  Reply reply{};
  double nll_sum = 0;
  size_t scored = 0;
  for (const RecallIds& recall : prompt.recalls) {
    check(session.feed(recall.cue.data(), recall.cue.size()));
    const Forced forced = force(session, recall.answer);
    reply.score += (forced.all_likeliest ? 1.0 : 0.0) / static_cast<double>(prompt.recalls.size());
    nll_sum += forced.nll_sum;
    scored += recall.answer.size();
  }
  if (!prompt.gold.empty()) {
    api::Session copy = check(session.fork());
    nll_sum = force(copy, prompt.gold).nll_sum;
    scored = prompt.gold.size();
  }
  reply.nll = nll_sum / static_cast<double>(scored);
  if (reply_tokens != 0) {
    lethe_generate_params params = api::generate_params();
    params.max_tokens = reply_tokens;
    check(session.generate([&](std::string_view piece, int32_t) { reply.text += piece; }, params));
  }
  return reply;
}

TaskResult run_task(const api::Model& model, TaskRun run, const std::function<void(uint32_t done)>& on_trial) {
  if (run.task->filler == eval::FillerUse::kRequired && run.filler == nullptr) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "%s hides its needles in a text: give one", run.task->name);
  }
  const uint64_t started = os::monotonic_ns();
  std::vector<std::pair<Prompt, Trial>> prompts = make_prompts(model, run);
  size_t reply_room = run.task->reply_tokens;
  for (const auto& [prompt, trial] : prompts) reply_room = std::max(reply_room, prompt.gold.size());

  const auto tokens = static_cast<uint32_t>(run.length + reply_room);
  fit_budget(model, run.kv_fraction, tokens, run.params);
  api::Session session = check(api::Session::create(model, run.params));
  TaskResult result{};
  for (auto& [prompt, trial] : prompts) {
    check(session.reset());
    const uint64_t evictions = session.stats().evictions;
    Reply reply = answer(session, prompt, run.task->reply_tokens);
    result.evictions += session.stats().evictions - evictions;
    trial.reply = std::move(reply.text);
    trial.nll = reply.nll;
    trial.score = run.task->score == nullptr ? reply.score : run.task->score(trial.answers, trial.reply);
    result.score.add(trial.score);
    result.nll.add(trial.nll);
    result.trials.push_back(std::move(trial));
    on_trial(static_cast<uint32_t>(result.trials.size()));
  }
  const lethe_memory memory = session.memory();
  result.kv_bytes = pool_bytes(memory);
  result.kv_share = static_cast<double>(result.kv_bytes) / static_cast<double>(full_cache_bytes(model, tokens));
  result.cache_tokens = memory.cache_tokens;
  result.policy = memory.policy;
  result.seconds = static_cast<double>(os::monotonic_ns() - started) * 1e-9;
  return result;
}

}  // namespace lethe::cli
