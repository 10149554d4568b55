// A llama forward pass in double precision, one token at a time, from the weights of a GGUF file: what the decoder is
// compared with. It shares nothing with the runtime: attention is a loop over the kept tokens, and RoPE turns
// neighbouring dimensions, as the row order of a GGUF file's Q and K wants.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/half.h"
#include "tests/support/tiny_model.h"
#include "tests/support/transformed.h"

namespace lethe::test {

class LlamaReference {
 public:
  enum class Cache { kExact, kHalf, kInt8, kInt8k4v, kInt4 };  // how keys (after RoPE) and values are rounded
  struct Options {
    Cache cache = Cache::kHalf;
    PositionMode positions = PositionMode::kAbsolute;
    bool compensation = false;             // dropped tokens: their mean key and value, as often as they were
    bool quantise_activations = false;     // inputs of matrices: int8 with one scale for 32 inputs
    std::vector<HeadWindow> windows = {};  // [layers * kv_heads] of the kept tokens, by rank; empty: all are seen
    // Sees what every query head pays to the kept tokens.
    std::function<void(uint32_t layer, size_t head, std::span<const double> attention)> see = {};
  };

  LlamaReference(const GgufSource& source, const TinyOptions& shape, const Options& options)
      : shape_(shape), options_(options), layers_(shape.layers) {
    for (const GgufSourceTensor& t : source.tensors) weights_[t.name] = reference_dequantise(t.type, t.data);
  }

  // Appends a token and gives the logits after it [vocab].
  std::vector<double> feed(int32_t id) {
    const std::vector<float>& embedding = weights_.at("token_embd.weight");
    const auto row = embedding.begin() + static_cast<ptrdiff_t>(id) * shape_.embed_dim;
    Vector x(row, row + shape_.embed_dim);
    for (uint32_t layer = 0; layer < shape_.layers; ++layer) {
      const std::string name = "blk." + std::to_string(layer) + ".";
      const Vector a = norm(x, name + "attn_norm.weight");
      add(&x, linear(attend(layer, linear(a, name + "attn_q.weight"), linear(a, name + "attn_k.weight"),
                            linear(a, name + "attn_v.weight")),
                     name + "attn_output.weight"));
      const Vector b = norm(x, name + "ffn_norm.weight");
      Vector gate = linear(b, name + "ffn_gate.weight");
      const Vector up = linear(b, name + "ffn_up.weight");
      for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
      add(&x, linear(gate, name + "ffn_down.weight"));
    }
    ++position_;
    return linear(norm(x, "output_norm.weight"), shape_.tied ? "token_embd.weight" : "output.weight");
  }

  uint32_t kept() const { return static_cast<uint32_t>(layers_[0].size()); }

  // Forgets all but the first `sinks` and the newest tokens, `tokens` in all.
  void keep(uint32_t sinks, uint32_t tokens) {
    dropped_.resize(layers_.size());
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      std::vector<Token>& cached = layers_[layer];
      const auto begin = cached.begin() + sinks, end = cached.end() - (static_cast<ptrdiff_t>(tokens) - sinks);
      if (options_.compensation) dropped_[layer].insert(dropped_[layer].end(), begin, end);
      cached.erase(begin, end);
    }
  }

 private:
  using Vector = std::vector<double>;
  struct Token {
    uint64_t position;
    Vector k, v;  // [kv_heads * head_dim], k rotated at `position`
  };

  Vector norm(const Vector& x, const std::string& name) const {
    double squares = 0;
    for (const double value : x) squares += value * value;
    const double factor = 1 / std::sqrt(squares / static_cast<double>(x.size()) + 1e-5);
    Vector y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * factor * static_cast<double>(weights_.at(name)[i]);
    return y;
  }

  // Nearest multiples of max / 127.
  static void round_to_int8(std::span<double> x) {
    double most = 0;
    for (const double value : x) most = std::max(most, std::abs(value));
    for (double& value : x) value = most == 0 ? 0 : std::round(value / most * 127) * most / 127;
  }

  // Nearest odd multiples of max / 15, of the transformed row.
  static void round_to_4_bits(std::span<double> x) {
    Vector t = transformed({x.begin(), x.end()});
    double most = 0;
    for (const double value : t) most = std::max(most, std::abs(value));
    for (double& value : t) value = (2 * std::round((value / most * 15 + 15) / 2) - 15) * most / 15;
    std::ranges::copy(transformed(t), x.begin());
  }
  // The same of a key in the runtime's order of dimensions, where pair i is i and i + half.
  static void round_key_to_4_bits(std::span<double> x) {
    Vector key(x.size());
    const size_t half = x.size() / 2;
    for (size_t i = 0; i < half; ++i) key[i] = x[2 * i], key[half + i] = x[2 * i + 1];
    round_to_4_bits(key);
    for (size_t i = 0; i < half; ++i) x[2 * i] = key[i], x[2 * i + 1] = key[half + i];
  }

  Vector linear(Vector x, const std::string& name) const {
    if (options_.quantise_activations) {
      for (size_t i = 0; i < x.size(); i += 32) round_to_int8({&x[i], 32});
    }
    const std::vector<float>& w = weights_.at(name);
    Vector y(w.size() / x.size());
    for (size_t row = 0; row < y.size(); ++row) {
      for (size_t i = 0; i < x.size(); ++i) y[row] += static_cast<double>(w[row * x.size() + i]) * x[i];
    }
    return y;
  }

