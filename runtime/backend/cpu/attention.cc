// Attention over the KV blocks: the walk along a list, the placing of keys, and the online softmax. The two products
// are in attention_float-inl.h and attention_integer-inl.h, by the type of the pool.
#include "runtime/base/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/backend/cpu/attention.cc"
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/backend/cpu/attention_float-inl.h"
#include "runtime/backend/cpu/attention_integer-inl.h"
#include "runtime/backend/cpu/dot-inl.h"
#include "runtime/backend/cpu/hadamard-inl.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/simd_tables.h"
#include "runtime/base/simd/math-inl.h"
#include "runtime/base/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLowest = std::numeric_limits<float>::lowest();

// The rotation by `shift` positions of all pairs, exact for any shift: frequencies in 2^-64 turns per position.
struct Frequencies {
  int32_t* high;  // [rotary_dim / 2]
  int32_t* low;   // [rotary_dim / 2]; signed: the frequency is high * 2^32 + low
};

void set_frequencies(const RopeTable& rope, const Frequencies& out) {
  for (size_t i = 0; i < rope.rotary_dim / 2; ++i) {
    double turns = static_cast<double>(rope.inv_freq[i]) * 0.15915494309189535;
    turns -= std::floor(turns);
    if (!(turns >= 0 && turns < 1)) turns = 0;  // not finite
    const uint64_t fixed = static_cast<uint64_t>(turns * 0x1p64);
    out.low[i] = static_cast<int32_t>(static_cast<uint32_t>(fixed));
    out.high[i] = static_cast<int32_t>(static_cast<uint32_t>((fixed + 0x80000000u) >> 32));
  }
}

// The top 32 of the 64 bits of shift * frequency, in 2^-32 turns.
HWY_INLINE VI phase_of(VI shift, VI high, VI low) { return hn::Add(hn::Mul(shift, high), hn::MulHigh(shift, low)); }

// Scaled queries of the tile [rows][head_dim], rotated by `shift`.
void load_queries(const AttendArgs& args, int32_t shift, const Frequencies& frequencies, float* out) {
  const size_t head_dim = args.pool.layout.head_dim;
  const size_t half = shift == 0 ? 0 : args.rope.rotary_dim / 2;
  const VF scale = hn::Set(df, args.scale);
  const size_t rows = (args.query_end - args.query_begin) * args.group;
  for (size_t row = 0; row < rows; ++row) {
    const float* q = args.q + (args.query_begin + row / args.group) * args.q_stride + row % args.group * head_dim;
    float* to = out + row * head_dim;
    for_lanes(half, [&](size_t i, size_t count) HWY_ATTR {
      VF s, c;
      sin_cos_lanes(phase_of(hn::Set(di, shift), hn::LoadN(di, frequencies.high + i, count),
                             hn::LoadN(di, frequencies.low + i, count)),
                    s, c);
      const VF a = hn::Mul(load_lanes(q + i, count), scale);
      const VF b = hn::Mul(load_lanes(q + half + i, count), scale);
      store_lanes(hn::NegMulAdd(b, s, hn::Mul(a, c)), to + i, count);
      store_lanes(hn::MulAdd(a, s, hn::Mul(b, c)), to + half + i, count);
    });
    for_lanes(head_dim - 2 * half, [&](size_t i, size_t count) HWY_ATTR {
      store_lanes(hn::Mul(load_lanes(q + 2 * half + i, count), scale), to + 2 * half + i, count);
    });
  }
}

// One dimension of the keys of kLanes slots from `slot` on, as floats.
HWY_INLINE VF load_keys(const KvLayout& layout, const uint8_t* block, size_t slot, size_t d) {
  const size_t at = key_index(layout, slot, d);
  if (layout.key_bits == 16) {
    return load_float(reinterpret_cast<const Half*>(block + layout.keys_offset) + at);
  }
  const VU8 quads = hn::LoadU(du8, block + layout.keys_offset + at / kQuad * kQuad);
  const int shift = static_cast<int>(d % kQuad) * 8 + (layout.key_bits == 4 ? key_shift(d) : 0);
  const VI code =
      hn::And(hn::ShiftRightSame(hn::BitCast(di, quads), shift), hn::Set(di, layout.key_bits == 8 ? 255 : 15));
  const VI key = layout.key_bits == 8 ? hn::Sub(code, hn::Set(di, kKeyOffset))
                                      : hn::Sub(hn::Add(code, code), hn::Set(di, kOffset4));
  const auto* scale = reinterpret_cast<const float*>(block + layout.key_scale_offset) + slot;
  return hn::Mul(hn::ConvertTo(df, key), hn::LoadU(df, scale));
}

