// What `lethe bench kernels` measures of policy namm: recording attention and scoring a list.
#include <algorithm>
#include <cmath>
#include <random>

#include "runtime/cache/namm/scorer.h"
#include "runtime/cache/namm/state.h"
#include "tools/cli/kernel_cases.h"

namespace lethe::cli {
namespace {

using namm::Input;

// One list in consecutive blocks, tokens at consecutive positions.
struct List {
  KvPoolView pool;
  KvList list;
};
List take_list(Arena& memory, const namm::Shape& shape, uint32_t head_dim, uint32_t tokens) {
  const namm::StateRows rows(shape.state_parts());
  const KvLayout layout =
      make_kv_layout(KvType::kF16, head_dim, rows.bytes_per_slot(), std::max<uint32_t>(1, rows.count));
  const uint32_t blocks = tokens / kBlockSlots;
  uint32_t* const next = memory.take<uint32_t>(blocks).data();
  uint8_t* const data = memory.take<uint8_t>(uint64_t{blocks} * layout.block_bytes).data();
  for (uint32_t rank = 0; rank < tokens; ++rank) {
    uint8_t* const block = data + uint64_t{rank / kBlockSlots} * layout.block_bytes;
    reinterpret_cast<uint32_t*>(block + layout.positions_offset)[rank % kBlockSlots] = rank;
    next[rank / kBlockSlots] = rank / kBlockSlots + 1 < blocks ? rank / kBlockSlots + 1 : kNoBlock;
  }
  return {{layout, data, next}, {0, blocks - 1, tokens}};
}

// A scorer of weights at random.
namm::Scorer take_scorer(Arena& memory, const namm::Shape& shape) {
  const std::span<float> flat = memory.take<float>(shape.parameter_count());
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.065f);
  for (float& x : flat) x = std::abs(normal(random));
  namm::Scorer scorer;
  scorer.carve(memory, shape);
  scorer.fill(namm::view_parameters(shape, flat).value());
  return scorer;
}

KernelCase score_case(const char* name, const namm::Shape& shape, uint32_t head_dim, uint32_t tokens) {
  const auto prepare = [=](Arena& memory) -> KernelCalls {
    const namm::Scorer scorer = take_scorer(memory, shape);
    const List list = take_list(memory, shape, head_dim, tokens);
    const std::span<float> work = memory.take<float>(namm::Scorer::work_floats(shape, tokens, head_dim));
    const std::span<float> scores = memory.take<float>(tokens);
    return [=](const cpu::Kernels&, uint64_t, uint64_t calls) {
      for (uint64_t i = 0; i < calls; ++i) scorer.score(list.pool, list.list, work, scores);
    };
  };
  const double width = shape.width(), n = tokens;
  const bool pairs = shape.network == namm::Network::kBam;
  return {.kernel = "namm_score",
          .what = std::string(name) + " " + std::to_string(tokens) + "x" + std::to_string(shape.width()),
          .flops = pairs ? 2 * n * (n + 1) * width : 2 * n * width * std::max(1u, shape.hidden),
          .prepare = prepare};
}

// `queries` at a time, as many times as there are calls; every 16 queries a hop is folded.
KernelCase observe_case(uint32_t head_dim, uint32_t queries, uint32_t tokens) {
  const namm::Shape shape;
  const auto prepare = [=](Arena& memory) -> KernelCalls {
    const List list = take_list(memory, shape, head_dim, tokens);
    const std::span<float> attention = memory.take<float>(uint64_t{queries} * tokens);
    const Observer observer = namm::observer_of(shape.state_parts());
    return [=](const cpu::Kernels&, uint64_t first, uint64_t calls) {
      for (uint64_t call = first; call < first + calls; ++call) {
        observer.see({.pool = list.pool,
                      .list = list.list,
                      .layer = 0,
                      .kv_head = 0,
                      .first_query_rank = tokens - queries,
                      .first_query_position = static_cast<uint32_t>(call * queries),
                      .queries = queries,
                      .rank_begin = 0,
                      .rank_end = tokens,
                      .start_block = 0,
                      .attention = attention.data(),
                      .stride = tokens,
                      .last = true});
      }
    };
  };
  constexpr double kFoldBytes = 2.0 * (namm::kFrame + 2 * namm::kBins);
  return {.kernel = "namm_observe",
          .what = std::to_string(queries) + "x" + std::to_string(tokens),
          .bytes = tokens * queries * (4.0 + 2.0 + kFoldBytes / namm::kHop),
          .prepare = prepare};
}

}  // namespace

std::vector<KernelCase> namm_cases(const ModelConfig& config) {
  const uint32_t dims = config.head_dim;
  const namm::Shape published;
  const namm::Shape mlp{namm::Network::kMlp, 154, published.inputs, published.input_count};
  const namm::Shape keys{namm::Network::kBam,
                         32,
                         {Input::kAge, Input::kSpectrum, Input::kKeyNorm, Input::kKeyCosine, Input::kValueNorm},
                         5};
  const namm::Shape linear{
      namm::Network::kLinear, 0, {Input::kLogAttention, Input::kLogRecency, Input::kKeyNorm, Input::kKeyCosine}, 4};
  std::vector<KernelCase> cases;
  for (const uint32_t tokens : {256u, 512u, 1024u, 2048u}) cases.push_back(score_case("bam", published, dims, tokens));
  cases.push_back(score_case("bam keys", keys, dims, 2048));
  cases.push_back(score_case("mlp", mlp, dims, 2048));
  cases.push_back(score_case("weighted sum", linear, dims, 2048));
  for (const uint32_t queries : {1u, cpu::kQueryTile}) cases.push_back(observe_case(dims, queries, 2048));
  return cases;
}

}  // namespace lethe::cli
