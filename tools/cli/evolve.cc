// lethe evolve: the weights of a NAMM, found by an evolution strategy on what a model does under a cap.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>

#include "runtime/cache/namm/file.h"
#include "runtime/os/process.h"
#include "tools/cli/commands.h"
#include "tools/cli/evolve_fitness.h"
#include "tools/cli/failure.h"
#include "tools/cli/input.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/options.h"
#include "tools/cli/parallel.h"
#include "tools/cli/stream_run.h"
#include "tools/cli/task_run.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"
#include "tools/evolve/folder.h"
#include "tools/evolve/start.h"

namespace lethe::cli {
namespace {

using evolve::Json;

struct EvolveOptions {
  std::string model, out;
  std::vector<std::string> texts;
  std::vector<std::string> tasks = {"stream", "passkey"}, inputs = {"age", "spectrum"};
  std::vector<uint32_t> lengths = {1024};
  double kv_fraction = 0.25, sigma = 0.065, bias = 0;
  uint32_t population = 32, prompts = 8, generations = 100, interval = namm::kInterval, jobs = 0;
  uint32_t held_out = 16, check_every = 10;
  uint64_t seed = 1;
  std::string network = "bam", covariance = "diagonal", signal = "nll";
  std::optional<std::string> start;
  bool json = false;

  Signal fitness_signal() const {
    if (signal == "likelihood") return Signal::kLikelihood;
    return signal == "nll" ? Signal::kNll : Signal::kScore;
  }
};

// By network: of the paper; as many weights (docs/namm.md).
constexpr std::array<uint32_t, namm::kNetworkNames.size()> kHidden = {32, 154, 0};
constexpr double kHeldOutText = 0.1;  // share of every text

namm::Shape shape_of(const EvolveOptions& options) {
  namm::Shape shape;
  const auto network = std::find(namm::kNetworkNames.begin(), namm::kNetworkNames.end(), options.network);
  shape.network = static_cast<namm::Network>(network - namm::kNetworkNames.begin());
  shape.hidden = kHidden[static_cast<size_t>(shape.network)];
  shape.input_count = 0;
  for (const std::string& name : options.inputs) {
    const auto* info = std::find_if(namm::kInputs.begin(), namm::kInputs.end(),
                                    [&](const namm::InputInfo& known) { return known.name == name; });
    if (info == namm::kInputs.end() || shape.input_count == namm::kInputKinds) {
      std::string all;
      for (const namm::InputInfo& known : namm::kInputs) all += (all.empty() ? "" : ", ") + std::string(known.name);
      fail(LETHE_ERROR_INVALID_ARGUMENT, "--inputs has '%s'; there are %s, each once", name.c_str(), all.c_str());
    }
    shape.inputs[shape.input_count++] = static_cast<namm::Input>(info - namm::kInputs.begin());
  }
  check(namm::check_shape(shape));
  return shape;
}

// Throws invalid_argument with what would do.
void check_evolve(const EvolveOptions& options) {
  check_prompts(options.tasks, options.lengths, !options.texts.empty());
  if (!(options.kv_fraction > 0) || options.kv_fraction > 1) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--kv-fraction is %g: above 0, at most 1", options.kv_fraction);
  }
  if (!(options.sigma > 0) || !std::isfinite(options.sigma)) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--sigma is %g: above 0", options.sigma);
  }
  if (!std::isfinite(options.bias)) fail(LETHE_ERROR_INVALID_ARGUMENT, "--bias is %g: a number", options.bias);
  if (options.interval == 0 || options.interval % namm::kHop != 0) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--interval is %u: a multiple of %u", options.interval, namm::kHop);
  }
}

