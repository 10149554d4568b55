// The definition of every kernel: plain loops, sums in double. What the SIMD kernels are tested against.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/panel.h"
#include "runtime/backend/cpu/reference_recurrent.h"
#include "runtime/base/half.h"
#include "runtime/cache/hadamard.h"
#include "runtime/cache/store_row.h"

namespace lethe::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

void embed_row(const MatrixView& table, uint32_t id, float* out) {
  const Panel panel = panel_at(table, id / kPanelRows);
  for (size_t k = 0; k < table.cols; ++k) out[k] = panel_weight(panel, id % kPanelRows, k);
}

void rms_norm(const float* x, const float* weight, float eps, size_t rows, size_t n, float* y) {
  for (size_t row = 0; row < rows; ++row, x += n, y += n) {
    double squares = 0;
    for (size_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
    const float scale = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(n) + eps));
    for (size_t i = 0; i < n; ++i) y[i] = x[i] * scale * weight[i];
  }
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, size_t rows, size_t n, float* y) {
  for (size_t row = 0; row < rows; ++row, x += n, y += n) {
    double mean = 0, variance = 0;
    for (size_t i = 0; i < n; ++i) mean += static_cast<double>(x[i]) / static_cast<double>(n);
    for (size_t i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean) / static_cast<double>(n);
    const double scale = 1.0 / std::sqrt(variance + eps);
    for (size_t i = 0; i < n; ++i) {
      y[i] = static_cast<float>((x[i] - mean) * scale * weight[i] + (bias == nullptr ? 0.0 : bias[i]));
    }
  }
}

void quantise(const float* x, size_t rows, size_t k, QuantisedRows out) {
  for (size_t group = 0; group < rows * k / kGroup; ++group) {
    const float* in = x + group * kGroup;
    int8_t* quants = out.quants + group * kGroup;
    float largest = 0;
    for (size_t i = 0; i < kGroup; ++i) largest = std::max(largest, std::abs(in[i]));
    const float scale = largest / 127.0f;
    int sum = 0, half_sum = 0;
    for (size_t i = 0; i < kGroup; ++i) {
      const float ratio = in[i] / scale;
      // The comparison also keeps 0/0 and NaN out of the conversion.
      quants[i] = ratio >= -127.0f ? static_cast<int8_t>(std::nearbyint(std::min(ratio, 127.0f))) : int8_t{-127};
      if (scale == 0) quants[i] = 0;
      sum += quants[i];
      if (i < kGroup / 2) half_sum = sum;
    }
    out.scales[group] = scale;
    out.sums[group] = scale * static_cast<float>(sum);
    out.half_sums[group] = scale * static_cast<float>(half_sum);
  }
}

double dot_float(const Panel& panel, size_t row, const float* x) {
  double sum = 0;
  for (size_t k = 0; k < panel.cols; ++k) sum += static_cast<double>(panel_weight(panel, row, k)) * x[k];
  return sum;
}

double dot_quantised(const Panel& panel, size_t row, const int8_t* quants, const float* scales) {
  const size_t inputs = scale_inputs(panel.format);
  double total = 0;
  for (size_t unit = 0; unit < panel.cols / inputs; ++unit) {
    int dot = 0, sum = 0;
    for (size_t k = unit * inputs; k < (unit + 1) * inputs; ++k) {
      dot += panel_quant(panel, row, k) * quants[k];
      sum += quants[k];
    }
    const UnitParams params = panel_params(panel, row, unit);
    total += (static_cast<double>(params.scale) * dot + static_cast<double>(params.minimum) * sum) *
             scales[unit * inputs / kGroup];
  }
  return total;
}

void linear(const LinearArgs& args, uint32_t panel_begin, uint32_t panel_end) {
  const size_t cols = args.weight.cols;
  const size_t groups = cols / kGroup;
  const size_t end = std::min<size_t>(size_t{panel_end} * kPanelRows, args.weight.rows);
  for (size_t row = size_t{panel_begin} * kPanelRows; row < end; ++row) {
    const Panel panel = panel_at(args.weight, row / kPanelRows);
    for (size_t t = 0; t < args.tokens; ++t) {
      args.y[t * args.y_stride + row] = static_cast<float>(
          is_quantised(args.weight.format)
              ? dot_quantised(panel, row % kPanelRows, args.xq.quants + t * cols, args.xq.scales + t * groups)
              : dot_float(panel, row % kPanelRows, args.x + t * cols));
    }
  }
}

void rope(float* x, size_t tokens, size_t stride, size_t heads, size_t head_dim, const RopeTable& table) {
  const size_t half = table.rotary_dim / 2;
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t head = 0; head < heads; ++head) {
      float* low = x + t * stride + head * head_dim;
      float* high = low + half;
      for (size_t i = 0; i < half; ++i) {
        const float c = table.cos[t * half + i], s = table.sin[t * half + i];
        const float a = low[i], b = high[i];
        low[i] = a * c - b * s;
        high[i] = a * s + b * c;
      }
    }
  }
}

