#include "runtime/base/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cache/namm/network.cc"
#include <algorithm>
#include <cmath>
#include <limits>

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/base/simd/math-inl.h"
#include "runtime/base/simd/simd-inl.h"
#include "runtime/cache/kv_layout.h"
#include "runtime/cache/namm/network.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::namm::HWY_NAMESPACE {
using namespace lethe::cpu::HWY_NAMESPACE;  // NOLINT(google-build-using-namespace): DF, VF and their helpers

// Tokens whose rows are worked on at once, and keys: as many sums as the registers hold.
constexpr size_t kVectors = HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3 ? 1 : 2;
constexpr size_t kStep = kVectors * kLanes;
constexpr size_t kKeys = 4;
static_assert(kBlockSlots % kStep == 0 && kStep % kKeys == 0);

// Four outputs of an affine map for kStep tokens.
//   x [inputs][32] from the first token, matrix [inputs + 1][stride] from the first output
HWY_INLINE void project_four(const float* x, const float* matrix, size_t inputs, size_t stride,
                             VF (&sum)[kKeys][kVectors]) {
  for (size_t k = 0; k < kKeys; ++k) {
    for (size_t v = 0; v < kVectors; ++v) sum[k][v] = hn::Set(df, matrix[inputs * stride + k]);
  }
  for (size_t d = 0; d < inputs; ++d) {
    VF in[kVectors];
    for (size_t v = 0; v < kVectors; ++v) in[v] = hn::LoadU(df, x + d * kBlockSlots + v * kLanes);
    for (size_t k = 0; k < kKeys; ++k) {
      const VF weight = hn::Set(df, matrix[d * stride + k]);
      for (size_t v = 0; v < kVectors; ++v) sum[k][v] = hn::MulAdd(in[v], weight, sum[k][v]);
    }
  }
}

// start + x . weights + the constant behind them, of a vector of tokens.  x [width][32], weights [width + 1]
HWY_INLINE VF add_linear(VF start, const float* x, const float* weights, size_t width) {
  VF sum = hn::Add(hn::Set(df, weights[width]), start);
  for (size_t d = 0; d < width; ++d) {
    sum = hn::MulAdd(hn::LoadU(df, x + d * kBlockSlots), hn::Set(df, weights[d]), sum);
  }
  return sum;
}

// A block of tokens through an affine map.  x [width][32], matrix [width + 1][padded], out [padded][32]
HWY_INLINE void project(const float* x, const float* matrix, size_t width, float* out) {
  const size_t stride = padded(width);
  for (size_t slot = 0; slot < kBlockSlots; slot += kStep) {
    for (size_t o = 0; o < stride; o += kKeys) {
      VF sum[kKeys][kVectors];
      project_four(x + slot, matrix + o, width, stride, sum);
      for (size_t k = 0; k < kKeys; ++k) {
        for (size_t v = 0; v < kVectors; ++v) {
          hn::StoreU(sum[k][v], df, out + (o + k) * kBlockSlots + slot + v * kLanes);
        }
      }
    }
  }
}

// The softmax of kStep tokens so far: its largest logit, and sums of weights and of weighted values.
struct Softmax {
  VF top[kVectors], weights[kVectors], values[kVectors];

  HWY_INLINE Softmax() {
    for (size_t v = 0; v < kVectors; ++v) {
      top[v] = hn::Set(df, std::numeric_limits<float>::lowest());
      weights[v] = values[v] = hn::Zero(df);
    }
  }
};

// kKeys more keys. With kMasked only the first `keys` of them count, and for lane i only those from `i - ahead` on.
//   u, s [width][32] from the first token; x [width][32] from the first key
template <bool kMasked>
HWY_INLINE void add_keys(const float* u, const float* s, const float* x, size_t width, size_t keys, int32_t ahead,
                         Softmax& softmax) {
  VF logit[kKeys][kVectors], value[kKeys][kVectors];
  for (size_t k = 0; k < kKeys; ++k) {
    for (size_t v = 0; v < kVectors; ++v) logit[k][v] = value[k][v] = hn::Zero(df);
  }
  for (size_t d = 0; d < width; ++d) {
    VF query[kVectors], read_out[kVectors];
    for (size_t v = 0; v < kVectors; ++v) {
      query[v] = hn::LoadU(df, u + d * kBlockSlots + v * kLanes);
      read_out[v] = hn::LoadU(df, s + d * kBlockSlots + v * kLanes);
    }
    for (size_t k = 0; k < kKeys; ++k) {
      const VF key = hn::Set(df, x[d * kBlockSlots + k]);
      for (size_t v = 0; v < kVectors; ++v) {
        logit[k][v] = hn::MulAdd(query[v], key, logit[k][v]);
        value[k][v] = hn::MulAdd(read_out[v], key, value[k][v]);
      }
    }
  }
  const auto seen = [&](size_t k, size_t v) HWY_ATTR {
    const VI lane = hn::Add(hn::Iota(di, 0), hn::Set(di, static_cast<int32_t>(v * kLanes) - ahead));
    const int32_t last = k < keys ? static_cast<int32_t>(k) : std::numeric_limits<int32_t>::min();
    return hn::RebindMask(df, hn::Le(lane, hn::Set(di, last)));
  };
  for (size_t v = 0; v < kVectors; ++v) {
    VF top = softmax.top[v];
    for (size_t k = 0; k < kKeys; ++k) {
      if (kMasked) logit[k][v] = hn::IfThenElse(seen(k, v), logit[k][v], softmax.top[v]);
      top = hn::Max(top, logit[k][v]);
    }
    if (!hn::AllFalse(df, hn::Gt(top, softmax.top[v]))) {
      const VF rescale = exp2_negative_lanes(hn::Sub(softmax.top[v], top));
      softmax.weights[v] = hn::Mul(softmax.weights[v], rescale);
      softmax.values[v] = hn::Mul(softmax.values[v], rescale);
      softmax.top[v] = top;
    }
    for (size_t k = 0; k < kKeys; ++k) {
      VF weight = exp2_negative_lanes(hn::Sub(logit[k][v], top));
      if (kMasked) weight = hn::IfThenElseZero(seen(k, v), weight);
      softmax.weights[v] = hn::Add(softmax.weights[v], weight);
      softmax.values[v] = hn::MulAdd(weight, value[k][v], softmax.values[v]);
    }
  }
}

