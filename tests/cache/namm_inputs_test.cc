// Every input that a NAMM may have, against its definition, and the scorer as a whole over lists of a pool.
#include "runtime/base/half.h"
#include "tests/cache/namm_support.h"
#include "tests/support/simd_targets.h"
#include "tests/support/transformed.h"

using namespace lethe;
using namespace lethe::namm;

namespace {

constexpr uint32_t kHeadDim = 6;

// A list with gaps in its positions, random keys and values, and whatever attention was shown to it.
struct FilledList {
  FilledList(const Shape& shape, KvType type, uint32_t length, uint32_t first_position = 1000)
      : pool(shape.state_parts(), 1, length + 64, type, kHeadDim), random(length) {
    uint32_t position = first_position;
    while (seen.tokens.size() < length) {
      const auto left = static_cast<uint32_t>(length - seen.tokens.size());
      const uint32_t n = std::min(left, 1 + static_cast<uint32_t>(random() % 40));
      std::vector<std::vector<float>> attention;
      for (uint32_t t = 0; t < n; ++t) {
        attention.push_back(random_attention(random, static_cast<uint32_t>(seen.tokens.size() + 1)));
        seen.see(position + t, [&](size_t rank) { return attention[t][rank]; });
        sums.resize(seen.tokens.size());
        for (size_t rank = 0; rank < sums.size(); ++rank) sums[rank] += attention[t][rank];
        last = attention[t];
        history.insert(history.begin(), last);
      }
      pool.step(position, n, [&](uint32_t, uint32_t t, uint32_t rank) { return attention[t][rank]; });
      position += n;
      if (left > n + 20) drop_some();
    }
    fill_keys();
  }

  void drop_some() {
    std::vector<uint32_t> kept;
    for (uint32_t rank = 0; rank < sums.size(); ++rank) {
      if (random() % 9 != 0 || rank + 1 == sums.size()) kept.push_back(rank);
    }
    pool.keep(0, kept);
    const auto keep = [&](auto& all) {
      auto rest = all;
      rest.clear();
      for (const uint32_t rank : kept) {
        if (rank < all.size()) rest.push_back(all[rank]);
      }
      all = rest;
    };
    keep(seen.tokens), keep(sums);
    for (std::vector<float>& row : history) keep(row);
  }

  // Of slots that are not in use too: they must not count.
  void fill_keys() {
    const KvLayout& layout = pool.pool.layout();
    const KvList list = pool.pool.list(0, 0);
    std::normal_distribution<float> normal;
    for (uint32_t at = list.first_block; at != kNoBlock; at = pool.pool.view().next[at]) {
      uint8_t* block = pool.pool.block(at);
      for (uint32_t slot = 0; slot < 32; ++slot) {
        const float key_scale = 0.02f, value_scale = 0.03f;
        reference::Row pair(2 * kHeadDim);
        for (uint32_t d = 0; d < kHeadDim; ++d) {
          const size_t k = key_index(layout, slot, d), v = value_index(layout, slot, d);
          const float key = normal(random) + (d == 0 ? 1.0f : 0.0f), value = normal(random);
          if (layout.type == KvType::kF16) {
            auto* keys = reinterpret_cast<uint16_t*>(block + layout.keys_offset);
            auto* values = reinterpret_cast<uint16_t*>(block + layout.values_offset);
            keys[k] = float_to_half(key), values[v] = float_to_half(value);
            pair[d] = half_to_float(keys[k]), pair[kHeadDim + d] = half_to_float(values[v]);
          } else {
            const auto quant = [](float x) { return static_cast<int>(std::lround(std::clamp(x, -127.0f, 127.0f))); };
            const int key_quant = quant(key / key_scale), value_quant = quant(value / value_scale);
            (block + layout.keys_offset)[k] = static_cast<uint8_t>(key_quant + 128);
            reinterpret_cast<int8_t*>(block + layout.values_offset)[v] = static_cast<int8_t>(value_quant);
            reinterpret_cast<float*>(block + layout.key_scale_offset)[slot] = key_scale;
            reinterpret_cast<float*>(block + layout.value_scale_offset)[slot] = value_scale;
            pair[d] = static_cast<double>(key_scale) * key_quant;
            pair[kHeadDim + d] = static_cast<double>(value_scale) * value_quant;
          }
        }
        if (layout.key_bits == 4)
          store_codes(pair, 0, block + layout.keys_offset, key_scale,
                      [&](uint32_t d) { return std::pair(key_index(layout, slot, d), key_shift(d)); });
        if (layout.value_bits == 4)
          store_codes(pair, kHeadDim, block + layout.values_offset, value_scale,
                      [&](uint32_t d) { return std::pair(value_index(layout, slot, d), value_shift(layout, d)); });
        if (pairs.size() < list.length) pairs.push_back(pair);
      }
    }
  }

