// Attention over the KV blocks, and the store of new keys and values into them.
//
// Both products of attention are the same small one, `multiply_rows`: lanes run over the 32 slots of a block for the
// scores (keys are stored transposed) and over head_dim for the weighted values; a tile of (query, head) rows shares
// every load of a key or a value.
#include "runtime/backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/backend/cpu/attention.cc"
#include <algorithm>
#include <cmath>
#include <limits>

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/math-inl.h"
#include "runtime/backend/cpu/simd-inl.h"
#include "runtime/backend/cpu/simd_tables.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kSmallest = std::numeric_limits<float>::min();

// Row-major operands of multiply_rows: out = (factor * out) + a b. Strides in elements.
template <class B>
struct Product {
  const float* a;  // [rows][n]
  size_t a_stride;
  const B* b;  // [n][cols], float, Half or int8_t
  size_t b_stride;
  size_t rows, n, cols;
  const float* factors;  // [rows], or null to overwrite out
  float* out;            // [rows][cols], stride cols
};

// R rows, V vectors of columns from `col` on; `count` < kLanes only with V == 1. One chain of sums per output.
template <int R, int V, class B>
HWY_INLINE void multiply_tile(const Product<B>& p, size_t row, size_t col, size_t count) {
  float* out = p.out + row * p.cols + col;
  VF acc[R][V];
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(2)
    for (int v = 0; v < V; ++v) {
      const size_t at = static_cast<size_t>(r) * p.cols + static_cast<size_t>(v) * kLanes;
      acc[r][v] = p.factors == nullptr
                      ? hn::Zero(df)
                      : hn::Mul(load_lanes(out + at, count), hn::Set(df, p.factors[row + static_cast<size_t>(r)]));
    }
  }
  const float* HWY_RESTRICT a = p.a + row * p.a_stride;
  const B* HWY_RESTRICT b = p.b + col;
  for (size_t i = 0; i < p.n; ++i) {
    VF line[V];
    HWY_UNROLL(2)
    for (int v = 0; v < V; ++v) {
      const B* at = b + i * p.b_stride + static_cast<size_t>(v) * kLanes;
      line[v] = count == kLanes ? load_float(at) : load_float_n(at, count);
    }
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) {
      const VF left = hn::Set(df, a[static_cast<size_t>(r) * p.a_stride + i]);
      HWY_UNROLL(2)
      for (int v = 0; v < V; ++v) acc[r][v] = hn::MulAdd(left, line[v], acc[r][v]);
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(2)
    for (int v = 0; v < V; ++v) {
      const size_t at = static_cast<size_t>(r) * p.cols + static_cast<size_t>(v) * kLanes;
      store_lanes(acc[r][v], out + at, count);
    }
  }
}

template <int R, class B>
HWY_NOINLINE void multiply_columns(const Product<B>& p, size_t row) {
  size_t col = 0;
  for (; col + 2 * kLanes <= p.cols; col += 2 * kLanes) multiply_tile<R, 2>(p, row, col, kLanes);
  for (; col + kLanes <= p.cols; col += kLanes) multiply_tile<R, 1>(p, row, col, kLanes);
  if (col < p.cols) multiply_tile<R, 1>(p, row, col, p.cols - col);
}

template <int R, class B>
HWY_INLINE void multiply_rest(const Product<B>& p, size_t row) {
  if constexpr (R > 0) {
    if (p.rows - row == R) return multiply_columns<R>(p, row);
    multiply_rest<R - 1>(p, row);
  }
}

template <class B>
void multiply_rows(const Product<B>& p) {
  constexpr int kRows = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64 ? 8 : 4;  // by the number of vector registers
  size_t row = 0;
  for (; row + kRows <= p.rows; row += kRows) multiply_columns<kRows>(p, row);
  multiply_rest<kRows - 1>(p, row);
}

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