// Keys [head_dim][32] as floats, every slot rotated back by its own shift: what a block needs whose slots are not one
// run. Rotating a key by -s is rotating the query by s; the work is shared by all rows of the tile.
void rotate_keys(const KvLayout& layout, const uint8_t* block, size_t half, const int32_t* shifts,
                 const Frequencies& frequencies, float* out) {
  for (size_t d = 0; d < layout.head_dim; ++d) {
    for (size_t slot = 0; slot < kBlockSlots; slot += kLanes) {
      hn::StoreU(load_keys(layout, block, slot, d), df, out + d * kBlockSlots + slot);
    }
  }
  if (layout.key_bits == 4) hadamard_keys(out, layout.head_dim);
  for (size_t slot = 0; slot < kBlockSlots; slot += kLanes) {
    const VI shift = hn::LoadU(di, shifts + slot);
    for (size_t i = 0; i < half; ++i) {
      VF s, c;
      sin_cos_lanes(phase_of(shift, hn::Set(di, frequencies.high[i]), hn::Set(di, frequencies.low[i])), s, c);
      float *const low = out + i * kBlockSlots + slot, *const high = low + half * kBlockSlots;
      const VF a = hn::LoadU(df, low), b = hn::LoadU(df, high);
      hn::StoreU(hn::MulAdd(b, s, hn::Mul(a, c)), df, low);
      hn::StoreU(hn::NegMulAdd(a, s, hn::Mul(b, c)), df, high);
    }
  }
}

// Slots of a span that a query sees: [0, sinks) and [begin, end), with sinks < begin unless both are 0. None of the
// latter when begin >= end.
struct Slots {
  uint32_t sinks, begin, end;

  uint32_t first() const { return sinks == 0 ? begin : 0; }
};

// Scores of one row for slots [from, to), multiples of kLanes: with the cap, and -infinity where the query does not
// see. Gives the largest of them and `max`.
HWY_INLINE float mask_row(float* HWY_RESTRICT scores, size_t from, size_t to, Slots seen, float softcap, float max) {
  const VF cap = hn::Set(df, softcap), none = hn::Set(df, -kInfinity);
  VF top = hn::Set(df, max);
  for (size_t i = from; i < to; i += kLanes) {
    const bool whole = (seen.begin <= i || i + kLanes <= seen.sinks) && i + kLanes <= seen.end;
    VF s = hn::LoadU(df, scores + i);
    if (softcap != 0) s = hn::Mul(cap, tanh_lanes(hn::Div(s, cap)));
    if (!whole) {
      s = i < seen.end ? hn::IfThenElse(hn::FirstN(df, seen.end - i), s, none) : none;
      if (seen.begin > i) {
        const auto early = hn::FirstN(df, seen.begin - i);
        const auto first = hn::FirstN(df, seen.sinks > i ? seen.sinks - i : 0);
        s = hn::IfThenElse(hn::AndNot(first, early), none, s);
      }
    }
    if (!whole || softcap != 0) hn::StoreU(s, df, scores + i);
    top = hn::Max(top, s);
  }
  // Mostly an earlier score is the largest; a comparison tells for less.
  return hn::AllTrue(df, hn::Le(top, hn::Set(df, max))) ? max : hn::ReduceMax(df, top);
}

// Scores become weights, exp(score - max), and are added to `sums` [kLanes], which are multiplied by `factor` before.
HWY_INLINE void weigh_row(float* HWY_RESTRICT scores, size_t from, size_t to, float max, float factor,
                          float* HWY_RESTRICT sums) {
  VF total = hn::Mul(hn::LoadU(df, sums), hn::Set(df, factor));
  for (size_t i = from; i < to; i += kLanes) {
    const VF p = exp_lanes(hn::Sub(hn::LoadU(df, scores + i), hn::Set(df, max)));
    total = hn::Add(total, p);
    hn::StoreU(p, df, scores + i);
  }
  hn::StoreU(total, df, sums);
}

