// Tokens stay that stand out from what came after them (Liang et al. 2025, "LagKV: Lag-Relative Information of the KV
// Cache Tells Which Tokens Are Important", arXiv 2504.04704, section 3): behind the sinks the list is cut into parts of
// 128 tokens. Keys and values of a part are scaled by the least and the largest number that the next part has in every
// channel; how much a token then deviates over its channels, as a softmax over its part, the mean of keys and values,
// ranks it within the part. Parts that have no whole one behind them stay.
//
// There a part is compressed once, when the next one is complete, and the cache grows with the text. Under a cap what
// is left is cut into parts anew whenever room must be made.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "runtime/cache/list_reader.h"
#include "runtime/cache/policy.h"
#include "runtime/cache/select.h"

namespace lethe {
namespace {

constexpr uint32_t kPart = 128;

// Calls visit(block, first slot, end slot, index in the part of the first) for the blocks of a part.
template <typename Visit>
void for_each_piece(const ScoreArgs& args, uint32_t part_begin, Visit visit) {
  for_each_block(args.pool, args.list, [&](const uint8_t* block, uint32_t rank, uint32_t count) {
    const uint32_t begin = std::max(part_begin, rank), end = std::min(part_begin + kPart, rank + count);
    if (begin < end) visit(block, begin - rank, end - rank, begin - part_begin);
  });
}

// Adds the softmax over a part of how its tokens' keys (or values) deviate, in units of the next part's ranges.
//   scores [kPart]
void add_deviations(const ScoreArgs& args, bool of_values, uint32_t part_begin, std::span<float> scores) {
  const KvLayout& layout = args.pool.layout;
  const uint32_t dim = layout.head_dim;
  float* const numbers = args.work.data();  // [dim][32]
  float* const least = numbers + size_t{dim} * kBlockSlots;
  float* const most = least + dim;
  const auto read = [&](const uint8_t* block) {
    if (of_values) return read_values(layout, block, numbers);
    read_keys(layout, block, numbers);
  };
  std::fill_n(least, dim, std::numeric_limits<float>::infinity());
  std::fill_n(most, dim, -std::numeric_limits<float>::infinity());
  for_each_piece(args, part_begin + kPart, [&](const uint8_t* block, uint32_t first, uint32_t end, uint32_t) {
    read(block);
    for (uint32_t d = 0; d < dim; ++d) {
      const float* row = numbers + size_t{d} * kBlockSlots;
      for (uint32_t slot = first; slot < end; ++slot) {
        least[d] = std::min(least[d], row[slot]);
        most[d] = std::max(most[d], row[slot]);
      }
    }
  });
  std::array<float, kPart> deviations;
  for_each_piece(args, part_begin, [&](const uint8_t* block, uint32_t first, uint32_t end, uint32_t at) {
    float mean[kBlockSlots] = {}, squares[kBlockSlots] = {};
    read(block);
    for (uint32_t d = 0; d < dim; ++d) {
      float* row = numbers + size_t{d} * kBlockSlots;
      const float factor = most[d] > least[d] ? 1.0f / (most[d] - least[d]) : 0.0f;  // a constant channel tells nothing
      for (uint32_t slot = 0; slot < kBlockSlots; ++slot) {
        row[slot] = (row[slot] - least[d]) * factor;
        mean[slot] += row[slot] / static_cast<float>(dim);
      }
    }
    for (uint32_t d = 0; d < dim; ++d) {
      const float* row = numbers + size_t{d} * kBlockSlots;
      for (uint32_t slot = 0; slot < kBlockSlots; ++slot) {
        squares[slot] += (row[slot] - mean[slot]) * (row[slot] - mean[slot]);
      }
    }
    for (uint32_t slot = first; slot < end; ++slot) {
      deviations[at + slot - first] = std::sqrt(squares[slot] / static_cast<float>(std::max(dim, 2u) - 1));
    }
  });
  const float largest = *std::max_element(deviations.begin(), deviations.end());
  float sum = 0;
  for (float& deviation : deviations) sum += deviation = std::exp(deviation - largest);
  for (uint32_t i = 0; i < kPart; ++i) scores[i] += deviations[i] / sum;
}

void score_lagkv(const ScoreArgs& args, std::span<float> scores) {
  std::fill(scores.begin(), scores.end(), 1.0f);  // more than any rank
  for (uint32_t begin = args.sinks; begin + 2 * kPart <= args.list.length; begin += kPart) {
    std::array<float, kPart> sums{};
    add_deviations(args, false, begin, sums);
    add_deviations(args, true, begin, sums);
    std::array<uint64_t, kPart> order;  // of equal ones the newer is better
    for (uint32_t i = 0; i < kPart; ++i) order[i] = uint64_t{worth_of(sums[i])} << 32 | i;
    std::sort(order.begin(), order.end());
    for (uint32_t i = 0; i < kPart; ++i) {
      scores[begin + static_cast<uint32_t>(order[i])] = static_cast<float>(i) / static_cast<float>(kPart);
    }
  }
}

}  // namespace

// The newest part and what follows it stay by their score.
constexpr Policy kLagKvPolicy = {.name = "lagkv", .retention = {.recent_percent = 0}, .score = score_lagkv};

}  // namespace lethe
