// Speed of the CPU kernels on one thread. GFLOP/s counts 2 N K M; GB/s counts the weights or the cache read once.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "runtime/backend/cpu/kernels.h"

namespace lethe::cpu {
namespace {

struct alignas(64) Line {
  uint8_t bytes[64];
};

std::vector<float> random_floats(size_t n) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  return values;
}

void linear(benchmark::State& state) {
  const auto format = static_cast<WeightFormat>(state.range(0));
  const size_t m = static_cast<size_t>(state.range(1)), n = static_cast<size_t>(state.range(2)),
               k = static_cast<size_t>(state.range(3));
  const Kernels kernels = simd_kernels();
  std::vector<Line> weights(tensor_bytes(format, n, k) / 64, Line{});
  std::vector<float> x = random_floats(m * k), y(m * n), scales(m * k / kGroup), sums(scales), half_sums(scales);
  std::vector<int8_t> quants(m * k);
  std::vector<uint8_t> scratch(linear_scratch_bytes(k));
  const QuantisedRows xq{quants.data(), scales.data(), sums.data(), half_sums.data()};
  kernels.quantise(x.data(), m, k, xq);
  const LinearArgs args{{weights[0].bytes, format, static_cast<uint32_t>(n), static_cast<uint32_t>(k)},
                        x.data(),
                        xq,
                        static_cast<uint32_t>(m),
                        y.data(),
                        static_cast<uint32_t>(n),
                        scratch.data()};
  for (auto _ : state) {
    kernels.linear(args, 0, static_cast<uint32_t>(n / kPanelRows));
    benchmark::ClobberMemory();
  }
  const double count = static_cast<double>(state.iterations());
  state.SetLabel(std::string(kernels.name) + " " + weight_format_name(format));
  state.counters["FLOP/s"] =
      benchmark::Counter(count * 2.0 * static_cast<double>(n * k * m), benchmark::Counter::kIsRate);
  state.counters["B/s"] =
      benchmark::Counter(count * static_cast<double>(weights.size()) * 64, benchmark::Counter::kIsRate);
}
BENCHMARK(linear)
    ->ArgNames({"format", "M", "N", "K"})
    ->ArgsProduct({{1, 2, 3, 4, 5, 6, 7, 8}, {1, 8, 512}, {1536}, {576}})
    ->ArgsProduct({{2, 3, 5, 6, 7, 8}, {1}, {49152}, {576}})
    ->Unit(benchmark::kMicrosecond);

// One KV head; `holes`: every block has a hole in its positions (rolling mode's slow path).
void attend(benchmark::State& state) {
  const auto type = static_cast<KvType>(state.range(0));
  const uint32_t tokens = static_cast<uint32_t>(state.range(1));
  const bool holes = state.range(2) != 0;
  constexpr uint32_t kHeadDim = 64, kGroupHeads = 3, kLength = 2048, kBlocks = kLength / kBlockSlots;
  const Kernels kernels = simd_kernels();
  const KvLayout layout = make_kv_layout(type, kHeadDim);
  std::vector<Line> pool(size_t{kBlocks} * layout.block_bytes / 64, Line{});
  std::vector<uint32_t> next(kBlocks), block_of_token(1);
  for (uint32_t i = 0; i < kBlocks; ++i) next[i] = i + 1;
  const KvPoolView view{layout, pool[0].bytes, next.data()};
  const std::vector<float> kv = random_floats(kLength * kHeadDim), q = random_floats(tokens * kGroupHeads * kHeadDim);
  for (uint32_t i = 0; i < kLength; ++i) {
    block_of_token[0] = i / kBlockSlots;
    kernels.store_kv({view, block_of_token.data(), i % kBlockSlots, holes ? i + i / 20 : i, &kv[i * kHeadDim],
                      &kv[i * kHeadDim], kHeadDim, kHeadDim, 1});
  }
  const std::vector<float> inv_freq(kHeadDim / 2, 0.01f);
  std::vector<float> max(kQueryTile * kGroupHeads), sum = max, acc(max.size() * kHeadDim);
  std::vector<float> scratch(attend_scratch_floats(kGroupHeads, kHeadDim));
  AttendArgs args{};
  args.pool = view;
  args.list = {0, kBlocks - 1, kLength};
  args.mode = PositionMode::kRolling;
  args.query_delta = holes ? (kLength - 1) / 20 : 0;
  args.first_rank_of_step = kLength - tokens;
  args.q = q.data();
  args.q_stride = kGroupHeads * kHeadDim;
  args.group = kGroupHeads;
  args.scale = 0.125f;
  args.rope = {nullptr, nullptr, inv_freq.data(), kHeadDim};
  args.query_end = tokens;
  args.rank_end = kLength;
  args.max = max.data();
  args.sum = sum.data();
  args.acc = acc.data();
  args.scratch = scratch.data();
  for (auto _ : state) {
    kernels.attend(args);
    benchmark::ClobberMemory();
  }
  const double count = static_cast<double>(state.iterations());
  state.SetLabel(std::string(kernels.name) + (type == KvType::kF16 ? " f16" : " int8"));
  state.counters["FLOP/s"] =
      benchmark::Counter(count * 4.0 * kLength * kHeadDim * kGroupHeads * tokens, benchmark::Counter::kIsRate);
  state.counters["B/s"] =
      benchmark::Counter(count * static_cast<double>(pool.size()) * 64, benchmark::Counter::kIsRate);
}
BENCHMARK(attend)
    ->ArgNames({"type", "M", "holes"})
    ->ArgsProduct({{0, 1}, {1, 8}, {0, 1}})
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace lethe::cpu

BENCHMARK_MAIN();
