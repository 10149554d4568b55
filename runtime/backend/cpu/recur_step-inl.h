// Mamba-2 and gated delta net, one token at a time: the state is read once for S^T k (gated delta) and once more to be
// updated and to answer, a few columns after the other, so that they stay in the first cache in between.
#if defined(LETHE_BACKEND_CPU_RECUR_STEP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BACKEND_CPU_RECUR_STEP_INL_H_
#undef LETHE_BACKEND_CPU_RECUR_STEP_INL_H_
#else
#define LETHE_BACKEND_CPU_RECUR_STEP_INL_H_
#endif

#include "runtime/backend/cpu/recurrent-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

// Of one head, state type T: float or Bf16. Without kRead nothing is answered.
template <bool kDelta, bool kRead, class T>
class RecurStep {
 public:
  // state [key_dim][stride]
  RecurStep(const RecurArgs& args, size_t head, T* state, size_t stride)
      : args_(args), head_(head), state_(state), stride_(stride) {}

  void run(size_t token) {
    token_ = token;
    key_ = key_row(args_, head_) + token * args_.keys.stride;
    key_factor_ = kDelta ? inverse_length(key_, args_.view.heads.key_dim) : 1.0f;
    make_gates(args_, head_, token, 1, kDelta, gates_);
    const size_t value_dim = args_.view.heads.value_dim;
    size_t col = 0;
    for (; col + kVectors * kLanes <= value_dim; col += kVectors * kLanes) columns<kVectors>(col, kLanes);
    for_lanes(value_dim - col, [&](size_t i, size_t count) HWY_ATTR { columns<1>(col + i, count); });
  }

 private:
  static constexpr size_t kVectors = 4;  // and two chains of sums for each hide the latency of a sum

  // V vectors of columns from `col` on; `count` < kLanes only with V == 1.
  template <size_t V>
  HWY_INLINE void columns(size_t col, size_t count) {
    const float* const value = value_row(args_, head_) + token_ * args_.values.stride + col;
    const VF decay = hn::Set(df, gates_.decay[0]);
    VF u[V];
    for (size_t v = 0; v < V; ++v) u[v] = load_lanes(value + v * kLanes, count);
    if constexpr (kDelta) {
      VF known[V];
      dot<V>(key_, col, count, known);
      const VF factor = hn::Set(df, key_factor_ * gates_.decay[0]);
      for (size_t v = 0; v < V; ++v) u[v] = hn::NegMulAdd(factor, known[v], u[v]);
    }
    const VF write = hn::Set(df, key_factor_ * gates_.write[0]);  // the key is not divided by its length
    for (size_t v = 0; v < V; ++v) u[v] = hn::Mul(write, u[v]);
    const float* const query = kRead ? query_row(args_, head_, 0) + token_ * args_.queries.stride : key_;
    VF o[V];
    for (size_t v = 0; v < V; ++v) o[v] = hn::Zero(df);
    for (size_t row = 0; row < args_.view.heads.key_dim; ++row) {
      const VF k = hn::Set(df, key_[row]), q = hn::Set(df, query[row]);
      HWY_UNROLL(4)
      for (size_t v = 0; v < V; ++v) {
        T* const at = state_ + row * stride_ + col + v * kLanes;
        const VF next = hn::MulAdd(k, u[v], hn::Mul(decay, load_state(at, count)));
        store_state(next, at, count);
        if constexpr (kRead) o[v] = hn::MulAdd(q, next, o[v]);
      }
    }
    if constexpr (kRead) {
      answer<V>(o, query, 0, col, count);
      for (size_t read = 1; read < args_.reads; ++read) {
        const float* const other = query_row(args_, head_, read) + token_ * args_.queries.stride;
        dot<V>(other, col, count, o);
        answer<V>(o, other, read, col, count);
      }
    }
  }

  // out = S^T x.
  template <size_t V>
  HWY_INLINE void dot(const float* x, size_t col, size_t count, VF* out) const {
    VF even[V], odd[V];
    for (size_t v = 0; v < V; ++v) even[v] = odd[v] = hn::Zero(df);
    const T* s = state_ + col;
    size_t row = 0;
    for (; row + 2 <= args_.view.heads.key_dim; row += 2, s += 2 * stride_) {
      const VF x0 = hn::Set(df, x[row]), x1 = hn::Set(df, x[row + 1]);
      HWY_UNROLL(4)
      for (size_t v = 0; v < V; ++v) {
        even[v] = hn::MulAdd(x0, load_state(s + v * kLanes, count), even[v]);
        odd[v] = hn::MulAdd(x1, load_state(s + stride_ + v * kLanes, count), odd[v]);
      }
    }
    for (size_t v = 0; v < V; ++v) {
      if (row < args_.view.heads.key_dim) {
        even[v] = hn::MulAdd(hn::Set(df, x[row]), load_state(s + v * kLanes, count), even[v]);
      }
      out[v] = hn::Add(even[v], odd[v]);
    }
  }

  template <size_t V>
  HWY_INLINE void answer(const VF* o, const float* query, size_t read, size_t col, size_t count) const {
    const float length = kDelta ? inverse_length(query, args_.view.heads.key_dim) : 1.0f;
    const VF factor = hn::Set(df, length * args_.scale);
    float* const out = answer_row(args_, head_, read) + token_ * args_.out_stride + col;
    const float* const value = value_row(args_, head_) + token_ * args_.values.stride + col;
    const VF skip = hn::Set(df, args_.skip == nullptr ? 0.0f : args_.skip[head_]);
    for (size_t v = 0; v < V; ++v) {
      VF y = hn::Mul(factor, o[v]);
      if (args_.skip != nullptr) y = hn::MulAdd(skip, load_lanes(value + v * kLanes, count), y);
      store_lanes(y, out + v * kLanes, count);
    }
  }

  const RecurArgs& args_;
  const size_t head_;
  T* const state_;
  const size_t stride_;
  size_t token_ = 0;
  const float* key_ = nullptr;
  float key_factor_ = 1;
  Gates gates_;
};

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