// Keys [head_dim][32] as floats, every slot rotated back by its own shift: what a block needs whose slots are not one
// run. Rotating a key by -s is rotating the query by s; the work is shared by all rows of the tile.
template <class Key>
void rotate_keys(const Key* keys, size_t head_dim, size_t half, const int32_t* shifts, const Frequencies& frequencies,
                 float* out) {
  for (size_t slot = 0; slot < kBlockSlots; slot += kLanes) {
    const VI shift = hn::LoadU(di, shifts + slot);
    for (size_t i = 0; i < half; ++i) {
      VF s, c;
      sin_cos_lanes(phase_of(shift, hn::Set(di, frequencies.high[i]), hn::Set(di, frequencies.low[i])), s, c);
      const size_t at = i * kBlockSlots + slot;
      const VF a = load_float(keys + at);
      const VF b = load_float(keys + at + half * kBlockSlots);
      hn::StoreU(hn::MulAdd(b, s, hn::Mul(a, c)), df, out + at);
      hn::StoreU(hn::NegMulAdd(a, s, hn::Mul(b, c)), df, out + at + half * kBlockSlots);
    }
    for (size_t d = 2 * half; d < head_dim; ++d) {
      hn::StoreU(load_float(keys + d * kBlockSlots + slot), df, out + d * kBlockSlots + slot);
    }
  }
}

// Slots [begin, end) of a block, at least one: what a query sees of it.
struct Slots {
  uint32_t begin, end;
};

// One step of the online softmax over `rows` rows of 32 scores, of which `seen` count: scores become what multiplies
// the values, and factors what corrects the earlier sums. The scales, of int8 pools, may be null. In three passes, so
// that rows overlap and the factors take one exp for kLanes rows.
void softmax_step(float* scores, size_t rows, Slots seen, float softcap, const float* key_scale,
                  const float* value_scale, float* max, float* sum, float* factors) {
  const size_t n = seen.end;
  const VF cap = hn::Set(df, softcap);
  for (size_t row = 0; row < rows; ++row) {
    VF top = hn::Set(df, max[row]);
    for (size_t i = 0; i < n; i += kLanes) {
      float* at = scores + row * kBlockSlots + i;
      VF s = hn::LoadU(df, at);
      if (key_scale != nullptr) s = hn::Mul(s, hn::LoadU(df, key_scale + i));
      if (softcap != 0) s = hn::Mul(cap, tanh_lanes(hn::Div(s, cap)));
      s = hn::IfThenElse(hn::FirstN(df, n - i), s, hn::Set(df, -kInfinity));
      if (seen.begin > i) s = hn::IfThenElse(hn::FirstN(df, seen.begin - i), hn::Set(df, -kInfinity), s);
      hn::StoreU(s, df, at);
      top = hn::Max(top, s);
    }
    const float new_max = hn::ReduceMax(df, top);
    factors[row] = max[row] - new_max;
    max[row] = new_max;
  }
  for_lanes(rows, [&](size_t row, size_t count)
                      HWY_ATTR { store_lanes(exp_lanes(load_lanes(factors + row, count)), factors + row, count); });
  for (size_t row = 0; row < rows; ++row) {
    VF total = hn::Zero(df);
    for (size_t i = 0; i < n; i += kLanes) {
      float* at = scores + row * kBlockSlots + i;
      const VF p = exp_lanes(hn::Sub(hn::LoadU(df, at), hn::Set(df, max[row])));
      total = hn::Add(total, p);
      hn::StoreU(value_scale == nullptr ? p : hn::Mul(p, hn::LoadU(df, value_scale + i)), df, at);
    }
    sum[row] = sum[row] * factors[row] + hn::ReduceSum(df, total);
  }
}

// The state of one call: the arguments and the parts of its scratch.
template <class Element>
class Attention {
 public:
  explicit Attention(const AttendArgs& args)
      : args_(args),
        layout_(args.pool.layout),
        rows_((args.query_end - args.query_begin) * args.group),
        rotated_keys_(args.scratch),
        scores_(rotated_keys_ + layout_.head_dim * kBlockSlots),
        queries_(scores_ + kQueryTile * args.group * kBlockSlots),
        factors_(queries_ + kQueryTile * args.group * layout_.head_dim) {
    frequencies_.high = reinterpret_cast<int32_t*>(factors_ + kQueryTile * args.group);
    frequencies_.low = frequencies_.high + args.rope.rotary_dim / 2;
  }

  void run() {
    std::fill_n(args_.max, rows_, -kInfinity);
    std::fill_n(args_.sum, rows_, 0.0f);
    std::fill_n(args_.acc, rows_ * layout_.head_dim, 0.0f);
    load_queries(args_, 0, frequencies_, queries_);
    if (args_.mode == PositionMode::kRolling) set_frequencies(args_.rope, frequencies_);
    uint32_t block_id = args_.start_block;
    for (uint32_t rank = args_.rank_begin; rank < args_.rank_end; rank += kBlockSlots) {
      if (rank != args_.rank_begin) block_id = args_.pool.next[block_id];
      visit(args_.pool.blocks + size_t{block_id} * layout_.block_bytes, rank);
    }
  }

