// Policies against their formulas written down in double, and against what every policy promises.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "runtime/base/half.h"
#include "runtime/cache/list_reader.h"
#include "runtime/cache/policy.h"
#include "tests/cache/pool_model.h"
#include "tests/support/transformed.h"

using namespace lethe;
using namespace lethe::test;

namespace {

constexpr uint32_t kSinks = 4;

// One list of random keys and values, its blocks scattered over the pool.
struct KeyList {
  KeyList(KvType kv_type, uint32_t dim, uint32_t length, uint32_t seed)
      : type(kv_type), head_dim(dim), layout(make_kv_layout(kv_type, dim)) {
    const uint32_t blocks = (length + 31) / 32;
    storage.resize(size_t{2 * blocks + 1} * layout.block_bytes / 64 + 1);
    next.assign(2 * blocks + 1, kNoBlock);
    list = {.first_block = 2 * blocks, .last_block = 0, .length = length};
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    uint32_t position = 0;
    for (uint32_t i = 0; i < blocks; ++i) {
      const uint32_t index = 2 * (blocks - i);
      next[index] = i + 1 < blocks ? index - 2 : kNoBlock;
      list.last_block = index;
      uint8_t* block = bytes() + size_t{index} * layout.block_bytes;
      for (uint32_t slot = 0; slot < 32; ++slot) {
        const bool used = i * 32 + slot < length;
        position += 1 + static_cast<uint32_t>(random() % 3);
        if (used) positions.push_back(position);
        reinterpret_cast<uint32_t*>(block + layout.positions_offset)[slot] = position;
        std::vector<double> key(dim), value(dim);
        const float scale = 0.01f + 0.001f * static_cast<float>(random() % 10);
        for (uint32_t d = 0; d < dim; ++d) {
          key[d] = store(block, slot, d, normal(random) + (d == 1 ? 1.0f : 0.0f), scale, true);
          value[d] = store(block, slot, d, normal(random), scale, false);
        }
        if (used) keys.push_back(layout.key_bits == 4 ? transformed(key) : key);
        if (used) values.push_back(layout.value_bits == 4 ? transformed(value) : value);
      }
    }
  }

  // Writes element d and gives what is stored. Slots that are not in use get numbers too: they must not count.
  double store(uint8_t* block, uint32_t slot, uint32_t d, float number, float scale, bool is_key) {
    uint8_t* const section = block + (is_key ? layout.keys_offset : layout.values_offset);
    if (type == KvType::kF16) {
      const uint16_t half = float_to_half(number);
      reinterpret_cast<uint16_t*>(section)[is_key ? d * 32 + slot : slot * head_dim + d] = half;
      return half_to_float(half);
    }
    reinterpret_cast<float*>(block + (is_key ? layout.key_scale_offset : layout.value_scale_offset))[slot] = scale;
    if (type == KvType::kInt4 || (type == KvType::kInt8k4v && !is_key)) {
      const long code = std::clamp(std::lround(number * 2 + 7.5f), 0L, 15L);
      const uint32_t half = (head_dim + 1) / 2;
      uint8_t& byte = section[is_key ? (d / 8 * 32 + slot) * 4 + d % 4 : (slot / 4 * half + d % half) * 4 + slot % 4];
      const bool high = is_key ? d % 8 >= 4 : d >= half;
      byte = static_cast<uint8_t>(high ? (byte & 15) | code << 4 : (byte & 0xf0) | code);
      return static_cast<double>(2 * code - 15) * static_cast<double>(scale);
    }
    const auto quant = static_cast<int8_t>(std::clamp(std::lround(number / scale), -127L, 127L));
    if (is_key) {
      section[(d / 4 * 32 + slot) * 4 + d % 4] = static_cast<uint8_t>(quant + 128);
    } else {
      section[(slot / 4 * head_dim + d) * 4 + slot % 4] = static_cast<uint8_t>(quant);
    }
    return static_cast<double>(quant) * scale;
  }

  uint8_t* bytes() { return storage[0].bytes; }