  // Random codes of 4 bits instead, at the bytes and bits that place(d) tells.
  template <typename Place>
  void store_codes(reference::Row& pair, size_t first, uint8_t* bytes, float scale, Place place) {
    std::vector<double> row(kHeadDim);
    for (uint32_t d = 0; d < kHeadDim; ++d) {
      const auto [at, shift] = place(d);
      const uint32_t code = random() % 16;
      bytes[at] = static_cast<uint8_t>((bytes[at] & ~(15u << shift)) | code << shift);
      row[d] = static_cast<double>(scale) * (2.0 * code - 15);
    }
    std::ranges::copy(test::transformed(row), pair.begin() + static_cast<ptrdiff_t>(first));
  }

  std::vector<float> read(const Shape& shape, const Moments* moments) const {
    const KvList list = pool.pool.list(0, 0);
    std::vector<float> out(feature_floats(list.length, shape.width()), NAN), tokens(list.length),
        block(feature_block_floats(kHeadDim));
    read_features(shape, moments, pool.pool.view(), list, {tokens, block}, out.data());
    return out;
  }

  ObservedPool pool;
  std::mt19937 random;
  reference::List seen;
  std::vector<double> sums;
  std::vector<float> last;
  std::vector<std::vector<float>> history;  // of all queries, the newest first, for the tokens that are still there
  reference::Rows pairs;                    // (key, value) of every token
};

double norm(const double* x) { return std::sqrt(reference::dot(x, x, kHeadDim)); }

// The numbers of one input, by its definition.
reference::Rows expected_input(const FilledList& list, Input input) {
  reference::Rows out;
  const auto n = list.seen.tokens.size();
  reference::Row anchor(kHeadDim);
  for (const reference::Row& pair : list.pairs) {
    for (uint32_t d = 0; d < kHeadDim; ++d) anchor[d] += pair[d] / norm(pair.data()) / static_cast<double>(n);
  }
  for (size_t rank = 0; rank < n; ++rank) {
    const reference::Token& token = list.seen.tokens[rank];
    const uint32_t age = list.seen.tokens.back().position - token.position;
    const reference::Row& pair = list.pairs[rank];
    switch (input) {
      case Input::kAge: out.push_back(reference::age_code(age)); break;
      case Input::kSpectrum: out.push_back(token.average); break;
      case Input::kRawAttention: {
        reference::Row row(32);
        for (size_t i = 0; i < std::min<size_t>(32, list.history.size()); ++i) {
          if (rank < list.history[i].size()) row[i] = list.history[i][rank];
        }
        out.push_back(row);
        break;
      }
      case Input::kAttentionSum: out.push_back({list.sums[rank]}); break;
      case Input::kRecency: out.push_back({static_cast<double>(age)}); break;
      case Input::kDiversity: {
        double sum = 0;
        for (const reference::Row& other : list.pairs) {
          double square = 0;
          for (uint32_t d = 0; d < 2 * kHeadDim; ++d) square += (pair[d] - other[d]) * (pair[d] - other[d]);
          sum += std::sqrt(square);
        }
        out.push_back({sum / static_cast<double>(n - 1)});
        break;
      }
      case Input::kKeyNorm: out.push_back({norm(pair.data())}); break;
      case Input::kKeyCosine:
        out.push_back({reference::dot(pair.data(), anchor.data(), kHeadDim) / norm(pair.data()) / norm(anchor.data())});
        break;
      case Input::kValueNorm: {
        double sum = 0;
        for (uint32_t d = 0; d < kHeadDim; ++d) sum += std::abs(pair[kHeadDim + d]);
        out.push_back({sum});
        break;
      }
      case Input::kLogAttention: out.push_back({std::log2(1e-4 + list.sums[rank])}); break;
      case Input::kLogRecency: out.push_back({std::log2(1.0 + age)}); break;
    }
  }
  return out;
}

}  // namespace

TEST_CASE("namm: every input against its definition") {
  for (const KvType type : kKvTypes) {
    for (uint32_t kind = 0; kind < kInputKinds; ++kind) {
      const Shape shape = shape_of({static_cast<Input>(kind)});
      CAPTURE(info_of(static_cast<Input>(kind)).name);
      const FilledList list(shape, type, 141);
      const reference::Rows expected = expected_input(list, static_cast<Input>(kind));
      test::for_each_target([&] {
        const std::vector<float> read = list.read(shape, nullptr);
        const std::vector<float> wanted = in_blocks(expected);
        REQUIRE(read.size() == wanted.size());
        for (size_t i = 0; i < read.size(); ++i) {
          CAPTURE(i);
          // The state's rounding, several times over for averages; sums and keys are floats.
          const double size = std::abs(static_cast<double>(wanted[i])), state = kind == 1 || kind == 2 ? 2e-3 : 1e-5;
          REQUIRE(std::abs(static_cast<double>(read[i] - wanted[i])) <= state * size + 1e-6);
        }
      });
    }
  }
}

