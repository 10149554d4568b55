// What a NAMM computes, written down plainly and in doubles: the definition that all vector code is compared with. From
// arXiv 2410.13166, section 3, and the authors' code; no formula is rearranged.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

#include "runtime/cache/namm/parameters.h"

namespace lethe::namm::reference {

using Row = std::vector<double>;
using Rows = std::vector<Row>;  // [tokens][...]

// Magnitudes of the one-sided spectrum of 32 samples under a periodic Hann window.  [17]
inline Row magnitudes(const double* frame) {
  Row out;
  for (int k = 0; k <= 16; ++k) {
    std::complex<double> sum = 0;
    for (int i = 0; i < 32; ++i) {
      const double window = 0.5 - 0.5 * std::cos(2 * std::numbers::pi * i / 32);
      sum += window * frame[i] * std::polar(1.0, -2 * std::numbers::pi * k * i / 32);
    }
    out.push_back(std::abs(sum));
  }
  return out;
}

// One token, as it is seen by every query since it came.
struct Token {
  uint32_t position;
  Row attention = Row(16);  // the last hop of queries and the open one; before the token came, zeros
  Row average = Row(17);
};

// Averages and positions of one list.
struct List {
  // The query at `position`, which is the next token of the list too. attention [tokens with it]
  template <typename Attention>
  void see(uint32_t position, Attention attention) {
    tokens.push_back({position});
    tokens.back().attention.resize(16 + position % 16);
    for (size_t rank = 0; rank < tokens.size(); ++rank) {
      Token& token = tokens[rank];
      token.attention.push_back(attention(rank));
      if (position % 16 != 15) continue;
      const Row magnitude = magnitudes(token.attention.data());
      const double g = std::pow(0.99, 16);
      for (int k = 0; k < 17; ++k) token.average[k] = g * token.average[k] + (1 - g) * magnitude[k];
      token.attention.erase(token.attention.begin(), token.attention.begin() + 16);
    }
  }

  std::vector<Token> tokens;
};

// [sin, cos] of the age at four frequencies.  [8]
inline Row age_code(uint32_t age) {
  Row out(8);
  for (int i = 0; i < 4; ++i) {
    out[i] = std::sin(age * std::pow(50000.0, -i / 4.0));
    out[4 + i] = std::cos(age * std::pow(50000.0, -i / 4.0));
  }
  return out;
}

inline double standardised(double x, double mean, double variance) {
  return (x - mean) / std::max(std::sqrt(variance), 1e-7);
}

// The inputs of the published network.
inline Rows features(const List& list, const Parameters& parameters) {
  Rows out;
  for (const Token& token : list.tokens) {
    Row row = age_code(list.tokens.back().position - token.position);
    for (int k = 0; k < 17; ++k) {
      row.push_back(standardised(token.average[k], parameters.means[k], parameters.variances[k]));
    }
    out.push_back(row);
  }
  return out;
}

// x W + b.  W [x.size()][b.size()]
inline Row affine(const Row& x, std::span<const float> weights, std::span<const float> bias) {
  Row out(bias.begin(), bias.end());
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t o = 0; o < out.size(); ++o) out[o] += x[i] * weights[i * out.size() + o];
  }
  return out;
}

inline double dot(const double* a, const double* b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

inline Row bam_scores(const Rows& x, const Parameters& parameters) {
  const BamWeights w = bam_weights(parameters);
  const size_t d = parameters.shape.width(), h = parameters.shape.hidden;
  Rows qkv;
  for (const Row& row : x) qkv.push_back(affine(row, w.qkv, w.qkv_bias));
  Row scores;
  for (size_t i = 0; i < x.size(); ++i) {
    Row logits;
    for (size_t j = i; j < x.size(); ++j) {
      logits.push_back(dot(&qkv[i][0], &qkv[j][h], h) / std::sqrt(static_cast<double>(h)));
    }
    const double top = *std::max_element(logits.begin(), logits.end());
    Row context(h);
    double sum = 0;
    for (size_t j = i; j < x.size(); ++j) {
      const double weight = std::exp(logits[j - i] - top);
      sum += weight;
      for (size_t c = 0; c < h; ++c) context[c] += weight * qkv[j][2 * h + c];
    }
    for (double& c : context) c /= sum;
    const Row out = affine(context, w.out, w.out_bias);
    double score = w.score_bias[0];
    for (size_t k = 0; k < d; ++k) score += (x[i][k] * (1 + out[d + k]) + out[k]) * w.score[k];
    scores.push_back(score);
  }
  return scores;
}

inline Row mlp_scores(const Rows& x, const Parameters& parameters) {
  const MlpWeights w = mlp_weights(parameters);
  Row scores;
  for (const Row& row : x) {
    const Row hidden = affine(row, w.hidden, w.hidden_bias);
    double score = w.score_bias[0];
    for (size_t i = 0; i < hidden.size(); ++i) score += std::max(hidden[i], 0.0) * w.score[i];
    scores.push_back(score);
  }
  return scores;
}

inline Row linear_scores(const Rows& x, const Parameters& parameters) {
  const LinearWeights w = linear_weights(parameters);
  Row scores;
  for (const Row& row : x) {
    double score = w.score_bias[0];
    for (size_t i = 0; i < row.size(); ++i) score += row[i] * w.score[i];
    scores.push_back(score);
  }
  return scores;
}

inline Row network_scores(const Rows& x, const Parameters& parameters) {
  switch (parameters.shape.network) {
    case Network::kBam: return bam_scores(x, parameters);
    case Network::kMlp: return mlp_scores(x, parameters);
    case Network::kLinear: return linear_scores(x, parameters);
  }
  return {};
}

// The authors' selection: every list of a layer keeps as many tokens as the list with the most that pass, its best.
inline std::vector<std::vector<uint32_t>> kept_ranks(std::vector<Row> scores, std::vector<uint32_t>* passing) {
  size_t most = 0;
  for (Row& list : scores) {
    list.back() = std::numeric_limits<double>::max();
    const auto count = static_cast<size_t>(std::count_if(list.begin(), list.end(), [](double s) { return s >= 0; }));
    passing->push_back(static_cast<uint32_t>(count));
    most = std::max(most, count);
  }
  std::vector<std::vector<uint32_t>> kept;
  for (const Row& list : scores) {
    std::vector<uint32_t> ranks(list.size());
    for (uint32_t i = 0; i < ranks.size(); ++i) ranks[i] = i;
    std::stable_sort(ranks.begin(), ranks.end(), [&](uint32_t a, uint32_t b) { return list[a] > list[b]; });
    ranks.resize(most);
    std::sort(ranks.begin(), ranks.end());
    kept.push_back(ranks);
  }
  return kept;
}

inline double largest_magnitude(const Row& row) {
  double most = 0;
  for (const double x : row) most = std::max(most, std::abs(x));
  return most;
}

}  // namespace lethe::namm::reference