// The texts' fronts, or the rest of them that is held out.
std::optional<Corpus> read_corpus(const api::Model& model, const EvolveOptions& options, bool held_out,
                                  std::string* names) {
  if (options.texts.empty()) return {};
  std::string all;
  names->clear();
  for (const std::string& path : options.texts) {
    const std::string text = read_text(path);
    check_text("the text", text);
    *names += (names->empty() ? "" : ", ") + name_and_checksum(path, text.data(), text.size());
    const auto about = static_cast<size_t>((1 - kHeldOutText) * static_cast<double>(text.size()));
    const size_t cut = std::min(text.find_first_of(" \n", about), text.size());
    all += held_out ? text.substr(cut) : text.substr(0, cut);
    all += '\n';
  }
  if (held_out) *names += ", held out";
  Corpus corpus{tokenize_text(model, all), bos_token(model), eval::Filler(all)};
  if (corpus.filler.empty()) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "a part of the text is nothing but white space: one tenth of it is held out");
  }
  return corpus;
}

// A set of prompts and what the full cache makes of them.
struct PromptSet {
  std::vector<EvolvePrompt> prompts;
  std::vector<Worth> full;
};

class Run {
 public:
  explicit Run(const EvolveOptions& options);

  bool is_over() const { return strategy_->state().generation >= options_.generations; }
  uint32_t generation() const { return strategy_->state().generation; }
  void evolve_once();
  const std::vector<Json>& log() const { return folder_.log(); }
  const namm::Shape& shape() const { return shape_; }
  double held_out_fitness();  // of the mean; NaN when nothing is held out

 private:
  PromptSet prompt_set(bool held_out, uint64_t seed, uint32_t count);
  void begin(const evolve::StrategyOptions& strategy);
  std::vector<double> fitness(const PromptSet& set, const std::vector<std::vector<float>>& candidates,
                              Progress& progress);
  std::vector<uint8_t> namm_file(const std::vector<float>& weights) const;
  Json identity() const;

  const EvolveOptions& options_;
  namm::Shape shape_;
  api::Model model_;
  std::string texts_[2];  // of the evolution, held out
  std::optional<Corpus> corpora_[2];
  uint32_t jobs_;
  std::optional<NammFile> start_;
  evolve::RunFolder folder_;
  eval::SweepStore full_;
  evolve::FrozenMoments moments_;
  std::optional<evolve::Strategy> strategy_;
  std::optional<PromptSet> held_out_;
};

Json Run::identity() const {
  return {{"inputs", options_.inputs},
          {"network", options_.network},
          {"hidden", shape_.hidden},
          {"interval", options_.interval},
          {"population", options_.population},
          {"sigma", options_.sigma},
          {"covariance", options_.covariance},
          {"bias", options_.bias},
          {"start", start_ ? name_and_checksum(*options_.start, start_->data(), start_->size()) : ""},
          {"seed", options_.seed}};
}

Run::Run(const EvolveOptions& options)
    : options_(options),
      shape_(shape_of(options)),
      model_(check(api::Model::open(options.model.c_str()))),
      jobs_(job_count(options.jobs)),
      folder_(options.out) {
  if (options.start) start_.emplace(*options.start);
  corpora_[0] = read_corpus(model_, options, false, &texts_[0]);
  corpora_[1] = read_corpus(model_, options, true, &texts_[1]);
  const evolve::StrategyOptions strategy{
      .dimensions = shape_.weight_count(),
      .population = options.population,
      .sigma = options.sigma,
      .covariance = options.covariance == "diagonal" ? evolve::Covariance::kDiagonal : evolve::Covariance::kIdentity,
      .seed = options.seed};
  std::optional<evolve::RunState> state;
  check(folder_.open(identity(), strategy, shape_, &state));
  check(full_.open(folder_.file("full.jsonl")));
  if (state) {
    moments_ = std::move(state->moments);
    strategy_.emplace(strategy, std::move(state->strategy));
  } else {
    begin(strategy);
  }
  if (options.held_out != 0) held_out_ = prompt_set(true, 0, options.held_out);
}

