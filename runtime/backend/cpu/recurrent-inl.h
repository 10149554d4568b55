// What the kernels of recurrent heads share.
#if defined(LETHE_BACKEND_CPU_RECURRENT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BACKEND_CPU_RECURRENT_INL_H_
#undef LETHE_BACKEND_CPU_RECURRENT_INL_H_
#else
#define LETHE_BACKEND_CPU_RECURRENT_INL_H_
#endif

#include <cmath>

#include "runtime/base/simd/math-inl.h"
#include "runtime/backend/cpu/recurrent_kernels.h"
#include "runtime/base/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {
static_assert(kLanes <= kMaxLanes);

// States, which are f32 or bf16; `count` elements of a vector.
template <class T>
HWY_INLINE VF load_state(const T* from, size_t count) {
  return count == kLanes ? load_float(from) : load_float_n(from, count);
}
HWY_INLINE void store_state(VF v, float* to, size_t count) { store_lanes(v, to, count); }
HWY_INLINE void store_state(VF v, Bf16* to, size_t count) {
  const hn::Rebind<Bf16, DF> db;
  const auto rounded = hn::DemoteTo(db, v);  // to nearest even
  if (count == kLanes) {
    hn::StoreU(rounded, db, to);
  } else {
    hn::StoreN(rounded, db, to, count);
  }
}

// Rows of the first token of a call.
HWY_INLINE const float* row_of(const HeadRows& rows, size_t user, size_t users, size_t dim) {
  return rows.data + user * rows.count / users * dim;
}
HWY_INLINE const float* key_row(const RecurArgs& args, size_t head) {
  return row_of(args.keys, head, args.view.heads.count, args.view.heads.key_dim);
}
HWY_INLINE const float* value_row(const RecurArgs& args, size_t head) {
  return row_of(args.values, head, args.view.heads.count, args.view.heads.value_dim);
}
HWY_INLINE const float* query_row(const RecurArgs& args, size_t head, size_t read) {
  const RecurrentHeads& heads = args.view.heads;
  return row_of(args.queries, head * args.reads + read, size_t{heads.count} * args.reads, heads.key_dim);
}
HWY_INLINE float* answer_row(const RecurArgs& args, size_t head, size_t read) {
  return args.out + (head * args.reads + read) * args.view.heads.value_dim;
}

// What a key or query of a gated delta net is multiplied with.
HWY_INLINE float inverse_length(const float* x, size_t n) {
  VF squares = hn::Zero(df);
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    const VF v = load_lanes(x + i, count);
    squares = hn::MulAdd(v, v, squares);
  });
  return 1.0f / std::sqrt(hn::ReduceSum(df, squares) + 1e-6f);
}

// The gates of up to kRecurBlock tokens of a head: what S decays by, and what is written is multiplied with.
struct Gates {
  alignas(64) float decay[kRecurBlock] = {};
  alignas(64) float write[kRecurBlock] = {};
};

HWY_INLINE void make_gates(const RecurArgs& args, size_t head, size_t token, size_t count, bool delta, Gates& gates) {
  for (size_t t = 0; t < count; ++t) {
    const size_t at = (token + t) * args.gate_stride + head;
    gates.decay[t] = args.dt[at] + args.dt_bias[head];
    if (delta) gates.write[t] = args.beta[at];
  }
  for (size_t t = 0; t < count; t += kLanes) {
    const VF dt = softplus_lanes(hn::Load(df, gates.decay + t));
    hn::Store(exp_lanes(hn::Mul(dt, hn::Set(df, args.rate[head]))), df, gates.decay + t);
    hn::Store(delta ? sigmoid_lanes(hn::Load(df, gates.write + t)) : dt, df, gates.write + t);
  }
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
