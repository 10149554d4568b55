#include "runtime/backend/cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>

namespace lethe::cpu {
namespace {

// Bytes of weights times rows of activations below which a second thread costs more than it saves.
constexpr uint64_t kLinearGrainBytes = 24 << 10;
constexpr uint32_t divide_up(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

}  // namespace

uint64_t buffer_bytes(const Program& program, BufferId id, uint64_t tokens) {
  const uint64_t width = program.widths[static_cast<size_t>(id)];
  if (id != BufferId::kQuantised) return tokens * width * sizeof(float);
  return round_up(tokens * width, 64) + 3 * round_up(tokens * (width / kGroup) * sizeof(float), 64);
}

void CpuBackend::lay_out_activations(Arena& arena, const Model& model, const Program& program, const BufferPlan& plan,
                                     const BackendOptions& options) {
  const ModelConfig& config = model.config();
  model_ = &model;
  program_ = &program;
  options_ = options;
  plan_ = plan;
  vocab_ = config.vocab;
  kernels_ = simd_kernels();

  const uint32_t half = config.rotary_dim / 2;
  rope_kinds_ = config.rope_local_base != 0 ? 2 : 1;
  activations_ = arena.take<uint8_t>(plan.total);
  rope_cos_ = arena.take<float>(uint64_t{rope_kinds_} * options.chunk * half);
  rope_sin_ = arena.take<float>(uint64_t{rope_kinds_} * options.chunk * half);
  inv_freq_ = arena.take<float>(rope_kinds_ * half);
  linear_scratch_bytes_ = round_up(linear_scratch_bytes(program.widths[static_cast<size_t>(BufferId::kQuantised)]), 64);
  linear_scratch_ = arena.take<uint8_t>(options.threads * linear_scratch_bytes_);
  lay_out_attention(arena);
  append_blocks_ = arena.take<uint32_t>(uint64_t{config.kv_heads} * options.chunk);
  const float* factors = vector(Role::kRopeFactors, 0);
  for (uint32_t i = 0; i < inv_freq_.size(); ++i) {
    const bool local = i >= half;
    const double base = static_cast<double>(local ? config.rope_local_base : config.rope_base);
    const double factor = factors == nullptr || local ? 1.0 : static_cast<double>(factors[i]);
    inv_freq_[i] = static_cast<float>(std::pow(base, -2.0 * (i % half) / config.rotary_dim) / factor);
  }
}

void CpuBackend::lay_out_logits(Arena& arena) { logits_ = arena.take<float>(uint64_t{options_.logit_rows} * vocab_); }

Status CpuBackend::start() { return pool_.start(); }

float* CpuBackend::floats(BufferId id) const {
  return reinterpret_cast<float*>(activations_.data() + plan_.offsets[static_cast<size_t>(id)]);
}

// Rows are packed for the width at hand, so a narrow input uses less of the buffer.
QuantisedRows CpuBackend::quantised(uint32_t tokens) const {
  const uint64_t width = program_->widths[static_cast<size_t>(BufferId::kQuantised)];
  uint8_t* base = activations_.data() + plan_.offsets[static_cast<size_t>(BufferId::kQuantised)];
  const uint64_t quants = round_up(tokens * width, 64);
  const uint64_t scales = round_up(tokens * (width / kGroup) * sizeof(float), 64);
  return {reinterpret_cast<int8_t*>(base), reinterpret_cast<float*>(base + quants),
          reinterpret_cast<float*>(base + quants + scales), reinterpret_cast<float*>(base + quants + 2 * scales)};
}

MatrixView CpuBackend::weight(Role role, uint32_t layer) const {
  const Tensor* tensor = model_->find(role, layer);
  return {tensor->data, tensor->format, tensor->rows, tensor->cols};
}

const float* CpuBackend::vector(Role role, uint32_t layer) const {
  if (role == kNoBias) return nullptr;
  const Tensor* tensor = model_->find(role, layer);
  return tensor == nullptr ? nullptr : reinterpret_cast<const float*>(tensor->data);
}

void CpuBackend::embed(const StepInput& input, uint32_t first_position) {
  const ModelConfig& config = model_->config();
  const uint32_t width = config.embed_dim;
  const auto tokens = static_cast<uint32_t>(input.tokens);
  const Tensor* positions = model_->find(Role::kPositionEmbedding, 0);
  float* hidden = floats(BufferId::kHidden);
  parallel_ranges(tokens, 8, [&](uint32_t begin, uint32_t end, uint32_t) {
    float* rows = hidden + uint64_t{begin} * width;
    const uint64_t count = uint64_t{end - begin} * width;
    if (input.ids.empty()) {
      std::copy_n(input.rows.data() + uint64_t{begin} * width, count, rows);
    } else {
      const MatrixView embedding = weight(Role::kTokenEmbedding, 0);
      for (uint32_t t = begin; t < end; ++t) {
        kernels_.embed_row(embedding, static_cast<uint32_t>(input.ids[t]), hidden + uint64_t{t} * width);
      }
      if (config.embedding_scale != 1) kernels_.scale(rows, config.embedding_scale, count);
    }
    if (positions == nullptr) return;
    const MatrixView table = weight(Role::kPositionEmbedding, 0);
    float* row = floats(BufferId::kNormed) + uint64_t{begin} * width;  // free until the first layer
    for (uint32_t t = begin; t < end; ++t) {
      kernels_.embed_row(table, first_position + t, row);
      kernels_.add(hidden + uint64_t{t} * width, row, width);
    }
  });
}

void CpuBackend::fill_rope(uint32_t first_position, uint32_t tokens) {
  const ModelConfig& config = model_->config();
  const size_t half = config.rotary_dim / 2;
  parallel_ranges(tokens, 16, [&](uint32_t begin, uint32_t end, uint32_t) {
    for (uint32_t kind = 0; kind < rope_kinds_; ++kind) {
      const double magnitude = kind == 0 ? static_cast<double>(config.rope_magnitude) : 1.0;
      for (uint32_t t = begin; t < end; ++t) {
        const size_t row = (size_t{kind} * options_.chunk + t) * half;
        for (size_t i = 0; i < half; ++i) {
          // In double: positions grow without end, and f32 angles would lose their fraction.
          const double position = static_cast<double>(first_position) + t;
          const double angle = position * static_cast<double>(inv_freq_[kind * half + i]);
          rope_cos_[row + i] = static_cast<float>(std::cos(angle) * magnitude);
          rope_sin_[row + i] = static_cast<float>(std::sin(angle) * magnitude);
        }
      }
    }
  });
}

RopeTable CpuBackend::rope(uint32_t layer) const {
  const ModelConfig& config = model_->config();
  const size_t half = config.rotary_dim / 2;
  const size_t kind = rope_kinds_ == 2 && config.is_local(layer) ? 1 : 0;
  const size_t table = kind * options_.chunk * half;
  return {rope_cos_.data() + table, rope_sin_.data() + table, inv_freq_.data() + kind * half, config.rotary_dim};
}

// `floats` is a multiple of the weight's length.
void CpuBackend::norm(const float* in, Role weight, const float* bias, uint32_t layer, uint32_t floats, float* out) {
  const ModelConfig& config = model_->config();
  const Tensor& tensor = *model_->find(weight, layer);
  const auto* factors = reinterpret_cast<const float*>(tensor.data);
  const uint32_t width = tensor.cols;
  parallel_ranges(floats / width, 1 + 4096 / width, [&](uint32_t begin, uint32_t end, uint32_t) {
    const uint64_t at = uint64_t{begin} * width;
    if (config.norm == Norm::kRms) {
      kernels_.rms_norm(in + at, factors, config.norm_eps, end - begin, width, out + at);
    } else {
      kernels_.layer_norm(in + at, factors, bias, config.norm_eps, end - begin, width, out + at);
    }
  });
}

void CpuBackend::quantise(const float* in, uint32_t rows, uint32_t width) {
  const QuantisedRows out = quantised(options_.chunk);
  const uint64_t groups = width / kGroup;
  parallel_ranges(rows, 8, [&](uint32_t begin, uint32_t end, uint32_t) {
    kernels_.quantise(in + uint64_t{begin} * width, end - begin, width,
                      {out.quants + uint64_t{begin} * width, out.scales + begin * groups, out.sums + begin * groups,
                       out.half_sums + begin * groups});
  });
}

// The panels of all of them are one range, cut by work alone.
void CpuBackend::run_linears(std::span<const Linear> linears, const float* in, uint32_t tokens) {
  uint64_t bytes = 0;
  uint32_t panels = 0;
  for (const Linear& linear : linears) {
    const uint32_t count = divide_up(linear.weight.rows, kPanelRows);
    bytes += count * panel_bytes(linear.weight.format, linear.weight.cols);
    panels += count;
  }
  const uint64_t panel_work = bytes / panels * (1 + tokens / 4);
  const auto grain = static_cast<uint32_t>(std::max<uint64_t>(1, kLinearGrainBytes / panel_work));
  parallel_ranges(panels, grain, [&](uint32_t begin, uint32_t end, uint32_t thread) {
    uint8_t* scratch = linear_scratch_.data() + thread * linear_scratch_bytes_;
    uint32_t first = 0;  // panel of the range where the map begins
    for (const Linear& linear : linears) {
      const uint32_t count = divide_up(linear.weight.rows, kPanelRows);
      const uint32_t from = std::clamp(begin, first, first + count) - first;
      const uint32_t to = std::clamp(end, first, first + count) - first;
      first += count;
      if (from == to) continue;
      kernels_.linear({linear.weight, in, quantised(options_.chunk), tokens, linear.out, linear.out_stride, scratch},
                      from, to);
      if (linear.bias == nullptr) continue;
      const uint64_t row = uint64_t{from} * kPanelRows;
      const uint64_t rows = std::min<uint64_t>(uint64_t{to} * kPanelRows, linear.weight.rows) - row;
      for (uint32_t t = 0; t < tokens; ++t) {
        kernels_.add(linear.out + uint64_t{t} * linear.out_stride + row, linear.bias + row, rows);
      }
    }
  });
}

void CpuBackend::store_kv(const Step& step, uint32_t layer, uint32_t tokens, uint32_t first_position,
                          const KvPool& kv) {
  const ModelConfig& config = model_->config();
  const uint32_t stride = config.kv_heads * config.head_dim;
  parallel_ranges(config.kv_heads, tokens < 16 ? config.kv_heads : 1,
                  [&](uint32_t begin, uint32_t end, uint32_t thread) {
                    for (uint32_t head = begin; head < end; ++head) {
                      const auto blocks = append_blocks_.subspan(uint64_t{head} * options_.chunk, tokens);
                      kv.append_blocks(layer, head, blocks);
                      kernels_.store_kv({.pool = kv.view(),
                                         .block_of_token = blocks.data(),
                                         .first_slot = kv.list(layer, head).length % kBlockSlots,
                                         .first_position = first_position,
                                         .k = floats(step.in) + uint64_t{head} * config.head_dim,
                                         .v = floats(step.in2) + uint64_t{head} * config.head_dim,
                                         .k_stride = stride,
                                         .v_stride = stride,
                                         .tokens = tokens,
                                         .scratch = attend_scratch(thread)});
                    }
                  });
}

void CpuBackend::run_step(const Step& step, uint32_t layer, uint32_t tokens, uint32_t first_position,
                          const KvPool& kv) {
  const ModelConfig& config = model_->config();
  const auto width = [&](BufferId id) { return program_->widths[static_cast<size_t>(id)]; };
  switch (step.op) {
    case Op::kNorm:
      return norm(floats(step.in), step.weight, vector(step.bias, layer), layer, tokens * width(step.in),
                  floats(step.out));
    case Op::kQuantise: return quantise(floats(step.in), tokens, width(step.in));
    case Op::kLinear: {
      std::array<Linear, 3> linears;
      for (uint32_t i = 0; i < step.map_count; ++i) {
        const LinearMap& map = step.maps[i];
        if (linear_observer_.see != nullptr)
          linear_observer_.see(linear_observer_.user, map.weight, layer, floats(step.in), tokens);
        linears[i] = {weight(map.weight, layer), vector(map.bias, layer), floats(map.out), width(map.out)};
      }
      return run_linears(std::span(linears).first(step.map_count), floats(step.in), tokens);
    }
    case Op::kRope:
      return parallel_ranges(tokens, 8, [&](uint32_t begin, uint32_t end, uint32_t) {
        RopeTable table = rope(layer);
        table.cos += begin * (table.rotary_dim / 2);
        table.sin += begin * (table.rotary_dim / 2);
        kernels_.rope(floats(step.in) + uint64_t{begin} * width(step.in), end - begin, width(step.in),
                      width(step.in) / config.head_dim, config.head_dim, table);
      });
    case Op::kStoreKv: return store_kv(step, layer, tokens, first_position, kv);
    case Op::kAttend: return attend(step, layer, tokens, first_position, kv);
    case Op::kActivate:
      return parallel_ranges(tokens, 4, [&](uint32_t begin, uint32_t end, uint32_t) {
        const uint64_t at = uint64_t{begin} * width(step.in);
        kernels_.activate(config.activation, floats(step.in) + at,
                          step.in2 == BufferId::kNone ? nullptr : floats(step.in2) + at,
                          uint64_t{end - begin} * width(step.in), floats(step.out) + at);
      });
    case Op::kAdd:
      return parallel_ranges(tokens, 16, [&](uint32_t begin, uint32_t end, uint32_t) {
        const uint64_t at = uint64_t{begin} * width(step.in);
        kernels_.add(floats(step.out) + at, floats(step.in) + at, uint64_t{end - begin} * width(step.in));
      });
  }
}

Status CpuBackend::run_layers(const StepInput& input, uint32_t first_position, const KvPool& kv,
                              const std::atomic<bool>& cancelled) {
  const uint32_t layers = model_->config().layers;
  const auto tokens = static_cast<uint32_t>(input.tokens);
  fill_rope(first_position, tokens);
  embed(input, first_position);
  for (uint32_t layer = 0; layer < layers; ++layer) {
    for (uint32_t i = 0; i < program_->step_count; ++i) {
      if (cancelled.load(std::memory_order_relaxed)) {
        return Status::error(ErrorCode::kCancelled, "cancelled in layer %u of %u", layer, layers);
      }
      run_step(program_->steps[i], layer, tokens, first_position, kv);
    }
  }
  return {};
}

void CpuBackend::run_head(uint32_t row, uint32_t rows) {
  const ModelConfig& config = model_->config();
  const uint32_t width = config.embed_dim;
  const Role role = model_->find(Role::kOutput, 0) != nullptr ? Role::kOutput : Role::kTokenEmbedding;  // tied
  const MatrixView output = weight(role, 0);
  float* normed = floats(BufferId::kNormed);
  norm(floats(BufferId::kHidden) + uint64_t{row} * width, Role::kOutputNorm, vector(Role::kOutputNormBias, 0), 0,
       rows * width, normed);
  if (is_quantised(output.format)) quantise(normed, rows, width);
  const Linear head{output, nullptr, logits_.data(), vocab_};
  run_linears({&head, 1}, normed, rows);
  if (config.logit_softcap == 0) return;
  parallel_ranges(rows * vocab_, 1 << 14, [&](uint32_t begin, uint32_t end, uint32_t) {
    kernels_.softcap(logits_.data() + begin, config.logit_softcap, end - begin);
  });
}

}  // namespace lethe::cpu
