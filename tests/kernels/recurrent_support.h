// Random recurrent heads with all their inputs: run by kernels, in calls of any length, and computed in double by the
// equations of docs/recurrent.md, token by token.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "runtime/base/half.h"
#include "runtime/recurrent/recurrent_states.h"
#include "tests/kernels/support.h"

namespace lethe::cpu {

// The states of one layer in memory of their own.
struct OwnedStates {
  explicit OwnedStates(const RecurrentHeads& heads, uint32_t checkpoints = 0) {
    Arena measuring = Arena::measuring();
    RecurrentStates measured;
    REQUIRE(measured.carve(measuring, {&heads, 1}, checkpoints).ok());
    memory.assign(measuring.used() / 64, Line{});
    Arena arena(memory[0].bytes, measuring.used());
    REQUIRE(states.carve(arena, {&heads, 1}, checkpoints).ok());
  }
  RecurrentView view() const { return states.view(0); }

  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  std::vector<Line> memory;
  RecurrentStates states;
};

inline double exact_softplus(double x) { return x > 30 ? x : std::log1p(std::exp(x)); }
inline double exact_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// The largest difference, in units of the root mean square of `b`.
template <class A, class B>
double difference(const A& a, const B& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0, squares = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(d <= largest)) largest = d;  // keeps a NaN
    squares += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return largest / std::sqrt(squares / static_cast<double>(a.size()));
}

// Lengths of calls that cover `tokens`: one, all of one, and uneven ones.
inline std::vector<std::vector<uint32_t>> splits_of(uint32_t tokens) {
  std::vector<std::vector<uint32_t>> splits = {{tokens}, std::vector<uint32_t>(tokens, 1)};
  for (const std::vector<uint32_t>& lengths : {std::vector<uint32_t>{3, 1, 17}, {2, 33, 5, 64, 7}, {16, 48}}) {
    std::vector<uint32_t> split;
    for (uint32_t done = 0; done < tokens; done += split.back()) {
      split.push_back(std::min(lengths[split.size() % lengths.size()], tokens - done));
    }
    splits.push_back(split);
  }
  return splits;
}

// S of all heads as floats.
inline std::vector<float> floats_of(const RecurrentView& view) {
  const size_t elements = size_t{view.heads.key_dim} * view.heads.value_dim;
  std::vector<float> all;
  for (size_t head = 0; head < view.heads.count; ++head) {
    for (size_t i = 0; i < elements; ++i) {
      all.push_back(view.heads.state_type == StateType::kF32
                        ? reinterpret_cast<const float*>(view.head(head))[i]
                        : bf16_to_float(reinterpret_cast<const uint16_t*>(view.head(head))[i]));
    }
  }
  return all;
}

// Heads of Mamba-2 or a gated delta net.
struct RecurCase {
  RecurrentHeads heads;
  uint32_t tokens;
  uint32_t keys = 1, values = 1, queries = 1, reads = 1;  // rows of a token
  bool skip = false;
  float dt_bias = -2;

  // Rows of tokens are longer than what is in them: the gaps are NaN.
  static constexpr uint32_t kGap = 3;
  std::vector<float> k = {}, v = {}, q = {}, dt = {}, beta = {}, bias = {}, rate = {}, d = {};
  float scale = 1;

  RecurCase& fill() {
    const auto rows = [&](uint32_t width) {
      std::vector<float> all = random_floats(size_t{tokens} * (width + kGap));
      for (size_t i = 0; i < all.size(); ++i) {
        if (i % (width + kGap) >= width) all[i] = NAN;
      }
      return all;
    };
    k = rows(keys * heads.key_dim);
    q = rows(queries * heads.key_dim);
    v = rows(values * heads.value_dim);
    dt = rows(heads.count);
    beta = rows(heads.count);
    bias = random_floats(heads.count, 0.5f);
    for (float& b : bias) b += dt_bias;
    rate = random_floats(heads.count);
    for (float& r : rate) r = -std::exp(r);
    d = random_floats(heads.count);
    scale = delta() ? 1 / std::sqrt(static_cast<float>(heads.key_dim)) : 1;
    return *this;
  }
  bool delta() const { return heads.kind == RecurrentKind::kGatedDelta; }
  uint32_t out_width() const { return heads.count * reads * heads.value_dim; }

