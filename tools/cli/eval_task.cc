// lethe eval TASK: what a cache under a cap still knows of a long prompt.
#include <CLI/CLI.hpp>
#include <memory>

#include "tools/cli/commands.h"
#include "tools/cli/failure.h"
#include "tools/cli/input.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/kv_budget.h"
#include "tools/cli/options.h"
#include "tools/cli/process_share.h"
#include "tools/cli/task_run.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"

namespace lethe::cli {
namespace {

struct TaskOptions {
  std::string model;
  uint32_t length = 1024, trials = 8;
  uint64_t seed = 0;
  std::optional<double> kv_fraction;
  bool question_hidden = false;
  std::optional<std::string> filler_file;
  SessionOptions session;
  bool json = false;
};

std::string percent(double share) {
  char text[16];
  snprintf(text, sizeof text, "%.1f %%", 100 * share);
  return text;
}

std::string decimals(double value, int digits) {
  char text[32];
  snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

void write_result(const TaskOptions& options, const TaskRun& run, const TaskResult& result) {
  Mean tokens;
  for (const Trial& trial : result.trials) tokens.add(static_cast<double>(trial.tokens));
  JsonWriter json;
  json.begin_object()
      .member("task", run.task->name)
      .member("accuracy", result.score.mean())
      .member("accuracy_stderr", result.score.standard_error())
      .member("trials", run.trials)
      .member("answer_nll", result.nll.mean())
      .member("answer_nll_stderr", result.nll.standard_error())
      .member("length", run.length)
      .member("mean_length", tokens.mean())
      .member("seed", run.seed)
      .member("question_hidden", run.question_hidden)
      .member("filler", run.filler == nullptr ? "the task's own" : options.filler_file->c_str())
      .member("policy", result.policy)
      .member("kv_bytes_peak", result.kv_bytes)
      .member("kv_share_of_full", result.kv_share)
      .member("cache_tokens", result.cache_tokens)
      .member("evictions", result.evictions)
      .member("seconds", result.seconds);
  json.key("results").begin_array();
  for (const Trial& trial : result.trials) {
    json.begin_object();
    if (run.task->has_depth) json.member("depth", trial.depth);
    json.member("tokens", trial.tokens).member("score", trial.score).member("nll", trial.nll);
    json.member("reply", trial.reply);
    json.key("answers").begin_array();
    for (const std::string& answer : trial.answers) json.value(answer);
    json.end_array().end_object();
  }
  json.end_array().end_object().finish();
}

void print_result(const TaskRun& run, const TaskResult& result) {
  printf("%s, seed %llu, %s\n\n", run.task->name, static_cast<unsigned long long>(run.seed),
         run.question_hidden ? "asked after the context" : "asked before and after the context");
  Table table({"trial", "depth", "tokens", "score", "nll of the answer"});
  for (size_t i = 0; i < result.trials.size(); ++i) {
    const Trial& trial = result.trials[i];
    table.row({std::to_string(i + 1), run.task->has_depth ? percent(trial.depth) : "-", with_separators(trial.tokens),
               decimals(trial.score, 2), decimals(trial.nll, 3)});
  }
  table.print();
  printf("\naccuracy %s of %u trials, nll of the right answer %.3f nats per token\n",
         percent(result.score.mean()).c_str(), run.trials, result.nll.mean());
  printf("cache: policy %s, %s tokens, %s (%s of the full one), %s evictions\n", result.policy,
         with_separators(result.cache_tokens).c_str(), human_bytes(result.kv_bytes).c_str(),
         percent(result.kv_share).c_str(), with_separators(result.evictions).c_str());
}

int run_command(TaskOptions& options, const eval::Task& task) {
  if (options.trials == 0) fail(LETHE_ERROR_INVALID_ARGUMENT, "--trials is 0: at least one");
  check_budget(options.kv_fraction, options.session);
  std::optional<eval::Filler> filler;
  if (options.filler_file) {
    const std::string text = read_text(*options.filler_file);
    check_text("the filler", text);
    filler.emplace(text);
    if (filler->empty()) fail(LETHE_ERROR_INVALID_ARGUMENT, "the filler is nothing but white space");
  } else if (task.filler == eval::FillerUse::kRequired) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "%s hides its needles in a text: give one, such as --filler book.txt",
         task.name);
  }
  const lethe_session_params params = options.session.params(host_bytes(0));
  const api::Model model = check(api::Model::open(options.model.c_str()));
  const TaskRun run{&task,
                    options.length,
                    options.trials,
                    options.seed,
                    options.question_hidden,
                    filler ? &*filler : nullptr,
                    options.kv_fraction,
                    params};
  const TaskResult result = [&] {
    Progress progress(task.name, options.trials);
    return run_task(model, run, [&](uint32_t done) { progress.update(done); });
  }();
  if (options.json) {
    write_result(options, run, result);
  } else {
    print_result(run, result);
  }
  return 0;
}

void add_task(CLI::App& eval, const eval::Task& task, int& status) {
  auto options = std::make_shared<TaskOptions>();
  CLI::App& command = *eval.add_subcommand(task.name, task.summary);
  add_model(command, options->model);
  command.add_option("--length", options->length, "tokens of a prompt: at most, and as many as the haystack allows")
      ->capture_default_str();
  command.add_option("--trials", options->trials, "prompts; what they ask for lies at depths spread evenly")
      ->capture_default_str();
  command.add_option("--seed", options->seed, "same seed, same prompts, on every machine")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command.add_option(
      "--kv-fraction", options->kv_fraction,
      "cap the cache's bytes, policy state included, at this share of the full f16 cache of a prompt and "
      "its reply");
  command.add_flag("--question-hidden", options->question_hidden,
                   "ask only after the context. Without it the question stands in front of the context, too, so that "
                   "what is forgotten on the way is forgotten knowing it");
  if (task.filler != eval::FillerUse::kNone) {
    command.add_option("--filler", options->filler_file,
                       task.filler == eval::FillerUse::kRequired
                           ? "text file to hide the needles in (- is standard input)"
                           : "text file to hide the needle in, in place of five repeated sentences");
  }
  options->session.add_to(command);
  add_json(command, options->json);
  const std::string filler = task.filler == eval::FillerUse::kRequired ? " --filler book.txt" : "";
  command.footer(
      "Example:\n  lethe eval " + std::string(task.name) +
      " model.lethe --length 2048 --trials 8 --seed 1 "
      "--policy keydiff --kv-fraction 0.25 --question-hidden" +
      filler +
      " --json\n"
      "Decoding is greedy; the chat template is used where the model has one. accuracy is the benchmark's own "
      "score, answer_nll the likelihood of the right answer (docs/evaluation.md).");
  command.callback([options, &task, &status] { status = run_command(*options, task); });
}

}  // namespace

void add_eval_tasks(CLI::App& eval, int& status) {
  for (const eval::Task* task : eval::tasks()) add_task(eval, *task, status);
}

}  // namespace lethe::cli
