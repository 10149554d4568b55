// The store of new keys and values into the KV blocks.
#include "runtime/base/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/backend/cpu/store_kv.cc"
#include <algorithm>

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/backend/cpu/hadamard-inl.h"
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

// As in cache/store_row.h.
HWY_INLINE float row_scale(const float* x, size_t n, uint32_t bits) {
  VF largest = hn::Zero(df), poison = hn::Zero(df);
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    const VF v = load_lanes(x + i, count);
    largest = hn::Max(largest, hn::Abs(v));
    poison = hn::MulAdd(v, hn::Zero(df), poison);
  });
  return hn::ReduceMax(df, largest) / static_cast<float>(largest_quant(bits)) + hn::ReduceSum(df, poison);
}

// Likewise.  codes [n]
HWY_INLINE void to_codes(const float* x, size_t n, uint32_t bits, float scale, int8_t* codes) {
  const VF divisor = hn::Set(df, divisor_of(scale));
  const VF least = hn::Set(df, bits == 8 ? -127.0f : 0.0f), most = hn::Set(df, bits == 8 ? 127.0f : 15.0f);
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    const hn::Rebind<int8_t, DF> d8;
    VF code = hn::Div(load_lanes(x + i, count), divisor);
    if (bits == 4) code = hn::Mul(hn::Add(code, hn::Set(df, float{kOffset4})), hn::Set(df, 0.5f));
    const VF bounded = hn::Min(hn::Max(code, least), most);
    hn::StoreN(hn::DemoteTo(d8, hn::NearestInt(bounded)), d8, codes + i, count);
  });
}

// One row in integers.
struct Row {
  float scale;
  const int8_t* codes;  // [n], with zeros of 4 bits up to a multiple of 2 * kQuad
};

// scratch [store_scratch_floats(n)]
HWY_INLINE Row quantise_row(const float* x, size_t n, uint32_t bits, float* scratch) {
  auto* codes = reinterpret_cast<int8_t*>(scratch + n);
  if (bits == 4) {
    hadamard_row(x, n, scratch);
    x = scratch;
    for (size_t d = n; d % (2 * kQuad) != 0; ++d) codes[d] = 0;
  }
  const float scale = row_scale(x, n, bits);
  to_codes(x, n, bits, scale, codes);
  return {scale, codes};
}

// Gives the scale.
HWY_INLINE float store_key(const KvLayout& layout, const float* k, size_t slot, uint8_t* keys, float* scratch) {
  const Row row = quantise_row(k, layout.head_dim, layout.key_bits, scratch);
  const size_t row_dims = layout.key_bits == 8 ? kQuad : 2 * kQuad;
  for (size_t d = 0; d < layout.head_dim; d += row_dims) {
    for (size_t i = d; i < std::min<size_t>(d + kQuad, layout.head_dim); ++i) {
      const int code = layout.key_bits == 8 ? row.codes[i] + kKeyOffset : row.codes[i] | row.codes[i + kQuad] << 4;
      keys[key_index(layout, slot, i)] = static_cast<uint8_t>(code);
    }
  }
  return row.scale;
}

HWY_INLINE float store_value(const KvLayout& layout, const float* v, size_t slot, uint8_t* values, float* scratch) {
  const Row row = quantise_row(v, layout.head_dim, layout.value_bits, scratch);
  const size_t columns = value_columns(layout);
  for (size_t d = 0; d < columns; ++d) {
    const int high = layout.value_bits == 4 ? row.codes[d + columns] << 4 : 0;
    values[value_index(layout, slot, d)] = static_cast<uint8_t>(row.codes[d] | high);
  }
  return row.scale;
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
      auto* key_scales = reinterpret_cast<float*>(block + layout.key_scale_offset);
      auto* value_scales = reinterpret_cast<float*>(block + layout.value_scale_offset);
      key_scales[slot] = store_key(layout, k, slot, block + layout.keys_offset, args.scratch);
      value_scales[slot] = store_value(layout, v, slot, block + layout.values_offset, args.scratch);
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
