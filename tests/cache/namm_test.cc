// The scorer's parts against their definitions, on every target: what is recorded, what is read, what the networks make
// of it.
#include "runtime/base/half.h"
#include "tests/cache/namm_support.h"
#include "tests/support/simd_targets.h"

using namespace lethe;
using namespace lethe::namm;
using test::for_each_target;

namespace {

constexpr uint32_t kLengths[] = {1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 100, 257, 500};

// Rows that look like inputs: some numbers in the hundreds, as sinks have.
reference::Rows random_rows(std::mt19937& random, size_t tokens, size_t width, double sink) {
  std::normal_distribution<double> normal;
  reference::Rows rows(tokens, reference::Row(width));
  for (size_t i = 0; i < tokens; ++i) {
    for (double& x : rows[i]) x = static_cast<float>(normal(random) * (i % 50 == 0 ? sink : 1));
  }
  return rows;
}

void require_close(std::span<const float> scores, const reference::Row& expected, double tolerance) {
  REQUIRE(scores.size() == expected.size());
  const double size = std::max(1e-3, reference::largest_magnitude(expected));
  for (size_t i = 0; i < scores.size(); ++i) {
    CAPTURE(i);
    REQUIRE(std::abs(static_cast<double>(scores[i]) - expected[i]) <= tolerance * size);
  }
}

Parameters view(const Shape& shape, const std::vector<float>& flat) {
  const Result<Parameters> parameters = view_parameters(shape, flat);
  REQUIRE_MESSAGE(parameters.ok(), parameters.status().message());
  return parameters.value();
}

}  // namespace

TEST_CASE("namm: parameters stand where the authors' flat vector has them") {
  std::vector<float> flat(4172 + 17 + 17);
  for (size_t i = 0; i < flat.size(); ++i) flat[i] = static_cast<float>(i);
  const Parameters parameters = view(Shape{}, flat);
  CHECK(parameters.weights.size() == 4172);
  CHECK(parameters.means.data() == &flat[4172]);
  CHECK(parameters.variances.data() == &flat[4189]);
  const BamWeights w = bam_weights(parameters);
  const auto at = [&](std::span<const float> part, size_t offset, size_t count) {
    CHECK(part.data() == &flat[offset]);
    CHECK(part.size() == count);
  };
  at(w.qkv, 0, 25 * 96);
  at(w.qkv_bias, 2400, 96);
  at(w.out, 2496, 32 * 50);
  at(w.out_bias, 4096, 50);
  at(w.score, 4146, 25);
  at(w.score_bias, 4171, 1);
}

TEST_CASE("namm: impossible shapes and parameters are refused with a sentence") {
  const auto refused = [](const Shape& shape, size_t count, size_t damaged, float value, const char* sentence) {
    std::vector<float> flat(count);
    if (damaged < count) flat[damaged] = value;
    const Result<Parameters> result = view_parameters(shape, flat);
    REQUIRE_FALSE(result.ok());
    CHECK(result.status().code() == ErrorCode::kInvalidArgument);
    CHECK(std::string(result.status().message()) == sentence);
  };
  const size_t none = SIZE_MAX;
  refused({}, 4205, none, 0, "a NAMM of this shape has 4206 parameters, not 4205");
  refused({}, 4206, 4171, NAN, "NAMM parameter 4171 of 4206 is not finite");
  refused({}, 4206, 0, INFINITY, "NAMM parameter 0 of 4206 is not finite");
  refused({}, 4206, 4205, -1, "a variance of a NAMM's inputs is negative");
  refused(shape_of({}), 1, none, 0, "a NAMM of 0 inputs: it must have 1 to 11");
  refused(shape_of({Input::kAge, Input::kSpectrum, Input::kAge}), 1, none, 0, "NAMM input 0 is named twice");
  refused(shape_of({static_cast<Input>(11)}), 1, none, 0, "NAMM input 11 is unknown");
  refused(shape_of({Input::kAge}, Network::kBam, 0), 1, none, 0, "a NAMM of 0 hidden units: it must have 1 to 256");
  refused(shape_of({Input::kAge}, Network::kMlp, 257), 1, none, 0, "a NAMM of 257 hidden units: it must have 1 to 256");
  refused(shape_of({Input::kAge}, Network::kLinear, 1), 1, none, 0, "a linear NAMM of 1 hidden units: it has none");
  refused(shape_of({Input::kAge}, static_cast<Network>(3)), 1, none, 0, "NAMM network 3 is unknown");
  // All inputs at once are allowed, and as wide as can be.
  Shape all = shape_of({});
  all.input_count = kInputKinds;
  for (uint32_t i = 0; i < kInputKinds; ++i) all.inputs[i] = static_cast<Input>(i);
  CHECK(check_shape(all).ok());
  CHECK(all.width() == 65);
  CHECK(all.width() < kMaxWidth);
}

