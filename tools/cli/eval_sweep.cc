// lethe eval sweep: tasks x policies x caps x lengths x seeds, by parallel workers over one mapped model; every
// finished cell is a line of a file, and what is there already is not run again.
#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <span>
#include <variant>

#include "runtime/cache/policy.h"
#include "runtime/os/file.h"
#include "runtime/os/process.h"
#include "tools/cli/commands.h"
#include "tools/cli/failure.h"
#include "tools/cli/input.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/kv_budget.h"
#include "tools/cli/options.h"
#include "tools/cli/parallel.h"
#include "tools/cli/stream_run.h"
#include "tools/cli/task_run.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"
#include "tools/eval/sweep.h"

namespace lethe::cli {
namespace {

using Json = nlohmann::ordered_json;

struct SweepOptions {
  std::string model, out;
  eval::SweepGrid grid{{"stream", "passkey"}, {"window", "keydiff"}, {1, 0.5, 0.25}, {1024}, {1}};
  uint32_t jobs = 0, trials = 8;
  std::optional<std::string> text_file, namm;
  bool json = false;
};

constexpr const char* kAllPolicies = "all";

// Throws invalid_argument with what there is.
void check_grid(const SweepOptions& options) {
  check_prompts(options.grid.tasks, options.grid.lengths, options.text_file.has_value());
  for (const std::string& name : options.grid.policies) {
    if (find_policy(name) != nullptr || name == kAllPolicies) continue;
    std::string all = kAllPolicies;
    for (const Policy* other : policies()) all += std::string(", ") + other->name;
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--policies names '%s'; there are %s", name.c_str(), all.c_str());
  }
  for (const double fraction : options.grid.kv_fractions) {
    if (!(fraction > 0) || fraction > 1) {
      fail(LETHE_ERROR_INVALID_ARGUMENT, "--kv-fractions has %g: above 0, at most 1", fraction);
    }
  }
  if (options.trials == 0) fail(LETHE_ERROR_INVALID_ARGUMENT, "--trials is 0: at least one");
}

// What the workers share; read only, but for the model, which any number of threads may use.
struct Bench {
  const api::Model& model;
  const SweepOptions& options;
  std::vector<int32_t> ids;  // of the text
  std::optional<int32_t> bos;
  std::optional<eval::Filler> filler;
  std::optional<NammFile> namm;
};

lethe_session_params cell_params(const Bench& bench, const eval::Cell& cell) {
  lethe_session_params params = full_cache_params(0, 1);  // the cap out of the way, one thread
  params.policy = cell.policy.c_str();
  params.prefill_chunk = 0;
  params.policy_seed = cell.seed;
  if (bench.namm) bench.namm->give_to(params);
  return params;
}

// Whether a learned policy could work: the model, or a NAMM file, has what it needs.
bool has_parameters(const Bench& bench, const Policy& policy) {
  if (!policy.is_learned) return true;
  eval::Cell cell{};
  cell.policy = policy.name;
  lethe_memory memory;
  return bench.model.plan(cell_params(bench, cell), &memory).ok();
}

// What became of a cell: members of its line.
using Outcome = std::variant<Json, Failure>;

Json stream_json(const StreamResult& result, bool is_full, uint64_t skip) {
  Json metrics = {{"nll", result.nll.mean()}};
  if (!is_full) {
    metrics["nll_over_full"] = result.over_full.mean();
    metrics["kl_to_full"] = result.kl.mean();
    metrics["top1_agreement"] = result.agreement.mean();
  }
  Json by_eighth = Json::array();
  for (const Mean& eighth : result.nll_by_eighth) by_eighth.push_back(eighth.mean());
  return {{"metrics", metrics},
          {"nll_by_eighth", by_eighth},
          {"skip", skip},
          {"kv_bytes", result.kv_bytes},
          {"cache_tokens", result.cache_tokens},
          {"evictions", result.stats.evictions},
          {"eviction_seconds", static_cast<double>(result.stats.eviction_ns) * 1e-9},
          {"seconds", result.seconds}};
}

// Cells of one stream: they are read beside each other, so that the full cache reads it once for all.
std::vector<Outcome> run_stream_cells(const Bench& bench, std::span<const eval::Cell> cells) {
  const eval::Cell& first = cells.front();
  if (bench.ids.size() < first.length) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "the text has %zu tokens, the stream is to have %u", bench.ids.size(),
         first.length);
  }
  const uint64_t skip = eval::trial_seed(first.seed, 0) % (bench.ids.size() - first.length + 1);
  const StreamLength length{first.length, first.length / 2, eval::kStreamStep};
  std::vector<Outcome> outcomes(cells.size());
  std::vector<std::unique_ptr<StreamReader>> readers;
  std::vector<size_t> of_reader;  // its cell
  bool compare = false;
  for (size_t i = 0; i < cells.size(); ++i) {
    try {
      readers.push_back(
          std::make_unique<StreamReader>(bench.model, length, cells[i].kv_fraction, cell_params(bench, cells[i])));
      of_reader.push_back(i);
      compare = compare || cells[i].policy != eval::kFullPolicy;
    } catch (const Failure& failure) {
      outcomes[i] = failure;
    }
  }
  run_stream(bench.model, length, stream_window(bench.ids, bench.bos, skip, first.length), readers, compare, 1,
             [](uint64_t) {});
  for (size_t r = 0; r < readers.size(); ++r) {
    const size_t i = of_reader[r];
    outcomes[i] = stream_json(readers[r]->result(), cells[i].policy == eval::kFullPolicy, skip);
  }
  return outcomes;
}