TEST_CASE("namm: the age code stays exact for tokens from very long ago") {
  const Shape shape = shape_of({Input::kAge});
  test::for_each_target([&] {
    for (const uint32_t age : {1u, 1000u, 32768u, 1000000u, 2000000000u}) {
      ObservedPool lists(0, 1, 32);
      lists.step(7, 1, [](uint32_t, uint32_t, uint32_t) { return 0.0f; });
      lists.step(7 + age, 1, [](uint32_t, uint32_t, uint32_t) { return 0.0f; });
      std::vector<float> out(8 * 32), tokens(2), block(feature_block_floats(4));
      read_features(shape, nullptr, lists.pool.view(), lists.pool.list(0, 0), {tokens, block}, out.data());
      const reference::Row expected = reference::age_code(age);
      for (size_t k = 0; k < 8; ++k) {
        CAPTURE(age);
        CHECK(std::abs(static_cast<double>(out[k * 32]) - expected[k]) < 1e-6);
      }
    }
  });
}

TEST_CASE("namm: what is standardised follows from the list, in its order") {
  const Shape shape = shape_of({Input::kKeyNorm, Input::kAge, Input::kSpectrum});
  const FilledList list(shape, KvType::kF16, 50);
  std::vector<float> means(18), deviations(18);
  for (uint32_t i = 0; i < 18; ++i) means[i] = 0.1f * static_cast<float>(i), deviations[i] = 3 + static_cast<float>(i);
  const Moments moments{means, deviations};
  const std::vector<float> raw = list.read(shape, nullptr), out = list.read(shape, &moments);
  for (size_t row = 0; row < 26; ++row) {
    const size_t moment = row == 0 ? 0 : row - 8;  // rows 1-8 are the age
    for (size_t rank = 0; rank < 50; ++rank) {
      const size_t at = (rank / 32 * 26 + row) * 32 + rank % 32;
      const bool is_age = row >= 1 && row <= 8;
      const float expected = is_age ? raw[at] : (raw[at] - means[moment]) * deviations[moment];
      REQUIRE(out[at] == doctest::Approx(static_cast<double>(expected)).epsilon(1e-6));
    }
  }
}

TEST_CASE("namm: lists of a pool are scored by network and inputs of any kind, and the newest token always stays") {
  const Shape shapes[] = {
      {},
      shape_of({Input::kAge, Input::kSpectrum, Input::kKeyNorm, Input::kKeyCosine, Input::kValueNorm}),
      shape_of({Input::kAge, Input::kKeyCosine}),
      shape_of({Input::kAge, Input::kRawAttention}),
      shape_of({Input::kAttentionSum, Input::kRecency, Input::kDiversity}),
      shape_of({Input::kAge, Input::kSpectrum}, Network::kMlp, 154),
      shape_of({Input::kLogAttention, Input::kLogRecency, Input::kKeyCosine}, Network::kLinear, 0),
  };
  std::mt19937 random(3);
  for (const Shape& shape : shapes) {
    std::vector<float> flat = random_parameters(shape, random, 0.1f);
    const size_t moments = shape.moments();
    for (size_t i = flat.size() - 2 * moments; i < flat.size(); ++i) flat[i] = 0.5f;
    const Result<Parameters> parameters = view_parameters(shape, flat);
    REQUIRE(parameters.ok());
    const OwnedScorer scorer(parameters.value());
    for (const uint32_t length : {1u, 33u, 90u}) {
      const FilledList list(shape, KvType::kF16, length);
      reference::Rows rows(length);
      for (const Input input : shape.list()) {
        if (length == 1 && input == Input::kDiversity) {
          for (reference::Row& row : rows) row.push_back(reference::standardised(0, 0.5, 0.5));  // no others
          continue;
        }
        const reference::Rows numbers = expected_input(list, input);
        for (size_t rank = 0; rank < length; ++rank) {
          for (const double x : numbers[rank]) {
            rows[rank].push_back(info_of(input).is_standardised ? reference::standardised(x, 0.5, 0.5) : x);
          }
        }
      }
      const reference::Row expected = reference::network_scores(rows, parameters.value());
      const double size = reference::largest_magnitude(expected);
      test::for_each_target([&] {
        const std::vector<double> scores = scorer.score(list.pool.pool.view(), list.pool.pool.list(0, 0));
        CHECK(scores.back() == std::numeric_limits<float>::max());
        for (size_t rank = 0; rank + 1 < length; ++rank) {
          CAPTURE(shape.width());
          CAPTURE(rank);
          REQUIRE(std::abs(scores[rank] - expected[rank]) <= 1e-3 * size);
        }
      });
    }
  }
}
