// CpuBackend's attention: how a step is cut into work for the threads, and what a policy is shown of it.
#include <algorithm>
#include <cmath>

#include "runtime/backend/cpu/cpu_backend.h"

namespace lethe::cpu {
namespace {

constexpr uint32_t divide_up(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

// With few units (decode) each unit's parts are tasks of their own, and all partial results are kept; with many, a unit
// is one task and keeps its own parts only.
bool split_parts(uint32_t units, uint32_t threads) { return units < 2 * threads; }

}  // namespace

struct CpuBackend::AttendStep {
  const Step& step;
  uint32_t layer, tokens, first_position;
  const KvPool& kv;
  // Tokens that the first tile lacks: with clamped positions tiles begin at whole multiples of their size in the
  // conversation, so that no step of the clamp falls into one.
  uint32_t lead;

  uint32_t tiles() const { return divide_up(lead + tokens, kQueryTile); }
};

struct CpuBackend::AttendUnit {
  KvList list;
  uint32_t head, begin, end, parts;
  float *max, *sum, *acc;  // of all its parts
  // What the list keeps of dropped tokens (KvPool::absorbed): one more part, behind the others. Or empty.
  std::span<const float> absorbed;

  uint32_t all_parts() const { return parts + (absorbed.empty() ? 0 : 1); }

