// lethe profile heads: what a model's heads look at, and which of them need no cache of everything.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <vector>

#include "runtime/os/process.h"
#include "tools/cli/commands.h"
#include "tools/cli/eval_prompt.h"
#include "tools/cli/failure.h"
#include "tools/cli/input.h"
#include "tools/cli/interrupt.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/options.h"
#include "tools/cli/task_run.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"
#include "tools/profile/head_profile.h"

namespace lethe::cli {
namespace {

constexpr double kThresholds[] = {0.5, 0.7, 0.8, 0.9, 0.95};

struct HeadsOptions {
  std::string model;
  std::vector<std::string> texts, tasks;
  profile::RecencyOptions recency;
  uint32_t sequences = 16;
  uint64_t seed = 0;
  std::optional<uint32_t> groups;
  std::optional<double> beta, save;
  std::optional<std::string> plan, plot;
  bool json = false;
};

void check_options(const HeadsOptions& options) {
  if (options.texts.empty() && options.tasks.empty()) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "nothing to read: give --text FILE or --task NAME, best several of both");
  }
  const int wishes = int{options.groups.has_value()} + int{options.beta.has_value()} + int{options.save.has_value()};
  if (wishes > 1) fail(LETHE_ERROR_INVALID_ARGUMENT, "--groups, --beta and --save each say how many: give one");
  if (options.plan && wishes == 0) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--plan: say how many KV heads get a window, by --groups, --beta or --save");
  }
  if (options.sequences == 0) fail(LETHE_ERROR_INVALID_ARGUMENT, "--sequences is 0: at least one");
}

using Sequences = std::vector<std::vector<int32_t>>;
struct Source {
  std::string name;
  Sequences sequences;
};

// Stretches of a text, spread evenly over it; BOS, if the model wants it, stands in place of the first token of each.
Sequences cut_text(const HeadsOptions& options, const std::string& path, const profile::RecencyMeter& meter) {
  const std::string text = read_text(path);
  check_text(path.c_str(), text);
  std::vector<int32_t> all, start;
  check(meter.tokenize(text, &all));
  check(meter.tokenize("", &start));
  const size_t length = options.recency.tokens;
  if (all.size() < length) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "%s has %zu tokens: fewer than a sequence of --tokens %zu", path.c_str(),
         all.size(), length);
  }
  const size_t count = std::min<size_t>(options.sequences, all.size() / length);
  Sequences sequences;
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = count == 1 ? 0 : i * (all.size() - length) / (count - 1);
    std::vector<int32_t> ids(all.begin() + static_cast<ptrdiff_t>(begin),
                             all.begin() + static_cast<ptrdiff_t>(begin + length));
    std::ranges::copy(start, ids.begin());
    sequences.push_back(std::move(ids));
  }
  return sequences;
}

// Prompts of a task with their right answers.
Sequences make_prompts(const HeadsOptions& options, const std::string& name, const eval::Filler* filler) {
  const eval::Task* task = eval::find_task(name);
  if (task == nullptr) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--task: there is no task '%s' ('lethe eval --help' lists them)", name.c_str());
  }
  if (task->filler == eval::FillerUse::kRequired && filler == nullptr) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--task %s hides its needles in a text: give --text, too", task->name);
  }
  const api::Model model = check(api::Model::open(options.model.c_str()));
  PromptMaker maker(model, most_text_bytes(options.recency.tokens));
  Sequences sequences;
  for (uint32_t trial = 0; trial < options.sequences; ++trial) {
    const eval::Recipe recipe{.seed = eval::trial_seed(options.seed, trial),
                              .depth = eval::trial_depth(trial, options.sequences),
                              .length = options.recency.tokens - std::min(task->reply_tokens, options.recency.tokens),
                              .size = 0,
                              .filler = filler};
    Prompt prompt = fit_prompt(maker, *task, recipe, false).prompt;
    std::vector<int32_t>& ids = prompt.ids;
    for (const RecallIds& recall : prompt.recalls) {
      ids.insert(ids.end(), recall.cue.begin(), recall.cue.end());
      ids.insert(ids.end(), recall.answer.begin(), recall.answer.end());
    }
    ids.insert(ids.end(), prompt.gold.begin(), prompt.gold.end());
    ids.resize(std::min<size_t>(ids.size(), options.recency.tokens));
    sequences.push_back(std::move(ids));
  }
  return sequences;
}

