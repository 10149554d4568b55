// The store of new keys and values into the KV blocks.
#include "runtime/base/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/backend/cpu/store_kv.cc"

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/simd_tables.h"
#include "runtime/base/simd/simd-inl.h"
#include "runtime/cache/store_row.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

// Calls write(d, half) for every element of a row.
template <class Write>
HWY_INLINE void for_each_half(const float* x, size_t n, const Write& write) {
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    const hn::Rebind<Half, DF> dh;
    Half lanes[kLanes];
    hn::StoreU(hn::DemoteTo(dh, load_lanes(x + i, count)), dh, lanes);
    for (size_t j = 0; j < count; ++j) write(i + j, lanes[j]);
  });
}

// Calls write(d, int8) for every element of a row divided by `scale`.
template <class Write>
HWY_INLINE void for_each_int8(const float* x, size_t n, float scale, const Write& write) {
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    const hn::Rebind<int8_t, DF> d8;
    int8_t lanes[kLanes];
    const VF ratio = hn::Div(load_lanes(x + i, count), hn::Set(df, divisor_of(scale)));
    const VF bounded = hn::Min(hn::Max(ratio, hn::Set(df, -127.0f)), hn::Set(df, 127.0f));
    hn::StoreU(hn::DemoteTo(d8, hn::NearestInt(bounded)), d8, lanes);
    for (size_t j = 0; j < count; ++j) write(i + j, lanes[j]);
  });
}

// As in cache/store_row.h.
HWY_INLINE float row_scale(const float* x, size_t n) {
  VF largest = hn::Zero(df), poison = hn::Zero(df);
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    const VF v = load_lanes(x + i, count);
    largest = hn::Max(largest, hn::Abs(v));
    poison = hn::MulAdd(v, hn::Zero(df), poison);
  });
  return hn::ReduceMax(df, largest) / 127 + hn::ReduceSum(df, poison);
}

void store_kv(const StoreKvArgs& args) {
  const KvLayout& layout = args.pool.layout;
  const size_t n = layout.head_dim;
  for (uint32_t t = 0; t < args.tokens; ++t) {
    uint8_t* block = args.pool.blocks + size_t{args.block_of_token[t]} * layout.block_bytes;
    const size_t slot = (args.first_slot + t) % kBlockSlots;
    const float* k = args.k + size_t{t} * args.k_stride;
    const float* v = args.v + size_t{t} * args.v_stride;
    reinterpret_cast<uint32_t*>(block + layout.positions_offset)[slot] = args.first_position + t;
    if (layout.type == KvType::kF16) {
      auto* keys = reinterpret_cast<Half*>(block + layout.keys_offset);
      auto* values = reinterpret_cast<Half*>(block + layout.values_offset);
      for_each_half(k, n, [&](size_t d, Half half) { keys[key_index(layout, slot, d)] = half; });
      for_each_half(v, n, [&](size_t d, Half half) { values[value_index(layout, slot, d)] = half; });
    } else {
      uint8_t* keys = block + layout.keys_offset;
      auto* values = reinterpret_cast<int8_t*>(block + layout.values_offset);
      const float key_scale = row_scale(k, n), value_scale = row_scale(v, n);
      reinterpret_cast<float*>(block + layout.key_scale_offset)[slot] = key_scale;
      reinterpret_cast<float*>(block + layout.value_scale_offset)[slot] = value_scale;
      for_each_int8(k, n, key_scale, [&](size_t d, int8_t quant) {
        keys[key_index(layout, slot, d)] = static_cast<uint8_t>(quant + kKeyOffset);
      });
      for_each_int8(v, n, value_scale, [&](size_t d, int8_t quant) { values[value_index(layout, slot, d)] = quant; });
    }
  }
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lethe::cpu {
HWY_EXPORT(store_kv);
void set_simd_store_kv(Kernels& kernels) { kernels.store_kv = HWY_DYNAMIC_POINTER(store_kv); }
}  // namespace lethe::cpu
#endif