TEST_CASE("namm: the state's 16 bits hold 0 exactly, numbers up to 31 within 2^-12, and nothing that is not finite") {
  CHECK(decode_state(0) == 0.0f);
  CHECK(encode_state(0) == 0);
  for (uint32_t code = 0; code < 0x10000; ++code) {
    REQUIRE(encode_state(decode_state(static_cast<uint16_t>(code))) == code);
    REQUIRE((code == 0 || decode_state(static_cast<uint16_t>(code)) > decode_state(static_cast<uint16_t>(code - 1))));
  }
  for (float x = 1e-10f; x < 31.9f; x *= 1.001f) {
    REQUIRE(std::abs(decode_state(encode_state(x)) - x) <= x * 0x1p-12f + 0x1p-39f);
  }
  for (const float x : {-0.0f, -1e-9f, -1.0f, -INFINITY}) CHECK(encode_state(x) == 0);
  for (const float x : {40.0f, INFINITY}) CHECK(encode_state(x) == 0xffff);
  CHECK(decode_state(0xffff) < 32);
  for_each_target([] {
    std::mt19937 random(2);
    ObservedPool lists(kRing, 1, 128);
    std::vector<float> attention;
    lists.step(0, 100, [&](uint32_t, uint32_t query, uint32_t) {
      if (query < 99) return 0.0f;
      attention.push_back(std::exp2(-static_cast<float>(random() % 4000) / 100));
      return attention.back();
    });
    uint32_t block = lists.pool.list(0, 0).first_block;
    for (uint32_t rank = 0; rank < 100; ++rank) {
      if (rank != 0 && rank % 32 == 0) block = lists.pool.view().next[block];
      const uint16_t* row = state_row(lists.pool.layout(), std::as_const(lists.pool).block(block), 99 % 32);
      REQUIRE(row[rank % 32] == encode_state(attention[rank]));
    }
  });
}

TEST_CASE("namm: the spectrum kernel against the transform's definition") {
  for_each_target([] {
    std::mt19937 random(1);
    std::exponential_distribution<float> draw(100);
    std::vector<float> frame(32 * 32), magnitudes(17 * 32);
    for (float& x : frame) x = draw(random);
    for (size_t i = 0; i < 32; ++i) frame[i * 32 + 3] = 1;                // all attention
    for (size_t i = 0; i < 32; ++i) frame[i * 32 + 4] = 0;                // none
    for (size_t i = 0; i < 32; ++i) frame[i * 32 + 5] = i == 16 ? 1 : 0;  // once
    frame_magnitudes(frame.data(), magnitudes.data());
    for (size_t token = 0; token < 32; ++token) {
      double column[32];
      for (size_t i = 0; i < 32; ++i) column[i] = frame[i * 32 + token];
      const reference::Row expected = reference::magnitudes(column);
      for (size_t k = 0; k < 17; ++k) {
        CAPTURE(k);
        REQUIRE(std::abs(static_cast<double>(magnitudes[k * 32 + token]) - expected[k]) <= 3e-7 * expected[0] + 1e-9);
      }
    }
  });
}