  static void add(Vector* x, const Vector& y) {
    for (size_t i = 0; i < x->size(); ++i) (*x)[i] += y[i];
  }

  // Pair i of every head turns by angle * base^(-2i / head_dim).
  void rotate(std::span<double> x, double angle) const {
    for (size_t i = 0; i < x.size(); i += 2) {
      const double turn = angle * std::pow(10000.0, -static_cast<double>(i % shape_.head_dim) / shape_.head_dim);
      const double a = x[i], b = x[i + 1];
      x[i] = a * std::cos(turn) - b * std::sin(turn);
      x[i + 1] = a * std::sin(turn) + b * std::cos(turn);
    }
  }

  // Where a token stands for the query at position_. Clamped: as if the conversation had begun at a multiple of 256,
  // late enough for the query to stand inside the trained length; what was before stands at its rank.
  double place(uint64_t position, size_t rank) const {
    double begin = 0;
    while (static_cast<double>(position_) - begin >= shape_.context_length / 256 * 256) begin += 256;
    switch (options_.positions) {
      case PositionMode::kAbsolute: return static_cast<double>(position);
      case PositionMode::kRolling: return static_cast<double>(rank);
      case PositionMode::kClamped: break;
    }
    return std::max(static_cast<double>(position) - begin, static_cast<double>(rank));
  }

  void round_cached(Vector* x, bool is_key) const {
    for (size_t head = 0; head < shape_.kv_heads; ++head) {
      const std::span<double> part(&(*x)[head * shape_.head_dim], shape_.head_dim);
      switch (options_.cache) {
        case Cache::kExact: break;
        case Cache::kHalf:
          for (double& y : part) y = static_cast<double>(half_to_float(float_to_half(static_cast<float>(y))));
          break;
        case Cache::kInt8: round_to_int8(part); break;
        case Cache::kInt8k4v: is_key ? round_to_int8(part) : round_to_4_bits(part); break;
        case Cache::kInt4: is_key ? round_key_to_4_bits(part) : round_to_4_bits(part); break;
      }
    }
  }

  Vector attend(uint32_t layer, Vector q, Vector k, Vector v) {
    std::vector<Token>& cached = layers_[layer];
    rotate(k, static_cast<double>(position_));
    round_cached(&k, true);
    round_cached(&v, false);
    cached.push_back({position_, std::move(k), std::move(v)});
    Vector true_q = q;
    rotate(true_q, static_cast<double>(position_));
    rotate(q, place(position_, cached.size() - 1));

    const size_t dim = shape_.head_dim, group = shape_.heads / shape_.kv_heads;
    Vector out(q.size()), scores(cached.size() * shape_.heads);
    for (size_t rank = 0; rank < cached.size(); ++rank) {
      Vector key = cached[rank].k;
      rotate(key, place(cached[rank].position, rank) - static_cast<double>(cached[rank].position));
      for (size_t head = 0; head < shape_.heads; ++head) {
        double dot = 0;
        for (size_t i = 0; i < dim; ++i) dot += q[head * dim + i] * key[head / group * dim + i];
        scores[head * cached.size() + rank] = dot / std::sqrt(static_cast<double>(dim));
      }
    }
    for (size_t head = 0; head < shape_.heads; ++head) {
      const std::span<double> p(&scores[head * cached.size()], cached.size());
      if (!options_.windows.empty()) {
        const auto [sinks, window] = options_.windows[layer * shape_.kv_heads + head / group];
        for (size_t rank = sinks; window != 0 && rank + window < p.size(); ++rank) {
          p[rank] = -std::numeric_limits<double>::infinity();
        }
      }
      const double most = *std::max_element(p.begin(), p.end());
      double total = 0;
      for (double& value : p) total += value = std::exp(value - most);
      if (!dropped_.empty() && !dropped_[layer].empty()) {
        const auto count = static_cast<double>(dropped_[layer].size());
        double score = 0;
        Vector mean(dim);
        for (const Token& token : dropped_[layer]) {
          for (size_t i = 0; i < dim; ++i) {
            score +=
                true_q[head * dim + i] * token.k[head / group * dim + i] / count / std::sqrt(static_cast<double>(dim));
            mean[i] += token.v[head / group * dim + i] / count;
          }
        }
        const double weight = count * std::exp(score - most);
        total += weight;
        for (size_t i = 0; i < dim; ++i) out[head * dim + i] += weight / total * mean[i];
      }
      for (double& value : p) value /= total;
      if (options_.see) options_.see(layer, head, p);
      for (size_t rank = 0; rank < p.size(); ++rank) {
        for (size_t i = 0; i < dim; ++i) out[head * dim + i] += p[rank] * cached[rank].v[head / group * dim + i];
      }
    }
    return out;
  }

  TinyOptions shape_;
  Options options_;
  std::map<std::string, std::vector<float>> weights_;
  std::vector<std::vector<Token>> layers_, dropped_;
  uint64_t position_ = 0;
};

}  // namespace lethe::test
