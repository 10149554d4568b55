// The transform of runtime/cache/hadamard.h, to the same bits. Compiled once per target.
#if defined(LETHE_BACKEND_CPU_HADAMARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BACKEND_CPU_HADAMARD_INL_H_
#undef LETHE_BACKEND_CPU_HADAMARD_INL_H_
#else
#define LETHE_BACKEND_CPU_HADAMARD_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "runtime/base/simd/simd-inl.h"
#include "runtime/cache/hadamard.h"
#include "runtime/cache/kv_layout.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

// One row [n]; out may be x. Every pass adds and subtracts neighbours, and puts the sums before the differences: the
// element that the next pass has to find beside another is there by then, and after the last all are back in order.
HWY_INLINE void hadamard_row(const float* x, size_t n, float* out) {
  const size_t block = hadamard_block(n), half = block / 2;
  const float factor = 1 / std::sqrt(static_cast<float>(block));
  float work[2][kMaxHadamardBlock];
  for (size_t begin = 0; begin < n; begin += block) {
    const float* from = x + begin;
    float* to = work[0];
    for (size_t done = 1; done < block; done *= 2) {
      size_t i = 0;
      for (; i + kLanes <= half; i += kLanes) {
        VF even, odd;
        hn::LoadInterleaved2(df, from + 2 * i, even, odd);
        hn::StoreU(hn::Add(even, odd), df, to + i);
        hn::StoreU(hn::Sub(even, odd), df, to + half + i);
      }
      for (; i < half; ++i) {
        to[i] = from[2 * i] + from[2 * i + 1];
        to[half + i] = from[2 * i] - from[2 * i + 1];
      }
      from = to;
      to = to == work[0] ? work[1] : work[0];
    }
    for_lanes(block, [&](size_t i, size_t count) HWY_ATTR {
      store_lanes(hn::Mul(load_lanes(from + i, count), hn::Set(df, factor)), out + begin + i, count);
    });
  }
}

// All keys of a block [head_dim][32], in place.
HWY_INLINE void hadamard_keys(float* keys, size_t head_dim) {
  const size_t block = hadamard_block(head_dim);
  const VF factor = hn::Set(df, 1 / std::sqrt(static_cast<float>(block)));
  for (size_t slot = 0; slot < kBlockSlots; slot += kLanes) {
    for (size_t stride = 1; stride < block; stride *= 2) {
      for (size_t d = 0; d < head_dim; ++d) {
        if ((d & stride) != 0) continue;
        float* low = keys + d * kBlockSlots + slot;
        float* high = low + stride * kBlockSlots;
        const VF a = hn::LoadU(df, low), b = hn::LoadU(df, high);
        hn::StoreU(hn::Add(a, b), df, low);
        hn::StoreU(hn::Sub(a, b), df, high);
      }
    }
    for (size_t d = 0; d < head_dim; ++d) {
      float* at = keys + d * kBlockSlots + slot;
      hn::StoreU(hn::Mul(hn::LoadU(df, at), factor), df, at);
    }
  }
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
