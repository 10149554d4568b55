// The walk over a weight matrix that all linear kernels share, and the store of a tile of results.
//
// Rows are counted in vectors: vector i is part i % kParts of panel i / kParts.
#if defined(LETHE_BACKEND_CPU_LINEAR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BACKEND_CPU_LINEAR_INL_H_
#undef LETHE_BACKEND_CPU_LINEAR_INL_H_
#else
#define LETHE_BACKEND_CPU_LINEAR_INL_H_
#endif

#include "runtime/backend/cpu/kernels.h"
#include "runtime/base/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

// Float, and 5- and 6-bit formats; in files of their own, compiled for the same targets.
void linear_float(const LinearArgs& args, uint32_t panel_begin, uint32_t panel_end);
void linear_high_bits(const LinearArgs& args, uint32_t panel_begin, uint32_t panel_end);

inline constexpr size_t kParts = kPanelRows / kLanes;

HWY_INLINE const uint8_t* panel_of(const MatrixView& weight, size_t vector) {
  return weight.data + vector / kParts * panel_bytes(weight.format, weight.cols);
}
constexpr size_t part_of(size_t vector) { return vector % kParts; }

template <int T, int V>
HWY_INLINE void store_tile(const LinearArgs& args, size_t first, size_t token, const VF (&acc)[T][V]) {
  HWY_UNROLL(4)
  for (int v = 0; v < V; ++v) {
    const size_t row = (first + static_cast<size_t>(v)) * kLanes;
    if (row >= args.weight.rows) return;
    const size_t count = HWY_MIN(kLanes, args.weight.rows - row);
    HWY_UNROLL(8)
    for (int t = 0; t < T; ++t) {
      store_lanes(acc[t][v], args.y + (token + static_cast<size_t>(t)) * args.y_stride + row, count);
    }
  }
}

// Tokens of one tile, by the number of vector registers.
inline constexpr int kTokenTile = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64 ? 8 : 4;

// All token tiles of size T from `token` on, then smaller ones, for V vectors of weights, which stay in the cache.
template <class Tile, int T, int V>
HWY_INLINE void for_tokens(const LinearArgs& args, size_t first, size_t token) {
  for (; token + T <= args.tokens; token += T) Tile::template run<T, V>(args, first, token);
  if constexpr (T > 1) {
    if (token < args.tokens) for_tokens<Tile, T / 2, V>(args, first, token);
  }
}

template <class Tile>
HWY_INLINE void for_tiles(const LinearArgs& args, size_t panel_begin, size_t panel_end) {
  size_t first = panel_begin * kParts;
  const size_t end = panel_end * kParts;
  if (args.tokens == 1) {
    constexpr int kVectors = Tile::kDecodeVectors;  // bound by memory: one pass over the weights
    for (; first + kVectors <= end; first += kVectors) Tile::template run<1, kVectors>(args, first, 0);
  } else {
    for (; first + 2 <= end; first += 2) for_tokens<Tile, kTokenTile, 2>(args, first, 0);
  }
  for (; first < end; ++first) for_tokens<Tile, kTokenTile, 1>(args, first, 0);
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