profile::HeadProfile measure(const HeadsOptions& options, const Model& model) {
  profile::RecencyMeter meter(model);
  check(meter.open(options.recency));
  std::vector<Source> sources;
  for (const std::string& path : options.texts) sources.push_back({path, cut_text(options, path, meter)});
  std::optional<eval::Filler> filler;
  if (!options.tasks.empty() && !options.texts.empty()) filler.emplace(read_text(options.texts[0]));
  for (const std::string& name : options.tasks) {
    sources.push_back({name, make_prompts(options, name, filler ? &*filler : nullptr)});
  }
  size_t total = 0, done = 0;
  for (const Source& source : sources) total += source.sequences.size();
  Progress progress("reading", total);
  profile::HeadProfile profile{model.config(), options.recency, {}};
  for (const Source& source : sources) {
    meter.clear();
    uint32_t tokens = 0;
    for (const std::vector<int32_t>& ids : source.sequences) {
      if (interrupted()) fail(LETHE_ERROR_CANCELLED, "interrupted; nothing was written");
      check(meter.read(ids));
      tokens += static_cast<uint32_t>(ids.size());
      progress.update(++done, source.name);
    }
    profile.domains.push_back({source.name, static_cast<uint32_t>(source.sequences.size()), tokens, meter.ratios()});
  }
  return profile;
}

bool has_window(const HeadPlan& plan, uint32_t layer, uint32_t kv_head) {
  return std::ranges::any_of(plan.windows, [&](const auto& w) { return w.layer == layer && w.kv_head == kv_head; });
}

void write_json(const profile::HeadProfile& profile, const HeadPlan& plan) {
  const ModelConfig& config = profile.config;
  JsonWriter json;
  json.begin_object().member("window", profile.options.window).member("sinks", profile.options.sinks);
  json.key("domains").begin_array();
  for (const profile::Domain& domain : profile.domains) {
    json.begin_object()
        .member("name", domain.name)
        .member("sequences", domain.sequences)
        .member("tokens", domain.tokens)
        .end_object();
  }
  json.end_array().key("heads").begin_array();
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    for (uint32_t head = 0; head < config.heads; ++head) {
      const profile::Recency ratio = profile.head(layer, head);
      json.begin_object()
          .member("layer", layer)
          .member("head", head)
          .member("recency", ratio.near)
          .member("recency_with_sinks", ratio.near_or_first);
      json.key("by_domain").begin_array();
      for (const profile::Domain& domain : profile.domains) {
        json.value(domain.ratios[uint64_t{layer} * config.heads + head].near_or_first);
      }
      json.end_array().end_object();
    }
  }
  json.end_array().key("groups").begin_array();
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    for (uint32_t kv_head = 0; kv_head < config.kv_heads; ++kv_head) {
      const profile::Recency ratio = profile.group(layer, kv_head);
      json.begin_object()
          .member("layer", layer)
          .member("kv_head", kv_head)
          .member("recency", ratio.near)
          .member("recency_with_sinks", ratio.near_or_first)
          .member("window", has_window(plan, layer, kv_head))
          .end_object();
    }
  }
  json.end_array()
      .member("windows", plan.windows.size())
      .member("saved_share", profile::saved_share(config, plan))
      .end_object()
      .finish();
}

std::string decimals(double value) {
  char text[32];
  snprintf(text, sizeof text, "%.2f", value);
  return text;
}

// How many heads, and whole KV heads, lie above each threshold.
void print_counts(const profile::HeadProfile& profile) {
  const ModelConfig& config = profile.config;
  std::vector<std::string> head{"heads / KV heads with a share"};
  for (const double threshold : kThresholds) head.push_back("> " + decimals(threshold));
  Table table(head);
  const auto count = [&](double profile::Recency::* ratio, const std::string& name) {
    std::vector<std::string> row{name};
    for (const double threshold : kThresholds) {
      uint32_t heads = 0, groups = 0;
      for (uint32_t layer = 0; layer < config.layers; ++layer) {
        for (uint32_t i = 0; i < config.heads; ++i) heads += profile.head(layer, i).*ratio > threshold ? 1 : 0;
        for (uint32_t i = 0; i < config.kv_heads; ++i) groups += profile.group(layer, i).*ratio > threshold ? 1 : 0;
      }
      row.push_back(std::to_string(heads) + " / " + std::to_string(groups));
    }
    table.row(row);
  };
  const std::string last = "of the last " + std::to_string(profile.options.window);
  count(&profile::Recency::near, last);
  count(&profile::Recency::near_or_first, last + " and the first " + std::to_string(profile.options.sinks));
  table.print();
}