 private:
  void visit(const uint8_t* block, uint32_t rank) {
    const uint32_t stored = std::min(kBlockSlots, args_.rank_end - rank);
    const auto seen_by = [&](uint32_t t) -> Slots {
      const uint32_t ranks = args_.first_rank_of_step + t + 1;
      return {args_.window == 0 ? 0 : out_of_window(block, rank, stored, t),
              ranks <= rank ? 0 : std::min(stored, ranks - rank)};
    };
    const Slots of_first = seen_by(args_.query_begin), of_last = seen_by(args_.query_end - 1);
    if (of_last.end == 0 || of_first.begin == stored) return;  // what the last sees not, and the first no more
    const auto* keys = reinterpret_cast<const Element*>(block + layout_.keys_offset);
    const float* rotated = args_.mode == PositionMode::kRolling ? place(block, keys, rank, stored) : nullptr;
    if (of_first.end == stored && of_last.begin == 0) {
      score_and_add(block, keys, rotated, 0, rows_, {0, stored});
    } else {  // query by query, so that none touches what it does not see
      for (uint32_t t = args_.query_begin; t < args_.query_end; ++t) {
        const Slots seen = seen_by(t);
        if (seen.begin >= seen.end) continue;
        score_and_add(block, keys, rotated, (t - args_.query_begin) * args_.group, args_.group, seen);
      }
    }
  }

  // How many of a block's first slots lie outside the window of query t. Positions increase along a list, so these are
  // the ones from the front on.
  uint32_t out_of_window(const uint8_t* block, uint32_t rank, uint32_t stored, uint32_t t) const {
    const uint32_t query_rank = args_.first_rank_of_step + t;
    if (args_.mode == PositionMode::kRolling) {
      const uint32_t first_seen = query_rank + 1 > args_.window ? query_rank + 1 - args_.window : 0;
      return first_seen <= rank ? 0 : std::min(stored, first_seen - rank);
    }
    const auto* positions = reinterpret_cast<const uint32_t*>(block + layout_.positions_offset);
    const uint32_t query_position = query_rank + args_.query_delta;
    const uint32_t first_seen = query_position + 1 > args_.window ? query_position + 1 - args_.window : 0;
    return static_cast<uint32_t>(std::lower_bound(positions, positions + stored, first_seen) - positions);
  }

  // Rolling positions: brings queries and keys of a block to distances in ranks. A block that is one run needs other
  // queries, kept until the shift changes; any other needs the rotated keys, which are returned.
  const float* place(const uint8_t* block, const Element* keys, uint32_t rank, uint32_t stored) {
    const auto* positions = reinterpret_cast<const uint32_t*>(block + layout_.positions_offset);
    const bool one_run = positions[stored - 1] - positions[0] == stored - 1;
    const int32_t shift = one_run ? static_cast<int32_t>(positions[0] - rank - args_.query_delta) : 0;
    if (shift != shift_) load_queries(args_, shift, frequencies_, queries_);
    shift_ = shift;
    if (one_run) return nullptr;
    int32_t shifts[kBlockSlots];
    for (uint32_t slot = 0; slot < kBlockSlots; ++slot) {
      shifts[slot] = static_cast<int32_t>(positions[slot] - (rank + slot) - args_.query_delta);
    }
    rotate_keys(keys, layout_.head_dim, args_.rope.rotary_dim / 2, shifts, frequencies_, rotated_keys_);
    return rotated_keys_;
  }

  // Adds slots of a block to the results of `rows` rows from `row` on.
  void score_and_add(const uint8_t* block, const Element* keys, const float* rotated, size_t row, size_t rows,
                     Slots seen) {
    const size_t head_dim = layout_.head_dim;
    const float* queries = queries_ + row * head_dim;
    if (rotated != nullptr) {
      multiply_rows<float>({queries, head_dim, rotated, kBlockSlots, rows, head_dim, kBlockSlots, nullptr, scores_});
    } else {
      multiply_rows<Element>({queries, head_dim, keys, kBlockSlots, rows, head_dim, kBlockSlots, nullptr, scores_});
    }
    const bool scaled = layout_.type == KvType::kInt8;
    const auto* key_scale = scaled ? reinterpret_cast<const float*>(block + layout_.key_scale_offset) : nullptr;
    const auto* value_scale = scaled ? reinterpret_cast<const float*>(block + layout_.value_scale_offset) : nullptr;
    softmax_step(scores_, rows, seen, args_.softcap, key_scale, value_scale, args_.max + row, args_.sum + row,
                 factors_);
    const auto* values = reinterpret_cast<const Element*>(block + layout_.values_offset);
    multiply_rows<Element>(
        {scores_, kBlockSlots, values, head_dim, rows, seen.end, head_dim, factors_, args_.acc + row * head_dim});
  }

