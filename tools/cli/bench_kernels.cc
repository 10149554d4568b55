// lethe bench kernels: the speed of every CPU kernel on every instruction set that this machine has.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "runtime/backend/cpu/all_targets.h"
#include "runtime/backend/cpu/thread_pool.h"
#include "runtime/os/pages.h"
#include "tools/cli/commands.h"
#include "tools/cli/failure.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/kernel_cases.h"
#include "tools/cli/options.h"
#include "tools/cli/speed.h"
#include "tools/cli/terminal.h"

namespace lethe::cli {
namespace {

struct BenchKernelsOptions {
  std::string model, filter, target = "all";
  uint32_t threads = 1;
  double seconds = 0.1;
  bool json = false;
};

// Names, the best one first.
std::vector<std::string> chosen_targets(const std::string& wanted) {
  std::vector<std::string> targets;
  cpu::for_each_simd_target([&](int64_t, const cpu::Kernels& kernels) { targets.emplace_back(kernels.name); });
  if (wanted == "all") return targets;
  if (wanted == "best") return {targets.front()};
  std::string names = "all, best";
  for (const std::string& name : targets) {
    if (wanted == name) return {name};
    names += ", " + name;
  }
  fail(LETHE_ERROR_INVALID_ARGUMENT, "--target is '%s'; on this machine it can be %s", wanted.c_str(), names.c_str());
}

std::vector<KernelCase> chosen_cases(const BenchKernelsOptions& options) {
  KernelShapes shapes = default_kernel_shapes();
  if (!options.model.empty()) {
    auto opened = Model::open(options.model.c_str());
    check(opened.status());
    shapes = kernel_shapes_of(*opened.value());
    Model::close(opened.value());
  }
  std::vector<KernelCase> cases = kernel_cases(shapes);
  std::erase_if(cases, [&](const KernelCase& one) { return one.label().find(options.filter) == std::string::npos; });
  if (cases.empty()) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "no kernel's line has '%s' in it; without --filter all lines are printed",
         options.filter.c_str());
  }
  return cases;
}

// Memory of the threads, one piece for each.
class KernelMemory {
 public:
  explicit KernelMemory(uint32_t threads) : bytes_(threads * kKernelMemory) {
    const auto mapped = os::map_pages(bytes_);
    check(mapped.status());
    pages_ = mapped.value();
  }
  KernelMemory(const KernelMemory&) = delete;
  KernelMemory& operator=(const KernelMemory&) = delete;
  ~KernelMemory() { os::unmap_pages(pages_, bytes_); }

  Arena of_thread(uint32_t thread) {
    uint8_t* const begin = pages_ + thread * kKernelMemory;
    std::fill_n(begin, kKernelMemory, kKernelFill);
    return {begin, kKernelMemory};
  }

 private:
  uint8_t* pages_;
  uint64_t bytes_;
};

// A case laid out in the threads' memory.
class Bench {
 public:
  Bench(const KernelCase& of, KernelMemory& memory, uint32_t threads) : calls_(threads) {
    for (uint32_t thread = 0; thread < threads; ++thread) {
      Arena arena = memory.of_thread(thread);
      calls_[thread] = of.prepare(arena);
    }
  }

  // Seconds between the ends of two calls when all threads call over and over, at best.
  double seconds_per_call(const cpu::Kernels& kernels, double seconds) {
    const auto threads = static_cast<uint32_t>(calls_.size());
    const auto time = [&](uint64_t calls) {
      const double took = seconds_of(threads, [&](uint32_t thread) { calls_[thread](kernels, done_, calls); });
      done_ += calls;
      return took;
    };
    return cli::seconds_per_call(seconds, time) / threads;
  }

 private:
  std::vector<KernelCalls> calls_;  // [threads]
  uint64_t done_ = 0;
};

void write_result(JsonWriter& json, const KernelCase& of, const char* target, double seconds) {
  json.begin_object()
      .member("kernel", of.kernel)
      .member("what", of.what)
      .member("target", target)
      .member("from_memory", of.from_memory)
      .member("seconds_per_call", seconds)
      .member("flops", of.flops)
      .member("bytes", of.bytes)
      .member("gflops", of.flops / seconds * 1e-9)
      .member("gbps", of.bytes / seconds * 1e-9)
      .end_object();
}