void print(const profile::HeadProfile& profile, const HeadPlan& plan) {
  const ModelConfig& config = profile.config;
  printf("%u layers of %u query heads, %u KV heads; the least of", config.layers, config.heads, config.kv_heads);
  for (const profile::Domain& domain : profile.domains) {
    printf("%s %s (%u x %u tokens)", &domain == &profile.domains[0] ? "" : ",", domain.name.c_str(), domain.sequences,
           domain.tokens / domain.sequences);
  }
  puts("\n");
  print_counts(profile);
  printf("\nKV heads, by the last %u and the first %u tokens (*: gets a window)\n\n", profile.options.window,
         profile.options.sinks);
  std::vector<std::string> head{"layer"};
  for (uint32_t i = 0; i < config.kv_heads; ++i) head.push_back("KV " + std::to_string(i));
  Table table(head);
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    std::vector<std::string> row{std::to_string(layer)};
    for (uint32_t i = 0; i < config.kv_heads; ++i) {
      row.push_back(decimals(profile.group(layer, i).near_or_first) + (has_window(plan, layer, i) ? "*" : " "));
    }
    table.row(row);
  }
  table.print();
  if (plan.windows.empty()) return;
  printf("\n%zu of %u KV heads get a window: %.1f %% less cache at %s tokens\n", plan.windows.size(),
         config.layers * config.kv_heads, 100 * profile::saved_share(config, plan),
         with_separators(config.context_length).c_str());
}

int profile_heads(HeadsOptions& options) {
  check_options(options);
  if (options.recency.threads == 0)
    options.recency.threads = std::min(os::fast_core_count(), cpu::ThreadPool::kMaxThreads);
  auto opened = Model::open(options.model.c_str());
  check(opened.status());
  const std::unique_ptr<Model, void (*)(Model*)> model(opened.value(), Model::close);
  const profile::HeadProfile profile = [&] {
    const InterruptGuard guard(nullptr);
    return measure(options, *model);
  }();
  profile::Wish wish{options.groups, options.beta, options.save};
  if (wish.share) *wish.share /= 100;
  const HeadPlan plan = profile::choose_windows(profile, wish);
  if (options.plan) write_whole(*options.plan, head_plan_json(plan));
  if (options.plot) write_whole(*options.plot, profile::heat_map(profile, plan));
  if (options.json) {
    write_json(profile, plan);
  } else {
    print(profile, plan);
  }
  return 0;
}

}  // namespace

void add_profile_heads(CLI::App& profile, int& status) {
  auto options = std::make_shared<HeadsOptions>();
  options->recency.threads = 0;
  CLI::App& command = *profile.add_subcommand("heads", "Which heads look only nearby, and could do with a window");
  add_model(command, options->model);
  command.add_option("--text", options->texts, "text file; every one is a kind of text of its own (may be repeated)")
      ->expected(1)
      ->take_all();
  command
      .add_option(
          "--task", options->tasks,
          "a task of 'lethe eval' as a kind of text, such as mqar or passkey: where something is looked up (may "
          "be repeated)")
      ->expected(1)
      ->take_all();
  command.add_option("--window", options->recency.window, "tokens that count as near, the query's own included")
      ->capture_default_str();
  command.add_option("--sinks", options->recency.sinks, "first tokens that a window keeps")->capture_default_str();
  command.add_option("--tokens", options->recency.tokens, "of a sequence that is read at once")->capture_default_str();
  command.add_option("--sequences", options->sequences, "of every kind, at most")->capture_default_str();
  command.add_option("--seed", options->seed, "of the tasks")->capture_default_str()->check(CLI::NonNegativeNumber);
  command.add_option("--threads", options->recency.threads, "threads (default: the fast cores)");
  command.add_option("--groups", options->groups, "give a window to this many KV heads, the most local ones");
  command.add_option("--beta", options->beta, "give a window to all KV heads with a share above this")
      ->check(CLI::Range(0.0, 1.0));
  command.add_option("--save", options->save, "give a window to as many KV heads as save this much of a long cache")
      ->type_name("PERCENT")
      ->check(CLI::Range(0.0, 100.0));
  command.add_option("--plan", options->plan, "write the head plan to this file")->type_name("FILE");
  command.add_option("--plot", options->plot, "write a picture (SVG) of all heads to this file")->type_name("FILE");
  add_json(command, options->json);
  command.footer(
      "Examples:\n"
      "  lethe profile heads model.lethe --text book.txt --task mqar\n"
      "  lethe profile heads model.lethe --text book.txt --text code.txt --task mqar --task kvretrieval --groups 30 "
      "--plan heads.json --plot heads.svg\n"
      "  lethe profile heads model.lethe --text book.txt --task mqar --save 25 --plan heads.json --json\n"
      "A KV head counts by the least local of the query heads that share it, over the least local kind of text.");
  command.callback([options, &status] { status = profile_heads(*options); });
}

}  // namespace lethe::cli
