// Tokens stay that the queries to come are expected to attend to (Devoto et al. 2025, "Expected Attention: KV Cache
// Compression by Estimating Attention from Future Queries Distribution", arXiv 2510.00636, section 3): the mean query
// of every head before rotation, rotated by the mean of the rotations at the next 512 positions, gives a softmax over
// the list; score = its mean over the heads that share the KV head, times the norm of the value (there the Euclidean
// one, here Retention::value_norm).
//
// There the mean is taken over the prompt, or offline. Here it runs along with the conversation: over all queries but
// the first four, from 1024 of them on with older ones fading. The covariance of queries, which the authors' code can
// add to the exponent (use_covariance), is left out: of every head it takes head_dim times the bytes of the mean, more
// than what a small cap leaves to the tokens. Distances are those of the conversation.
#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/cache/list_reader.h"
#include "runtime/cache/policy.h"

namespace lethe {
namespace {

constexpr uint32_t kSkippedQueries = 4;  // those of the first tokens are unlike all others
constexpr float kMostQueries = 1024;
constexpr uint32_t kFuturePositions = 512;

// The state of a list: how many queries the mean is over, then the mean [group][head_dim].
uint32_t list_state_floats(uint32_t group, uint32_t head_dim) { return 1 + group * head_dim; }

void see_queries(const QueryArgs& args) {
  float& count = args.list_state[0];
  const uint32_t half = args.rotary_dim / 2;
  for (uint32_t t = 0; t < args.queries; ++t) {
    if (args.first_position + t < kSkippedQueries) continue;
    count = std::min(count + 1, kMostQueries);
    const float rate = 1.0f / count;
    const float *cos = args.cos + size_t{t} * half, *sin = args.sin + size_t{t} * half;
    for (uint32_t head = 0; head < args.group; ++head) {
      const float* q = args.q + size_t{t} * args.q_stride + head * args.head_dim;
      float* mean = &args.list_state[1 + head * args.head_dim];
      for (uint32_t i = 0; i < half; ++i) {
        // Back to position 0. A rotation may scale by a magnitude (YaRN): it stays.
        const float inverse = 1.0f / std::sqrt(cos[i] * cos[i] + sin[i] * sin[i]);
        mean[i] += ((q[i] * cos[i] + q[half + i] * sin[i]) * inverse - mean[i]) * rate;
        mean[half + i] += ((q[half + i] * cos[i] - q[i] * sin[i]) * inverse - mean[half + i]) * rate;
      }
      for (uint32_t d = args.rotary_dim; d < args.head_dim; ++d) mean[d] += (q[d] - mean[d]) * rate;
    }
  }
}

// Rotates by the mean of the rotations at the positions [position, position + kFuturePositions).
void rotate_ahead(const LayerAttention& attention, uint32_t position, float* q) {
  const uint32_t half = attention.rotary_dim / 2;
  for (uint32_t i = 0; i < half; ++i) {
    const double frequency = static_cast<double>(attention.inv_freq[i]), sine = std::sin(frequency / 2);
    // A mean of equally spaced points of a circle points to their middle.
    const double middle = (position + (kFuturePositions - 1) / 2.0) * frequency;
    const double length =
        std::abs(sine) < 1e-12 ? 1 : std::sin(frequency / 2 * kFuturePositions) / (sine * kFuturePositions);
    const auto c = static_cast<float>(std::cos(middle) * length), s = static_cast<float>(std::sin(middle) * length);
    const float first = q[i], second = q[half + i];
    q[i] = first * c - second * s;
    q[half + i] = second * c + first * s;
  }
}

void score_expected_attention(const ScoreArgs& args, std::span<float> scores) {
  const KvLayout& layout = args.pool.layout;
  const uint32_t dim = layout.head_dim, group = args.attention.group;
  float* const keys = args.work.data();                   // [dim][32]
  float* const query = keys + size_t{dim} * kBlockSlots;  // [dim]
  // Calls visit(rank, score of `query`) for all tokens but the first.
  const auto for_each_score = [&](auto visit) {
    for_each_block(args.pool, args.list, [&](const uint8_t* block, uint32_t rank, uint32_t count) {
      float dots[kBlockSlots] = {};
      read_keys(layout, block, keys);
      for (uint32_t d = 0; d < dim; ++d) {
        const float* row = keys + size_t{d} * kBlockSlots;
        for (uint32_t slot = 0; slot < kBlockSlots; ++slot) dots[slot] += row[slot] * query[d];
      }
      for (uint32_t slot = 0; slot < count; ++slot) {
        if (rank + slot >= args.sinks) visit(rank + slot, dots[slot] * args.attention.scale);
      }
    });
  };
  std::fill(scores.begin(), scores.end(), 0.0f);
  for (uint32_t head = 0; head < group; ++head) {
    std::copy_n(args.list_state.begin() + 1 + head * dim, dim, query);
    rotate_ahead(args.attention, args.next_position, query);
    float most = -std::numeric_limits<float>::infinity(), sum = 0;
    for_each_score([&](uint32_t, float score) {
      if (score > most) sum *= std::exp(most - score);
      most = std::max(most, score);
      sum += std::exp(score - most);
    });
    const float share = 1.0f / (sum * static_cast<float>(group));
    for_each_score([&](uint32_t rank, float score) { scores[rank] += std::exp(score - most) * share; });
  }
}

}  // namespace

constexpr Policy kExpectedAttentionPolicy = {.name = "expected-attention",
                                             .retention = {.value_norm = true},
                                             .is_share = true,
                                             .list_state_floats = list_state_floats,
                                             .observer = {.see_queries = see_queries},
                                             .score = score_expected_attention};

}  // namespace lethe