void store_kv(const StoreKvArgs& args) {
  const KvLayout& layout = args.pool.layout;
  for (size_t t = 0; t < args.tokens; ++t) {
    uint8_t* block = args.pool.blocks + size_t{args.block_of_token[t]} * layout.block_bytes;
    const size_t slot = (args.first_slot + t) % kBlockSlots;
    reinterpret_cast<uint32_t*>(block + layout.positions_offset)[slot] = args.first_position + static_cast<uint32_t>(t);
    std::copy_n(args.k + t * args.k_stride, layout.head_dim, args.scratch);
    store_key(layout, block, slot, args.scratch);
    std::copy_n(args.v + t * args.v_stride, layout.head_dim, args.scratch);
    store_value(layout, block, slot, args.scratch);
  }
}

// One stored key, as it was before it was transformed.  out [head_dim]
void load_key(const KvLayout& layout, const uint8_t* block, size_t slot, double* out) {
  const uint8_t* keys = block + layout.keys_offset;
  for (size_t d = 0; d < layout.head_dim; ++d) {
    const size_t at = key_index(layout, slot, d);
    out[d] = layout.key_bits == 16 ? static_cast<double>(half_to_float(reinterpret_cast<const uint16_t*>(keys)[at]))
                                   : static_cast<double>(key_quant(layout, keys[at], d)) *
                                         reinterpret_cast<const float*>(block + layout.key_scale_offset)[slot];
  }
  if (layout.key_bits == 4) hadamard(out, layout.head_dim, 1);
}

// The same for a value.
void load_value(const KvLayout& layout, const uint8_t* block, size_t slot, double* out) {
  const uint8_t* values = block + layout.values_offset;
  for (size_t d = 0; d < layout.head_dim; ++d) {
    const size_t at = value_index(layout, slot, d);
    out[d] = layout.value_bits == 16 ? static_cast<double>(half_to_float(reinterpret_cast<const uint16_t*>(values)[at]))
                                     : static_cast<double>(value_quant(layout, values[at], d)) *
                                           reinterpret_cast<const float*>(block + layout.value_scale_offset)[slot];
  }
  if (layout.value_bits == 4) hadamard(out, layout.head_dim, 1);
}

// Scaled score of one query head against one slot, the query first rotated by `shift` positions.
double score(const AttendArgs& args, const float* q, const uint8_t* block, size_t slot, int32_t shift) {
  const KvLayout& layout = args.pool.layout;
  const size_t half = args.rope.rotary_dim / 2;
  auto* key = reinterpret_cast<double*>(args.scratch);
  load_key(layout, block, slot, key);
  double sum = 0;
  for (size_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(shift) * args.rope.inv_freq[i];
    const double low = q[i] * std::cos(angle) - q[i + half] * std::sin(angle);
    const double high = q[i] * std::sin(angle) + q[i + half] * std::cos(angle);
    sum += low * key[i] + high * key[i + half];
  }
  for (size_t d = 2 * half; d < layout.head_dim; ++d) sum += q[d] * key[d];
  sum *= args.scale;
  return args.softcap == 0 ? sum : args.softcap * std::tanh(sum / args.softcap);
}

// Calls visit(block, slot, shift, rank) for the ranks of the span that query t sees.
template <class Visit>
void for_each_seen(const AttendArgs& args, uint32_t t, const Visit& visit) {
  const KvLayout& layout = args.pool.layout;
  const uint32_t seen = args.first_rank_of_step + t + 1;
  uint32_t block_id = args.start_block;
  for (uint32_t rank = args.rank_begin; rank < std::min(args.rank_end, seen); ++rank) {
    if (rank != args.rank_begin && rank % kBlockSlots == 0) block_id = args.pool.next[block_id];
    const uint8_t* block = args.pool.blocks + size_t{block_id} * layout.block_bytes;
    const uint32_t slot = rank % kBlockSlots;
    const uint32_t delta = reinterpret_cast<const uint32_t*>(block + layout.positions_offset)[slot] - rank;
    const bool rolling = args.mode == PositionMode::kRolling;
    const uint32_t rank_distance = args.first_rank_of_step + t - rank;
    const uint32_t distance = rolling ? rank_distance : rank_distance + args.query_delta - delta;
    if (args.sight.window != 0 && distance >= args.sight.window && rank >= args.sight.sinks) continue;
    int32_t shift = 0;
    if (rolling) shift = static_cast<int32_t>(delta - args.query_delta);
    if (args.mode == PositionMode::kClamped) shift = std::min(0, static_cast<int32_t>(delta - args.clamp));
    visit(block, slot, shift, rank);
  }
}

