#include "runtime/engine/decoder.h"

#include <algorithm>

namespace lethe {
namespace {

bool is_quantised_role(const Model& model, Role role) {
  for (uint32_t layer = 0; layer < model.config().layers; ++layer) {
    const Tensor* tensor = model.find(role, layer);
    if (tensor != nullptr && is_quantised(tensor->format)) return true;
  }
  return false;
}

// Adds steps, leaving out those whose tensors the model does not have.
class Builder {
 public:
  explicit Builder(const Model& model) : model_(model) {}

  bool has(Role role) const { return model_.find(role, 0) != nullptr; }
  Role bias(Role role) const { return has(role) ? role : kNoBias; }

  void add(Step step) { program_.steps[program_.step_count++] = step; }

  // Where the norm of `in` is to be found: in `in` itself when the model has none.
  BufferId add_norm(BufferId in, Role weight, Role norm_bias, BufferId out) {
    if (!has(weight)) return in;
    add({.op = Op::kNorm, .in = in, .out = out, .weight = weight, .bias = bias(norm_bias)});
    return out;
  }

  // The linear maps of one input, preceded by its quantisation when one of them wants it.
  void add_linears(BufferId in, uint32_t inputs, std::initializer_list<LinearMap> maps) {
    const bool quantise = std::any_of(maps.begin(), maps.end(),
                                      [&](const LinearMap& map) { return is_quantised_role(model_, map.weight); });
    if (quantise) {
      add({.op = Op::kQuantise, .in = in, .out = BufferId::kQuantised});
      uint32_t& width = program_.widths[static_cast<size_t>(BufferId::kQuantised)];
      width = std::max(width, inputs);
    }
    Step step{.op = Op::kLinear, .in = in, .in2 = quantise ? BufferId::kQuantised : BufferId::kNone};
    for (const LinearMap& map : maps) {
      if (has(map.weight)) step.maps[step.map_count++] = {map.weight, bias(map.bias), map.out};
    }
    add(step);
  }

  void set_width(BufferId id, uint32_t floats) { program_.widths[static_cast<size_t>(id)] = floats; }
  uint32_t& quantised_width() { return program_.widths[static_cast<size_t>(BufferId::kQuantised)]; }
  const Program& program() const { return program_; }

 private:
  const Model& model_;
  Program program_;
};

}  // namespace

Program build_program(const Model& model) {
  using enum BufferId;
  const ModelConfig& config = model.config();
  const uint32_t q_width = config.heads * config.head_dim;
  const uint32_t kv_width = config.kv_heads * config.head_dim;

  Builder builder(model);
  builder.set_width(kHidden, config.embed_dim);
  builder.set_width(kNormed, config.embed_dim);
  builder.set_width(kProjected, config.embed_dim);
  builder.set_width(kQuery, q_width);
  builder.set_width(kContext, q_width);
  builder.set_width(kKey, kv_width);
  builder.set_width(kValue, kv_width);
  builder.set_width(kGate, config.ffn_dim);
  builder.set_width(kUp, config.ffn_dim);

  const BufferId attended = builder.add_norm(kHidden, Role::kAttentionNorm, Role::kAttentionNormBias, kNormed);
  builder.add_linears(attended, config.embed_dim,
                      {{Role::kAttentionQ, Role::kAttentionQBias, kQuery},
                       {Role::kAttentionK, Role::kAttentionKBias, kKey},
                       {Role::kAttentionV, Role::kAttentionVBias, kValue}});
  builder.add_norm(kQuery, Role::kAttentionQNorm, kNoBias, kQuery);
  builder.add_norm(kKey, Role::kAttentionKNorm, kNoBias, kKey);
  if (config.rotary_dim != 0) {
    builder.add({.op = Op::kRope, .in = kQuery});
    builder.add({.op = Op::kRope, .in = kKey});
  }
  builder.add({.op = Op::kStoreKv, .in = kKey, .in2 = kValue});
  builder.add({.op = Op::kAttend, .in = kQuery, .out = kContext});
  builder.add_linears(kContext, q_width, {{Role::kAttentionO, Role::kAttentionOBias, kProjected}});
  builder.add_norm(kProjected, Role::kAttentionPostNorm, kNoBias, kProjected);
  builder.add({.op = Op::kAdd, .in = kProjected, .out = kHidden});

  const BufferId fed = builder.add_norm(kHidden, Role::kFfnNorm, Role::kFfnNormBias, kNormed);
  builder.add_linears(fed, config.embed_dim,
                      {{Role::kFfnGate, Role::kFfnGateBias, kGate}, {Role::kFfnUp, Role::kFfnUpBias, kUp}});
  const bool gated = builder.has(Role::kFfnGate);
  builder.add({.op = Op::kActivate, .in = gated ? kGate : kUp, .in2 = gated ? kUp : kNone, .out = kUp});
  builder.add_linears(kUp, config.ffn_dim, {{Role::kFfnDown, Role::kFfnDownBias, kProjected}});
  builder.add_norm(kProjected, Role::kFfnPostNorm, kNoBias, kProjected);
  builder.add({.op = Op::kAdd, .in = kProjected, .out = kHidden});

  // The head quantises the normed rows when the output matrix is quantised.
  builder.quantised_width() = std::max(builder.quantised_width(), config.embed_dim);
  return builder.program();
}

std::array<Lifetime, kBufferCount> buffer_lifetimes(const Program& program) {
  std::array<Lifetime, kBufferCount> lifetimes{};
  const auto touch = [&](BufferId id, uint32_t step) {
    if (id == BufferId::kNone) return;
    Lifetime& lifetime = lifetimes[static_cast<size_t>(id)];
    if (!lifetime.used) lifetime = {step, step, true};
    lifetime.last = std::max(lifetime.last, step);
  };
  for (uint32_t i = 0; i < program.step_count; ++i) {
    const Step& step = program.steps[i];
    touch(step.in, i);
    touch(step.in2, i);
    touch(step.out, i);
    for (const LinearMap& map : step.maps) touch(map.out, i);
  }
  const uint32_t head = program.step_count;
  lifetimes[static_cast<size_t>(BufferId::kHidden)] = {0, head, true};  // carried from layer to layer
  touch(BufferId::kNormed, head);
  touch(BufferId::kQuantised, head);
  return lifetimes;
}

}  // namespace lethe