// The frozen moments, over the prompts of the first generation, and the first mean.
void Run::begin(const evolve::StrategyOptions& strategy) {
  std::vector<std::vector<int32_t>> ids;
  const Corpus* corpus = corpora_[0] ? &*corpora_[0] : nullptr;
  for (EvolvePrompt& prompt :
       make_evolve_prompts(model_, options_.tasks, options_.lengths, corpus, ~options_.seed, options_.prompts)) {
    ids.push_back(std::move(prompt.prompt.ids));
  }
  Progress progress("moments of the inputs", ids.size());
  Result<evolve::FrozenMoments> moments =
      evolve::collect_moments(options_.model, shape_, ids, jobs_, [&](size_t done) { progress.update(done); });
  check(moments.status());
  moments_ = std::move(moments.value());
  evolve::StrategyState first = evolve::Strategy(strategy).state();
  if (start_) {
    const Result<namm::Parameters> from = namm::read_file({start_->data(), start_->size()});
    check(from.status());
    const Result<std::vector<float>> weights = evolve::start_from(from.value(), shape_, moments_);
    check(weights.status());
    first.mean.assign(weights.value().begin(), weights.value().end());
  } else {
    first.mean.back() = options_.bias;  // the score's, in every network
  }
  strategy_.emplace(strategy, std::move(first));
}

PromptSet Run::prompt_set(bool held_out, uint64_t seed, uint32_t count) {
  PromptSet set;
  const Corpus* corpus = corpora_[held_out] ? &*corpora_[held_out] : nullptr;
  const Signal signal = options_.fitness_signal();
  set.prompts = make_evolve_prompts(model_, options_.tasks, options_.lengths, corpus, seed, count);
  set.full.resize(count);
  const eval::SweepSetting setting{std::filesystem::path(options_.model).filename().string(),
                                   check(model_.info()).file_bytes, texts_[held_out], 1};
  std::mutex mutex;  // of the store
  run_parallel(jobs_, count, [&](size_t i) {
    Json line = eval::identity(set.prompts[i].cell, setting);
    {
      const std::lock_guard lock(mutex);
      const Json* known = full_.find(line);
      const Json metrics = known == nullptr ? Json::object() : known->at("metrics");
      const auto number = [&](const char* name) {
        return metrics.contains(name) && metrics[name].is_number() ? metrics[name].get<double>() : NAN;
      };
      set.full[i] = {number("nll"), number("score")};
      if (!std::isnan(set.full[i].nll) && (signal != Signal::kScore || !std::isnan(set.full[i].score))) return;
    }
    const Worth worth = measure_full(model_, set.prompts[i], signal);
    set.full[i] = worth;
    line["metrics"] = {{"nll", worth.nll}};
    if (!std::isnan(worth.score)) line["metrics"]["score"] = worth.score;
    const std::lock_guard lock(mutex);
    check(full_.append(line));
  });
  return set;
}

std::vector<uint8_t> Run::namm_file(const std::vector<float>& weights) const {
  std::vector<float> flat = weights;
  flat.insert(flat.end(), moments_.means.begin(), moments_.means.end());
  flat.insert(flat.end(), moments_.variances.begin(), moments_.variances.end());
  const Result<namm::Parameters> parameters = namm::view_parameters(shape_, flat, options_.interval);
  check(parameters.status());
  std::vector<uint8_t> file(namm::file_bytes(shape_));
  namm::write_file(parameters.value(), file);
  return file;
}

std::vector<double> Run::fitness(const PromptSet& set, const std::vector<std::vector<float>>& candidates,
                                 Progress& progress) {
  std::vector<std::vector<uint8_t>> files;
  for (const std::vector<float>& weights : candidates) files.push_back(namm_file(weights));
  const size_t prompts = set.prompts.size();
  std::vector<Worth> worths(candidates.size() * prompts);
  std::mutex mutex;
  size_t done = 0;
  run_parallel(jobs_, worths.size(), [&](size_t i) {
    worths[i] = measure_namm(model_, set.prompts[i % prompts], options_.fitness_signal(), options_.kv_fraction,
                             files[i / prompts]);
    const std::lock_guard lock(mutex);
    progress.update(++done);
  });
  std::vector<double> out;
  for (size_t i = 0; i < candidates.size(); ++i) {
    out.push_back(
        fitness_of(options_.fitness_signal(), set.prompts, std::span(worths).subspan(i * prompts, prompts), set.full));
  }
  return out;
}

