#include "tools/cli/evolve_fitness.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "runtime/sample/random.h"
#include "tools/cli/failure.h"
#include "tools/cli/kv_budget.h"
#include "tools/cli/stream_run.h"
#include "tools/cli/task_run.h"

namespace lethe::cli {
namespace {

constexpr uint32_t kLogitRows = 16;  // of a stream: one by one the output layer would read its weights for each

EvolvePrompt make_stream(const eval::Cell& cell, const Corpus& corpus) {
  if (corpus.ids.size() < cell.length) {
    fail(LETHE_ERROR_INVALID_ARGUMENT,
         "a part of the text has %zu tokens, streams are to have %u: give a longer text (one token in ten is held out)",
         corpus.ids.size(), cell.length);
  }
  const uint64_t skip = eval::trial_seed(cell.seed, 0) % (corpus.ids.size() - cell.length + 1);
  EvolvePrompt out{cell, nullptr, {}, {}};
  out.prompt.ids = stream_window(corpus.ids, corpus.bos, skip, cell.length);
  return out;
}

EvolvePrompt make_task(const eval::Cell& cell, const eval::Task& task, const Corpus* corpus, PromptMaker& maker) {
  const bool takes_text = task.filler != eval::FillerUse::kNone && corpus != nullptr;
  Random random(cell.seed);
  const double depth = random.uniform();
  const eval::Recipe recipe{random.next(), depth, cell.length, 0, takes_text ? &corpus->filler : nullptr};
  auto [prompt, answers] = fit_prompt(maker, task, recipe, true);
  return {cell, &task, std::move(prompt), std::move(answers)};
}

// Most tokens of a prompt with its reply: what a cap is a share of.
uint32_t all_tokens(const EvolvePrompt& prompt) {
  if (prompt.task == nullptr) return prompt.cell.length;
  return prompt.cell.length +
         static_cast<uint32_t>(std::max<size_t>(prompt.task->reply_tokens, prompt.prompt.gold.size()));
}

Worth measure(const api::Model& model, const EvolvePrompt& prompt, Signal signal, lethe_session_params params) {
  if (prompt.task == nullptr) params.logit_rows = kLogitRows;
  api::Session session = check(api::Session::create(model, params));
  if (prompt.task == nullptr) {
    const std::vector<int32_t>& ids = prompt.prompt.ids;
    std::vector<float> log_probs(ids.size() - ids.size() / 2);
    check(session.score(ids.data(), ids.size(), ids.size() / 2, log_probs.data()));
    const double nll =
        -std::accumulate(log_probs.begin(), log_probs.end(), 0.0) / static_cast<double>(log_probs.size());
    return {nll, std::exp(-nll)};
  }
  const bool replies = signal == Signal::kScore;
  const Reply reply = answer(session, prompt.prompt, replies ? prompt.task->reply_tokens : 0);
  if (prompt.task->score == nullptr) return {reply.nll, reply.score};
  return {reply.nll, replies ? prompt.task->score(prompt.answers, reply.text) : NAN};
}

}  // namespace

std::vector<EvolvePrompt> make_evolve_prompts(const api::Model& model, const std::vector<std::string>& tasks,
                                              const std::vector<uint32_t>& lengths, const Corpus* corpus, uint64_t seed,
                                              uint32_t count) {
  PromptMaker maker(model, most_text_bytes(*std::max_element(lengths.begin(), lengths.end())));
  std::vector<EvolvePrompt> prompts;
  for (uint32_t i = 0; i < count; ++i) {
    const eval::Cell cell{tasks[i % tasks.size()], eval::kFullPolicy, 1, lengths[i / tasks.size() % lengths.size()],
                          eval::trial_seed(seed, i)};
    const eval::Task* task = eval::find_task(cell.task);
    prompts.push_back(task == nullptr ? make_stream(cell, *corpus) : make_task(cell, *task, corpus, maker));
  }
  return prompts;
}

Worth measure_full(const api::Model& model, const EvolvePrompt& prompt, Signal signal) {
  return measure(model, prompt, signal, full_cache_params(all_tokens(prompt), 1));
}

Worth measure_namm(const api::Model& model, const EvolvePrompt& prompt, Signal signal, double kv_fraction,
                   std::span<const uint8_t> namm) {
  lethe_session_params params = full_cache_params(0, 1);
  params.policy = "namm";
  params.prefill_chunk = 0;
  params.namm = namm.data();
  params.namm_bytes = namm.size();
  fit_budget(model, kv_fraction, all_tokens(prompt), params);
  return measure(model, prompt, signal, params);
}

double fitness_of(Signal signal, std::span<const EvolvePrompt> prompts, std::span<const Worth> worths,
                  std::span<const Worth> full) {
  if (signal != Signal::kScore) {
    double sum = 0;
    for (size_t i = 0; i < prompts.size(); ++i) {
      const double gain = full[i].nll - worths[i].nll;
      sum += signal == Signal::kNll ? gain : std::exp(std::min(gain, 0.0));
    }
    return sum / static_cast<double>(prompts.size());
  }
  struct Sums {
    double own = 0, full = 0, prompts = 0;
  };
  std::map<std::string, Sums> tasks;
  for (size_t i = 0; i < prompts.size(); ++i) {
    Sums& sums = tasks[prompts[i].cell.task];
    sums.own += worths[i].score;
    sums.full += full[i].score;
    ++sums.prompts;
  }
  double ratios = 0, weight = 0;
  for (const auto& [task, sums] : tasks) {
    if (sums.full == 0) continue;
    ratios += sums.prompts * sums.own / sums.full;
    weight += sums.prompts;
  }
  return weight == 0 ? 0 : ratios / weight;
}

}  // namespace lethe::cli
