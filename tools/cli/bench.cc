// lethe bench: how fast a model reads and writes here, beside what the memory of this machine can stream.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <memory>
#include <thread>
#include <vector>

#include "runtime/model/model.h"
#include "runtime/os/process.h"
#include "tools/cli/commands.h"
#include "tools/cli/failure.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/options.h"
#include "tools/cli/process_share.h"
#include "tools/cli/speed.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"

namespace lethe::cli {
namespace {

struct BenchOptions {
  std::string model;
  uint32_t prompt = 512, generate = 128, depth = 0, repeat = 5;
  std::string threads = "0";
  SessionOptions session{.ram = {.text = "64GiB"}, .policy = "full"};
  bool json = false;
};

uint64_t resident_peak_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

// Tokens per second of one phase, a sample per repeat.
struct Phase {
  std::vector<double> wall, cpu;

  template <typename Work>
  void measure(uint32_t tokens, Work work) {
    const uint64_t begin_ns = os::monotonic_ns();
    const double begin_cpu = cpu_seconds();
    work();
    const double seconds = static_cast<double>(os::monotonic_ns() - begin_ns) * 1e-9;
    wall.push_back(tokens / seconds);
    cpu.push_back(tokens / std::max(cpu_seconds() - begin_cpu, 1e-9));
  }
};

// Bytes of weights that one decode step reads: all but an embedding that is not the output as well.
uint64_t weight_bytes(const std::string& path) {
  auto opened = Model::open(path.c_str());
  check(opened.status());
  Model* model = opened.value();
  const bool tied = model->find(Role::kOutput, 0) == nullptr;
  uint64_t bytes = 0;
  for (const Tensor& tensor : model->tensors()) {
    const bool looked_up = tensor.role == Role::kPositionEmbedding || (tensor.role == Role::kTokenEmbedding && !tied);
    bytes += looked_up ? 0 : tensor.bytes;
  }
  Model::close(model);
  return bytes;
}

// Ids that look like a text to the model's table of embeddings: spread over the vocabulary, the same in every run.
std::vector<int32_t> prompt_ids(uint32_t count, uint32_t vocab) {
  std::vector<int32_t> ids(count);
  uint64_t state = 1;
  for (int32_t& id : ids) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    id = static_cast<int32_t>((state >> 33) % vocab);
  }
  return ids;
}

struct Figures {
  uint32_t threads;
  Phase prefill, decode;
  lethe_memory memory;
};

class Bench {
 public:
  explicit Bench(const BenchOptions& options)
      : options_(options), model_(check(api::Model::open(options.model.c_str()))), vocab_(check(model_.info()).vocab) {}

  Figures run(uint32_t threads, uint32_t repeat) {
    lethe_session_params params = options_.session.params(host_bytes(0));
    params.threads = threads;
    // The cache is as long as the longest run, unless a policy that forgets is to be measured under a cap.
    if (*options_.session.policy == "full")
      params.max_tokens = start() + std::max(options_.prompt, options_.generate) + 1;
    api::Session base = check(api::Session::create(model_, params));
    Figures figures{threads, {}, {}, {}};
    const std::vector<int32_t> context = prompt_ids(start(), vocab_), prompt = prompt_ids(options_.prompt, vocab_);
    check(base.feed(context.data(), context.size()));
    // Every sample starts from the same tokens: a short beginning is fed again, a long one copied.
    const auto from_start = [&](auto work) {
      if (options_.depth != 0) {
        api::Session copy = check(base.fork());
        work(copy);
        return;
      }
      check(base.reset());
      check(base.feed(context.data(), context.size()));
      work(base);
    };
    const uint64_t steps = uint64_t{repeat} + 1;  // the first one warms up
    Progress progress("measuring, " + std::to_string(threads) + " threads", steps);
    for (uint64_t i = 0; i < steps; ++i) {
      Figures ignored{};
      Figures& to = i == 0 ? ignored : figures;
      if (options_.prompt != 0) {
        from_start([&](api::Session& session) {
          to.prefill.measure(options_.prompt, [&] { check(session.feed(prompt.data(), prompt.size())); });
        });
      }
      if (options_.generate != 0) {
        lethe_generate_params generate = api::generate_params();
        generate.max_tokens = options_.generate;
        generate.ignore_eos = 1;
        from_start([&](api::Session& session) {
          to.decode.measure(options_.generate,
                            [&] { check(session.generate([](std::string_view, int32_t) {}, generate)); });
        });
      }
      peak_.sample();
      progress.update(i + 1);
    }
    figures.memory = base.memory();
    return figures;
  }

  uint64_t private_peak() const { return peak_.bytes(); }

 private:
  uint32_t start() const { return std::max(options_.depth, 1u); }  // a conversation begins with a token

