// Parameters as the networks compute with them. In doubles: what is folded loses nothing that one would notice.
#include <algorithm>
#include <cmath>

#include "runtime/cache/namm/network.h"

namespace lethe::namm {

void FoldedBam::carve(Arena& arena, const Shape& shape) {
  width = shape.width();
  query = arena.take<float>((width + 1) * padded(width));
  read_out = arena.take<float>((width + 1) * padded(width));
  linear = arena.take<float>(width + 1);
}

void FoldedBam::fold(const BamWeights& w) {
  const size_t d = width, h = w.qkv_bias.size() / 3, stride = padded(d);
  // Row i of [W_qkv; b_qkv], and column j of its part Q, K or V.
  const auto qkv = [&](size_t i, size_t part, size_t j) -> double {
    return i == d ? w.qkv_bias[part * h + j] : w.qkv[i * 3 * h + part * h + j];
  };
  const auto add = [&](size_t j, size_t i) -> double { return w.out[j * 2 * d + i]; };
  const auto gate = [&](size_t j, size_t i) -> double { return w.out[j * 2 * d + d + i]; };
  // What unit j of the context adds to the score for input i of the token, or (i = d) whatever the token.
  const auto read = [&](size_t i, size_t j) {
    if (i != d) return gate(j, i) * w.score[i];
    double sum = 0;
    for (size_t o = 0; o < d; ++o) sum += add(j, o) * w.score[o];
    return sum;
  };
  std::fill(query.begin(), query.end(), 0.0f);
  std::fill(read_out.begin(), read_out.end(), 0.0f);
  const double scale = 1 / std::sqrt(static_cast<double>(h)) / std::log(2.0);
  for (size_t i = 0; i <= d; ++i) {
    double from_bias = 0;  // the value's bias passes the softmax as it is
    for (size_t j = 0; j < h; ++j) from_bias += read(i, j) * qkv(d, 2, j);
    if (i != d) from_bias += w.score[i] * (1.0 + w.out_bias[d + i]);
    if (i == d) {
      from_bias += w.score_bias[0];
      for (size_t o = 0; o < d; ++o) from_bias += static_cast<double>(w.out_bias[o]) * w.score[o];
    }
    linear[i] = static_cast<float>(from_bias);
    for (size_t o = 0; o < d; ++o) {
      double to_key = 0, to_value = 0;
      for (size_t j = 0; j < h; ++j) {
        to_key += qkv(i, 0, j) * qkv(o, 1, j);
        to_value += read(i, j) * qkv(o, 2, j);
      }
      query[i * stride + o] = static_cast<float>(to_key * scale);
      read_out[i * stride + o] = static_cast<float>(to_value);
    }
  }
}

void PaddedMlp::carve(Arena& arena, const Shape& shape) {
  width = shape.width();
  hidden = arena.take<float>((width + 1) * padded(shape.hidden));
  score = arena.take<float>(padded(shape.hidden) + 1);
}

void PaddedMlp::fill(const MlpWeights& w) {
  const size_t units = w.score.size(), stride = padded(units);
  std::fill(hidden.begin(), hidden.end(), 0.0f);
  std::fill(score.begin(), score.end(), 0.0f);
  for (size_t i = 0; i < width; ++i) std::copy_n(w.hidden.begin() + i * units, units, hidden.begin() + i * stride);
  std::copy_n(w.hidden_bias.begin(), units, hidden.begin() + width * stride);
  std::copy_n(w.score.begin(), units, score.begin());
  score[stride] = w.score_bias[0];
}

void Linear::carve(Arena& arena, const Shape& shape) { score = arena.take<float>(shape.width() + 1); }

void Linear::fill(const LinearWeights& w) {
  std::copy(w.score.begin(), w.score.end(), score.begin());
  score.back() = w.score_bias[0];
}

}  // namespace lethe::namm