  // For tokens from `first` on; `out` has the rows of all tokens, without gaps.
  RecurArgs args(const RecurrentView& view, uint32_t first, uint32_t count, float* out, float* scratch) const {
    const auto input = [&](const std::vector<float>& all, uint32_t rows, uint32_t dim) {
      const uint32_t stride = rows * dim + kGap;
      return HeadRows{all.data() + size_t{first} * stride, stride, rows};
    };
    const size_t gate = size_t{first} * (heads.count + kGap);
    return {.view = view,
            .tokens = count,
            .keys = input(k, keys, heads.key_dim),
            .values = input(v, values, heads.value_dim),
            .queries = input(q, queries, heads.key_dim),
            .reads = reads,
            .scale = scale,
            .dt = dt.data() + gate,
            .beta = delta() ? beta.data() + gate : nullptr,
            .gate_stride = heads.count + kGap,
            .dt_bias = bias.data(),
            .rate = rate.data(),
            .skip = skip ? d.data() : nullptr,
            .out = out + size_t{first} * out_width(),
            .out_stride = out_width(),
            .scratch = scratch};
  }

  // The answers [tokens][out_width], in calls of these lengths. `heads_at_once` heads in a call, as threads share them.
  std::vector<float> run(const Kernels& kernels, const RecurrentView& view, const std::vector<uint32_t>& split,
                         uint32_t heads_at_once = UINT32_MAX) const {
    std::vector<float> out(size_t{tokens} * out_width(), NAN);
    uint32_t first = 0;
    for (const uint32_t count : split) {
      for (uint32_t head = 0; head < heads.count; head += std::min(heads_at_once, heads.count - head)) {
        std::vector<float> scratch(recur_scratch_floats(heads, reads), NAN);
        kernels.recur(args(view, first, count, out.data(), scratch.data()), head,
                      head + std::min(heads_at_once, heads.count - head));
      }
      first += count;
    }
    return out;
  }

  std::vector<double> row(const std::vector<float>& all, uint32_t t, uint32_t user, uint32_t users, uint32_t rows,
                          uint32_t dim) const {
    const float* from = all.data() + size_t{t} * (rows * dim + kGap) + user / (users / rows) * dim;
    return std::vector<double>(from, from + dim);
  }
  std::vector<double> unit_row(const std::vector<float>& all, uint32_t t, uint32_t user, uint32_t users,
                               uint32_t rows) const {
    std::vector<double> x = row(all, t, user, users, rows, heads.key_dim);
    double squares = 1e-6;
    for (const double e : x) squares += e * e;
    for (double& e : x) e /= delta() ? std::sqrt(squares) : 1.0;
    return x;
  }

  // The answers in double, from the state `s` [heads][key_dim][value_dim] on, which is left as after the last token.
  std::vector<double> exact(std::vector<double>& s) const {
    const uint32_t dk = heads.key_dim, dv = heads.value_dim;
    std::vector<double> out;
    for (uint32_t t = 0; t < tokens; ++t) {
      for (uint32_t h = 0; h < heads.count; ++h) {
        double* state = s.data() + size_t{h} * dk * dv;
        const size_t gate = size_t{t} * (heads.count + kGap) + h;
        const std::vector<double> key = unit_row(k, t, h, heads.count, keys);
        const std::vector<double> value = row(v, t, h, heads.count, values, dv);
        const double step = exact_softplus(static_cast<double>(dt[gate]) + bias[h]);
        const double decay = std::exp(rate[h] * step);
        for (uint32_t i = 0; i < dk * dv; ++i) state[i] *= decay;
        for (uint32_t c = 0; c < dv; ++c) {
          double known = 0;
          for (uint32_t i = 0; i < dk; ++i) known += state[i * dv + c] * key[i];
          const double u = delta() ? exact_sigmoid(beta[gate]) * (value[c] - known) : step * value[c];
          for (uint32_t i = 0; i < dk; ++i) state[i * dv + c] += key[i] * u;
        }
      }
      const std::vector<double> answers = exact_answers(s, t);
      out.insert(out.end(), answers.begin(), answers.end());
    }
    return out;
  }
  // What token t reads from the state `s`, in double: [out_width].
  std::vector<double> exact_answers(const std::vector<double>& s, uint32_t t) const {
    const uint32_t dk = heads.key_dim, dv = heads.value_dim;
    std::vector<double> out;
    for (uint32_t h = 0; h < heads.count; ++h) {
      const double* state = s.data() + size_t{h} * dk * dv;
      const std::vector<double> value = row(v, t, h, heads.count, values, dv);
      for (uint32_t r = 0; r < reads; ++r) {
        const std::vector<double> query = unit_row(q, t, h * reads + r, heads.count * reads, queries);
        for (uint32_t c = 0; c < dv; ++c) {
          double sum = 0;
          for (uint32_t i = 0; i < dk; ++i) sum += state[i * dv + c] * query[i];
          out.push_back(sum * scale + (skip ? d[h] * value[c] : 0.0));
        }
      }
    }
    return out;
  }
  std::vector<double> zero_state() const {
    return std::vector<double>(size_t{heads.count} * heads.key_dim * heads.value_dim);
  }
};