  std::vector<float> scores(const Policy& policy, uint32_t layer = 0, uint32_t kv_head = 0, uint64_t seed = 0) {
    std::vector<float> out(list.length, NAN), work(policy_work_floats(policy, list.length, head_dim));
    policy.score({{layout, bytes(), next.data()}, list, layer, kv_head, 0, kSinks, seed, work}, out);
    return out;
  }

  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  KvType type;
  uint32_t head_dim;
  KvLayout layout;
  std::vector<Line> storage;
  std::vector<uint32_t> next, positions;
  std::vector<std::vector<double>> keys, values;  // [length][head_dim]
  KvList list;
};

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

template <typename Check>
void for_lists(Check check) {
  for (const KvType type : kKvTypes) {
    for (const uint32_t dim : {4u, 64u, 80u}) {
      for (const uint32_t length : {1u, 31u, 32u, 33u, 200u}) {
        KeyList list(type, dim, length, dim + length);
        check(list);
      }
    }
  }
}

}  // namespace

TEST_CASE("l2: minus the norm of the stored key") {
  for_lists([](KeyList& list) {
    const std::vector<float> scores = list.scores(kL2Policy);
    for (size_t i = 0; i < scores.size(); ++i) {
      REQUIRE(scores[i] == doctest::Approx(-std::sqrt(dot(list.keys[i], list.keys[i]))).epsilon(1e-5));
    }
  });
}

TEST_CASE("keydiff: minus the cosine to the mean of the unit keys") {
  for_lists([](KeyList& list) {
    std::vector<double> anchor(list.head_dim);
    for (const auto& key : list.keys) {
      const double norm = std::sqrt(dot(key, key));
      for (size_t d = 0; d < anchor.size(); ++d) anchor[d] += key[d] / norm / static_cast<double>(list.keys.size());
    }
    const std::vector<float> scores = list.scores(kKeyDiffPolicy);
    for (size_t i = 0; i < scores.size(); ++i) {
      const double cosine =
          dot(list.keys[i], anchor) / std::sqrt(dot(list.keys[i], list.keys[i]) * dot(anchor, anchor));
      REQUIRE(std::abs(scores[i] + cosine) < 1e-5);
    }
  });
}

TEST_CASE("lagkv: ranks within a part of how tokens deviate, scaled by the next part") {
  const auto deviations = [](const std::vector<std::vector<double>>& rows, size_t begin) {
    std::vector<double> out;
    for (size_t i = begin; i < begin + 128; ++i) {
      std::vector<double> scaled;
      for (size_t d = 0; d < rows[i].size(); ++d) {
        double least = INFINITY, most = -INFINITY;
        for (size_t j = begin + 128; j < begin + 256; ++j) {
          least = std::min(least, rows[j][d]);
          most = std::max(most, rows[j][d]);
        }
        scaled.push_back((rows[i][d] - least) / (most - least));
      }
      double mean = 0, square = 0;
      for (const double x : scaled) mean += x / static_cast<double>(scaled.size());
      for (const double x : scaled) square += (x - mean) * (x - mean) / static_cast<double>(scaled.size() - 1);
      out.push_back(std::exp(std::sqrt(square)));
    }
    double sum = 0;
    for (const double x : out) sum += x;
    for (double& x : out) x /= sum;
    return out;
  };
  for (const KvType type : kKvTypes) {
    for (const uint32_t dim : {4u, 64u}) {
      for (const uint32_t length : {1u, kSinks + 255, kSinks + 256, 530u}) {
        KeyList list(type, dim, length, dim + length);
        const std::vector<float> scores = list.scores(kLagKvPolicy);
        const size_t parts = length < kSinks ? 0 : (length - kSinks) / 128, ranked = parts < 2 ? 0 : parts - 1;
        for (size_t part = 0; part < ranked; ++part) {
          const size_t begin = kSinks + part * 128;
          const std::vector<double> keys = deviations(list.keys, begin), values = deviations(list.values, begin);
          std::vector<double> by_rank(128, NAN);
          for (size_t i = 0; i < 128; ++i) {
            const double rank = static_cast<double>(scores[begin + i]) * 128;
            REQUIRE(rank == std::floor(rank));
            by_rank.at(static_cast<size_t>(rank)) = keys[i] + values[i];
          }
          for (size_t i = 1; i < 128; ++i) REQUIRE(by_rank[i - 1] <= by_rank[i] * (1 + 1e-6));
        }
        for (size_t i = 0; i < length; ++i) {
          if (i < kSinks || i >= kSinks + ranked * 128) REQUIRE(scores[i] == 1.0f);
        }
      }
    }
  }
}