  const AttendArgs& args_;
  const KvLayout& layout_;
  const size_t rows_;
  float* const rotated_keys_;  // [head_dim][32]
  float* const scores_;        // [rows][32]
  float* const queries_;       // [rows][head_dim], scaled, rotated by shift_
  float* const factors_;       // [rows]
  Frequencies frequencies_;
  int32_t shift_ = 0;
};

void attend(const AttendArgs& args) {
  if (args.pool.layout.type == KvType::kF16) {
    Attention<Half>(args).run();
  } else {
    Attention<int8_t>(args).run();
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

// Writes kLanes elements (or `count`) of a row as halves, or as int8 divided by `scale`.
HWY_INLINE void convert_row(const float* x, size_t n, float, size_t stride, Half* out) {
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    const hn::Rebind<Half, DF> dh;
    Half lanes[kLanes];
    hn::StoreU(hn::DemoteTo(dh, load_lanes(x + i, count)), dh, lanes);
    for (size_t j = 0; j < count; ++j) out[(i + j) * stride] = lanes[j];
  });
}
HWY_INLINE void convert_row(const float* x, size_t n, float scale, size_t stride, int8_t* out) {
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    const hn::Rebind<int8_t, DF> d8;
    int8_t lanes[kLanes];
    const VF ratio = hn::Div(load_lanes(x + i, count), hn::Set(df, scale));
    const VF bounded = hn::Min(hn::Max(ratio, hn::Set(df, -127.0f)), hn::Set(df, 127.0f));
    hn::StoreU(hn::DemoteTo(d8, hn::NearestInt(bounded)), d8, lanes);
    for (size_t j = 0; j < count; ++j) out[(i + j) * stride] = lanes[j];
  });
}

// The scale of one token's key or value in an int8 pool; 1 where all are zero, so that division is always possible.
HWY_INLINE float int8_scale(const float* x, size_t n) {
  VF largest = hn::Zero(df);
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR { largest = hn::Max(largest, hn::Abs(load_lanes(x + i, count))); });
  const float top = hn::ReduceMax(df, largest);
  return top > 0 ? std::max(top / 127.0f, kSmallest) : 1.0f;
}

template <class Element>
void store_tokens(const StoreKvArgs& args) {
  const KvLayout& layout = args.pool.layout;
  const size_t n = layout.head_dim;
  for (uint32_t t = 0; t < args.tokens; ++t) {
    uint8_t* block = args.pool.blocks + size_t{args.block_of_token[t]} * layout.block_bytes;
    const size_t slot = (args.first_slot + t) % kBlockSlots;
    const float* k = args.k + size_t{t} * args.k_stride;
    const float* v = args.v + size_t{t} * args.v_stride;
    reinterpret_cast<uint32_t*>(block + layout.positions_offset)[slot] = args.first_position + t;
    float key_scale = 1, value_scale = 1;
    if (layout.type == KvType::kInt8) {
      key_scale = reinterpret_cast<float*>(block + layout.key_scale_offset)[slot] = int8_scale(k, n);
      value_scale = reinterpret_cast<float*>(block + layout.value_scale_offset)[slot] = int8_scale(v, n);
    }
    convert_row(k, n, key_scale, kBlockSlots, reinterpret_cast<Element*>(block + layout.keys_offset) + slot);
    convert_row(v, n, value_scale, 1, reinterpret_cast<Element*>(block + layout.values_offset) + slot * n);
  }
}

void store_kv(const StoreKvArgs& args) {
  if (args.pool.layout.type == KvType::kF16) {
    store_tokens<Half>(args);
  } else {
    store_tokens<int8_t>(args);
  }
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lethe::cpu {

HWY_EXPORT(attend);
HWY_EXPORT(merge);
HWY_EXPORT(store_kv);

void set_simd_attention(Kernels& kernels) {
  kernels.attend = HWY_DYNAMIC_POINTER(attend);
  kernels.merge = HWY_DYNAMIC_POINTER(merge);
  kernels.store_kv = HWY_DYNAMIC_POINTER(store_kv);
}

}  // namespace lethe::cpu
#endif