std::vector<std::string> table_row(const KernelCase& of, const std::vector<double>& seconds, double stream) {
  // What bounds a kernel: bytes wherever they are counted.
  const bool by_bytes = of.bytes != 0;
  std::vector<std::string> cells{of.label(), by_bytes ? "GB/s" : "GFLOP/s"};
  char text[32];
  for (const double each : seconds) {
    snprintf(text, sizeof text, "%.1f", (by_bytes ? of.bytes : of.flops) / each * 1e-9);
    cells.emplace_back(text);
  }
  snprintf(text, sizeof text, "%.0f %%", 100 * of.bytes / seconds.front() / stream);
  cells.emplace_back(of.from_memory ? text : "");
  return cells;
}

int bench_kernels(const BenchKernelsOptions& options) {
  if (options.threads == 0 || options.threads > cpu::ThreadPool::kMaxThreads) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--threads is %u; it can be 1 to %u", options.threads,
         cpu::ThreadPool::kMaxThreads);
  }
  if (!(options.seconds > 0)) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--seconds is %g; it must be above 0", options.seconds);
  }
  const std::vector<std::string> targets = chosen_targets(options.target);
  const std::vector<KernelCase> cases = chosen_cases(options);
  const double stream = stream_bandwidth(options.threads);
  KernelMemory memory(options.threads);
  JsonWriter json;
  std::vector<std::string> head{std::to_string(options.threads) + (options.threads == 1 ? " thread" : " threads"), ""};
  head.insert(head.end(), targets.begin(), targets.end());
  head.emplace_back("of stream");
  Table table(std::move(head));
  if (options.json) {
    json.begin_object().member("threads", options.threads).member("stream_gbps", stream * 1e-9);
    json.key("kernels").begin_array();
  }
  {
    Progress progress("measuring kernels", cases.size() * targets.size());
    uint64_t done = 0;
    for (const KernelCase& one : cases) {
      Bench bench(one, memory, options.threads);
      std::vector<double> seconds;
      cpu::for_each_simd_target([&](int64_t, const cpu::Kernels& kernels) {
        if (std::find(targets.begin(), targets.end(), kernels.name) == targets.end()) return;
        progress.update(done++, one.label());
        seconds.push_back(bench.seconds_per_call(kernels, options.seconds));
        if (options.json) write_result(json, one, kernels.name, seconds.back());
      });
      if (!options.json) table.row(table_row(one, seconds, stream));
    }
  }
  if (options.json) {
    json.end_array().end_object().finish();
    return 0;
  }
  table.print();
  printf("This machine streams %.1f GB/s from memory to %s.\n", stream * 1e-9,
         options.threads == 1 ? "one thread" : "these threads");
  return 0;
}

}  // namespace

void add_bench_kernels(CLI::App& bench, int& status) {
  auto options = std::make_shared<BenchKernelsOptions>();
  CLI::App& command = *bench.add_subcommand("kernels", "Speed of every CPU kernel on every instruction set");
  command.add_option("MODEL", options->model,
                     "takes shapes and weight types of this model file (default: the shapes of "
                     "SmolLM2-135M in every weight type)");
  command.add_option("--filter", options->filter, "only lines with this text in them, such as 'linear q4'");
  command.add_option("--target", options->target,
                     "all (default: all that this machine has), best, or one by its name in the table's head");
  command.add_option("--threads", options->threads, "threads that do the same at the same time (default 1)");
  command.add_option("--seconds", options->seconds, "time for each figure (default 0.1)");
  add_json(command, options->json);
  command.footer(
      "Examples:\n"
      "  lethe bench kernels\n"
      "  lethe bench kernels --filter attend --target best --threads 2\n"
      "  lethe bench kernels model.lethe --filter 'linear q4m' --json\n"
      "A line is a kernel and its shapes: tokens x outputs x inputs of a linear map, tokens x cached tokens of "
      "attention\n"
      "and namm_observe (one KV head), cached tokens x inputs of namm_score, tokens x values of others. One token's\n"
      "weights and cached tokens come from memory, as they do while decoding: their GB/s stand beside what memory\n"
      "streams ('of stream', of the first instruction set). All else lies in caches. Several threads' figures are\n"
      "sums. The best of many samples counts.");
  command.callback([options, &status] { status = bench_kernels(*options); });
}

}  // namespace lethe::cli
