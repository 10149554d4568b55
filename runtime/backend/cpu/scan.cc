// Mamba-1's selective scan (2312.00752, section 3.3), and the short causal convolution in front of recurrent heads.
// Channels are independent: lanes run over channels, and a vector of them goes through all tokens of the call with its
// state at hand. One token is the same as many, to the last bit.
#include "runtime/base/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/backend/cpu/scan.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/base/simd/math-inl.h"
#include "runtime/backend/cpu/recurrent-inl.h"
#include "runtime/backend/cpu/simd_tables.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

// Channels [channel, + count) of a head's value_dim. `rate` and `state` point at the first of them.
template <class T>
HWY_INLINE void scan_channels(const ScanArgs& args, size_t channel, size_t count, const float* HWY_RESTRICT rate,
                              T* HWY_RESTRICT state) {
  const size_t n = args.view.heads.key_dim, stride = args.view.heads.value_dim;
  float* HWY_RESTRICT const s = args.scratch;  // [key_dim][kLanes]
  for (size_t i = 0; i < n; ++i) hn::StoreU(load_state(state + i * stride, count), df, s + i * kLanes);
  const VF bias = load_lanes(args.dt_bias + channel, count), skip = load_lanes(args.skip + channel, count);
  for (size_t t = 0; t < args.tokens; ++t) {
    const VF dt = softplus_lanes(hn::Add(load_lanes(args.dt + t * args.dt_stride + channel, count), bias));
    const VF x = load_lanes(args.x + t * args.x_stride + channel, count);
    const VF exponent = hn::Mul(dt, hn::Set(df, 1.44269504f));  // of 2, for a rate of 1
    const VF written = hn::Mul(dt, x);
    const float* HWY_RESTRICT const b = args.b + t * args.bc_stride;
    const float* HWY_RESTRICT const c = args.c + t * args.bc_stride;
    VF y = hn::Mul(skip, x);
    for (size_t i = 0; i < n; ++i) {
      const VF decay = exp2_negative_lanes(hn::Mul(exponent, load_lanes(rate + i * stride, count)));
      const VF next = hn::MulAdd(written, hn::Set(df, b[i]), hn::Mul(decay, hn::LoadU(df, s + i * kLanes)));
      hn::StoreU(next, df, s + i * kLanes);
      y = hn::MulAdd(hn::Set(df, c[i]), next, y);
    }
    store_lanes(y, args.out + t * args.out_stride + channel, count);
  }
  for (size_t i = 0; i < n; ++i) store_state(hn::LoadU(df, s + i * kLanes), state + i * stride, count);
}

template <class T>
void scan_head(const ScanArgs& args, size_t head) {
  const RecurrentHeads& heads = args.view.heads;
  const float* const rate = args.rate + head * heads.key_dim * heads.value_dim;
  T* const state = reinterpret_cast<T*>(args.view.head(head));
  for_lanes(heads.value_dim, [&](size_t i, size_t count) HWY_ATTR {
    scan_channels(args, head * heads.value_dim + i, count, rate + i, state + i);
  });
}

void scan(const ScanArgs& args, uint32_t head_begin, uint32_t head_end) {
  for (size_t head = head_begin; head < head_end; ++head) {
    if (args.view.heads.state_type == StateType::kF32) {
      scan_head<float>(args, head);
    } else {
      scan_head<Bf16>(args, head);
    }
  }
}

// V vectors of channels from `channel` on, `count` < kLanes only with V == 1. The last inputs stay in registers on
// their way through the tokens.
template <size_t kTaps, size_t V>
HWY_INLINE void convolve_channels(const ConvArgs& args, size_t channel, size_t count) {
  VF x[V][kTaps];  // oldest first
  for (size_t v = 0; v < V; ++v) {
    for (size_t j = 0; j + 1 < kTaps; ++j) {
      x[v][j] = load_lanes(args.state + j * args.channels + channel + v * kLanes, count);
    }
  }
  for (size_t t = 0; t < args.tokens; ++t) {
    for (size_t v = 0; v < V; ++v) {
      const size_t at = channel + v * kLanes;
      x[v][kTaps - 1] = load_lanes(args.x + t * args.x_stride + at, count);
      VF sum = args.bias == nullptr ? hn::Zero(df) : load_lanes(args.bias + at, count);
      for (size_t j = 0; j < kTaps; ++j) {
        sum = hn::MulAdd(load_lanes(args.weight + j * args.channels + at, count), x[v][j], sum);
      }
      store_lanes(hn::Mul(sum, sigmoid_lanes(sum)), args.out + t * args.out_stride + at, count);
      for (size_t j = 0; j + 1 < kTaps; ++j) x[v][j] = x[v][j + 1];
    }
  }
  for (size_t v = 0; v < V; ++v) {
    for (size_t j = 0; j + 1 < kTaps; ++j) {
      store_lanes(x[v][j], args.state + j * args.channels + channel + v * kLanes, count);
    }
  }
}

template <size_t kTaps>
void convolve_taps(const ConvArgs& args, size_t begin, size_t end) {
  constexpr size_t kVectors = 4;
  for (; begin + kVectors * kLanes <= end; begin += kVectors * kLanes) {
    convolve_channels<kTaps, kVectors>(args, begin, kLanes);
  }
  for_lanes(end - begin, [&](size_t i, size_t count) HWY_ATTR { convolve_channels<kTaps, 1>(args, begin + i, count); });
}

void convolve(const ConvArgs& args, uint32_t channel_begin, uint32_t channel_end) {
  switch (args.taps) {
    case 2: return convolve_taps<2>(args, channel_begin, channel_end);
    case 3: return convolve_taps<3>(args, channel_begin, channel_end);
    default: return convolve_taps<4>(args, channel_begin, channel_end);
  }
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lethe::cpu {

HWY_EXPORT(scan);
HWY_EXPORT(convolve);

void set_simd_scan(Kernels& kernels) {
  kernels.scan = HWY_DYNAMIC_POINTER(scan);
  kernels.convolve = HWY_DYNAMIC_POINTER(convolve);
}

}  // namespace lethe::cpu
#endif
