// The spectrum of a real frame of 32 samples under a Hann window, a token in every lane. Compiled once per target.
//
// A periodic Hann window is symmetric (w[i] = w[32 - i]), so samples i and 32 - i are added and subtracted first: the
// real parts are a cosine transform of the sums, the imaginary parts a sine transform of the differences. Both split
// into half the size for even frequencies and a few products for odd ones (Chen, Smith and Fralick 1977, "A Fast
// Computational Algorithm for the Discrete Cosine Transform").
#if defined(LETHE_CACHE_NAMM_SPECTRUM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_CACHE_NAMM_SPECTRUM_INL_H_
#undef LETHE_CACHE_NAMM_SPECTRUM_INL_H_
#else
#define LETHE_CACHE_NAMM_SPECTRUM_INL_H_
#endif

#include "runtime/base/simd/simd-inl.h"
#include "runtime/cache/namm/inputs.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::namm::HWY_NAMESPACE {
using namespace lethe::cpu::HWY_NAMESPACE;  // NOLINT(google-build-using-namespace): DF, VF and their helpers

// cos(2 pi i / 32) for i = 0..8.
inline constexpr float kQuarterWave[9] = {1.0f,
                                          0.98078528040323044913f,
                                          0.92387953251128675613f,
                                          0.83146961230254523708f,
                                          0.70710678118654752440f,
                                          0.55557023301960222474f,
                                          0.38268343236508977173f,
                                          0.19509032201612826785f,
                                          0.0f};
constexpr float cos_of_32nds(size_t i) {
  i %= 32;
  if (i > 16) i = 32 - i;
  return i <= 8 ? kQuarterWave[i] : -kQuarterWave[16 - i];
}
constexpr float sin_of_32nds(size_t i) { return cos_of_32nds(i + 24); }

// out[stride k] = sum over i = 0..N of c[i] cos(pi k i / N), k = 0..N.
template <size_t N>
HWY_INLINE void cosine_transform(const VF* c, VF* out, size_t stride) {
  if constexpr (N == 1) {
    out[0] = hn::Add(c[0], c[1]);
    out[stride] = hn::Sub(c[0], c[1]);
  } else {
    VF folded[N / 2 + 1], rest[N / 2];
#pragma GCC unroll 8
    for (size_t i = 0; i < N / 2; ++i) {
      folded[i] = hn::Add(c[i], c[N - i]);
      rest[i] = hn::Sub(c[i], c[N - i]);
    }
    folded[N / 2] = c[N / 2];
    cosine_transform<N / 2>(folded, out, 2 * stride);
    // Odd k; of N - k the terms of odd i have the other sign.
#pragma GCC unroll 4
    for (size_t k = 1; k <= N / 2; k += 2) {
      VF even = rest[0], odd = hn::Zero(df);
#pragma GCC unroll 4
      for (size_t i = 2; i < N / 2; i += 2) {
        even = hn::MulAdd(rest[i], hn::Set(df, cos_of_32nds(16 / N * k * i)), even);
      }
#pragma GCC unroll 4
      for (size_t i = 1; i < N / 2; i += 2) {
        odd = hn::MulAdd(rest[i], hn::Set(df, cos_of_32nds(16 / N * k * i)), odd);
      }
      out[stride * k] = hn::Add(even, odd);
      out[stride * (N - k)] = hn::Sub(even, odd);
    }
  }
}

// out[stride k] = sum over i = 1..N-1 of d[i] sin(pi k i / N), k = 1..N-1.
template <size_t N>
HWY_INLINE void sine_transform(const VF* d, VF* out, size_t stride) {
  if constexpr (N == 2) {
    out[stride] = d[1];
  } else {
    VF folded[N / 2], rest[N / 2 + 1];
#pragma GCC unroll 8
    for (size_t i = 1; i < N / 2; ++i) {
      folded[i] = hn::Sub(d[i], d[N - i]);
      rest[i] = hn::Add(d[i], d[N - i]);
    }
    rest[N / 2] = d[N / 2];
    sine_transform<N / 2>(folded, out, 2 * stride);
    // Odd k; of N - k the terms of even i have the other sign.
#pragma GCC unroll 4
    for (size_t k = 1; k < N / 2; k += 2) {
      VF odd = hn::Zero(df), even = hn::Zero(df);
#pragma GCC unroll 4
      for (size_t i = 1; i <= N / 2; i += 2) {
        odd = hn::MulAdd(rest[i], hn::Set(df, sin_of_32nds(16 / N * k * i)), odd);
      }
#pragma GCC unroll 4
      for (size_t i = 2; i <= N / 2; i += 2) {
        even = hn::MulAdd(rest[i], hn::Set(df, sin_of_32nds(16 / N * k * i)), even);
      }
      out[stride * k] = hn::Add(odd, even);
      out[stride * (N - k)] = hn::Sub(odd, even);
    }
  }
}

// magnitudes[k] = |sum over i of w[i] frame[i] exp(-2 pi i k / 32)|, w[i] = (1 - cos(2 pi i / 32)) / 2.
//   frame [32], magnitudes [17]
HWY_INLINE void spectrum_lanes(const VF* frame, VF* magnitudes) {
  VF sums[kHop + 1], differences[kHop], real[kBins], imaginary[kHop];
  sums[0] = hn::Zero(df);
  sums[kHop] = frame[kHop];
#pragma GCC unroll 16
  for (size_t i = 1; i < kHop; ++i) {
    const VF window = hn::Set(df, 0.5f - 0.5f * cos_of_32nds(i));
    sums[i] = hn::Mul(window, hn::Add(frame[i], frame[kFrame - i]));
    differences[i] = hn::Mul(window, hn::Sub(frame[i], frame[kFrame - i]));
  }
  cosine_transform<kHop>(sums, real, 1);
  sine_transform<kHop>(differences, imaginary, 1);
  magnitudes[0] = hn::Abs(real[0]);
  magnitudes[kHop] = hn::Abs(real[kHop]);
#pragma GCC unroll 16
  for (size_t k = 1; k < kHop; ++k) {
    magnitudes[k] = hn::Sqrt(hn::MulAdd(real[k], real[k], hn::Mul(imaginary[k], imaginary[k])));
  }
}

}  // namespace lethe::namm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