TEST_CASE("namm: what is recorded is what all queries gave, however steps and hops fall, through evictions") {
  for_each_target([] {
    for (const std::vector<uint32_t>& steps : {std::vector<uint32_t>{1}, {8}, {16}, {5, 27, 1}, {100, 3}}) {
      CAPTURE(steps[0]);
      std::mt19937 random(7);
      ObservedPool lists(kRing | kAverages | kSum, 1, 300);
      const StateRows rows(kRing | kAverages | kSum);
      reference::List expected;
      std::vector<double> sums;
      uint32_t position = 21;  // in the middle of a hop
      for (size_t i = 0; position < 200; ++i) {
        const uint32_t n = steps[i % steps.size()];
        std::vector<std::vector<float>> attention;
        for (uint32_t t = 0; t < n; ++t) {
          const auto seen = static_cast<uint32_t>(expected.tokens.size() + 1);
          attention.push_back(random_attention(random, seen));
          expected.see(position + t, [&](size_t rank) { return attention[t][rank]; });
          sums.resize(seen);
          for (uint32_t rank = 0; rank < seen; ++rank) sums[rank] += attention[t][rank];
        }
        lists.step(position, n, [&](uint32_t, uint32_t t, uint32_t rank) { return attention[t][rank]; });
        position += n;
        if (i % 7 == 6) {
          std::vector<uint32_t> kept;
          std::vector<reference::Token> tokens;
          std::vector<double> kept_sums;
          for (uint32_t rank = 0; rank < sums.size(); ++rank) {
            if (random() % 3 == 0 && rank + 1 != sums.size()) continue;
            kept.push_back(rank);
            tokens.push_back(expected.tokens[rank]);
            kept_sums.push_back(sums[rank]);
          }
          lists.keep(0, kept);
          expected.tokens = tokens;
          sums = kept_sums;
        }
      }
      const KvList list = lists.pool.list(0, 0);
      REQUIRE(list.length == sums.size());
      uint32_t block_index = list.first_block;
      for (uint32_t rank = 0; rank < list.length; ++rank) {
        if (rank != 0 && rank % 32 == 0) block_index = lists.pool.view().next[block_index];
        const uint8_t* block = lists.pool.block(block_index);
        const auto code = [&](uint32_t row) { return state_row(lists.pool.layout(), block, row)[rank % 32]; };
        const auto stored = [&](uint32_t row) { return static_cast<double>(decode_state(code(row))); };
        CAPTURE(rank);
        const reference::Token& token = expected.tokens[rank];
        for (uint32_t i = 0; i < token.attention.size(); ++i) {
          // The newest of them is that of the query before `position`.
          const auto at = static_cast<uint32_t>((position - token.attention.size() + i) % 32);
          REQUIRE(std::abs(stored(rows.ring + at) - token.attention[i]) <= token.attention[i] * 0x1p-12 + 1e-11);
        }
        // Every frame adds an error of 2^-12, of which the next keeps 85 %.
        for (uint32_t k = 0; k < 17; ++k) {
          REQUIRE(std::abs(stored(rows.averages + k) - token.average[k]) <= token.average[0] * 8 * 0x1p-12 + 1e-10);
        }
        const uint32_t bits = static_cast<uint32_t>(code(rows.sum)) << 16 | code(rows.sum + 1);
        REQUIRE(static_cast<double>(std::bit_cast<float>(bits)) == doctest::Approx(sums[rank]).epsilon(1e-5));
      }
    }
  });
}

