// Linear maps of Lethe beside XNNPACK's, of the same shapes, on the same machine, one after the other. Both begin and
// end with floats: activations become int8 within the measured time.
//
//   Lethe     q4, q4m: 4 bits, a scale for 32 inputs, without and with a minimum; q8: 8 bits, likewise
//             activations in groups of 32; one scale each
//   XNNPACK   qb4w: 4 bits, a bf16 scale for 32 inputs; qc4w, qc8w: 4 and 8 bits, a scale for a whole output
//             activations with one scale and zero point a token
#include <pthreadpool.h>
#include <xnnpack.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/thread_pool.h"
#include "runtime/memory/arena.h"
#include "runtime/os/process.h"
#include "tools/cli/failure.h"
#include "tools/cli/kernel_cases.h"
#include "tools/cli/speed.h"
#include "tools/cli/terminal.h"

namespace lethe {
namespace {

using cli::check;

// One token's weights come from memory, as they do while decoding: copies of the matrix, more than caches hold, take
// turns.
constexpr uint64_t kColdBytes = 128 << 20;

struct Shape {
  uint32_t tokens, rows, cols;  // M, N, K
};
constexpr uint32_t kTokens[] = {1, 16, 128, 512};
constexpr uint32_t kMatrices[][2] = {{576, 576}, {1536, 576}, {576, 1536}, {14336, 4096}};  // SmolLM2-135M's; a 7B's

uint64_t copies_of(const Shape& shape, uint64_t bytes) {
  return shape.tokens == 1 ? std::max<uint64_t>(1, kColdBytes / bytes) : 1;
}

std::vector<float> random_floats(size_t count, float deviation) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// A map on some threads. run() computes all outputs with the next copy of the weights.
class Map {
 public:
  virtual ~Map() = default;
  virtual void run() = 0;
};

struct alignas(64) Line {
  uint8_t bytes[64];
};

class LetheMap : public Map {
 public:
  LetheMap(WeightFormat format, const Shape& shape, uint32_t threads)
      : format_(format),
        shape_(shape),
        threads_(threads),
        bytes_(tensor_bytes(format, shape.rows, shape.cols)),
        copies_(copies_of(shape, bytes_)),
        x_(random_floats(size_t{shape.tokens} * shape.cols, 1)),
        y_(size_t{shape.tokens} * shape.rows),
        quants_(x_.size()),
        scales_(x_.size() / kGroup),
        sums_(scales_),
        half_sums_(scales_) {
    Line fill;
    std::fill_n(fill.bytes, sizeof fill.bytes, cli::kKernelFill);
    weights_.assign(copies_ * bytes_ / sizeof(Line), fill);
    scratch_.resize(threads * (cpu::linear_scratch_bytes(shape.cols) / sizeof(Line) + 1));
    Arena measured = Arena::measuring();
    pool_.lay_out(measured, threads);
    pool_memory_.assign(measured.used() / sizeof(Line), Line{});
    Arena arena(pool_memory_[0].bytes, measured.used());
    pool_.lay_out(arena, threads);
    check(pool_.start());
  }
  ~LetheMap() override { pool_.stop(); }
  LetheMap(const LetheMap&) = delete;
  LetheMap& operator=(const LetheMap&) = delete;

  void run() override {
    copy_ = (copy_ + 1) % copies_;
    const auto parts = [&](uint32_t count) { return threads_ == 1 ? 1 : std::min(count, 4 * threads_); };
    tasks_ = parts(shape_.tokens / 8 + 1);
    pool_.run(tasks_, [](void* map, uint32_t task, uint32_t) { static_cast<LetheMap*>(map)->quantise(task); }, this);
    tasks_ = parts(panels());
    pool_.run(
        tasks_, [](void* map, uint32_t task, uint32_t thread) { static_cast<LetheMap*>(map)->multiply(task, thread); },
        this);
  }

 private:
  uint32_t panels() const { return static_cast<uint32_t>((shape_.rows + kPanelRows - 1) / kPanelRows); }
  uint32_t bound(uint32_t count, uint32_t task) const { return static_cast<uint32_t>(uint64_t{count} * task / tasks_); }
  void quantise(uint32_t task) {
    const size_t from = bound(shape_.tokens, task), to = bound(shape_.tokens, task + 1);
    const size_t at = from * shape_.cols, group = at / kGroup;
    kernels_.quantise(&x_[at], to - from, shape_.cols,
                      {&quants_[at], &scales_[group], &sums_[group], &half_sums_[group]});
  }
  void multiply(uint32_t task, uint32_t thread) {
    const cpu::LinearArgs args{
        .weight = {weights_[copy_ * bytes_ / sizeof(Line)].bytes, format_, shape_.rows, shape_.cols},
        .x = x_.data(),
        .xq = {quants_.data(), scales_.data(), sums_.data(), half_sums_.data()},
        .tokens = shape_.tokens,
        .y = y_.data(),
        .y_stride = shape_.rows,
        .scratch = scratch_[thread * scratch_.size() / threads_].bytes};
    kernels_.linear(args, bound(panels(), task), bound(panels(), task + 1));
  }