// The first half of head_dim is rotated, and scaled as YaRN does it.
TEST_CASE("expected-attention: the softmax that the fading mean of queries gives at the next 512 positions") {
  constexpr uint32_t kGroup = 2, kQueries = 1500, kNext = 2000;
  constexpr double kMagnitude = 1.2, kScale = 0.3;
  for (const KvType type : kKvTypes) {
    for (const uint32_t dim : {4u, 64u}) {
      const uint32_t rotary = dim / 2, half = rotary / 2, stride = kGroup * dim + 3;
      std::vector<float> inv_freq, cos, sin, q(size_t{kQueries} * stride, NAN);
      for (uint32_t i = 0; i < half; ++i) inv_freq.push_back(static_cast<float>(std::pow(100.0, -1.0 * i / half)));
      const auto angle = [&](uint32_t position, uint32_t i) { return position * static_cast<double>(inv_freq[i]); };
      std::mt19937 random(dim);
      std::normal_distribution<double> normal(0.2, 1);
      std::vector<std::vector<double>> means(kGroup, std::vector<double>(dim));
      for (uint32_t t = 0; t < kQueries; ++t) {
        const double count = t < 4 ? INFINITY : std::min(t - 3.0, 1024.0);  // the first four are skipped
        for (uint32_t i = 0; i < half; ++i) {
          cos.push_back(static_cast<float>(std::cos(angle(t, i)) * kMagnitude));
          sin.push_back(static_cast<float>(std::sin(angle(t, i)) * kMagnitude));
        }
        for (uint32_t head = 0; head < kGroup; ++head) {
          std::vector<double> raw(dim);
          for (double& x : raw) x = normal(random) + head;
          float* const out = &q[size_t{t} * stride + head * dim];
          for (uint32_t d = 0; d < dim; ++d) {
            means[head][d] += (raw[d] * (d < rotary ? kMagnitude : 1) - means[head][d]) / count;
            out[d] = static_cast<float>(raw[d]);
          }
          for (uint32_t i = 0; i < half; ++i) {
            const double c = std::cos(angle(t, i)) * kMagnitude, s = std::sin(angle(t, i)) * kMagnitude;
            out[i] = static_cast<float>(raw[i] * c - raw[half + i] * s);
            out[half + i] = static_cast<float>(raw[half + i] * c + raw[i] * s);
          }
        }
      }
      const Policy& policy = kExpectedAttentionPolicy;
      std::vector<float> state(policy.list_state_floats(kGroup, dim));
      for (uint32_t begin = 0, end = 701; begin < kQueries; begin = end, end = kQueries) {
        policy.observer.see_queries({.list_state = state,
                                     .layer = 0,
                                     .kv_head = 0,
                                     .first_position = begin,
                                     .queries = end - begin,
                                     .group = kGroup,
                                     .head_dim = dim,
                                     .q = &q[size_t{begin} * stride],
                                     .q_stride = stride,
                                     .cos = &cos[size_t{begin} * half],
                                     .sin = &sin[size_t{begin} * half],
                                     .rotary_dim = rotary});
      }
      for (const uint32_t length : {2u, kSinks, 33u, 200u}) {
        KeyList list(type, dim, length, dim + length);
        std::vector<float> scores(length, NAN), work(policy_work_floats(policy, length, dim));
        policy.score({.pool = {list.layout, list.bytes(), list.next.data()},
                      .list = list.list,
                      .layer = 0,
                      .kv_head = 0,
                      .next_position = kNext,
                      .sinks = kSinks,
                      .seed = 0,
                      .work = work,
                      .list_state = state,
                      .attention = {kGroup, static_cast<float>(kScale), rotary, inv_freq.data()}},
                     scores);
        std::vector<double> expected(length);
        for (uint32_t head = 0; head < kGroup; ++head) {
          std::vector<double> query = means[head], weights(length);
          std::fill_n(query.begin(), rotary, 0.0);
          for (uint32_t position = kNext; position < kNext + 512; ++position) {
            for (uint32_t i = 0; i < half; ++i) {
              const double a = means[head][i], b = means[head][half + i];
              query[i] += (a * std::cos(angle(position, i)) - b * std::sin(angle(position, i))) / 512;
              query[half + i] += (b * std::cos(angle(position, i)) + a * std::sin(angle(position, i))) / 512;
            }
          }
          double sum = 0;
          for (uint32_t rank = kSinks; rank < length; ++rank) {
            double score = 0;
            for (uint32_t d = 0; d < dim; ++d) score += query[d] * list.keys[rank][d];
            sum += weights[rank] = std::exp(score * kScale);
          }
          for (uint32_t rank = kSinks; rank < length; ++rank) expected[rank] += weights[rank] / sum / kGroup;
        }
        for (uint32_t rank = 0; rank < length; ++rank) {
          REQUIRE(std::abs(scores[rank] - expected[rank]) <= 1e-4 * expected[rank]);
        }
      }
    }
  }
}

