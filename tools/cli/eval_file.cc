// lethe eval file: LongBench, InfiniteBench, ChouBun and SCROLLS from files that the user brings.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>

#include "runtime/base/utf8.h"
#include "runtime/os/process.h"
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
#include "tools/eval/file_task.h"
#include "tools/eval/metrics.h"

namespace lethe::cli {
namespace {

struct FileOptions {
  std::string model, format, task, data;
  std::optional<uint32_t> samples, max_length;
  std::optional<double> kv_fraction;
  SessionOptions session;
  bool json = false;
};

const eval::FileTask& chosen_task(const FileOptions& options) {
  if (const eval::FileTask* task = eval::find_file_task(options.format, options.task)) return *task;
  std::string names, formats;
  for (const eval::FileTask& task : eval::file_tasks()) {
    if (task.format == options.format) names += (names.empty() ? "" : ", ") + std::string(task.name);
    if (formats.find(task.format) == std::string::npos) {
      formats += (formats.empty() ? "" : ", ") + std::string(task.format);
    }
  }
  if (names.empty()) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--format is '%s'; it can be %s", options.format.c_str(), formats.c_str());
  }
  fail(LETHE_ERROR_INVALID_ARGUMENT, "--task is '%s'; %s has %s", options.task.c_str(), options.format.c_str(),
       names.c_str());
}

// The text of tokens; a character that the ends cut is replaced.
std::string text_of(const api::Model& model, std::span<const int32_t> ids) {
  std::string bytes;
  for (const int32_t id : ids) bytes += model.token_bytes(id);
  std::string text(3 * bytes.size(), '\0');
  text.resize(utf8::replace_invalid(bytes, text));
  return text;
}

// Cuts the middle out of contexts, so that no prompt has more than `most` tokens. Returns how many were cut.
size_t cut_contexts(const api::Model& model, std::vector<eval::FileSample>& samples, size_t most) {
  PromptMaker maker(model, 0);
  size_t cut = 0;
  for (eval::FileSample& sample : samples) {
    const std::vector<int32_t> context = maker.tokenize(sample.context, 0);
    const size_t question = maker.tokenize(sample.question, 0).size();
    if (context.size() + question <= most) continue;
    if (question >= most) {
      fail(LETHE_ERROR_INVALID_ARGUMENT, "--max-length is %zu tokens; a question alone has %zu", most, question);
    }
    const size_t kept = most - question, front = kept / 2;
    const std::span<const int32_t> ids(context);
    sample.context = text_of(model, ids.first(front)) + text_of(model, ids.last(kept - front));
    ++cut;
  }
  return cut;
}

double geometric_mean(const std::vector<double>& parts) {
  double product = 1;
  for (const double part : parts) product *= part;
  return std::pow(product, 1 / static_cast<double>(parts.size()));
}

struct FileResult {
  std::vector<Mean> parts;
  std::vector<double> scores;  // of the samples
  std::vector<std::string> replies;
  Mean tokens, kv_share;
  uint64_t kv_bytes_peak = 0, evictions = 0;
  size_t cut = 0;
  double seconds = 0;