Json run_task_cell(const Bench& bench, const eval::Cell& cell) {
  const eval::Task& task = *eval::find_task(cell.task);
  const bool takes_text = task.filler != eval::FillerUse::kNone && bench.filler;
  const TaskRun run{&task,
                    cell.length,
                    bench.options.trials,
                    cell.seed,
                    true,
                    takes_text ? &*bench.filler : nullptr,
                    cell.kv_fraction,
                    cell_params(bench, cell)};
  const TaskResult result = run_task(bench.model, run, [](uint32_t) {});
  return {{"metrics", {{"accuracy", result.score.mean()}, {"answer_nll", result.nll.mean()}}},
          {"kv_bytes", result.kv_bytes},
          {"cache_tokens", result.cache_tokens},
          {"evictions", result.evictions},
          {"seconds", result.seconds}};
}

std::vector<Outcome> run_cells_of(const Bench& bench, std::span<const eval::Cell> cells) {
  try {
    if (cells.front().task == eval::kStreamTask) return run_stream_cells(bench, cells);
    return {run_task_cell(bench, cells.front())};
  } catch (const Failure& failed) {
    return std::vector<Outcome>(cells.size(), failed);
  } catch (const std::bad_alloc&) {
    return std::vector<Outcome>(cells.size(),
                                Failure{LETHE_ERROR_OUT_OF_MEMORY, "the system refused memory to the tool"});
  }
}

struct Tally {
  size_t run = 0, failed = 0;
  Failure first{};  // of the failed ones
};

// Runs the cells with `jobs` threads, those of one group one after the other or beside each other; every result is in
// the store before the next group of its thread begins. Throws when a result cannot be written.
Tally run_cells(const Bench& bench, const std::vector<std::vector<eval::Cell>>& groups,
                const eval::SweepSetting& setting, uint32_t jobs, eval::SweepStore& store) {
  Tally tally;
  std::mutex mutex;  // of the store, the tally and the progress
  size_t count = 0;
  for (const auto& group : groups) count += group.size();
  Progress progress("sweep", count);
  run_parallel(jobs, groups.size(), [&](size_t g) {
    const std::vector<eval::Cell>& group = groups[g];
    const std::vector<Outcome> outcomes = run_cells_of(bench, group);
    const std::lock_guard lock(mutex);
    for (size_t i = 0; i < group.size(); ++i) {
      const eval::Cell& cell = group[i];
      Json line = eval::identity(cell, setting);
      if (const auto* failure = std::get_if<Failure>(&outcomes[i])) {
        line["error"] = std::string(lethe_code_name(failure->code)) + ": " + failure->message;
        if (tally.failed++ == 0)
          tally.first = {failure->code, cell.task + ", " + cell.policy + ": " + failure->message};
      } else {
        line.update(std::get<Json>(outcomes[i]));
      }
      ++tally.run;
      check(store.append(line));
    }
    progress.update(tally.run, group.front().task + " " + group.front().policy);
  });
  return tally;
}