  const BenchOptions& options_;
  api::Model model_;
  uint32_t vocab_;
  PrivatePeak peak_;
};

// The fewest threads whose decode speed is within 3 % of the best: 1, 2, 3, 4, 6, 8, ... up to the processors there
// are.
uint32_t best_threads(Bench& bench, bool as_json) {
  const uint32_t most = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::pair<uint32_t, double>> speeds;
  for (uint32_t threads = 1; threads <= most; threads += threads < 4 ? 1 : threads / 2) {
    const Figures figures = bench.run(threads, 3);
    speeds.emplace_back(threads, median(figures.decode.wall.empty() ? figures.prefill.wall : figures.decode.wall));
    if (!as_json) fprintf(stderr, "%u threads: %.1f tokens/s\n", threads, speeds.back().second);
  }
  double best = 0;
  for (const auto& [threads, speed] : speeds) best = std::max(best, speed);
  for (const auto& [threads, speed] : speeds) {
    if (speed >= 0.97 * best) return threads;
  }
  return 1;
}

int bench(const BenchOptions& options) {
  if (options.model.empty()) fail(LETHE_ERROR_INVALID_ARGUMENT, "MODEL is required (the model file)");
  if (options.repeat == 0 || (options.prompt == 0 && options.generate == 0)) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "nothing to measure: --repeat %u, --prompt %u, --generate %u", options.repeat,
         options.prompt, options.generate);
  }
  Bench bench(options);
  uint32_t threads = 0;
  if (options.threads == "auto") {
    threads = best_threads(bench, options.json);
  } else {
    const char* end = options.threads.data() + options.threads.size();
    const auto [stop, error] = std::from_chars(options.threads.data(), end, threads);
    if (error != std::errc() || stop != end) {
      fail(LETHE_ERROR_INVALID_ARGUMENT, "--threads is '%s'; it can be a number or auto", options.threads.c_str());
    }
    if (threads == 0) threads = os::fast_core_count();
  }
  const Figures figures = bench.run(threads, options.repeat);
  const uint64_t rss_peak = resident_peak_bytes(), private_peak = bench.private_peak();
  const double stream = stream_bandwidth(threads) * 1e-9;
  const double prefill = median(figures.prefill.wall), decode = median(figures.decode.wall);
  const double weights = decode * static_cast<double>(weight_bytes(options.model)) * 1e-9;
  if (options.json) {
    JsonWriter json;
    json.begin_object()
        .member("threads", threads)
        .member("prompt", options.prompt)
        .member("generate", options.generate)
        .member("depth", options.depth)
        .member("prefill_tps", prefill)
        .member("decode_tps", decode)
        .member("prefill_tpcs", median(figures.prefill.cpu))
        .member("decode_tpcs", median(figures.decode.cpu))
        .member("weights_gbps", weights)
        .member("stream_gbps", stream)
        .member("rss_peak_bytes", rss_peak)
        .member("private_peak_bytes", private_peak);
    for (const auto& [name, samples] :
         {std::pair{"prefill_samples", &figures.prefill.wall}, std::pair{"decode_samples", &figures.decode.wall}}) {
      json.key(name).begin_array();
      for (const double sample : *samples) json.value(sample);
      json.end_array();
    }
    json.key("memory").begin_object();
    write_memory(json, figures.memory);
    json.end_object().end_object().finish();
    return 0;
  }
  printf("%u threads, %u tokens cached, medians of %u\n", threads, options.depth, options.repeat);
  Table table({"", "tokens", "tokens/s", "per CPU-second"});
  const auto row = [&](const char* name, uint32_t tokens, const Phase& phase) {
    char wall[32], cpu[32];
    snprintf(wall, sizeof wall, "%.1f", median(phase.wall));
    snprintf(cpu, sizeof cpu, "%.1f", median(phase.cpu));
    if (tokens != 0) table.row({name, std::to_string(tokens), wall, cpu});
  };
  row("prefill", options.prompt, figures.prefill);
  row("decode", options.generate, figures.decode);
  table.print();
  printf("weights are read at %.1f GB/s while decoding; this machine streams %.1f GB/s (%.0f %%)\n", weights, stream,
         stream > 0 ? 100 * weights / stream : 0);
  printf("peak memory: %s private, %s resident with the mapped weights\n", human_bytes(private_peak).c_str(),
         human_bytes(rss_peak).c_str());
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, int& status) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App& command = *app.add_subcommand("bench", "Measure speed and memory");
  command.preparse_callback([&command, &status](size_t) { add_bench_kernels(command, status); });
  add_model(command, options->model);
  command.get_option("MODEL")->required(false);  // `kernels` can do without
  command.add_option("--prompt", options->prompt, "tokens of the prompt whose reading is timed (default 512; 0: none)");
  command.add_option("--generate", options->generate, "tokens whose generation is timed (default 128; 0: none)");
  command.add_option("--depth", options->depth, "tokens in the cache before either (default 0)");
  command.add_option("--repeat", options->repeat, "samples of each, after one that is not counted (default 5)");
  options->session.add_to(command);
  command.remove_option(command.get_option("--threads"));
  command.add_option("--threads", options->threads, "a number (default: the fast cores), or auto: finds the best");
  add_json(command, options->json);
  command.footer(
      "Examples:\n"
      "  lethe bench model.lethe\n"
      "  lethe bench model.lethe --depth 4096 --kv int8 --threads 2 --json\n"
      "  lethe bench model.lethe --policy window --ram 32MiB --depth 8192\n"
      "  lethe bench kernels\n"
      "With policy full (the default here) the cache is as long as the run; other policies work under --ram. Prompt "
      "and\n"
      "generation each start from the same cached tokens (with --depth from a copy, which counts in the peaks). Other "
      "load on the machine shows in tokens/s, less in tokens\n"
      "per CPU-second.");
  command.callback([&command, options, &status] {
    if (command.get_subcommands().empty()) status = bench(*options);
  });
}

}  // namespace lethe::cli