double Run::held_out_fitness() {
  if (!held_out_) return NAN;
  Progress progress("held-out prompts", held_out_->prompts.size());
  return fitness(*held_out_, {strategy_->mean()}, progress)[0];
}

void Run::evolve_once() {
  const uint64_t started = os::monotonic_ns();
  const uint32_t now = generation();
  Json line = {{"generation", now}};
  if (held_out_ && now % options_.check_every == 0) line["held_out"] = held_out_fitness();
  std::vector<std::vector<float>> candidates;
  for (uint32_t i = 0; i < options_.population; ++i) candidates.push_back(strategy_->candidate(i));
  const uint64_t began = os::monotonic_ns();
  const PromptSet set = prompt_set(false, eval::trial_seed(~options_.seed, now), options_.prompts);
  std::vector<double> values;
  {
    Progress progress("generation " + std::to_string(now + 1) + " of " + std::to_string(options_.generations),
                      candidates.size() * set.prompts.size());
    values = fitness(set, candidates, progress);
  }
  const double seconds = static_cast<double>(os::monotonic_ns() - began) * 1e-9;
  const size_t evaluations = values.size() * set.prompts.size();
  double sum = 0;
  for (const double value : values) sum += value;
  line["best"] = *std::max_element(values.begin(), values.end());
  line["population_mean"] = sum / static_cast<double>(values.size());
  line["worst"] = *std::min_element(values.begin(), values.end());
  line["sigma"] = strategy_->state().sigma;
  line["evaluations"] = evaluations;
  line["evaluations_per_hour"] = static_cast<double>(evaluations) / seconds * 3600;
  line["seconds"] = static_cast<double>(os::monotonic_ns() - started) * 1e-9;
  line["tasks"] = options_.tasks;
  line["lengths"] = options_.lengths;
  line["kv_fraction"] = options_.kv_fraction;
  line["signal"] = options_.signal;
  strategy_->tell(values);
  check(folder_.save(identity(), {strategy_->state(), moments_}, line, namm_file(strategy_->mean())));
}

std::string decimals(double value) {
  char text[32];
  snprintf(text, sizeof text, "%.4f", value);
  return text;
}

int evolve_namm(const EvolveOptions& options) {
  check_evolve(options);
  const uint64_t started = os::monotonic_ns();
  Run run(options);
  const uint32_t first = run.generation();
  while (!run.is_over()) {
    run.evolve_once();
    if (options.json) continue;
    const Json& line = run.log().back();
    printf("%4u  best %.4f  mean %.4f  sigma %.4f  %s evaluations an hour%s\n", run.generation(),
           line["best"].get<double>(), line["population_mean"].get<double>(), line["sigma"].get<double>(),
           with_separators(static_cast<uint64_t>(line["evaluations_per_hour"].get<double>())).c_str(),
           line.contains("held_out") ? ("  held out " + decimals(line["held_out"])).c_str() : "");
    flush_output();
  }
  const double held_out = run.held_out_fitness();
  const double seconds = static_cast<double>(os::monotonic_ns() - started) * 1e-9;
  if (options.json) {
    JsonWriter json;
    json.begin_object()
        .member("generations", run.generation())
        .member("run", run.generation() - first)
        .member("weights", run.shape().weight_count())
        .member("held_out", held_out)
        .member("seconds", seconds)
        .end_object()
        .finish();
  } else {
    printf("%u generations, %u of them now, in %.0f s; %s/namm has the mean of %u weights\n", run.generation(),
           run.generation() - first, seconds, options.out.c_str(), run.shape().weight_count());
    if (!std::isnan(held_out)) printf("its fitness on the prompts that are held out: %.4f\n", held_out);
  }
  return 0;
}