int sweep(SweepOptions& options) {
  check_grid(options);
  const uint64_t started = os::monotonic_ns();
  const api::Model model = check(api::Model::open(options.model.c_str()));
  Bench bench{model, options, {}, {}, {}, {}};
  if (options.namm) bench.namm.emplace(*options.namm);
  if (std::erase(options.grid.policies, kAllPolicies) != 0) {
    for (const Policy* policy : policies()) {
      if (has_parameters(bench, *policy)) options.grid.policies.emplace_back(policy->name);
    }
  }
  eval::add_controls(options.grid);
  eval::SweepSetting setting{
      std::filesystem::path(options.model).filename().string(), check(model.info()).file_bytes, {}, options.trials};
  if (bench.namm) setting.namm = name_and_checksum(*options.namm, bench.namm->data(), bench.namm->size());
  if (options.text_file) {
    const std::string text = read_text(*options.text_file);
    check_text("the text", text);
    setting.text = name_and_checksum(*options.text_file, text.data(), text.size());
    bench.ids = tokenize_text(model, text);
    bench.bos = bos_token(model);
    bench.filler.emplace(text);
    if (bench.filler->empty()) fail(LETHE_ERROR_INVALID_ARGUMENT, "the text is nothing but white space");
  }
  std::error_code error;
  std::filesystem::create_directories(options.out, error);
  if (error) fail(LETHE_ERROR_IO, "%s cannot be made: %s", options.out.c_str(), error.message().c_str());
  const std::string folder = options.out + "/";
  eval::SweepStore store;
  check(store.open(folder + "results.jsonl"));

  const std::vector<eval::Cell> all = eval::cells(options.grid);
  std::vector<eval::Cell> open;
  for (const eval::Cell& cell : all) {
    if (store.find(eval::identity(cell, setting)) == nullptr) open.push_back(cell);
  }
  const Tally tally = run_cells(bench, eval::groups_of(open), setting, job_count(options.jobs), store);

  const std::vector<eval::SweepRow> rows = eval::sweep_rows(all, setting, store);
  const std::string table = eval::results_table(rows, setting);
  const auto write = [&](const char* name, const std::string& text) {
    check(os::write_file((folder + name).c_str(), text.data(), text.size()));
  };
  write("results.json", eval::results_json(rows, setting));
  write("table.md", table);
  write("plot.svg", eval::results_plot(rows));
  const double seconds = static_cast<double>(os::monotonic_ns() - started) * 1e-9;
  if (options.json) {
    JsonWriter json;
    json.begin_object()
        .member("cells", all.size())
        .member("run", tally.run)
        .member("found", all.size() - open.size())
        .member("failed", tally.failed)
        .member("seconds", seconds)
        .end_object()
        .finish();
  } else {
    printf("%s\n%s cells: %s run in %.0f s, %s were there; %sresults.json, table.md, plot.svg\n", table.c_str(),
           with_separators(all.size()).c_str(), with_separators(tally.run).c_str(), seconds,
           with_separators(all.size() - open.size()).c_str(), folder.c_str());
  }
  if (tally.failed != 0) {
    print_error(tally.first.code,
                (std::to_string(tally.failed) + " cells failed; the first: " + tally.first.message).c_str());
    return 1;
  }
  return 0;
}

}  // namespace

void add_eval_sweep(CLI::App& eval, int& status) {
  auto options = std::make_shared<SweepOptions>();
  CLI::App& command = *eval.add_subcommand("sweep", "Tasks x policies x caps x lengths x seeds: table and plot");
  add_model(command, options->model);
  const auto add_list = [&](const char* name, auto& list, const char* help) {
    command.add_option(name, list, help)->delimiter(',')->capture_default_str();
  };
  add_list("--tasks", options->grid.tasks, "stream and tasks of lethe eval, separated by commas");
  add_list(
      "--policies", options->grid.policies,
      "policies, or all of them (namm if there are parameters for it); full, random and window run whatever is given");
  add_list("--kv-fractions", options->grid.kv_fractions, "caps, as shares of the full f16 cache's bytes");
  add_list("--lengths", options->grid.lengths, "tokens of a prompt, or of the stream (its second half is scored)");
  add_list("--seeds", options->grid.seeds, "seeds of the prompts, of the stream's place in the text, of the policy");
  command.add_option("--out", options->out, "folder of the results; a sweep goes on where it was stopped")->required();
  command.add_option("--text", options->text_file, "text that is streamed, and in which needles are hidden");
  command.add_option("--namm", options->namm, "NAMM file, the parameters of policy namm (default: those of the model)");
  command.add_option("--trials", options->trials, "prompts of a task in a cell")->capture_default_str();
  command.add_option("--jobs", options->jobs, "cells at a time, each with one thread (default: one a core)");
  add_json(command, options->json);
  command.footer(
      "Examples:\n"
      "  lethe eval sweep model.lethe --tasks stream,passkey,kvretrieval --policies window,keydiff --kv-fractions "
      "0.5,0.25\n"
      "      --lengths 1024,2048 --seeds 1,2,3 --text book.txt --out sweep\n"
      "Every finished cell is one line of OUT/results.jsonl; the same command goes on after Ctrl-C or a crash. At the "
      "end\nOUT/results.json, table.md and plot.svg. Questions are hidden (--question-hidden of the tasks).");
  command.callback([options, &status] { status = sweep(*options); });
}

}  // namespace lethe::cli