  const cpu::Kernels kernels_ = cpu::simd_kernels();
  WeightFormat format_;
  Shape shape_;
  uint32_t threads_, tasks_ = 1;
  uint64_t bytes_, copies_, copy_ = 0;
  std::vector<float> x_, y_;
  std::vector<int8_t> quants_;
  std::vector<float> scales_, sums_, half_sums_;
  std::vector<Line> weights_, scratch_, pool_memory_;
  cpu::ThreadPool pool_;
};

void check_xnn(xnn_status status, const char* what) {
  if (status != xnn_status_success) cli::fail(LETHE_ERROR_INTERNAL, "XNNPACK: %s gives status %d", what, status);
}

enum class XnnType { kQb4w, kQc4w, kQc8w };
constexpr int kZeroPoint = 8;  // of 4-bit weights

class XnnMap : public Map {
 public:
  XnnMap(XnnType type, const Shape& shape, uint32_t threads)
      : type_(type),
        shape_(shape),
        pool_(pthreadpool_create(threads)),
        x_(random_floats(size_t{shape.tokens} * shape.cols + XNN_EXTRA_BYTES, 1)),
        y_(size_t{shape.tokens} * shape.rows),
        quants_(x_.size()),
        params_(shape.tokens + XNN_EXTRA_QUANTIZATION_PARAMS) {
    const size_t weights = size_t{shape.rows} * shape.cols;
    std::mt19937 random(2);
    weights_.resize(type == XnnType::kQc8w ? weights : weights / 2);
    for (uint8_t& byte : weights_) byte = static_cast<uint8_t>(random());
    check_xnn(xnn_create_convert_nc_f32_qd8(0, &convert_), "xnn_create_convert");
    check_xnn(xnn_reshape_convert_nc_f32_qd8(convert_, shape.tokens, shape.cols, shape.cols, shape.cols, pool_),
              "xnn_reshape_convert");
    check_xnn(xnn_setup_convert_nc_f32_qd8(convert_, x_.data(), quants_.data(), params_.data()), "xnn_setup_convert");
    for (uint64_t copies = copies_of(shape, weights_.size()); operators_.size() < copies;)
      operators_.push_back(create());
    run();
    check_outputs();
  }
  ~XnnMap() override {
    for (const xnn_operator_t one : operators_) xnn_delete_operator(one);
    xnn_delete_operator(convert_);
    pthreadpool_destroy(pool_);
  }
  XnnMap(const XnnMap&) = delete;
  XnnMap& operator=(const XnnMap&) = delete;

  void run() override {
    copy_ = (copy_ + 1) % operators_.size();
    check_xnn(xnn_run_operator(convert_, pool_), "xnn_run_operator");
    check_xnn(xnn_run_operator(operators_[copy_], pool_), "xnn_run_operator");
  }

 private:
  // Packs the weights anew: a copy of its own.
  xnn_operator_t create() {
    constexpr float kMost = std::numeric_limits<float>::infinity();
    constexpr uint16_t kBf16Scale = 0x3c00;  // 2^-7
    xnn_operator_t made = nullptr;
    const size_t n = shape_.rows, k = shape_.cols;
    const std::vector<float> scales(n, 0x1p-7f);
    switch (type_) {
      case XnnType::kQb4w: {
        const std::vector<uint16_t> block_scales(n * k / kGroup, kBf16Scale);
        check_xnn(xnn_create_fully_connected_nc_qd8_f32_qb4w(k, n, k, n, kGroup, kZeroPoint, block_scales.data(),
                                                             weights_.data(), nullptr, -kMost, kMost, 0, nullptr,
                                                             nullptr, &made),
                  "qb4w");
        check_xnn(xnn_reshape_fully_connected_nc_qd8_f32_qb4w(made, shape_.tokens, pool_), "reshape of qb4w");
        check_xnn(xnn_setup_fully_connected_nc_qd8_f32_qb4w(made, quants_.data(), y_.data(), params_.data()),
                  "setup of qb4w");
        break;
      }
      case XnnType::kQc4w:
        check_xnn(xnn_create_fully_connected_nc_qd8_f32_qc4w(k, n, k, n, kZeroPoint, scales.data(), weights_.data(),
                                                             nullptr, -kMost, kMost, 0, nullptr, nullptr, &made),
                  "qc4w");
        check_xnn(xnn_reshape_fully_connected_nc_qd8_f32_qc4w(made, shape_.tokens, pool_), "reshape of qc4w");
        check_xnn(xnn_setup_fully_connected_nc_qd8_f32_qc4w(made, quants_.data(), y_.data(), params_.data()),
                  "setup of qc4w");
        break;
      case XnnType::kQc8w:
        check_xnn(xnn_create_fully_connected_nc_qd8_f32_qc8w(k, n, k, n, scales.data(),
                                                             reinterpret_cast<const int8_t*>(weights_.data()), nullptr,
                                                             -kMost, kMost, 0, nullptr, nullptr, &made),
                  "qc8w");
        check_xnn(xnn_reshape_fully_connected_nc_qd8_f32_qc8w(made, shape_.tokens, pool_), "reshape of qc8w");
        check_xnn(xnn_setup_fully_connected_nc_qd8_f32_qc8w(made, quants_.data(), y_.data(), params_.data()),
                  "setup of qc8w");
        break;
    }
    return made;
  }

