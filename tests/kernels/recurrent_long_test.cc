// Recurrent heads over long conversations: no drift, no growth; and their states saved, copied and gone back to.
#include <functional>

#include "tests/kernels/recurrent_support.h"

namespace lethe::cpu {
namespace {

constexpr uint32_t kLong = 100'000;

std::vector<uint32_t> repeat(std::vector<uint32_t> lengths, uint32_t tokens) {
  std::vector<uint32_t> split;
  for (uint32_t done = 0; done < tokens; done += split.back()) {
    split.push_back(std::min(lengths[split.size() % lengths.size()], tokens - done));
  }
  return split;
}

// After every token, and after chunks with single tokens in between: the last answers and the state are those of
// doubles, and the state has not grown beyond what tokens add.
template <class Case>
void require_no_drift(const Case& c, double bound) {
  std::vector<double> state = c.zero_state();
  const std::vector<double> expected = c.exact(state);
  const size_t last = expected.size() / 100;
  for (const double s : state) REQUIRE(std::abs(s) < bound);
  const auto check = [&](const Kernels& kernels) {
    for (const std::vector<uint32_t>& split : {repeat({1}, kLong), repeat({128, 1, 1, 50}, kLong)}) {
      OwnedStates own(c.heads);
      const std::vector<float> out = c.run(kernels, own.view(), split);
      REQUIRE(difference(floats_of(own.view()), state) < 1e-4);
      REQUIRE(difference(std::vector<float>(out.end() - last, out.end()),
                         std::vector<double>(expected.end() - last, expected.end())) < 1e-4);
    }
  };
  check(reference_kernels());
  for_each_target(check);
}

}  // namespace

// Decays of 0.9999, 0.993 and 0.87 in the mean: the first remembers ten thousand tokens.
constexpr float kBiases[3] = {-9, -5, -2};

TEST_CASE("a hundred thousand tokens through a gated delta net") {
  RecurCase c{.heads = {RecurrentKind::kGatedDelta, StateType::kF32, 3, 12, 17, 0, 0}, .tokens = kLong};
  c.keys = c.values = c.queries = 3;
  c.fill();
  std::copy_n(kBiases, 3, c.bias.begin());
  std::fill(c.rate.begin(), c.rate.end(), -1.0f);
  require_no_drift(c, 100);  // a key of length 1 has the answer of one of the values, at most 6
}

TEST_CASE("a hundred thousand tokens through Mamba-2") {
  RecurCase c{.heads = {RecurrentKind::kMamba2, StateType::kF32, 3, 12, 17, 0, 0}, .tokens = kLong};
  c.skip = true;
  c.values = 3;
  c.fill();
  std::copy_n(kBiases, 3, c.bias.begin());
  std::fill(c.rate.begin(), c.rate.end(), -1.0f);
  require_no_drift(c, 100);  // dt x over 1 - exp(-dt), products of two normal numbers
}

TEST_CASE("a hundred thousand tokens through Mamba-1") {
  ScanCase c{.heads = {RecurrentKind::kMamba1, StateType::kF32, 1, 4, 17, 0, 0}, .tokens = kLong};
  c.fill();
  for (uint32_t i = 0; i < 17; ++i) c.bias[i] = kBiases[i % 3];
  std::fill(c.rate.begin(), c.rate.end(), -1.0f);
  require_no_drift(c, 100);
}

namespace {

// A case as calls on a state: run(kernels, view, first, count) gives the answers of these tokens.
struct Calls {
  RecurrentHeads heads;
  std::function<std::vector<float>(const Kernels&, const RecurrentView&, uint32_t first, uint32_t count)> run;
};

constexpr uint32_t kTokens = 120;

Calls recur_calls(RecurrentKind kind, StateType type) {
  RecurCase c{.heads = {kind, type, 3, 20, 36, 30, 4}, .tokens = kTokens};
  c.keys = c.values = c.queries = 3;
  c.fill();
  const std::vector<float> weight = random_floats(4 * 30);
  return {c.heads, [c, weight](const Kernels& kernels, const RecurrentView& view, uint32_t first, uint32_t count) {
            std::vector<float> out(size_t{kTokens} * c.out_width()), scratch(recur_scratch_floats(c.heads, 1));
            kernels.recur(c.args(view, first, count, out.data(), scratch.data()), 0, 3);
            // The layer's convolution over some of its inputs.
            const ConvArgs conv{.state = view.conv(),
                                .taps = 4,
                                .channels = 30,
                                .tokens = count,
                                .x = c.v.data() + size_t{first} * (3 * 36 + c.kGap),
                                .weight = weight.data(),
                                .bias = nullptr,
                                .out = out.data() + size_t{first} * c.out_width() + 36,
                                .x_stride = 3 * 36 + c.kGap,
                                .out_stride = c.out_width()};
            kernels.convolve(conv, 0, 30);
            return std::vector<float>(out.begin() + size_t{first} * c.out_width(),
                                      out.begin() + size_t{first + count} * c.out_width());
          }};
}

Calls scan_calls(StateType type) {
  ScanCase c{.heads = {RecurrentKind::kMamba1, type, 3, 5, 36, 0, 0}, .tokens = kTokens};
  c.fill();
  return {c.heads, [c](const Kernels& kernels, const RecurrentView& view, uint32_t first, uint32_t count) {
            ScanCase part = c;
            part.tokens = count;
            part.x.erase(part.x.begin(), part.x.begin() + size_t{first} * c.x_stride());
            part.dt.erase(part.dt.begin(), part.dt.begin() + size_t{first} * c.channels());
            part.bc.erase(part.bc.begin(), part.bc.begin() + size_t{first} * c.bc_stride());
            return part.run(kernels, view, {count});
          }};
}

std::vector<Calls> all_calls() {
  std::vector<Calls> all;
  for (const StateType type : {StateType::kF32, StateType::kBf16}) {
    all.push_back(recur_calls(RecurrentKind::kGatedDelta, type));
    all.push_back(recur_calls(RecurrentKind::kMamba2, type));
    all.push_back(scan_calls(type));
  }
  return all;
}

}  // namespace

TEST_CASE("going back, saving and forking give the same answers, to the last bit") {
  for (const Calls& calls : all_calls()) {
    const auto check = [&](const Kernels& kernels) {
      OwnedStates own(calls.heads, 2), loaded(calls.heads), forked(calls.heads, 2);
      calls.run(kernels, own.view(), 0, 40);
      own.states.keep(40);
      const std::vector<uint8_t> saved(own.states.save().begin(), own.states.save().end());
      REQUIRE(forked.states.copy_from(own.states).ok());
      const std::vector<float> expected = calls.run(kernels, own.view(), 40, 33);
      const std::vector<float> next = calls.run(kernels, own.view(), 73, 1);

      calls.run(kernels, own.view(), 90, 30);  // a turn that is withdrawn
      REQUIRE(own.states.rewind(60) == 40);
      REQUIRE(calls.run(kernels, own.view(), 40, 33) == expected);
      REQUIRE(calls.run(kernels, own.view(), 73, 1) == next);

      REQUIRE(loaded.states.signature() == own.states.signature());
      REQUIRE(loaded.states.load(saved).ok());
      REQUIRE(calls.run(kernels, loaded.view(), 40, 33) == expected);
      REQUIRE(calls.run(kernels, loaded.view(), 73, 1) == next);

      calls.run(kernels, forked.view(), 5, 20);
      REQUIRE(forked.states.rewind(40) == 40);  // checkpoints were copied as well
      REQUIRE(calls.run(kernels, forked.view(), 40, 33) == expected);

      const std::vector<float> fresh = calls.run(kernels, OwnedStates(calls.heads).view(), 0, 40);
      REQUIRE(own.states.rewind(39) == 0);
      REQUIRE(calls.run(kernels, own.view(), 0, 40) == fresh);
      own.states.reset();
      REQUIRE(calls.run(kernels, own.view(), 0, 40) == fresh);
    };
    check(reference_kernels());
    for_each_target(check);
  }
}

}  // namespace lethe::cpu