TEST_CASE("value norms: the sum of magnitudes of what is stored") {
  for (const uint32_t dim : {3u, 16u, 80u}) {
    for (const KvType type : kKvTypes) {
      const KvLayout layout = make_kv_layout(type, dim);
      std::vector<uint8_t> block(layout.block_bytes);
      std::mt19937 random(dim);
      float expected[32], norms[32];
      for (uint32_t slot = 0; slot < 32; ++slot) {
        const float scale = 0.5f + static_cast<float>(slot);
        std::vector<double> value(dim);
        for (uint32_t d = 0; d < dim; ++d) {
          uint8_t* const values = block.data() + layout.values_offset;
          const auto code = static_cast<uint8_t>(random());
          const uint32_t half = (dim + 1) / 2;
          if (type == KvType::kF16) {
            value[d] = code;
            reinterpret_cast<uint16_t*>(values)[slot * dim + d] = float_to_half(code);
          } else if (type == KvType::kInt8) {
            value[d] = static_cast<int8_t>(code);
            values[(slot / 4 * dim + d) * 4 + slot % 4] = code;
          } else {
            value[d] = 2 * (code % 16) - 15;
            uint8_t& byte = values[(slot / 4 * half + d % half) * 4 + slot % 4];
            byte = static_cast<uint8_t>(d < half ? code % 16 : byte | code % 16 << 4);
          }
        }
        if (layout.value_bits == 4) value = transformed(value);
        double sum = 0;
        for (const double x : value) sum += std::abs(x) * (type == KvType::kF16 ? 1.0 : static_cast<double>(scale));
        if (type != KvType::kF16) reinterpret_cast<float*>(block.data() + layout.value_scale_offset)[slot] = scale;
        expected[slot] = static_cast<float>(sum);
      }
      std::vector<float> room(dim * 32);
      value_norms(layout, block.data(), room.data(), norms);
      for (uint32_t slot = 0; slot < 32; ++slot) CHECK(norms[slot] == doctest::Approx(expected[slot]).epsilon(1e-6));
    }
  }
}

TEST_CASE("random: drawn from seed, list and position alone, evenly over 0 to 1") {
  KeyList list(KvType::kF16, 4, 3000, 1), same_places(KvType::kInt8, 4, 3000, 1);
  const std::vector<float> scores = list.scores(kRandomPolicy, 2, 1, 7);
  CHECK(scores == same_places.scores(kRandomPolicy, 2, 1, 7));
  CHECK(scores != list.scores(kRandomPolicy, 2, 1, 8));
  CHECK(scores != list.scores(kRandomPolicy, 2, 0, 7));
  CHECK(scores != list.scores(kRandomPolicy, 1, 1, 7));
  double mean = 0;
  for (const float score : scores) {
    REQUIRE(score >= 0);
    REQUIRE(score < 1);
    mean += score / 3000.0;
  }
  CHECK(std::abs(mean - 0.5) < 0.03);  // deviation 0.289 / sqrt(3000) = 0.0053
  const auto below = std::count_if(scores.begin(), scores.end(), [](float score) { return score < 0.1f; });
  CHECK(std::abs(static_cast<double>(below) - 300) < 100);
}
