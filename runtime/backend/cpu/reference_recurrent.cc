// The definition of the kernels of recurrent heads: token by token, sums in double.
#include "runtime/backend/cpu/reference_recurrent.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/half.h"

namespace lethe::cpu::reference {
namespace {

double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// Row of one of `users` at token t.
const float* row_of(const HeadRows& rows, size_t user, size_t users, size_t dim, size_t t) {
  return rows.data + t * rows.stride + user * rows.count / users * dim;
}

// What keys and queries are divided by.
double length(const float* x, size_t n, bool normalise) {
  if (!normalise) return 1;
  double squares = 0;
  for (size_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
  return std::sqrt(squares + 1e-6);
}

// An element of S as it is stored.
float stored(const RecurrentView& view, size_t head, size_t at) {
  if (view.heads.state_type == StateType::kF32) return reinterpret_cast<const float*>(view.head(head))[at];
  return bf16_to_float(reinterpret_cast<const uint16_t*>(view.head(head))[at]);
}
void store(const RecurrentView& view, size_t head, size_t at, float value) {
  if (view.heads.state_type == StateType::kF32) {
    reinterpret_cast<float*>(view.head(head))[at] = value;
  } else {
    reinterpret_cast<uint16_t*>(view.head(head))[at] = float_to_bf16(value);
  }
}

// Calls work(token, S in f32) for the tokens of a call; S is stored after every kRecurStretch of them.
template <class Work>
void for_each_token(const RecurArgs& args, size_t head, const Work& work) {
  const size_t elements = size_t{args.view.heads.key_dim} * args.view.heads.value_dim;
  for (size_t begin = 0; begin < args.tokens; begin += kRecurStretch) {
    for (size_t i = 0; i < elements; ++i) args.scratch[i] = stored(args.view, head, i);
    const size_t end = std::min<size_t>(args.tokens, begin + kRecurStretch);
    for (size_t t = begin; t < end; ++t) work(t, args.scratch);
    for (size_t i = 0; i < elements; ++i) store(args.view, head, i, args.scratch[i]);
  }
}

void update(const RecurArgs& args, size_t head, size_t t, float* state) {
  const RecurrentHeads& heads = args.view.heads;
  const bool delta = heads.kind == RecurrentKind::kGatedDelta;
  const size_t gate = t * args.gate_stride + head;
  const float* k = row_of(args.keys, head, heads.count, heads.key_dim, t);
  const float* v = row_of(args.values, head, heads.count, heads.value_dim, t);
  const double norm = length(k, heads.key_dim, delta);
  const double dt = softplus(static_cast<double>(args.dt[gate]) + args.dt_bias[head]);
  const double decay = std::exp(args.rate[head] * dt);
  for (size_t col = 0; col < heads.value_dim; ++col) {
    double known = 0;
    for (size_t row = 0; row < heads.key_dim; ++row) {
      known += decay * state[row * heads.value_dim + col] * k[row] / norm;
    }
    const double u = delta ? sigmoid(args.beta[gate]) * (v[col] - known) : dt * v[col];
    for (size_t row = 0; row < heads.key_dim; ++row) {
      float& s = state[row * heads.value_dim + col];
      s = static_cast<float>(decay * s + k[row] / norm * u);
    }
  }
}

void answer(const RecurArgs& args, size_t reader, size_t t, const float* skip, const float* state) {
  const RecurrentHeads& heads = args.view.heads;
  const size_t head = reader / args.reads;
  const float* q = row_of(args.queries, reader, size_t{heads.count} * args.reads, heads.key_dim, t);
  const double norm = length(q, heads.key_dim, heads.kind == RecurrentKind::kGatedDelta);
  for (size_t col = 0; col < heads.value_dim; ++col) {
    double sum = 0;
    for (size_t row = 0; row < heads.key_dim; ++row) sum += state[row * heads.value_dim + col] * (q[row] / norm);
    sum *= args.scale;
    if (skip != nullptr) {
      sum += static_cast<double>(skip[head]) * row_of(args.values, head, heads.count, heads.value_dim, t)[col];
    }
    args.out[t * args.out_stride + reader * heads.value_dim + col] = static_cast<float>(sum);
  }
}

}  // namespace

void recur(const RecurArgs& args, uint32_t head_begin, uint32_t head_end) {
  for (size_t head = head_begin; head < head_end; ++head) {
    for_each_token(args, head, [&](size_t t, float* state) {
      update(args, head, t, state);
      for (size_t r = 0; r < args.reads; ++r) answer(args, head * args.reads + r, t, args.skip, state);
    });
  }
}

void absorb(const RecurArgs& args, uint32_t head_begin, uint32_t head_end) {
  for (size_t head = head_begin; head < head_end; ++head) {
    for_each_token(args, head, [&](size_t t, float* state) { update(args, head, t, state); });
  }
}

void read_state(const RecurArgs& args, uint32_t head_begin, uint32_t head_end) {
  for (size_t head = head_begin; head < head_end; ++head) {
    for_each_token(args, head, [&](size_t t, const float* state) {
      for (size_t r = 0; r < args.reads; ++r) answer(args, head * args.reads + r, t, nullptr, state);
    });
  }
}

void scan(const ScanArgs& args, uint32_t head_begin, uint32_t head_end) {
  const size_t n = args.view.heads.key_dim, channels = args.view.heads.value_dim;
  for (size_t head = head_begin; head < head_end; ++head) {
    const float* const rate = args.rate + head * n * channels;
    for (size_t c = 0; c < channels; ++c) {
      const size_t channel = head * channels + c;
      float* const s = args.scratch;  // [key_dim]
      for (size_t i = 0; i < n; ++i) s[i] = stored(args.view, head, i * channels + c);
      for (size_t t = 0; t < args.tokens; ++t) {
        const double dt = softplus(static_cast<double>(args.dt[t * args.dt_stride + channel]) + args.dt_bias[channel]);
        const double x = args.x[t * args.x_stride + channel];
        double y = args.skip[channel] * x;
        for (size_t i = 0; i < n; ++i) {
          const size_t at = t * args.bc_stride + i;
          s[i] = static_cast<float>(std::exp(rate[i * channels + c] * dt) * s[i] + dt * args.b[at] * x);
          y += static_cast<double>(args.c[at]) * s[i];
        }
        args.out[t * args.out_stride + channel] = static_cast<float>(y);
      }
      for (size_t i = 0; i < n; ++i) store(args.view, head, i * channels + c, s[i]);
    }
  }
}

void convolve(const ConvArgs& args, uint32_t channel_begin, uint32_t channel_end) {
  const size_t kept = args.taps - 1;
  for (size_t c = channel_begin; c < channel_end; ++c) {
    for (size_t t = 0; t < args.tokens; ++t) {
      const float now = args.x[t * args.x_stride + c];
      double sum = args.bias == nullptr ? 0.0 : args.bias[c];
      for (size_t j = 0; j < kept; ++j) {
        sum += static_cast<double>(args.weight[j * args.channels + c]) * args.state[j * args.channels + c];
      }
      sum += static_cast<double>(args.weight[kept * args.channels + c]) * now;
      for (size_t j = 0; j + 1 < kept; ++j) args.state[j * args.channels + c] = args.state[(j + 1) * args.channels + c];
      args.state[(kept - 1) * args.channels + c] = now;
      args.out[t * args.out_stride + c] = static_cast<float>(sum * sigmoid(sum));
    }
  }
}

}  // namespace lethe::cpu::reference
