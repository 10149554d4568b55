// Linear layers with f32 and f16 weights: lanes run over the 16 rows of a panel, activations are broadcast.
#include "runtime/base/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/backend/cpu/linear_float.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/linear-inl.h"
#include "runtime/base/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

// Weight is float or Half.
template <class Weight>
struct FloatTile {
  static constexpr int kDecodeVectors = 4;  // as many chains of sums

  // y of T tokens from `token` on, for V vectors of rows from vector `first` on. Every output is one chain of
  // multiply-adds over k, whatever T and V are.
  template <int T, int V>
  static HWY_INLINE void run(const LinearArgs& args, size_t first, size_t token) {
    const size_t cols = args.weight.cols;
    const Weight* HWY_RESTRICT w[V];
    for (size_t v = 0; v < V; ++v) {
      w[v] = reinterpret_cast<const Weight*>(panel_of(args.weight, first + v)) + part_of(first + v) * kLanes;
    }
    const float* HWY_RESTRICT x = args.x + token * cols;
    VF acc[T][V];
    HWY_UNROLL(8)
    for (int t = 0; t < T; ++t) {
      HWY_UNROLL(4)
      for (int v = 0; v < V; ++v) acc[t][v] = hn::Zero(df);
    }
    for (size_t k = 0; k < cols; ++k) {
      VF weight[V];
      HWY_UNROLL(4)
      for (int v = 0; v < V; ++v) weight[v] = load_float(w[v] + k * kPanelRows);
      HWY_UNROLL(8)
      for (int t = 0; t < T; ++t) {
        const VF input = hn::Set(df, x[static_cast<size_t>(t) * cols + k]);
        HWY_UNROLL(4)
        for (int v = 0; v < V; ++v) acc[t][v] = hn::MulAdd(input, weight[v], acc[t][v]);
      }
    }
    store_tile<T, V>(args, first, token, acc);
  }
};

void linear_float(const LinearArgs& args, uint32_t panel_begin, uint32_t panel_end) {
  if (args.weight.format == WeightFormat::kF32) {
    for_tiles<FloatTile<float>>(args, panel_begin, panel_end);
  } else {
    for_tiles<FloatTile<Half>>(args, panel_begin, panel_end);
  }
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