// The state of one call: the arguments and the parts of its scratch. Blocks does the products.
template <class Blocks>
class Attention {
 public:
  explicit Attention(const AttendArgs& args)
      : args_(args),
        layout_(args.pool.layout),
        rows_((args.query_end - args.query_begin) * args.group),
        rotated_keys_(args.scratch),
        scores_(rotated_keys_ + layout_.head_dim * kBlockSlots),
        queries_(scores_ + rows_ * kSpanSlots),
        factors_(queries_ + rows_ * layout_.head_dim),
        sums_(factors_ + rows_),
        blocks_(layout_, rows_, sums_ + rows_ * kLanes + layout_.head_dim) {
    frequencies_.high = reinterpret_cast<int32_t*>(sums_ + rows_ * kLanes);
    frequencies_.low = frequencies_.high + args.rope.rotary_dim / 2;
  }

  void run() {
    // Finite, so that a row that has not seen anything yet has a difference to it.
    std::fill_n(args_.max, rows_, kLowest);
    std::fill_n(sums_, rows_ * kLanes, 0.0f);
    std::fill_n(args_.acc, rows_ * layout_.head_dim, 0.0f);
    if (args_.mode != PositionMode::kAbsolute) set_frequencies(args_.rope, frequencies_);
    use_shift(0);
    Span span = blocks_from(args_.rank_begin);
    while (span.rank < args_.rank_end) {
      const Span ahead = blocks_from(span.rank + kSpan);
      visit(span, ahead);
      span = ahead;
    }
    blocks_.finish(args_.acc);
    for (size_t row = 0; row < rows_; ++row) {
      args_.sum[row] = hn::ReduceSum(df, hn::LoadU(df, sums_ + row * kLanes));
    }
  }

 private:
  static constexpr size_t kSpanBlocks = Blocks::kSpanBlocks;
  static constexpr uint32_t kSpan = kSpanBlocks * kBlockSlots;
  struct Span {
    std::array<const uint8_t*, kSpanBlocks> blocks;
    size_t count = 0;
    uint32_t rank = 0;
  };

  // The blocks of the span at `rank`, which comes after the last one asked for. Also behind rank_end: where the next
  // part of the list begins.
  Span blocks_from(uint32_t rank) {
    Span span;
    span.rank = rank;
    for (; span.count < kSpanBlocks && rank < args_.list.length; rank += kBlockSlots) {
      block_id_ = rank == args_.rank_begin ? args_.start_block : args_.pool.next[block_id_];
      span.blocks[span.count++] = args_.pool.blocks + size_t{block_id_} * layout_.block_bytes;
    }
    return span;
  }

  // Memory is slower than the products: the span ahead is fetched meanwhile, in the order of its bytes, half of it
  // while scores are made and half while values are added.
  void visit(const Span& span, const Span& ahead) {
    const uint32_t stored = std::min(kSpan, args_.rank_end - span.rank);
    std::array<Slots, kQueryTile> seen;
    const uint32_t queries = args_.query_end - args_.query_begin;
    for (uint32_t i = 0; i < queries; ++i) seen[i] = seen_by(args_.query_begin + i, span, stored);
    // Of the tile: windows and sights move on with the queries.
    const uint32_t begin = seen[0].first() / kBlockSlots, end = (seen[queries - 1].end + kBlockSlots - 1) / kBlockSlots;
    if (args_.scores != nullptr) clear_scores(span, stored);
    if (begin >= end) return;
    for (uint32_t i = begin; i < end; ++i) {
      if constexpr (Blocks::kFetchAhead) prefetch_half(ahead, i);
      score(span.blocks[i], span.rank + i * kBlockSlots, std::min(kBlockSlots, stored - i * kBlockSlots),
            scores_ + i * kBlockSlots);
    }
    // A step of the online softmax, in passes, so that the rows overlap.
    const size_t from = begin * kBlockSlots, to = end * kBlockSlots;
    for (size_t t = 0, row = 0; t < queries; ++t) {
      for (uint32_t head = 0; head < args_.group; ++head, ++row) {
        const float max = mask_row(scores_ + row * kSpanSlots, from, to, seen[t], args_.softcap, args_.max[row]);
        factors_[row] = args_.max[row] - max;
        args_.max[row] = max;
      }
    }
    for_lanes(rows_, [&](size_t row, size_t lanes) HWY_ATTR {
      store_lanes(exp_lanes(load_lanes(factors_ + row, lanes)), factors_ + row, lanes);
    });
    if (args_.scores != nullptr) keep_scores(span, from, std::min<size_t>(to, stored));
    for (size_t row = 0; row < rows_; ++row) {
      weigh_row(scores_ + row * kSpanSlots, from, to, args_.max[row], factors_[row], sums_ + row * kLanes);
    }
    if constexpr (Blocks::kFetchAhead) {
      for (size_t half = kSpanBlocks; half < 2 * kSpanBlocks; ++half) prefetch_half(ahead, half);
    }
    blocks_.add_values(std::span(span.blocks).subspan(begin, end - begin), seen[queries - 1].end - begin * kBlockSlots,
                       scores_ + begin * kBlockSlots, factors_, args_.acc);
  }