  // In per cent, as the benchmarks report it.
  double score() const {
    std::vector<double> means;
    for (const Mean& part : parts) means.push_back(part.mean());
    return 100 * geometric_mean(means);
  }
};

FileResult run_samples(const api::Model& model, const FileOptions& options, const eval::FileTask& task,
                       std::vector<eval::FileSample> samples) {
  const uint64_t started = os::monotonic_ns();
  FileResult result;
  const lethe_model_info info = check(model.info());
  const uint32_t reserved = task.reply_tokens + 64;  // and what a template puts around the prompt
  const uint32_t most = options.max_length.value_or(info.context_length > 2 * reserved ? info.context_length - reserved
                                                                                       : info.context_length / 2);
  result.cut = cut_contexts(model, samples, most);
  size_t text_bytes = 0;
  for (const eval::FileSample& sample : samples) {
    text_bytes = std::max(text_bytes, sample.context.size() + sample.question.size());
  }
  PromptMaker maker(model, text_bytes + 4096);
  Progress progress(task.name, samples.size());
  for (const eval::FileSample& sample : samples) {
    eval::Sample text{};
    text.context = sample.context;
    text.question = sample.question;
    const Prompt prompt = maker.make(text, {.templated = task.templated, .asked_before = false});
    const auto tokens = static_cast<uint32_t>(prompt.tokens() + task.reply_tokens);
    lethe_session_params params = options.session.params(host_bytes(0));
    fit_budget(model, options.kv_fraction, tokens, params);
    api::Session session = check(api::Session::create(model, params));
    Reply reply = answer(session, prompt, task.reply_tokens);
    const std::string_view counted = task.first_line ? eval::first_line(reply.text) : std::string_view(reply.text);
    const std::vector<double> parts = task.score(sample, counted);
    result.parts.resize(parts.size());
    for (size_t i = 0; i < parts.size(); ++i) result.parts[i].add(parts[i]);
    result.scores.push_back(geometric_mean(parts));
    result.replies.push_back(std::move(reply.text));
    result.tokens.add(static_cast<double>(prompt.tokens()));
    const uint64_t kv_bytes = pool_bytes(session.memory());
    result.kv_bytes_peak = std::max(result.kv_bytes_peak, kv_bytes);
    result.kv_share.add(static_cast<double>(kv_bytes) / static_cast<double>(full_cache_bytes(model, tokens)));
    result.evictions += session.stats().evictions;
    progress.update(result.scores.size());
  }
  result.seconds = static_cast<double>(os::monotonic_ns() - started) * 1e-9;
  return result;
}

void write_result(const FileOptions& options, const FileResult& result) {
  JsonWriter json;
  json.begin_object()
      .member("format", options.format)
      .member("task", options.task)
      .member("score", result.score())
      .member("samples", result.scores.size())
      .member("cut_samples", result.cut)
      .member("mean_length", result.tokens.mean())
      .member("policy", options.session.params(0).policy)
      .member("kv_bytes_peak", result.kv_bytes_peak)
      .member("kv_share_of_full", result.kv_share.mean())
      .member("evictions", result.evictions)
      .member("seconds", result.seconds);
  json.key("results").begin_array();
  for (size_t i = 0; i < result.scores.size(); ++i) {
    json.begin_object().member("score", result.scores[i]).member("reply", result.replies[i]).end_object();
  }
  json.end_array().end_object().finish();
}

int run_file(FileOptions& options) {
  const eval::FileTask& task = chosen_task(options);
  check_budget(options.kv_fraction, options.session);
  Result<std::vector<eval::FileSample>> loaded = eval::load_samples(task, read_text(options.data));
  check(loaded.status());
  std::vector<eval::FileSample> samples = std::move(loaded).value();
  if (options.samples && samples.size() > *options.samples) samples.resize(*options.samples);
  if (samples.empty()) fail(LETHE_ERROR_INVALID_ARGUMENT, "%s: no sample to run", options.data.c_str());
  const api::Model model = check(api::Model::open(options.model.c_str()));
  const FileResult result = run_samples(model, options, task, std::move(samples));
  if (options.json) {
    write_result(options, result);
    return 0;
  }
  printf("%s %s: %.2f over %s samples of %.0f tokens in the mean (%s cut in the middle), %.0f s\n",
         options.format.c_str(), options.task.c_str(), result.score(), with_separators(result.scores.size()).c_str(),
         result.tokens.mean(), with_separators(result.cut).c_str(), result.seconds);
  printf("cache: %s at most (%.1f %% of the full one in the mean), %s evictions\n",
         human_bytes(result.kv_bytes_peak).c_str(), 100 * result.kv_share.mean(),
         with_separators(result.evictions).c_str());
  return 0;
}

}  // namespace

void add_eval_file(CLI::App& eval, int& status) {
  auto options = std::make_shared<FileOptions>();
  CLI::App& command = *eval.add_subcommand("file", "LongBench, InfiniteBench, ChouBun, SCROLLS from a file of yours");
  add_model(command, options->model);
  command.add_option("--format", options->format, "longbench, infinitebench, choubun or scrolls")->required();
  command.add_option("--task", options->task, "data set, as the benchmark calls it: narrativeqa, kv_retrieval, ...")
      ->required();
  command.add_option("--data", options->data, "JSONL file, a sample a line (- is standard input)")->required();
  command.add_option("--samples", options->samples, "run only the first ones (default: all)");
  command.add_option("--max-length", options->max_length,
                     "tokens of a prompt; longer contexts lose their middle (default: the trained length less the "
                     "reply)");
  command.add_option(
      "--kv-fraction", options->kv_fraction,
      "cap the cache's bytes, policy state included, at this share of the full f16 cache of a prompt and "
      "its reply");
  options->session.add_to(command);
  add_json(command, options->json);
  command.footer(
      "Examples:\n"
      "  lethe eval file model.lethe --format longbench --task hotpotqa --data hotpotqa.jsonl --policy keydiff "
      "--kv-fraction 0.25\n"
      "  lethe eval file model.lethe --format scrolls --task qasper --data validation.jsonl --policy full --ram 2GiB "
      "--json\n"
      "Prompts, longest replies and metrics are the benchmark's; the score is in per cent. The question is fed after "
      "the\n"
      "context. docs/evaluation.md says where a metric is an approximation (words of Chinese and Japanese).");
  command.callback([options, &status] { status = run_file(*options); });
}

}  // namespace lethe::cli
