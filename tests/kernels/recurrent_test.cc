// Recurrent heads: every kernel against its equations in double, for odd sizes and any cut of the tokens into calls.
#include "tests/kernels/recurrent_support.h"

namespace lethe::cpu {
namespace {

constexpr auto kMamba1 = RecurrentKind::kMamba1;
constexpr auto kMamba2 = RecurrentKind::kMamba2;
constexpr auto kDelta = RecurrentKind::kGatedDelta;
constexpr auto kF32 = StateType::kF32;
constexpr auto kBf16 = StateType::kBf16;

template <class Test>
void for_all_kernels(const Test& test) {
  test(reference_kernels());
  for_each_target(test);
}

RecurCase recur_case(RecurrentKind kind, uint32_t count, uint32_t key_dim, uint32_t value_dim, uint32_t tokens,
                     StateType type = kF32) {
  RecurCase c{.heads = {kind, type, count, key_dim, value_dim, 0, 0}, .tokens = tokens};
  c.keys = c.values = c.queries = count;
  c.skip = kind == kMamba2;
  return c;
}

std::vector<RecurCase> recur_cases() {
  std::vector<RecurCase> cases;
  for (const RecurrentKind kind : {kMamba2, kDelta}) {
    for (const uint32_t dim : {1u, 3u, 8u, 15u, 16u, 17u, 33u, 64u, 67u, 80u, 128u}) {
      cases.push_back(recur_case(kind, 2, dim, (dim * 7 + 3) % 150 + 1, 37));
    }
    for (const uint32_t tokens : {1u, 2u, 3u, 4u, 15u, 16u, 17u, 31u, 63u, 64u, 65u, 150u}) {
      cases.push_back(recur_case(kind, 3, 24, 40, tokens));
    }
    RecurCase shared = recur_case(kind, 6, 20, 36, 70);  // groups of Mamba-2, grouped value heads of Qwen3-Next
    shared.keys = shared.queries = 2;
    cases.push_back(shared);
    shared.keys = shared.values = 2, shared.queries = 6;  // states of all query heads of two KV groups
    cases.push_back(shared);
    RecurCase state_of_group = recur_case(kind, 2, 20, 36, 70);  // one state for each of them
    state_of_group.queries = 6, state_of_group.reads = 3;
    cases.push_back(state_of_group);
    state_of_group.queries = 1;
    cases.push_back(state_of_group);
  }
  return cases;
}

std::string describe(const RecurCase& c) {
  return std::string(c.delta() ? "delta " : "mamba2 ") + std::to_string(c.heads.count) + " x " +
         std::to_string(c.heads.key_dim) + " x " + std::to_string(c.heads.value_dim) + ", " + std::to_string(c.tokens) +
         " tokens, rows " + std::to_string(c.keys) + " " + std::to_string(c.values) + " " + std::to_string(c.queries) +
         " reads " + std::to_string(c.reads);
}

}  // namespace

TEST_CASE("recur follows its equations, whatever the calls") {
  for (RecurCase& c : recur_cases()) {
    c.fill();
    CAPTURE(describe(c));
    std::vector<double> state = c.zero_state();
    const std::vector<double> expected = c.exact(state);
    for_all_kernels([&](const Kernels& kernels) {
      for (const std::vector<uint32_t>& split : splits_of(c.tokens)) {
        OwnedStates own(c.heads);
        const std::vector<float> out = c.run(kernels, own.view(), split);
        REQUIRE(difference(out, expected) < 1e-5);
        REQUIRE(difference(floats_of(own.view()), state) < 1e-5);
        OwnedStates other(c.heads);
        REQUIRE(c.run(kernels, other.view(), split, 1) == out);  // to the last bit, for threads
        REQUIRE(floats_of(other.view()) == floats_of(own.view()));
      }
    });
  }
}

TEST_CASE("a few heads of a layer by themselves are those of the layer") {
  const RecurCase all = recur_case(kDelta, 6, 20, 36, 30).fill();
  for_all_kernels([&](const Kernels& kernels) {
    OwnedStates own(all.heads), other(all.heads);
    const std::vector<float> expected = all.run(kernels, own.view(), {30});
    std::vector<float> out(expected.size()), scratch(recur_scratch_floats(all.heads, 1));
    RecurArgs args = all.args(other.view().part(2, 3), 0, 30, out.data(), scratch.data());
    args.keys = {all.k.data() + 2 * 20, 6 * 20 + all.kGap, 3};
    args.values = {all.v.data() + 2 * 36, 6 * 36 + all.kGap, 3};
    args.queries = {all.q.data() + 2 * 20, 6 * 20 + all.kGap, 3};
    args.dt += 2, args.beta += 2, args.dt_bias += 2, args.rate += 2, args.out += 2 * 36;
    kernels.recur(args, 0, 3);
    for (size_t i = 0; i < out.size(); ++i) {
      const size_t head = i % all.out_width() / 36;
      REQUIRE(out[i] == (head >= 2 && head < 5 ? expected[i] : 0.0f));
    }
  });
}

TEST_CASE("what was absorbed is answered") {
  for (const RecurrentKind kind : {kDelta, kMamba2}) {
    for (const StateType type : {kF32, kBf16}) {
      for (const uint32_t tokens : {1u, 3u, 21u, 64u}) {
        RecurCase c = recur_case(kind, 4, 20, 36, tokens, type);
        c.keys = c.values = 2, c.queries = 12, c.reads = 3, c.skip = false;
        c.fill();
        for_all_kernels([&](const Kernels& kernels) {
          OwnedStates own(c.heads), other(c.heads);
          c.run(kernels, own.view(), {tokens});
          std::vector<float> scratch(recur_scratch_floats(c.heads, 3), NAN);
          RecurArgs absorbed = c.args(other.view(), 0, tokens, nullptr, scratch.data());
          absorbed.queries = {}, absorbed.reads = 0, absorbed.out = nullptr;
          std::vector<float> fewer(recur_scratch_floats(c.heads, 0), NAN);
          absorbed.scratch = fewer.data();
          kernels.absorb(absorbed, 0, 4);
          REQUIRE(floats_of(other.view()) == floats_of(own.view()));
          // The query of the last token, asked afterwards: three times, as if of three tokens.
          std::vector<float> out(3 * c.out_width(), NAN);
          RecurArgs read =
              c.args(other.view(), tokens - 1, 1, out.data() - (tokens - 1) * c.out_width(), scratch.data());
          read.keys = read.values = {};
          read.dt = read.beta = nullptr;
          read.tokens = 3, read.queries.stride = 0;
          kernels.read_state(read, 0, 4);
          REQUIRE(floats_of(other.view()) == floats_of(own.view()));
          // Out of the state as it is kept: recur's own answer to a bf16 state is older than the rounding.
          const std::vector<float> kept = floats_of(own.view());
          const std::vector<double> expected = c.exact_answers({kept.begin(), kept.end()}, tokens - 1);
          for (size_t t = 0; t < 3; ++t) {
            const std::vector<float> row(&out[t * c.out_width()], &out[t * c.out_width()] + c.out_width());
            REQUIRE(difference(row, expected) < 1e-5);
          }
        });
      }
    }
  }
}

TEST_CASE("scan follows its equations, with the same bits whatever the calls") {
  std::vector<ScanCase> cases;
  for (const uint32_t channels : {1u, 3u, 15u, 16u, 17u, 40u, 64u, 100u}) {
    cases.push_back({.heads = {kMamba1, kF32, 2, channels % 7 * 3 + 1, channels, 0, 0}, .tokens = 37});
  }
  cases.push_back({.heads = {kMamba1, kF32, 3, 16, 64, 0, 0}, .tokens = 130});
  for (ScanCase& c : cases) {
    c.fill();
    CAPTURE(c.channels());
    std::vector<double> state = c.zero_state();
    const std::vector<double> expected = c.exact(state);
    for_all_kernels([&](const Kernels& kernels) {
      OwnedStates whole(c.heads);
      const std::vector<float> at_once = c.run(kernels, whole.view(), {c.tokens});
      REQUIRE(difference(at_once, expected) < 1e-5);
      REQUIRE(difference(floats_of(whole.view()), state) < 1e-5);
      for (const std::vector<uint32_t>& split : splits_of(c.tokens)) {
        OwnedStates own(c.heads);
        REQUIRE(c.run(kernels, own.view(), split, 1) == at_once);
        REQUIRE(floats_of(own.view()) == floats_of(whole.view()));
      }
      ScanCase in_place = c;
      in_place.out_is_x = true;
      REQUIRE(in_place.run(kernels, OwnedStates(c.heads).view(), {c.tokens}) == at_once);
    });
  }
}

TEST_CASE("convolve is a causal convolution and SiLU, with the same bits whatever the calls") {
  for (const uint32_t taps : {2u, 3u, 4u}) {
    for (const uint32_t channels : {1u, 7u, 16u, 65u, 150u}) {
      for (const bool has_bias : {false, true}) {
        constexpr uint32_t kTokens = 40;
        const uint32_t stride = channels + 3;
        const std::vector<float> x = random_floats(kTokens * stride), weight = random_floats(taps * channels),
                                 bias = random_floats(channels);
        std::vector<double> expected(kTokens * channels);
        for (uint32_t t = 0; t < kTokens; ++t) {
          for (uint32_t c = 0; c < channels; ++c) {
            double sum = has_bias ? bias[c] : 0.0;
            for (uint32_t back = 0; back < std::min(taps, t + 1); ++back) {
              sum += static_cast<double>(weight[(taps - 1 - back) * channels + c]) * x[(t - back) * stride + c];
            }
            expected[t * channels + c] = sum * exact_sigmoid(sum);
          }
        }
        for_all_kernels([&](const Kernels& kernels) {
          const auto run = [&](const std::vector<uint32_t>& split, bool in_place) {
            std::vector<float> state((taps - 1) * channels), rows = x, out(kTokens * stride);
            float* const to = in_place ? rows.data() : out.data();
            uint32_t first = 0;
            for (const uint32_t count : split) {
              const ConvArgs args{.state = state.data(),
                                  .taps = taps,
                                  .channels = channels,
                                  .tokens = count,
                                  .x = rows.data() + first * stride,
                                  .weight = weight.data(),
                                  .bias = has_bias ? bias.data() : nullptr,
                                  .out = to + first * stride,
                                  .x_stride = stride,
                                  .out_stride = stride};
              kernels.convolve(args, 0, channels / 3);
              kernels.convolve(args, channels / 3, channels);
              first += count;
            }
            std::vector<float> compact;
            for (uint32_t i = 0; i < kTokens * channels; ++i) {
              compact.push_back(to[i / channels * stride + i % channels]);
            }
            for (const float kept : state) compact.push_back(kept);
            return compact;
          };
          const std::vector<float> at_once = run({kTokens}, false);
          REQUIRE(difference(std::vector<float>(at_once.begin(), at_once.end() - (taps - 1) * channels), expected) <
                  2e-6);
          for (const std::vector<uint32_t>& split : splits_of(kTokens)) REQUIRE(run(split, true) == at_once);
        });
      }
    }
  }
}

// Time steps far beyond the ordinary: softplus is x above, exp(x) below; decays vanish or stay.
TEST_CASE("gates at the ends of their ranges") {
  for (const float dt : {-1000.0f, -88.0f, -80.0f, -20.0f, 17.0f, 20.0f, 80.0f, 1000.0f}) {
    for (const float rate : {-1e-6f, -1.0f, -100.0f}) {
      CAPTURE(dt);
      CAPTURE(rate);
      RecurCase c = recur_case(kDelta, 1, 16, 24, 20).fill();
      RecurCase m = recur_case(kMamba2, 1, 16, 24, 20).fill();
      ScanCase s = ScanCase{.heads = {kMamba1, kF32, 1, 5, 20, 0, 0}, .tokens = 20}.fill();
      for (RecurCase* one : {&c, &m}) {
        for (uint32_t t = 5; t < 20; t += 3) one->dt[t * (1 + c.kGap)] = dt, one->beta[t * (1 + c.kGap)] = dt;
        one->rate[0] = rate;
      }
      for (uint32_t i = 0; i < 40; ++i) s.dt[i * 9 + 20] = dt;
      std::fill(s.rate.begin(), s.rate.end(), rate);
      for_all_kernels([&](const Kernels& kernels) {
        for (const RecurCase* one : {&c, &m}) {
          std::vector<double> state = one->zero_state();
          const std::vector<double> expected = one->exact(state);
          for (const std::vector<uint32_t>& split : splits_of(20)) {
            OwnedStates own(one->heads);
            REQUIRE(difference(one->run(kernels, own.view(), split), expected) < 1e-5);
            REQUIRE(difference(floats_of(own.view()), state) < 1e-5);
          }
        }
        std::vector<double> state = s.zero_state();
        const std::vector<double> expected = s.exact(state);
        OwnedStates own(s.heads);
        REQUIRE(difference(s.run(kernels, own.view(), {20}), expected) < 1e-5);
      });
    }
  }
}

// One decay of almost nothing among slow ones: a difference of sums of logarithms would lose the slow ones' digits.
TEST_CASE("strong and slow decays in one block") {
  RecurCase c = recur_case(kDelta, 1, 16, 16, 16).fill();
  c.rate[0] = -1;
  c.bias[0] = 0;
  for (uint32_t t = 0; t < 16; ++t) c.dt[t * (1 + c.kGap)] = t == 2 ? 1e6f : -6.0f;
  std::vector<double> state = c.zero_state();
  const std::vector<double> expected = c.exact(state);
  for_all_kernels([&](const Kernels& kernels) {
    OwnedStates own(c.heads);
    REQUIRE(difference(c.run(kernels, own.view(), {16}), expected) < 2e-6);
  });
}

TEST_CASE("NaN stays within its head") {
  for (const RecurrentKind kind : {kMamba2, kDelta}) {
    RecurCase c = recur_case(kind, 3, 20, 36, 40).fill();
    c.v[5 * (3 * 36 + c.kGap) + 36 + 7] = NAN;  // token 5, head 1
    for_all_kernels([&](const Kernels& kernels) {
      for (const std::vector<uint32_t>& split : splits_of(40)) {
        OwnedStates own(c.heads);
        const std::vector<float> out = c.run(kernels, own.view(), split);
        for (size_t i = 0; i < out.size(); ++i) {
          if (i % c.out_width() / 36 != 1) REQUIRE(std::isfinite(out[i]));
          if (i == 39 * c.out_width() + 36 + 7) REQUIRE(std::isnan(out[i]));
        }
      }
    });
  }
}

// Storage in bf16 is: widen, do as with f32, round to nearest even. The answers are those before rounding.
TEST_CASE("a bf16 state is an f32 state that is rounded at the end of a call") {
  const auto check = [](const auto& wide, auto narrow) {
    narrow.heads.state_type = kBf16;
    for_all_kernels([&](const Kernels& kernels) {
      OwnedStates f32(wide.heads), bf16(narrow.heads);
      const uint32_t elements = wide.heads.key_dim * wide.heads.value_dim;
      for (int call = 0; call < 3; ++call) {
        for (uint32_t i = 0; i < elements; ++i) {
          reinterpret_cast<float*>(f32.view().head(0))[i] =
              bf16_to_float(reinterpret_cast<const uint16_t*>(bf16.view().head(0))[i]);
        }
        REQUIRE(narrow.run(kernels, bf16.view(), {narrow.tokens}) == wide.run(kernels, f32.view(), {wide.tokens}));
        for (uint32_t i = 0; i < elements; ++i) {
          REQUIRE(reinterpret_cast<const uint16_t*>(bf16.view().head(0))[i] ==
                  float_to_bf16(reinterpret_cast<const float*>(f32.view().head(0))[i]));
        }
      }
    });
  };
  for (const uint32_t tokens : {1u, 2u, 5u, 40u, 64u}) {
    for (const RecurrentKind kind : {kMamba2, kDelta}) {
      const RecurCase c = recur_case(kind, 1, 20, 70, tokens).fill();
      check(c, c);
    }
    const ScanCase s = ScanCase{.heads = {kMamba1, kF32, 1, 5, 40, 0, 0}, .tokens = tokens}.fill();
    check(s, s);
  }
}

// Rounding adds a relative error of at most 2^-9 a call, and a decay of at most d lets earlier ones fade: as
// independent errors they grow to 2^-9 / sqrt(1 - d^2) of the state at most. docs/recurrent.md states this.
TEST_CASE("answers of a bf16 state stay within its error") {
  for (const RecurrentKind kind : {kMamba2, kDelta}) {
    for (const float decay : {0.5f, 0.9f, 0.99f}) {
      CAPTURE(decay);
      RecurCase c = recur_case(kind, 1, 32, 32, 1500, kBf16).fill();
      c.rate[0] = -1;
      c.bias[0] = 0;
      const float dt = std::log(std::expm1(-std::log(decay)));  // softplus of it is -log(decay)
      for (uint32_t t = 0; t < c.tokens; ++t) c.dt[t * (1 + c.kGap)] = dt;
      std::vector<double> state = c.zero_state();
      const std::vector<double> expected = c.exact(state);
      for_all_kernels([&](const Kernels& kernels) {
        OwnedStates own(c.heads);
        const std::vector<float> out = c.run(kernels, own.view(), std::vector<uint32_t>(c.tokens, 1));
        double errors = 0, squares = 0;
        for (size_t i = out.size() / 2; i < out.size(); ++i) {
          errors += (out[i] - expected[i]) * (out[i] - expected[i]);
          squares += expected[i] * expected[i];
        }
        const double error = std::sqrt(errors / squares);
        REQUIRE(error < 0x1p-9 / std::sqrt(1 - decay * decay));
        REQUIRE(error > 1e-5);  // it is rounded
      });
    }
  }
}

}  // namespace lethe::cpu
