// What becomes of dropped tokens, against the definitions written down in double.
#include "runtime/cache/hand_over.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/base/half.h"
#include "runtime/cache/list_reader.h"
#include "runtime/cache/store_row.h"
#include "tests/cache/owned_manager.h"

using namespace lethe;
using namespace lethe::test;

namespace {

constexpr uint32_t kDim = 5;

// Key and value of a token of a f16 cache, from its bytes (pool_model.h).
struct Vectors {
  explicit Vectors(const Token& token) {
    for (uint32_t d = 0; d < kDim; ++d) {
      key.push_back(half_to_float(static_cast<uint16_t>(token.rest[4 * d] | token.rest[4 * d + 1] << 8)));
      value.push_back(half_to_float(static_cast<uint16_t>(token.rest[4 * d + 2] | token.rest[4 * d + 3] << 8)));
    }
  }
  std::vector<double> key, value;
};

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (uint32_t d = 0; d < kDim; ++d) sum += a[d] * b[d];
  return sum;
}

// Near 1, so that sums are sums of like numbers: the upper byte of every half is 0x38 to 0x3f, or 0xb8 to 0xbf.
struct Near1 : OwnedManager {
  using OwnedManager::OwnedManager;
  void fill() {
    for (uint32_t i = 0; i < owned.pool.list_count(); ++i) {
      const KvList list = owned.pool.list(i / owned.pool.kv_heads(), i % owned.pool.kv_heads());
      uint32_t at = list.first_block;
      for (uint32_t rank = 0; rank < list.length; ++rank) {
        if (rank != 0 && rank % 32 == 0) at = owned.pool.view().next[at];
        owned.access.write(owned.block(at), rank % 32, tamed(i, rank));
      }
    }
  }
  Token tamed(uint32_t list, uint32_t at) const {
    Token token = token_of(list, at);
    for (size_t i = 1; i < 4 * kDim; i += 2) token.rest[i] = static_cast<uint8_t>((token.rest[i] & 0x87) | 0x38);
    return token;
  }
};

}  // namespace

TEST_CASE("compensation: how many were dropped, their mean key and mean value") {
  KvPoolOptions shape{2, 2, kDim, KvType::kF16, 4 * 4, 0};
  shape.absorbs = true;
  Near1 m(shape, kWindowPolicy, {.sinks = 2, .hand_over = HandOver::kCompensation});
  REQUIRE(m.step(100).ok());
  m.fill();
  REQUIRE(m.manager.make_room(60, 100).ok());
  const uint32_t left = m.owned.pool.longest(), dropped = 100 - left;
  REQUIRE(dropped >= 32);
  for (uint32_t i = 0; i < 4; ++i) {
    std::vector<double> key(kDim), value(kDim);
    for (uint32_t at = 2; at < 2 + dropped; ++at) {
      const Vectors vectors(m.tamed(i, at));
      for (uint32_t d = 0; d < kDim; ++d) key[d] += vectors.key[d] / dropped, value[d] += vectors.value[d] / dropped;
    }
    const std::span<const float> absorbed = m.owned.pool.absorbed(i / 2, i % 2);
    REQUIRE(absorbed.size() == 1 + 2 * kDim);
    CHECK(absorbed[0] == static_cast<float>(dropped));
    for (uint32_t d = 0; d < kDim; ++d) {
      CHECK(absorbed[1 + d] == doctest::Approx(key[d]).epsilon(1e-5));
      CHECK(absorbed[1 + kDim + d] == doctest::Approx(value[d]).epsilon(1e-5));
    }
  }
  m.owned.pool.clear();
  for (const float x : m.owned.pool.all_absorbed()) CHECK(x == 0);
}

TEST_CASE("merge: values of the most similar survivors, by cosine and share of the norm") {
  Near1 m({1, 2, kDim, KvType::kF16, 2 * 8, 0}, kRandomPolicy,
          {.sinks = 2, .retention = {.recent_percent = 10}, .hand_over = HandOver::kMerge});
  REQUIRE(m.step(240).ok());
  m.fill();
  REQUIRE(m.manager.make_room(150, 240).ok());
  for (uint32_t i = 0; i < 2; ++i) {
    const KvList list = m.owned.pool.list(0, i);
    const KvPoolView view = m.owned.pool.view();
    std::vector<uint32_t> kept;
    std::vector<std::vector<float>> values;
    for_each_block(view, list, [&](const uint8_t* block, uint32_t, uint32_t count) {
      for (uint32_t slot = 0; slot < count; ++slot) {
        kept.push_back(block_positions(view.layout, block)[slot]);
        values.emplace_back(kDim);
        read_value(view.layout, block, slot, values.back().data());
      }
    });
    REQUIRE(kept.size() < 110);
    // MergingPress of kvpress 0.5: all contributions of a survivor are summed up, then divided once.
    std::vector<std::vector<double>> sums;
    std::vector<double> weights(kept.size(), 1.0);
    for (const uint32_t at : kept) sums.push_back(Vectors(m.tamed(i, at)).value);
    for (uint32_t at = 0; at < 240; ++at) {
      if (std::find(kept.begin(), kept.end(), at) != kept.end()) continue;
      const Vectors victim(m.tamed(i, at));
      double best = -2;
      size_t target = 0;
      for (size_t k = 0; k < kept.size(); ++k) {
        const Vectors survivor(m.tamed(i, kept[k]));
        const double cosine =
            dot(victim.key, survivor.key) / std::sqrt(dot(victim.key, victim.key) * dot(survivor.key, survivor.key));
        if (cosine > best) best = cosine, target = k;
      }
      if (best <= 0) continue;
      const std::vector<double> own = Vectors(m.tamed(i, kept[target])).value;
      const double norm = std::sqrt(dot(victim.value, victim.value));
      const double weight = best * norm / (norm + std::sqrt(dot(own, own)) + 1e-6);
      for (uint32_t d = 0; d < kDim; ++d) sums[target][d] += weight * victim.value[d];
      weights[target] += weight;
    }
    uint32_t merged = 0;
    for (size_t k = 0; k < kept.size(); ++k) {
      merged += weights[k] > 1 ? 1 : 0;
      for (uint32_t d = 0; d < kDim; ++d) {
        CHECK(std::abs(static_cast<double>(values[k][d]) - sums[k][d] / weights[k]) < 4e-3);  // rounded every time
      }
    }
    CHECK(merged > 20);
  }
}

TEST_CASE("a value that is written is read as stored") {
  for (const KvType type : kKvTypes) {
    const KvLayout layout = make_kv_layout(type, kDim);
    // Half a step of numbers up to 1.6.
    const float bound = layout.value_bits == 16 ? 1e-3f : layout.value_bits == 8 ? 8e-3f : 1.6001f / 15;
    std::vector<uint8_t> block(layout.block_bytes);
    for (uint32_t slot = 0; slot < 32; ++slot) {
      float value[kDim], read[kDim];
      for (uint32_t d = 0; d < kDim; ++d)
        value[d] = 0.1f * static_cast<float>(d * d) - 0.05f * static_cast<float>(slot);
      std::copy_n(value, kDim, read);
      store_value(layout, block.data(), slot, read);
      read_value(layout, block.data(), slot, read);
      for (uint32_t d = 0; d < kDim; ++d) CHECK(std::abs(read[d] - value[d]) < bound);
    }
    float read[kDim] = {};
    store_value(layout, block.data(), 3, read);
    read_value(layout, block.data(), 3, read);
    for (const float x : read) CHECK(x == 0);
  }
}