TEST_CASE("namm: a token that gets all the attention for ever keeps a finite state") {
  for_each_target([] {
    ObservedPool lists(kRing | kAverages, 1, 1100);
    for (uint32_t position = 0; position < 1024; position += 32) {
      lists.step(position, 32, [](uint32_t, uint32_t, uint32_t rank) { return rank == 0 ? 1.0f : 0.0f; });
    }
    const KvPool& pool = lists.pool;
    const uint8_t* block = pool.block(pool.list(0, 0).first_block);
    const auto average = [&](uint32_t k, uint32_t slot) {
      return decode_state(state_row(pool.layout(), block, 32 + k)[slot]);
    };
    CHECK(average(0, 0) == doctest::Approx(16).epsilon(1e-3));  // the window's sum
    CHECK(average(1, 0) == doctest::Approx(8).epsilon(1e-3));
    for (uint32_t k = 0; k < 17; ++k) CHECK(average(k, 5) == 0);
  });
}

TEST_CASE("namm: BAM against its definition: lengths, widths and sizes of weights") {
  const Shape shapes[] = {{},
                          shape_of({Input::kKeyNorm}, Network::kBam, 1),
                          shape_of({Input::kKeyNorm, Input::kRecency}, Network::kBam, 5),
                          shape_of({Input::kRawAttention, Input::kAge, Input::kSpectrum, Input::kValueNorm})};
  for_each_target([&] {
    std::mt19937 random(11);
    for (const Shape& shape : shapes) {
      for (const float deviation : {0.065f, 0.3f}) {
        const std::vector<float> flat = random_parameters(shape, random, deviation);
        const Parameters parameters = view(shape, flat);
        Carved<FoldedBam> bam(shape);
        bam.it.fold(bam_weights(parameters));
        for (const uint32_t length : kLengths) {
          if (length > 100 && shape.hidden != 32) continue;
          CAPTURE(shape.width());
          CAPTURE(length);
          const reference::Rows rows = random_rows(random, length, shape.width(), deviation < 0.1f ? 100 : 3);
          std::vector<float> scores(length);
          bam_scores(bam.it, in_blocks(rows).data(), scores);
          require_close(scores, reference::bam_scores(rows, parameters), 2e-5);
        }
      }
    }
  });
}

TEST_CASE("namm: the MLP against its definition") {
  for_each_target([] {
    std::mt19937 random(12);
    for (const uint32_t hidden : {1u, 3u, 154u}) {
      const Shape shape = shape_of({Input::kAge, Input::kSpectrum}, Network::kMlp, hidden);
      const std::vector<float> flat = random_parameters(shape, random, 0.1f);
      const Parameters parameters = view(shape, flat);
      Carved<PaddedMlp> mlp(shape);
      mlp.it.fill(mlp_weights(parameters));
      for (const uint32_t length : kLengths) {
        CAPTURE(hidden);
        CAPTURE(length);
        const reference::Rows rows = random_rows(random, length, shape.width(), 10);
        std::vector<float> scores(length);
        mlp_scores(mlp.it, in_blocks(rows).data(), scores);
        require_close(scores, reference::mlp_scores(rows, parameters), 1e-5);
      }
    }
  });
}

TEST_CASE("namm: the weighted sum against its definition") {
  for_each_target([] {
    std::mt19937 random(13);
    const Shape shape = shape_of({Input::kKeyNorm, Input::kKeyCosine, Input::kSpectrum}, Network::kLinear, 0);
    const std::vector<float> flat = random_parameters(shape, random, 1);
    const Parameters parameters = view(shape, flat);
    CHECK(shape.weight_count() == 20);
    Carved<Linear> linear(shape);
    linear.it.fill(linear_weights(parameters));
    for (const uint32_t length : kLengths) {
      CAPTURE(length);
      const reference::Rows rows = random_rows(random, length, shape.width(), 10);
      std::vector<float> scores(length + 1, -77.0f);
      linear_scores(linear.it, in_blocks(rows).data(), std::span(scores).first(length));
      CHECK(scores.back() == -77.0f);
      scores.pop_back();
      require_close(scores, reference::linear_scores(rows, parameters), 1e-5);
    }
  });
}