  // Slots of a span for the policy.
  float* kept_scores(const Span& span, size_t row) const {
    return args_.scores + row * args_.scores_stride + (span.rank - args_.rank_begin);
  }
  void clear_scores(const Span& span, uint32_t stored) const {
    for (size_t row = 0; row < rows_; ++row) std::fill_n(kept_scores(span, row), stored, -kInfinity);
  }
  void keep_scores(const Span& span, size_t from, size_t to) const {
    for (size_t row = 0; row < rows_; ++row) {
      std::copy(scores_ + row * kSpanSlots + from, scores_ + row * kSpanSlots + to, kept_scores(span, row) + from);
    }
  }

  // Half a block to the second cache.
  void prefetch_half(const Span& span, size_t half) const {
    if (half / 2 >= span.count) return;
    const size_t bytes = layout_.block_bytes / 2;
    const uint8_t* from = span.blocks[half / 2] + half % 2 * bytes;
    for (size_t i = 0; i < bytes; i += kLineBytes) __builtin_prefetch(from + i, 0, 2);
  }

  Slots seen_by(uint32_t t, const Span& span, uint32_t stored) const {
    const uint32_t ranks = args_.first_rank_of_step + t + 1;
    const uint32_t end = ranks <= span.rank ? 0 : std::min(stored, ranks - span.rank);
    if (args_.sight.window == 0) return {0, 0, end};
    const uint32_t out = out_of_window(span, end, t);
    const uint32_t sinks = args_.sight.sinks <= span.rank ? 0 : std::min(end, args_.sight.sinks - span.rank);
    return sinks < out ? Slots{sinks, out, end} : Slots{0, 0, end};
  }

  // How many of the first `count` slots of a span lie outside the window of query t. Positions increase along a list,
  // so these are the ones from the front on.
  uint32_t out_of_window(const Span& span, uint32_t count, uint32_t t) const {
    const auto first_seen = [&](uint32_t at) { return at + 1 > args_.sight.window ? at + 1 - args_.sight.window : 0; };
    const uint32_t query_rank = args_.first_rank_of_step + t;
    if (args_.mode == PositionMode::kRolling) {
      const uint32_t first = first_seen(query_rank);
      return first <= span.rank ? 0 : std::min(count, first - span.rank);
    }
    const uint32_t first = first_seen(query_rank + args_.query_delta);
    uint32_t out = 0;
    for (size_t i = 0; out == i * kBlockSlots && out < count; ++i) {
      const uint32_t in_block = std::min(kBlockSlots, count - out);
      const uint32_t* positions = positions_of(span.blocks[i]);
      out += static_cast<uint32_t>(std::lower_bound(positions, positions + in_block, first) - positions);
    }
    return out;
  }

  const uint32_t* positions_of(const uint8_t* block) const {
    return reinterpret_cast<const uint32_t*>(block + layout_.positions_offset);
  }

  // The queries rotated by `shift`, kept until it changes.
  void use_shift(int32_t shift) {
    if (shift == shift_ && has_queries_) return;
    load_queries(args_, shift, frequencies_, queries_);
    blocks_.set_queries(queries_);
    shift_ = shift;
    has_queries_ = true;
  }

  // How far the query is to be rotated for the key of a rank. Never less for a later one.
  int32_t shift_of(uint32_t position, uint32_t rank) const {
    const uint32_t delta = position - rank;
    if (args_.mode == PositionMode::kRolling) return static_cast<int32_t>(delta - args_.query_delta);
    return std::min(0, static_cast<int32_t>(delta - args_.clamp));
  }

  // Scores of one block for all rows. A block whose slots have one shift needs other queries; any other needs rotated
  // keys.
  void score(const uint8_t* block, uint32_t rank, uint32_t stored, float* scores) {
    if (args_.mode == PositionMode::kAbsolute) return blocks_.score(block, scores);
    const uint32_t* positions = positions_of(block);
    const int32_t first = shift_of(positions[0], rank);
    if (shift_of(positions[stored - 1], rank + stored - 1) == first) {
      use_shift(first);
      return blocks_.score(block, scores);
    }
    use_shift(0);
    int32_t shifts[kBlockSlots];
    for (uint32_t slot = 0; slot < kBlockSlots; ++slot) shifts[slot] = shift_of(positions[slot], rank + slot);
    rotate_keys(layout_, block, args_.rope.rotary_dim / 2, shifts, frequencies_, rotated_keys_);
    score_floats(queries_, rotated_keys_, rows_, layout_.head_dim, scores);
  }

