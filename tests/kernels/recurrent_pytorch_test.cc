// Recurrent heads against transformers' modules in torch (tools/reference/recurrent_fixtures.py): the short
// convolution, the answers of prefill and decoding, and the state that is left.
#include <fstream>
#include <iterator>

#include "tests/kernels/recurrent_support.h"

namespace lethe::cpu {
namespace {

class Fixture {
 public:
  Fixture(const char* name, size_t sizes) {
    std::ifstream file(std::string(LETHE_TEST_DATA) + "/recurrent/" + name, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    REQUIRE(bytes_.size() > sizes * 4);
    for (size_t i = 0; i < sizes; ++i) sizes_.push_back(take<uint32_t>(1)[0]);
  }
  uint32_t size(size_t i) const { return sizes_[i]; }
  uint32_t prefill() const { return sizes_[0]; }
  uint32_t tokens() const { return sizes_[0] + sizes_[1]; }
  std::vector<float> floats(size_t count) { return take<float>(count); }
  void require_end() const { REQUIRE(at_ == bytes_.size()); }
  // As it was computed there: prefill at once, then token by token; and otherwise.
  std::vector<std::vector<uint32_t>> splits() const {
    std::vector<std::vector<uint32_t>> all = splits_of(tokens());
    all.emplace_back(tokens() - prefill(), 1);
    all.back().insert(all.back().begin(), prefill());
    return all;
  }

 private:
  template <class T>
  std::vector<T> take(size_t count) {
    REQUIRE(at_ + count * sizeof(T) <= bytes_.size());
    std::vector<T> values(count);
    std::memcpy(values.data(), bytes_.data() + at_, count * sizeof(T));
    at_ += count * sizeof(T);
    return values;
  }
  std::vector<char> bytes_;
  std::vector<uint32_t> sizes_;
  size_t at_ = 0;
};

template <class Test>
void for_all_kernels(const Test& test) {
  test(reference_kernels());
  for_each_target(test);
}

struct Conv {
  std::vector<float> x, weight, bias;
  uint32_t channels, taps;
};

std::vector<float> convolve(const Kernels& kernels, const Conv& conv, const std::vector<uint32_t>& split) {
  std::vector<float> out(conv.x.size()), state((conv.taps - 1) * conv.channels);
  size_t first = 0;
  for (const uint32_t count : split) {
    kernels.convolve({.state = state.data(),
                      .taps = conv.taps,
                      .channels = conv.channels,
                      .tokens = count,
                      .x = conv.x.data() + first * conv.channels,
                      .weight = conv.weight.data(),
                      .bias = conv.bias.empty() ? nullptr : conv.bias.data(),
                      .out = out.data() + first * conv.channels,
                      .x_stride = conv.channels,
                      .out_stride = conv.channels},
                     0, conv.channels);
    first += count;
  }
  return out;
}

// What all calls have in common: `args` is for the first token; strides lead to the others.
RecurArgs from_token(RecurArgs args, uint32_t first, uint32_t count) {
  args.tokens = count;
  args.keys.data += size_t{first} * args.keys.stride;
  args.values.data += size_t{first} * args.values.stride;
  args.queries.data += size_t{first} * args.queries.stride;
  args.dt += size_t{first} * args.gate_stride;
  if (args.beta != nullptr) args.beta += size_t{first} * args.gate_stride;
  args.out += size_t{first} * args.out_stride;
  return args;
}

void check_recur(const Fixture& fixture, RecurArgs args, const std::vector<float>& answers,
                 const std::vector<float>& state) {
  const RecurrentHeads& heads = args.view.heads;
  for_all_kernels([&](const Kernels& kernels) {
    std::vector<float> out(answers.size()), scratch(recur_scratch_floats(heads, 1));
    args.out = out.data();
    args.scratch = scratch.data();
    for (const std::vector<uint32_t>& split : fixture.splits()) {
      OwnedStates own(heads), absorbed(heads);
      uint32_t first = 0;
      for (const uint32_t count : split) {
        args.view = own.view();
        kernels.recur(from_token(args, first, count), 0, heads.count);
        args.view = absorbed.view();
        kernels.absorb(from_token(args, first, count), 0, heads.count);
        first += count;
      }
      REQUIRE(difference(out, answers) < 1e-4);
      REQUIRE(difference(floats_of(own.view()), state) < 1e-4);
      REQUIRE(difference(floats_of(absorbed.view()), state) < 1e-4);
    }
  });
}

}  // namespace

TEST_CASE("Mamba-1 as in transformers") {
  Fixture f("mamba1.bin", 5);
  const uint32_t tokens = f.tokens(), channels = f.size(2), n = f.size(3), taps = f.size(4);
  Conv conv{f.floats(tokens * channels), f.floats(taps * channels), f.floats(channels), channels, taps};
  const std::vector<float> x = f.floats(tokens * channels), dt = f.floats(tokens * channels),
                           dt_bias = f.floats(channels), b = f.floats(tokens * n), c = f.floats(tokens * n),
                           rate = f.floats(n * channels), skip = f.floats(channels), gate = f.floats(tokens * channels),
                           answers = f.floats(tokens * channels), state = f.floats(n * channels);
  f.require_end();
  const RecurrentHeads heads{RecurrentKind::kMamba1, StateType::kF32, 1, n, channels, 0, 0};
  for_all_kernels([&](const Kernels& kernels) {
    for (const std::vector<uint32_t>& split : f.splits()) {
      REQUIRE(difference(convolve(kernels, conv, split), x) < 1e-5);
      OwnedStates own(heads);
      std::vector<float> out(tokens * channels), scratch(scan_scratch_floats(heads));
      size_t first = 0;
      for (const uint32_t count : split) {
        kernels.scan({.view = own.view(),
                      .tokens = count,
                      .x = x.data() + first * channels,
                      .dt = dt.data() + first * channels,
                      .b = b.data() + first * n,
                      .c = c.data() + first * n,
                      .x_stride = channels,
                      .dt_stride = channels,
                      .bc_stride = n,
                      .dt_bias = dt_bias.data(),
                      .rate = rate.data(),
                      .skip = skip.data(),
                      .out = out.data() + first * channels,
                      .out_stride = channels,
                      .scratch = scratch.data()},
                     0, 1);
        first += count;
      }
      kernels.activate(Activation::kSilu, gate.data(), out.data(), out.size(), out.data());
      REQUIRE(difference(out, answers) < 1e-4);
      REQUIRE(difference(floats_of(own.view()), state) < 1e-4);
    }
  });
}

TEST_CASE("Mamba-2 as in transformers") {
  Fixture f("mamba2.bin", 7);
  const uint32_t tokens = f.tokens(), count = f.size(2), p = f.size(3), n = f.size(4), groups = f.size(5),
                 taps = f.size(6), width = count * p, channels = width + 2 * groups * n;
  const Conv conv{f.floats(tokens * channels), f.floats(taps * channels), f.floats(channels), channels, taps};
  const std::vector<float> xbc = f.floats(tokens * channels), dt = f.floats(tokens * count), dt_bias = f.floats(count),
                           rate = f.floats(count), skip = f.floats(count), answers = f.floats(tokens * width),
                           state = f.floats(count * n * p);
  f.require_end();
  for_all_kernels([&](const Kernels& kernels) {
    for (const std::vector<uint32_t>& split : f.splits()) {
      REQUIRE(difference(convolve(kernels, conv, split), xbc) < 1e-5);
    }
  });
  RecurArgs args{};
  args.view.heads = {RecurrentKind::kMamba2, StateType::kF32, count, n, p, 0, 0};
  args.keys = {xbc.data() + width, channels, groups};
  args.values = {xbc.data(), channels, count};
  args.queries = {xbc.data() + width + groups * n, channels, groups};
  args.reads = 1;
  args.scale = 1;
  args.dt = dt.data();
  args.gate_stride = count;
  args.dt_bias = dt_bias.data();
  args.rate = rate.data();
  args.skip = skip.data();
  args.out_stride = width;
  check_recur(f, args, answers, state);
}

TEST_CASE("gated delta net as in transformers' Qwen3-Next") {
  Fixture f("gated_delta.bin", 7);
  const uint32_t tokens = f.tokens(), keys = f.size(2), count = f.size(3), dk = f.size(4), dv = f.size(5),
                 taps = f.size(6), channels = 2 * keys * dk + count * dv;
  const Conv conv{f.floats(tokens * channels), f.floats(taps * channels), {}, channels, taps};
  const std::vector<float> qkv = f.floats(tokens * channels), a = f.floats(tokens * count),
                           b = f.floats(tokens * count), dt_bias = f.floats(count), rate = f.floats(count),
                           answers = f.floats(tokens * count * dv), state = f.floats(count * dk * dv);
  f.require_end();
  for_all_kernels([&](const Kernels& kernels) {
    for (const std::vector<uint32_t>& split : f.splits()) {
      REQUIRE(difference(convolve(kernels, conv, split), qkv) < 1e-5);
    }
  });
  RecurArgs args{};
  args.view.heads = {RecurrentKind::kGatedDelta, StateType::kF32, count, dk, dv, 0, 0};
  args.queries = {qkv.data(), channels, keys};
  args.keys = {qkv.data() + keys * dk, channels, keys};
  args.values = {qkv.data() + 2 * keys * dk, channels, count};
  args.reads = 1;
  args.scale = 1 / std::sqrt(static_cast<float>(dk));
  args.dt = a.data();
  args.beta = b.data();
  args.gate_stride = count;
  args.dt_bias = dt_bias.data();
  args.rate = rate.data();
  args.out_stride = count * dv;
  check_recur(f, args, answers, state);
}

}  // namespace lethe::cpu