  uint32_t seen(uint32_t tokens) const { return list.length - tokens + end; }  // ranks, by its last query
};

uint32_t CpuBackend::parts_of(uint32_t tokens) { return std::max(1u, divide_up(tokens, kPartTokens)); }

// Enough for both ways of split_parts, and for a tile of all heads at once when it is observed.
uint32_t CpuBackend::partial_units() const {
  const uint32_t units = 2 * options_.threads - 1;
  return options_.observer.queries == 0 ? units : std::max(units, model_->config().kv_heads);
}

uint64_t CpuBackend::unit_floats() const {
  const ModelConfig& config = model_->config();
  const uint32_t group = config.heads / config.kv_heads;
  const uint64_t rows = round_up(uint64_t{std::min(options_.chunk, kQueryTile)} * group, 16);
  const uint32_t parts = parts_of(options_.cache_tokens) + (options_.absorbs ? 1 : 0);
  return parts * rows * (config.head_dim + 2);
}

// Also of a thread that stores keys and values.
float* CpuBackend::attend_scratch(uint32_t thread) const {
  return attend_scratch_.data() + thread * (attend_scratch_.size() / options_.threads);
}

void CpuBackend::lay_out_attention(Arena& arena) {
  const ModelConfig& config = model_->config();
  const uint64_t group = config.heads / config.kv_heads, tile = std::min(options_.chunk, kQueryTile);
  const uint64_t parts = parts_of(options_.cache_tokens);
  attend_scratch_ = arena.take<float>(options_.threads * round_up(attend_scratch_floats(group, config.head_dim), 16));
  partials_ = arena.take<float>(partial_units() * unit_floats());
  part_blocks_ = arena.take<uint32_t>(config.kv_heads * parts);
  const bool observed = options_.observer.queries != 0;
  scores_ = arena.take<float>(observed ? config.kv_heads * parts * tile * group * kPartTokens : 0);
  weights_ = arena.take<float>(observed ? options_.threads * tile * kPartTokens : 0);
}

CpuBackend::AttendUnit CpuBackend::attend_unit(const AttendStep& s, uint32_t head, uint32_t tile,
                                               float* partials) const {
  AttendUnit unit{};
  unit.head = head;
  unit.begin = tile * kQueryTile - std::min(tile * kQueryTile, s.lead);
  unit.end = std::min(s.tokens, (tile + 1) * kQueryTile - s.lead);
  unit.list = s.kv.appended_list(s.layer, head);
  unit.parts = parts_of(unit.seen(s.tokens));  // a tile sees nothing behind its last query
  const uint64_t rows = unit_floats() / (model_->config().head_dim + 2);
  unit.max = partials;
  unit.sum = unit.max + rows;
  unit.acc = unit.sum + rows;
  if (sight(s.layer, head).window == 0) {
    const std::span<const float> absorbed = s.kv.absorbed(s.layer, head);
    if (!absorbed.empty() && absorbed[0] > 0) unit.absorbed = absorbed;
  }
  return unit;
}

Sight CpuBackend::sight(uint32_t layer, uint32_t head) const {
  return options_.sights.empty() ? Sight{} : options_.sights[uint64_t{layer} * model_->config().kv_heads + head];
}

// Of all tokens of the step over all ranks of the list, without places for results.
AttendArgs CpuBackend::attend_args(const AttendStep& s, uint32_t head) const {
  const ModelConfig& config = model_->config();
  const uint32_t group = config.heads / config.kv_heads;
  const KvList list = s.kv.appended_list(s.layer, head);
  const uint32_t query_delta = s.kv.query_delta(s.layer, head, s.first_position);
  return {.pool = s.kv.view(),
          .list = list,
          .mode = options_.positions,
          .query_delta = query_delta,
          .clamp = std::min(query_delta, clamped_begin(s.first_position, config.context_length)),
          .first_rank_of_step = list.length - s.tokens,
          .q = floats(s.step.in) + uint64_t{head} * group * config.head_dim,
          .q_stride = config.heads * config.head_dim,
          .group = group,
          .scale = config.score_scale(),
          .softcap = config.attention_softcap,
          .sight = sight(s.layer, head),
          .rope = rope(s.layer),
          .query_begin = 0,
          .query_end = s.tokens,
          .start_block = list.first_block,
          .rank_begin = 0,
          .rank_end = list.length,
          .max = nullptr,
          .sum = nullptr,
          .acc = nullptr,
          .scratch = nullptr,
          .scores = nullptr,
          .scores_stride = 0};
}

// `scores` as in AttendArgs.
void CpuBackend::attend_part(const AttendStep& s, const AttendUnit& unit, uint32_t part, uint32_t thread,
                             float* scores) {
  const ModelConfig& config = model_->config();
  if (part == 0 && !unit.absorbed.empty()) attend_absorbed(s, unit);
  AttendArgs args = attend_args(s, unit.head);
  const uint64_t rows = uint64_t{unit.end - unit.begin} * args.group;
  args.clamp = std::min(args.query_delta, clamped_begin(s.first_position + unit.begin, config.context_length));
  args.query_begin = unit.begin;
  args.query_end = unit.end;
  args.start_block = part_blocks_[unit.head * parts_of(options_.cache_tokens) + part];
  args.rank_begin = part * kPartTokens;
  args.rank_end = std::min(unit.seen(s.tokens), (part + 1) * kPartTokens);
  args.max = unit.max + part * rows;
  args.sum = unit.sum + part * rows;
  args.acc = unit.acc + part * rows * config.head_dim;
  args.scratch = attend_scratch(thread);
  args.scores = scores;
  args.scores_stride = kPartTokens;
  kernels_.attend(args);
}

// Attention to the token that stands for all dropped ones: as often as they were, at their mean distance.
void CpuBackend::attend_absorbed(const AttendStep& s, const AttendUnit& unit) {
  const ModelConfig& config = model_->config();
  const uint32_t group = config.heads / config.kv_heads, dim = config.head_dim, tile = unit.end - unit.begin;
  const float log_count = std::log(unit.absorbed[0]);
  const std::span<const float> key = unit.absorbed.subspan(1, dim), value = unit.absorbed.subspan(1 + dim, dim);
  const float* q = floats(s.step.in) + (uint64_t{unit.begin} * config.heads + uint64_t{unit.head} * group) * dim;
  size_t row = size_t{unit.parts} * tile * group;
  for (uint32_t t = 0; t < tile; ++t, q += uint64_t{config.heads} * dim) {
    for (uint32_t head = 0; head < group; ++head, ++row) {
      float score = 0;
      for (uint32_t d = 0; d < dim; ++d) score += q[head * dim + d] * key[d];
      score *= config.score_scale();
      if (config.attention_softcap != 0) {
        score = config.attention_softcap * std::tanh(score / config.attention_softcap);
      }
      unit.max[row] = score + log_count;
      unit.sum[row] = 1;
      std::ranges::copy(value, unit.acc + row * dim);
    }
  }
}

void CpuBackend::merge_parts(const AttendStep& s, const AttendUnit& unit) {
  const ModelConfig& config = model_->config();
  const uint32_t group = config.heads / config.kv_heads, stride = config.heads * config.head_dim;
  float* const out = floats(s.step.out) + uint64_t{unit.begin} * stride;
  kernels_.merge({.parts = unit.all_parts(),
                  .max = unit.max,
                  .sum = unit.sum,
                  .acc = unit.acc,
                  .tile = unit.end - unit.begin,
                  .group = group,
                  .head_dim = config.head_dim,
                  .out = out + uint64_t{unit.head} * group * config.head_dim,
                  .out_stride = stride});
}

void CpuBackend::attend(const Step& step, uint32_t layer, uint32_t tokens, uint32_t first_position, const KvPool& kv) {
  const bool clamped = options_.positions == PositionMode::kClamped;
  const AttendStep s{step, layer, tokens, first_position, kv, clamped ? first_position % kQueryTile : 0};
  const uint32_t max_parts = parts_of(options_.cache_tokens);
  // Where each part of every list begins: one walk along the chain, not one per part.
  for (uint32_t head = 0; head < model_->config().kv_heads; ++head) {
    const KvList list = kv.appended_list(layer, head);
    uint32_t block = list.first_block;
    for (uint32_t part = 0; part < parts_of(list.length); ++part) {
      part_blocks_[head * max_parts + part] = block;
      for (uint32_t i = 0; i < kPartTokens / kBlockSlots && block != kNoBlock; ++i) block = kv.view().next[block];
    }
  }
  if (options_.observer.see_queries != nullptr) show_queries(s);
  if (attention_observer_.see != nullptr) show_attention(s);
  const uint32_t unobserved = tokens - std::min(tokens, options_.observer.queries);
  const uint32_t first = options_.observer.queries == 0 ? s.tiles() : (s.lead + unobserved) / kQueryTile;
  attend_tiles(s, first);
  for (uint32_t tile = first; tile < s.tiles(); ++tile) attend_observed(s, tile);
}

void CpuBackend::show_queries(const AttendStep& s) {
  const ModelConfig& config = model_->config();
  const uint32_t group = config.heads / config.kv_heads;
  const RopeTable table = rope(s.layer);
  parallel_ranges(config.kv_heads, s.tokens < 16 ? config.kv_heads : 1, [&](uint32_t begin, uint32_t end, uint32_t) {
    for (uint32_t head = begin; head < end; ++head) {
      options_.observer.see_queries({.list_state = s.kv.list_state(s.layer, head),
                                     .layer = s.layer,
                                     .kv_head = head,
                                     .first_position = s.first_position,
                                     .queries = s.tokens,
                                     .group = group,
                                     .head_dim = config.head_dim,
                                     .q = floats(s.step.in) + uint64_t{head} * group * config.head_dim,
                                     .q_stride = config.heads * config.head_dim,
                                     .cos = table.cos,
                                     .sin = table.sin,
                                     .rotary_dim = table.rotary_dim});
    }
  });
}

void CpuBackend::show_attention(const AttendStep& s) {
  parallel_ranges(model_->config().kv_heads, 1, [&](uint32_t begin, uint32_t end, uint32_t thread) {
    for (uint32_t head = begin; head < end; ++head) {
      attention_observer_.see(attention_observer_.user, s.layer, head, thread, attend_args(s, head));
    }
  });
}

// The first `tiles` tiles.
void CpuBackend::attend_tiles(const AttendStep& s, uint32_t tiles) {
  const uint32_t heads = model_->config().kv_heads, units = heads * tiles;
  if (units == 0) return;
  if (split_parts(units, options_.threads)) {
    const auto unit_at = [&](uint32_t i) {
      return attend_unit(s, i / tiles, i % tiles, partials_.data() + i * unit_floats());
    };
    const uint32_t parts = parts_of(s.kv.longest() + s.tokens);
    parallel_ranges(units * parts, 1, [&](uint32_t begin, uint32_t end, uint32_t thread) {
      for (uint32_t i = begin; i < end; ++i) {
        const AttendUnit unit = unit_at(i / parts);
        if (i % parts < unit.parts) attend_part(s, unit, i % parts, thread, nullptr);
      }
    });
    for (uint32_t i = 0; i < units; ++i) merge_parts(s, unit_at(i));
  } else {
    parallel_ranges(units, 1, [&](uint32_t begin, uint32_t end, uint32_t thread) {
      for (uint32_t i = begin; i < end; ++i) {
        const AttendUnit unit = attend_unit(s, i / tiles, i % tiles, partials_.data() + thread * unit_floats());
        for (uint32_t part = 0; part < unit.parts; ++part) attend_part(s, unit, part, thread, nullptr);
        merge_parts(s, unit);
      }
    });
  }
}

// One tile of all heads: first all scores, of which the softmax needs the sum, then the policy sees the weights.
void CpuBackend::attend_observed(const AttendStep& s, uint32_t tile) {
  const ModelConfig& config = model_->config();
  const uint32_t parts = parts_of(s.kv.longest() + s.tokens);
  const uint64_t scores_floats = scores_.size() / config.kv_heads / parts_of(options_.cache_tokens);
  const auto for_each_part = [&](auto work) {
    parallel_ranges(config.kv_heads * parts, 1, [&](uint32_t begin, uint32_t end, uint32_t thread) {
      for (uint32_t i = begin; i < end; ++i) {
        const AttendUnit unit = attend_unit(s, i / parts, tile, partials_.data() + i / parts * unit_floats());
        if (i % parts < unit.parts) work(unit, i % parts, thread, scores_.data() + i * scores_floats);
      }
    });
  };
  for_each_part([&](const AttendUnit& unit, uint32_t part, uint32_t thread, float* scores) {
    attend_part(s, unit, part, thread, scores);
  });
  for_each_part([&](const AttendUnit& unit, uint32_t part, uint32_t thread, const float* scores) {
    if (part == 0) merge_parts(s, unit);
    observe_part(s, unit, part, thread, scores);
  });
}

void CpuBackend::observe_part(const AttendStep& s, const AttendUnit& unit, uint32_t part, uint32_t thread,
                              const float* scores) {
  const ModelConfig& config = model_->config();
  const uint32_t tile = unit.end - unit.begin, rank_begin = part * kPartTokens;
  const uint32_t rank_end = std::min(unit.seen(s.tokens), rank_begin + kPartTokens);
  float* const weights = weights_.data() + thread * weights_.size() / options_.threads;
  kernels_.weigh({.parts = unit.all_parts(),
                  .max = unit.max,
                  .sum = unit.sum,
                  .scores = scores,
                  .scores_stride = kPartTokens,
                  .tile = tile,
                  .group = config.heads / config.kv_heads,
                  .count = rank_end - rank_begin,
                  .out = weights,
                  .out_stride = kPartTokens});
  const uint32_t first_rank = unit.list.length - s.tokens + unit.begin;
  options_.observer.see({.pool = s.kv.view(),
                         .list = unit.list,
                         .layer = s.layer,
                         .kv_head = unit.head,
                         .first_query_rank = first_rank,
                         .first_query_position = s.first_position + unit.begin,
                         .queries = tile,
                         .rank_begin = rank_begin,
                         .rank_end = rank_end,
                         .start_block = part_blocks_[unit.head * parts_of(options_.cache_tokens) + part],
                         .attention = weights,
                         .stride = kPartTokens,
                         .last = unit.end == s.tokens});
}

}  // namespace lethe::cpu