  const AttendArgs& args_;
  const KvLayout& layout_;
  const size_t rows_;
  float* const rotated_keys_;  // [head_dim][32]
  float* const scores_;        // [rows][kSpanSlots], then weights
  float* const queries_;       // [rows][head_dim], scaled, rotated by shift_
  float* const factors_;       // [rows]
  float* const sums_;          // [rows][kLanes]
  Blocks blocks_;
  Frequencies frequencies_;
  uint32_t block_id_ = kNoBlock;
  int32_t shift_ = 0;
  bool has_queries_ = false;
};

void attend(const AttendArgs& args) {
  switch (args.pool.layout.type) {
    case KvType::kF16: return Attention<HalfBlocks>(args).run();
    case KvType::kInt8: return Attention<IntegerBlocks<8, 8>>(args).run();
    case KvType::kInt8k4v: return Attention<IntegerBlocks<8, 4>>(args).run();
    case KvType::kInt4: return Attention<IntegerBlocks<4, 4>>(args).run();
  }
}

void merge(const MergeArgs& args) {
  const size_t rows = size_t{args.tile} * args.group;
  for (size_t row = 0; row < rows; ++row) {
    float* out = args.out + row / args.group * args.out_stride + row % args.group * args.head_dim;
    float max = -kInfinity;
    for (size_t p = 0; p < args.parts; ++p) {
      if (args.sum[p * rows + row] != 0) max = std::max(max, args.max[p * rows + row]);
    }
    float sum = 0;
    std::fill_n(out, args.head_dim, 0.0f);
    for (size_t p = 0; p < args.parts; ++p) {
      const size_t at = p * rows + row;
      if (args.sum[at] == 0) continue;  // saw nothing
      const float weight = exp_one(args.max[at] - max);
      sum += weight * args.sum[at];
      for_lanes(args.head_dim, [&](size_t d, size_t count) HWY_ATTR {
        const VF part = load_lanes(args.acc + at * args.head_dim + d, count);
        store_lanes(hn::MulAdd(hn::Set(df, weight), part, load_lanes(out + d, count)), out + d, count);
      });
    }
    if (sum == 0) continue;
    const VF scale = hn::Set(df, 1.0f / sum);
    for_lanes(args.head_dim, [&](size_t d, size_t count)
                                 HWY_ATTR { store_lanes(hn::Mul(load_lanes(out + d, count), scale), out + d, count); });
  }
}

void weigh(const WeighArgs& args) {
  const size_t rows = size_t{args.tile} * args.group;
  const VF share = hn::Set(df, 1.0f / static_cast<float>(args.group));
  for (size_t t = 0; t < args.tile; ++t) {
    float* out = args.out + t * args.out_stride;
    std::fill_n(out, args.count, 0.0f);
    for (size_t row = t * args.group; row < (t + 1) * args.group; ++row) {
      float max = -kInfinity, sum = 0;
      for (size_t p = 0; p < args.parts; ++p) {
        if (args.sum[p * rows + row] != 0) max = std::max(max, args.max[p * rows + row]);
      }
      for (size_t p = 0; p < args.parts; ++p) {
        const size_t at = p * rows + row;
        if (args.sum[at] != 0) sum += args.sum[at] * exp_one(args.max[at] - max);
      }
      if (sum == 0) continue;  // saw nothing
      const VF log_sum = hn::Set(df, max + std::log(sum));
      const float* scores = args.scores + row * args.scores_stride;
      for_lanes(args.count, [&](size_t i, size_t count) HWY_ATTR {
        const VF weight = exp_lanes(hn::Sub(load_lanes(scores + i, count), log_sum));
        store_lanes(hn::MulAdd(weight, share, load_lanes(out + i, count)), out + i, count);
      });
    }
  }
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lethe::cpu {

HWY_EXPORT(attend);
HWY_EXPORT(merge);
HWY_EXPORT(weigh);

void set_simd_attention(Kernels& kernels) {
  kernels.attend = HWY_DYNAMIC_POINTER(attend);
  kernels.merge = HWY_DYNAMIC_POINTER(merge);
  kernels.weigh = HWY_DYNAMIC_POINTER(weigh);
}

}  // namespace lethe::cpu
#endif