// Heads of Mamba-1.
struct ScanCase {
  RecurrentHeads heads;
  uint32_t tokens;
  float dt_bias = -2;
  bool out_is_x = false;
  std::vector<float> x = {}, dt = {}, bc = {}, bias = {}, rate = {}, d = {};

  uint32_t channels() const { return heads.count * heads.value_dim; }
  uint32_t x_stride() const { return channels() + 5; }
  uint32_t bc_stride() const { return 2 * heads.key_dim + 1; }

  ScanCase& fill() {
    x = random_floats(size_t{tokens} * x_stride());
    dt = random_floats(size_t{tokens} * channels());
    bc = random_floats(size_t{tokens} * bc_stride());
    bias = random_floats(channels(), 0.5f);
    for (float& b : bias) b += dt_bias;
    rate = random_floats(size_t{channels()} * heads.key_dim);
    for (float& r : rate) r = -std::exp(r);
    d = random_floats(channels());
    return *this;
  }

  std::vector<float> run(const Kernels& kernels, const RecurrentView& view, const std::vector<uint32_t>& split,
                         uint32_t heads_at_once = UINT32_MAX) const {
    std::vector<float> in = x, separate(x.size(), NAN);
    std::vector<float>& out = out_is_x ? in : separate;
    size_t first = 0;
    for (const uint32_t count : split) {
      for (uint32_t head = 0; head < heads.count; head += std::min(heads_at_once, heads.count - head)) {
        std::vector<float> scratch(scan_scratch_floats(heads), NAN);
        kernels.scan({.view = view,
                      .tokens = count,
                      .x = in.data() + first * x_stride(),
                      .dt = dt.data() + first * channels(),
                      .b = bc.data() + first * bc_stride(),
                      .c = bc.data() + first * bc_stride() + heads.key_dim,
                      .x_stride = x_stride(),
                      .dt_stride = channels(),
                      .bc_stride = bc_stride(),
                      .dt_bias = bias.data(),
                      .rate = rate.data(),
                      .skip = d.data(),
                      .out = out.data() + first * x_stride(),
                      .out_stride = x_stride(),
                      .scratch = scratch.data()},
                     head, head + std::min(heads_at_once, heads.count - head));
      }
      first += count;
    }
    std::vector<float> answers;
    for (size_t t = 0; t < tokens; ++t) {
      answers.insert(answers.end(), &out[t * x_stride()], &out[t * x_stride()] + channels());
    }
    return answers;
  }

  // As RecurCase::exact; s [heads][key_dim][value_dim].
  std::vector<double> exact(std::vector<double>& s) const {
    std::vector<double> out;
    for (uint32_t t = 0; t < tokens; ++t) {
      for (uint32_t c = 0; c < channels(); ++c) {
        const double step = exact_softplus(static_cast<double>(dt[size_t{t} * channels() + c]) + bias[c]);
        const double in = x[size_t{t} * x_stride() + c];
        double y = d[c] * in;
        for (uint32_t n = 0; n < heads.key_dim; ++n) {
          const float* b = bc.data() + size_t{t} * bc_stride() + n;
          const size_t at = (size_t{c / heads.value_dim} * heads.key_dim + n) * heads.value_dim + c % heads.value_dim;
          s[at] = std::exp(step * rate[at]) * s[at] + step * *b * in;
          y += b[heads.key_dim] * s[at];
        }
        out.push_back(y);
      }
    }
    return out;
  }
  std::vector<double> zero_state() const { return std::vector<double>(size_t{channels()} * heads.key_dim); }
};

}  // namespace lethe::cpu
