// Mamba-2 (SSD) and gated delta net: one form of state, S = decay S + k u^T and o = S^T q; they differ in u. A few
// tokens are taken one by one (recur_step-inl.h), more in blocks (recur_block-inl.h).
#include "runtime/base/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/backend/cpu/recur.cc"
#include <algorithm>

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/multiply-inl.h"
#include "runtime/backend/cpu/recur_block-inl.h"
#include "runtime/backend/cpu/recur_step-inl.h"
#include "runtime/backend/cpu/simd_tables.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

// From so many tokens on, blocks are faster.
constexpr size_t kFewestOfBlock = 4;

template <bool kDelta, bool kRead, class T>
void step_head(const RecurArgs& args, size_t head, size_t token, size_t count, T* state, size_t stride) {
  RecurStep<kDelta, kRead, T> step(args, head, state, stride);
  for (size_t t = 0; t < count; ++t) step.run(token + t);
}

template <bool kDelta, bool kRead>
void recur_heads(const RecurArgs& args, uint32_t head_begin, uint32_t head_end) {
  const size_t key_dim = args.view.heads.key_dim, value_dim = args.view.heads.value_dim;
  const size_t padded_values = pad_lanes(value_dim);
  RecurBlocks<kDelta, kRead> blocks(args, args.scratch + key_dim * padded_values);
  for (size_t token = 0; token < args.tokens; token += kStretch) {
    const size_t count = std::min<size_t>(kStretch, args.tokens - token);
    blocks.set_stretch(token, count);
    const auto advance = [&](size_t head, float* state, size_t stride) {
      if (count >= kFewestOfBlock) return blocks.run(head, state, stride);
      step_head<kDelta, kRead>(args, head, token, count, state, stride);
    };
    for (size_t head = head_begin; head < head_end; ++head) {
      if (args.view.heads.state_type == StateType::kF32) {
        advance(head, reinterpret_cast<float*>(args.view.head(head)), value_dim);
        continue;
      }
      auto* const stored = reinterpret_cast<Bf16*>(args.view.head(head));
      if (count == 1) {
        step_head<kDelta, kRead>(args, head, token, 1, stored, value_dim);
        continue;
      }
      float* const state = args.scratch;  // [key_dim][padded_values]
      for (size_t row = 0; row < key_dim; ++row) {
        for_lanes(value_dim, [&](size_t i, size_t lanes) HWY_ATTR {
          store_lanes(load_state(stored + row * value_dim + i, lanes), state + row * padded_values + i, lanes);
        });
      }
      advance(head, state, padded_values);
      for (size_t row = 0; row < key_dim; ++row) {
        for_lanes(value_dim, [&](size_t i, size_t lanes) HWY_ATTR {
          store_state(load_lanes(state + row * padded_values + i, lanes), stored + row * value_dim + i, lanes);
        });
      }
    }
  }
}

template <bool kRead>
void recur_kind(const RecurArgs& args, uint32_t head_begin, uint32_t head_end) {
  if (args.view.heads.kind == RecurrentKind::kGatedDelta) {
    recur_heads<true, kRead>(args, head_begin, head_end);
  } else {
    recur_heads<false, kRead>(args, head_begin, head_end);
  }
}

void recur(const RecurArgs& args, uint32_t head_begin, uint32_t head_end) {
  recur_kind<true>(args, head_begin, head_end);
}
void absorb(const RecurArgs& args, uint32_t head_begin, uint32_t head_end) {
  recur_kind<false>(args, head_begin, head_end);
}

template <class T>
void read_head(const RecurArgs& args, size_t head, const T* state) {
  const RecurrentHeads& heads = args.view.heads;
  const size_t padded = pad_lanes(heads.key_dim);
  for (size_t read = 0; read < args.reads; ++read) {
    const float* const query = query_row(args, head, read);
    for (size_t token = 0; token < args.tokens; token += kBlock) {
      const size_t rows = std::min<size_t>(kBlock, args.tokens - token);
      for (size_t t = 0; t < rows; ++t) {
        copy_row(query + (token + t) * args.queries.stride, heads.key_dim, padded,
                 heads.kind == RecurrentKind::kGatedDelta, args.scale, args.scratch + t * padded);
      }
      multiply_rows<T>({.a = args.scratch,
                        .a_stride = padded,
                        .b = state,
                        .b_stride = heads.value_dim,
                        .rows = rows,
                        .n = heads.key_dim,
                        .cols = heads.value_dim,
                        .out = answer_row(args, head, read) + token * args.out_stride,
                        .out_stride = args.out_stride});
    }
  }
}

void read_state(const RecurArgs& args, uint32_t head_begin, uint32_t head_end) {
  for (size_t head = head_begin; head < head_end; ++head) {
    const uint8_t* const state = args.view.head(head);
    if (args.view.heads.state_type == StateType::kF32) {
      read_head(args, head, reinterpret_cast<const float*>(state));
    } else {
      read_head(args, head, reinterpret_cast<const Bf16*>(state));
    }
  }
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lethe::cpu {

HWY_EXPORT(recur);
HWY_EXPORT(absorb);
HWY_EXPORT(read_state);

void set_simd_recur(Kernels& kernels) {
  kernels.recur = HWY_DYNAMIC_POINTER(recur);
  kernels.absorb = HWY_DYNAMIC_POINTER(absorb);
  kernels.read_state = HWY_DYNAMIC_POINTER(read_state);
}

}  // namespace lethe::cpu
#endif