void add_options(CLI::App& command, int& status) {
  auto options = std::make_shared<EvolveOptions>();
  add_model(command, options->model);
  command.add_option("--out", options->out, "folder of the run; it goes on where it was stopped")->required();
  command.add_option("--text", options->texts, "texts that are streamed, and in which needles are hidden");
  const auto add_list = [&](const char* name, auto& list, const char* help) {
    command.add_option(name, list, help)->delimiter(',')->capture_default_str();
  };
  const auto add_number = [&](const char* name, auto& number, const char* help) {
    return command.add_option(name, number, help)->capture_default_str();
  };
  add_list("--tasks", options->tasks, "stream and tasks of lethe eval; naming one twice doubles its weight");
  add_list("--lengths", options->lengths, "tokens of a prompt");
  add_number("--kv-fraction", options->kv_fraction, "the cap, as a share of the full f16 cache's bytes");
  command
      .add_option(
          "--signal", options->signal,
          "nll: minus the NLL above the full cache's; likelihood: probability / the full cache's; score: score / "
          "the full cache's")
      ->capture_default_str()
      ->check(CLI::IsMember({"nll", "likelihood", "score"}));
  add_list("--inputs", options->inputs, "what the network knows of a token (docs/namm.md)");
  command.add_option("--network", options->network, "bam, mlp, or linear (a weighted sum of the inputs)")
      ->capture_default_str()
      ->check(CLI::IsMember({"bam", "mlp", "linear"}));
  add_number("--interval", options->interval, "tokens between two decisions of the network, a multiple of 16");
  add_number("--population", options->population, "candidates of a generation")->check(CLI::Range(4, 4096));
  add_number("--prompts", options->prompts, "prompts of a generation, the same for all its candidates")
      ->check(CLI::Range(1, 4096));
  add_number("--generations", options->generations, "after how many the run ends, those that are there included");
  add_number("--sigma", options->sigma, "step size at first");
  CLI::Option* bias =
      add_number("--bias", options->bias,
                 "every token's score at first; above 0 the cap decides what goes, and hardly the threshold");
  command
      .add_option("--start", options->start,
                  "NAMM file to begin with: of the same network and inputs, or a linear one of inputs that are there")
      ->excludes(bias);
  command.add_option("--covariance", options->covariance, "of the steps: diagonal (learned), or identity")
      ->capture_default_str()
      ->check(CLI::IsMember({"diagonal", "identity"}));
  add_number("--seed", options->seed, "of prompts and candidates");
  add_number("--held-out", options->held_out, "prompts on which the mean is checked, in text that is held out");
  add_number("--check-every", options->check_every, "generations between two checks")->check(CLI::Range(1, 1 << 20));
  command.add_option("--jobs", options->jobs, "prompts at a time, each with one thread (default: one a core)");
  add_json(command, options->json);
  command.footer(
      "Examples:\n"
      "  lethe evolve model.lethe --out run --text book.txt --tasks stream,passkey --lengths 1024 --kv-fraction 0.25\n"
      "  lethe evolve model.lethe --out keys --text book.txt --inputs age,spectrum,key-norm,key-cosine --interval 128\n"
      "  lethe evolve model.lethe --out more --text book.txt --inputs log-attention,key-cosine,age --start sum/namm\n"
      "  lethe eval stream model.lethe --text book.txt --policy namm --namm run/namm --kv-fraction 0.25\n"
      "The same command goes on after Ctrl-C or a crash; with other tasks, lengths or caps it is a further stage. In "
      "OUT: namm,\nthe mean of the strategy; log.jsonl and curve.svg; state.json.");
  command.callback([options, &status] { status = evolve_namm(*options); });
}

}  // namespace

void add_evolve(CLI::App& app, int& status) {
  CLI::App& command = *app.add_subcommand("evolve", "Evolve a NAMM, the learned memory, without gradients");
  // Only once the command line names it: `run` counts every byte that the tool holds.
  command.preparse_callback([&command, &status](size_t) { add_options(command, status); });
}

}  // namespace lethe::cli