  // So that it is a linear map whose speed is measured. int8 activations cost less than 1 % of the outputs' size.
  void check_outputs() const {
    double square = 0, error = 0;
    const size_t token = shape_.tokens - 1;
    for (size_t row = 0; row < shape_.rows; row += 7) {
      double sum = 0;
      for (size_t i = 0; i < shape_.cols; ++i) {
        const size_t at = row * shape_.cols + i;
        const int quant = type_ == XnnType::kQc8w ? static_cast<int8_t>(weights_[at])
                                                  : (weights_[at / 2] >> at % 2 * 4 & 15) - kZeroPoint;
        sum += 0x1p-7 * quant * static_cast<double>(x_[token * shape_.cols + i]);
      }
      const double y = static_cast<double>(y_[token * shape_.rows + row]);
      square += sum * sum;
      error += (y - sum) * (y - sum);
    }
    if (!(error < 4e-4 * square)) {
      cli::fail(LETHE_ERROR_INTERNAL, "XNNPACK's outputs differ by %.3g of their size", std::sqrt(error / square));
    }
  }

  XnnType type_;
  Shape shape_;
  pthreadpool_t pool_;
  std::vector<float> x_, y_;
  std::vector<int8_t> quants_;
  std::vector<xnn_quantization_params> params_;
  std::vector<uint8_t> weights_;
  xnn_operator_t convert_ = nullptr;
  std::vector<xnn_operator_t> operators_;
  size_t copy_ = 0;
};

double gflops(const Shape& shape, double seconds, Map& map) {
  const double best = cli::seconds_per_call(seconds, [&](uint64_t calls) {
    const uint64_t begin_ns = os::monotonic_ns();
    for (uint64_t i = 0; i < calls; ++i) map.run();
    return static_cast<double>(os::monotonic_ns() - begin_ns) * 1e-9;
  });
  return 2e-9 * shape.tokens * shape.rows * shape.cols / best;
}

void compare(uint32_t threads, double seconds) {
  printf("%u thread%s, GFLOP/s; memory streams %.1f GB/s to %s\n", threads, threads == 1 ? "" : "s",
         cli::stream_bandwidth(threads) * 1e-9, threads == 1 ? "it" : "them");
  cli::Table table({"tokens x outputs x inputs", "q4", "q4m", "qb4w", "qc4w", "q8", "qc8w"});
  cli::Progress progress("measuring", std::size(kTokens) * std::size(kMatrices));
  uint64_t done = 0;
  for (const auto& [rows, cols] : kMatrices) {
    for (const uint32_t tokens : kTokens) {
      const Shape shape{tokens, rows, cols};
      std::vector<std::string> cells{std::to_string(tokens) + "x" + std::to_string(rows) + "x" + std::to_string(cols)};
      const auto measure = [&](std::unique_ptr<Map> map) {
        char text[32];
        snprintf(text, sizeof text, "%.0f", gflops(shape, seconds, *map));
        cells.emplace_back(text);
      };
      measure(std::make_unique<LetheMap>(WeightFormat::kQ4, shape, threads));
      measure(std::make_unique<LetheMap>(WeightFormat::kQ4M, shape, threads));
      measure(std::make_unique<XnnMap>(XnnType::kQb4w, shape, threads));
      measure(std::make_unique<XnnMap>(XnnType::kQc4w, shape, threads));
      measure(std::make_unique<LetheMap>(WeightFormat::kQ8, shape, threads));
      measure(std::make_unique<XnnMap>(XnnType::kQc8w, shape, threads));
      table.row(std::move(cells));
      progress.update(++done);
    }
  }
  table.print();
}

}  // namespace
}  // namespace lethe

int main(int argc, char** argv) {
  CLI::App app("Linear maps of Lethe (q4, q4m, q8) beside XNNPACK's (qb4w, qc4w, qc8w), from floats to floats");
  std::vector<uint32_t> threads{1, 2};
  double seconds = 0.2;
  app.add_option("--threads", threads, "a table for each number (default 1,2)")
      ->delimiter(',')
      ->check(CLI::Range(1, 64));
  app.add_option("--seconds", seconds, "time for each figure, of whose samples the best counts (default 0.2)")
      ->check(CLI::PositiveNumber);
  app.footer("Example:\n  xnnpack_bench --threads 1,4\nOne token's weights come from memory, all others' from caches.");
  CLI11_PARSE(app, argc, argv);
  try {
    lethe::check_xnn(xnn_initialize(nullptr), "xnn_initialize");
    for (const uint32_t count : threads) lethe::compare(count, seconds);
  } catch (const lethe::cli::Failure& failure) {
    lethe::cli::print_error(failure.code, failure.message.c_str());
    return 1;
  }
}