// Scores of the tokens of a block from `slot` on.  x [width][32] of the block, u, s [width][32], keys as features
void bam_step(const FoldedBam& bam, const float* features, size_t block, size_t slot, const float* u, const float* s,
              std::span<float> scores) {
  const size_t width = bam.width, stride = width * kBlockSlots, n = scores.size();
  Softmax softmax;
  const size_t blocks = (n + kBlockSlots - 1) / kBlockSlots;
  for (size_t other = block; other < blocks; ++other) {
    const size_t keys = std::min<size_t>(kBlockSlots, n - other * kBlockSlots);
    const bool masked = other == block || keys != kBlockSlots;
    for (size_t key = other == block ? slot : 0; key < keys; key += kKeys) {
      const float* x = features + other * stride + key;
      if (masked) {
        const auto ahead = static_cast<int32_t>((other - block) * kBlockSlots + key - slot);
        add_keys<true>(u + slot, s + slot, x, width, keys - key, ahead, softmax);
      } else {
        add_keys<false>(u + slot, s + slot, x, width, kKeys, 0, softmax);
      }
    }
  }
  const float* x = features + block * stride + slot;
  for (size_t v = 0; v < kVectors; ++v) {
    const VF read = hn::Div(softmax.values[v], softmax.weights[v]);
    const VF score = add_linear(read, x + v * kLanes, bam.linear.data(), width);
    const size_t first = block * kBlockSlots + slot + v * kLanes;
    if (first < n) store_lanes(score, scores.data() + first, std::min(kLanes, n - first));
  }
}

void bam_scores(const FoldedBam& bam, const float* features, std::span<float> scores) {
  HWY_ALIGN float u[kMaxWidth * kBlockSlots], s[kMaxWidth * kBlockSlots];
  const size_t width = bam.width, n = scores.size();
  for (size_t block = 0; block * kBlockSlots < n; ++block) {
    const float* x = features + block * width * kBlockSlots;
    project(x, bam.query.data(), width, u);
    project(x, bam.read_out.data(), width, s);
    for (size_t slot = 0; slot < kBlockSlots && block * kBlockSlots + slot < n; slot += kStep) {
      bam_step(bam, features, block, slot, u, s, scores);
    }
  }
}

void mlp_scores(const PaddedMlp& mlp, const float* features, std::span<float> scores) {
  const size_t width = mlp.width, units = mlp.score.size() - 1, n = scores.size();
  for (size_t first = 0; first < n; first += kStep) {
    const float* x = features + first / kBlockSlots * width * kBlockSlots + first % kBlockSlots;
    VF score[kVectors];
    for (size_t v = 0; v < kVectors; ++v) score[v] = hn::Set(df, mlp.score[units]);
    for (size_t unit = 0; unit < units; unit += kKeys) {
      VF sum[kKeys][kVectors];
      project_four(x, mlp.hidden.data() + unit, width, units, sum);
      for (size_t k = 0; k < kKeys; ++k) {
        const VF weight = hn::Set(df, mlp.score[unit + k]);
        for (size_t v = 0; v < kVectors; ++v) {
          score[v] = hn::MulAdd(hn::Max(sum[k][v], hn::Zero(df)), weight, score[v]);
        }
      }
    }
    for (size_t v = 0; v < kVectors && first + v * kLanes < n; ++v) {
      store_lanes(score[v], scores.data() + first + v * kLanes, std::min(kLanes, n - first - v * kLanes));
    }
  }
}

void linear_scores(const Linear& linear, const float* features, std::span<float> scores) {
  const size_t width = linear.score.size() - 1, n = scores.size();
  for (size_t first = 0; first < n; first += kLanes) {
    const float* x = features + first / kBlockSlots * width * kBlockSlots + first % kBlockSlots;
    const VF score = add_linear(hn::Zero(df), x, linear.score.data(), width);
    store_lanes(score, scores.data() + first, std::min(kLanes, n - first));
  }
}

}  // namespace lethe::namm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lethe::namm {

HWY_EXPORT(bam_scores);
HWY_EXPORT(mlp_scores);
HWY_EXPORT(linear_scores);

void bam_scores(const FoldedBam& bam, const float* features, std::span<float> scores) {
  HWY_DYNAMIC_DISPATCH(bam_scores)(bam, features, scores);
}

void mlp_scores(const PaddedMlp& mlp, const float* features, std::span<float> scores) {
  HWY_DYNAMIC_DISPATCH(mlp_scores)(mlp, features, scores);
}

void linear_scores(const Linear& linear, const float* features, std::span<float> scores) {
  HWY_DYNAMIC_DISPATCH(linear_scores)(linear, features, scores);
}

}  // namespace lethe::namm
#endif