void attend(const AttendArgs& args) {
  const size_t head_dim = args.pool.layout.head_dim;
  for (uint32_t t = args.query_begin; t < args.query_end; ++t) {
    for (size_t head = 0; head < args.group; ++head) {
      const size_t out = (t - args.query_begin) * args.group + head;
      const float* q = args.q + size_t{t} * args.q_stride + head * head_dim;
      double max = -kInfinity, sum = 0;
      for_each_seen(args, t, [&](const uint8_t* block, uint32_t slot, int32_t shift, uint32_t) {
        max = std::max(max, score(args, q, block, slot, shift));
      });
      float* acc = args.acc + out * head_dim;
      std::fill_n(acc, head_dim, 0.0f);
      for_each_seen(args, t, [&](const uint8_t* block, uint32_t slot, int32_t shift, uint32_t) {
        const double p = std::exp(score(args, q, block, slot, shift) - max);
        sum += p;
        auto* value = reinterpret_cast<double*>(args.scratch);
        load_value(args.pool.layout, block, slot, value);
        for (size_t d = 0; d < head_dim; ++d) acc[d] = static_cast<float>(acc[d] + p * value[d]);
      });
      if (args.scores != nullptr) {
        float* const scores = args.scores + out * args.scores_stride;
        std::fill_n(scores, args.rank_end - args.rank_begin, -kInfinity);
        for_each_seen(args, t, [&](const uint8_t* block, uint32_t slot, int32_t shift, uint32_t rank) {
          scores[rank - args.rank_begin] = static_cast<float>(score(args, q, block, slot, shift));
        });
      }
      args.max[out] = static_cast<float>(max);
      args.sum[out] = static_cast<float>(sum);
    }
  }
}

void merge(const MergeArgs& args) {
  const size_t rows = size_t{args.tile} * args.group;
  for (size_t row = 0; row < rows; ++row) {
    float* out = args.out + row / args.group * args.out_stride + row % args.group * args.head_dim;
    float max = -kInfinity;
    for (size_t p = 0; p < args.parts; ++p) {
      if (args.sum[p * rows + row] != 0) max = std::max(max, args.max[p * rows + row]);
    }
    double sum = 0;
    for (size_t p = 0; p < args.parts; ++p) {
      const size_t at = p * rows + row;
      if (args.sum[at] != 0) sum += std::exp(static_cast<double>(args.max[at]) - max) * args.sum[at];
    }
    for (size_t d = 0; d < args.head_dim; ++d) {
      double total = 0;
      for (size_t p = 0; p < args.parts; ++p) {
        const size_t at = p * rows + row;
        if (args.sum[at] == 0) continue;  // saw nothing
        total += std::exp(static_cast<double>(args.max[at]) - max) * args.acc[at * args.head_dim + d];
      }
      out[d] = sum != 0 ? static_cast<float>(total / sum) : 0.0f;
    }
  }
}

void weigh(const WeighArgs& args) {
  const size_t rows = size_t{args.tile} * args.group;
  for (size_t t = 0; t < args.tile; ++t) {
    for (size_t i = 0; i < args.count; ++i) {
      double mean = 0;
      for (size_t row = t * args.group; row < (t + 1) * args.group; ++row) {
        double total = 0;
        for (size_t p = 0; p < args.parts; ++p) {
          const size_t at = p * rows + row;
          if (args.sum[at] != 0) {
            total +=
                args.sum[at] * std::exp(static_cast<double>(args.max[at]) - args.scores[row * args.scores_stride + i]);
          }
        }
        if (total != 0) mean += 1 / total / args.group;
      }
      args.out[t * args.out_stride + i] = static_cast<float>(mean);
    }
  }
}

double activation_of(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu: return x / (1 + std::exp(-x));
    case Activation::kGeluTanh: return x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))) / 2;
    case Activation::kGelu: return x * (1 + std::erf(x * 0.7071067811865476)) / 2;
    case Activation::kRelu: return x < 0 ? 0 : x;
  }
  return x;
}

void activate(Activation activation, const float* gate, const float* up, size_t n, float* out) {
  for (size_t i = 0; i < n; ++i) {
    const double factor = up == nullptr ? 1.0 : static_cast<double>(up[i]);
    out[i] = static_cast<float>(activation_of(activation, gate[i]) * factor);
  }
}

void add(float* x, const float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] += y[i];
}

void scale(float* x, float factor, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] *= factor;
}

void softcap(float* x, float cap, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] = static_cast<float>(cap * std::tanh(static_cast<double>(x[i]) / cap));
}

TopLogit argmax(const float* logits, size_t n) {
  TopLogit top{-kInfinity, static_cast<uint32_t>(n)};
  for (size_t i = 0; i < n; ++i) {
    if (logits[i] > top.value || (logits[i] == top.value && top.id == n)) top = {logits[i], static_cast<uint32_t>(i)};
  }
  return top;
}

float log_sum_exp(const float* logits, size_t n) {
  const float max = argmax(logits, n).value;
  if (std::isinf(max)) return max;
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(logits[i]) - max);
  return static_cast<float>(max + std::log(sum));
}

constexpr Kernels kReference{
    .name = "reference",
    .embed_row = embed_row,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .quantise = quantise,
    .linear = linear,
    .rope = rope,
    .store_kv = store_kv,
    .attend = attend,
    .merge = merge,
    .weigh = weigh,
    .recur = reference::recur,
    .absorb = reference::absorb,
    .read_state = reference::read_state,
    .scan = reference::scan,
    .convolve = reference::convolve,
    .activate = activate,
    .add = add,
    .scale = scale,
    .softcap = softcap,
    .argmax = argmax,
    .log_sum_exp = log_sum_exp,
};

}  // namespace

const Kernels& reference_kernels() { return kReference; }

}  // namespace lethe::cpu
