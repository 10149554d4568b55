#include "runtime/recurrent/recurrent_states.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace lethe {
namespace {

constexpr RecurrentHeads kHeads[] = {
    {RecurrentKind::kGatedDelta, StateType::kF32, 3, 5, 7, 10, 4},
    {RecurrentKind::kMamba2, StateType::kBf16, 2, 8, 9, 0, 0},
    {RecurrentKind::kMamba1, StateType::kF32, 4, 16, 64, 256, 3},
};

struct alignas(64) Line {
  uint8_t bytes[64];
};

uint64_t measured_bytes(std::span<const RecurrentHeads> layers, uint32_t checkpoints) {
  Arena arena = Arena::measuring();
  RecurrentStates states;
  REQUIRE(states.carve(arena, layers, checkpoints).ok());
  return arena.used();
}

struct Fixture {
  explicit Fixture(uint32_t checkpoints, std::span<const RecurrentHeads> layers = kHeads)
      : memory(measured_bytes(layers, checkpoints) / 64, Line{}) {
    std::fill_n(memory[0].bytes, memory.size() * 64, uint8_t{0xee});  // carve resets, whatever was there
    Arena arena(memory[0].bytes, memory.size() * 64);
    REQUIRE(states.carve(arena, layers, checkpoints).ok());
    REQUIRE(arena.used() == memory.size() * 64);
  }
  // Stands for the work of kernels: every byte depends on the token.
  void advance(uint8_t token) {
    for (uint32_t layer = 0; layer < states.layers(); ++layer) {
      const RecurrentView view = states.view(layer);
      for (uint64_t i = 0; i < view.layout.bytes; ++i) view.state[i] = static_cast<uint8_t>(token + i + 31 * layer);
    }
  }
  std::vector<uint8_t> bytes() const { return {states.save().begin(), states.save().end()}; }

  std::vector<Line> memory;
  RecurrentStates states;
};

}  // namespace

TEST_CASE("a layer's state is its heads and its convolution, on 64-byte boundaries") {
  const RecurrentLayout delta = recurrent_layout(kHeads[0]);
  REQUIRE(delta.head_bytes == 192);  // 5 x 7 floats
  REQUIRE(delta.conv_offset == 3 * 192);
  REQUIRE(delta.bytes == 3 * 192 + 128);  // 3 x 10 floats
  const RecurrentLayout bf16 = recurrent_layout(kHeads[1]);
  REQUIRE(bf16.head_bytes == 192);  // 8 x 9 of two bytes
  REQUIRE(bf16.bytes == 2 * 192);
  // Qwen3-Next: 2 MiB a layer for 32 heads of 128 x 128, and three inputs of 8192 channels.
  const RecurrentLayout qwen = recurrent_layout({RecurrentKind::kGatedDelta, StateType::kF32, 32, 128, 128, 8192, 4});
  REQUIRE(qwen.conv_offset == 2 << 20);
  REQUIRE(qwen.bytes == (2 << 20) + 3 * 8192 * 4);

  Fixture f(0);
  REQUIRE(f.states.bytes() == delta.bytes + bf16.bytes + recurrent_layout(kHeads[2]).bytes);
  uint8_t* end = f.states.view(0).state;
  for (uint32_t layer = 0; layer < 3; ++layer) {
    const RecurrentView view = f.states.view(layer);
    REQUIRE(view.heads == kHeads[layer]);
    REQUIRE(view.state == end);
    REQUIRE(reinterpret_cast<uintptr_t>(view.state) % 64 == 0);
    end += view.layout.bytes;
  }
  const RecurrentView part = f.states.view(0).part(1, 2);
  REQUIRE(part.heads.count == 2);
  REQUIRE(part.heads.conv_channels == 0);
  REQUIRE(part.head(1) == f.states.view(0).head(2));
}

TEST_CASE("states begin as zeros, and reset() makes them so") {
  Fixture f(1);
  REQUIRE(f.bytes() == std::vector<uint8_t>(f.states.bytes()));
  f.advance(3);
  f.states.keep(3);
  f.states.reset();
  REQUIRE(f.bytes() == std::vector<uint8_t>(f.states.bytes()));
  f.advance(9);
  REQUIRE(f.states.rewind(9) == 0);  // the checkpoint went as well
  REQUIRE(f.bytes() == std::vector<uint8_t>(f.states.bytes()));
}

TEST_CASE("rewind finds the latest checkpoint of at most so many tokens, and forgets those behind it") {
  Fixture f(3);
  std::vector<std::vector<uint8_t>> at(60);
  for (const uint8_t tokens : std::initializer_list<uint8_t>{10, 20, 30, 40}) {  // 40 takes the place of 10
    f.advance(tokens);
    at[tokens] = f.bytes();
    f.states.keep(tokens);
  }
  f.advance(55);
  REQUIRE(f.states.rewind(55) == 40);
  REQUIRE(f.bytes() == at[40]);
  f.advance(56);
  REQUIRE(f.states.rewind(39) == 30);
  REQUIRE(f.bytes() == at[30]);
  f.advance(57);
  REQUIRE(f.states.rewind(45) == 30);  // 40 was forgotten
  f.advance(25);
  at[25] = f.bytes();
  f.states.keep(25);  // the conversation went on differently: 30 is forgotten
  f.advance(58);
  REQUIRE(f.states.rewind(30) == 25);
  REQUIRE(f.bytes() == at[25]);
  f.advance(26);
  at[26] = f.bytes();
  f.states.keep(25);  // the same place again
  f.advance(59);
  REQUIRE(f.states.rewind(25) == 25);
  REQUIRE(f.bytes() == at[26]);
  REQUIRE(f.states.rewind(24) == 20);
  REQUIRE(f.bytes() == at[20]);
  REQUIRE(f.states.rewind(19) == 0);
  REQUIRE(f.bytes() == std::vector<uint8_t>(f.states.bytes()));
}

TEST_CASE("without room for checkpoints, rewind goes to the beginning") {
  Fixture f(0);
  f.advance(7);
  f.states.keep(7);
  REQUIRE(f.states.rewind(100) == 0);
  REQUIRE(f.bytes() == std::vector<uint8_t>(f.states.bytes()));
}

TEST_CASE("a fork has states and checkpoints, and goes its own way") {
  Fixture f(2), fork(2);
  f.advance(10);
  f.states.keep(10);
  const std::vector<uint8_t> at_10 = f.bytes();
  f.advance(20);
  const std::vector<uint8_t> at_20 = f.bytes();
  REQUIRE(fork.states.copy_from(f.states).ok());
  REQUIRE(fork.bytes() == at_20);
  fork.advance(30);
  REQUIRE(f.bytes() == at_20);
  REQUIRE(fork.states.rewind(25) == 10);
  REQUIRE(fork.bytes() == at_10);

  REQUIRE(Fixture(1).states.copy_from(f.states).code() == ErrorCode::kInternal);
  REQUIRE(Fixture(2, std::span(kHeads).first(2)).states.copy_from(f.states).code() == ErrorCode::kInternal);
}

TEST_CASE("saved states are the bytes; other lengths are refused, other layers have another signature") {
  Fixture f(1), other(1);
  f.advance(10);
  const std::vector<uint8_t> saved = f.bytes();
  other.advance(50);
  other.states.keep(50);
  std::vector<uint8_t> longer = saved;
  longer.push_back(0);
  const std::vector<uint8_t> before = other.bytes();
  REQUIRE(other.states.load(longer).code() == ErrorCode::kCorruptSnapshot);
  REQUIRE(other.states.load(std::span(saved).first(saved.size() - 64)).code() == ErrorCode::kCorruptSnapshot);
  REQUIRE(other.bytes() == before);
  REQUIRE(other.states.rewind(50) == 50);
  REQUIRE(other.states.load(saved).ok());
  REQUIRE(other.bytes() == saved);
  REQUIRE(other.states.rewind(50) == 0);  // checkpoints belong to the conversation that was replaced

  REQUIRE(f.states.signature() == other.states.signature());
  for (int field = 0; field < 7; ++field) {
    RecurrentHeads heads[3];
    std::copy_n(kHeads, 3, heads);
    if (field == 0) heads[1].kind = RecurrentKind::kGatedDelta;
    if (field == 1) heads[1].state_type = StateType::kF32;
    if (field == 2) heads[1].count = 3;
    if (field == 3) heads[1].key_dim = 9;
    if (field == 4) heads[1].value_dim = 8;
    if (field == 5) heads[0].conv_channels = 11;
    if (field == 6) heads[0].conv_taps = 3;
    REQUIRE(Fixture(1, heads).states.signature() != f.states.signature());
  }
  REQUIRE(Fixture(1, std::span(kHeads).first(2)).states.signature() != f.states.signature());
}

TEST_CASE("impossible heads and a small arena are refused") {
  const auto refused = [](auto change, const char* word) {
    RecurrentHeads heads = kHeads[0];
    change(heads);
    Arena arena = Arena::measuring();
    RecurrentStates states;
    const Status status = states.carve(arena, {&heads, 1}, 0);
    REQUIRE(status.code() == ErrorCode::kInvalidArgument);
    CAPTURE(status.message());
    REQUIRE(std::string(status.message()).find(word) != std::string::npos);
  };
  refused([](RecurrentHeads& h) { h.kind = static_cast<RecurrentKind>(3); }, "kind");
  refused([](RecurrentHeads& h) { h.state_type = static_cast<StateType>(2); }, "state type");
  refused([](RecurrentHeads& h) { h.count = 0; }, "number");
  refused([](RecurrentHeads& h) { h.count = kMaxRecurrentHeads + 1; }, "number");
  refused([](RecurrentHeads& h) { h.key_dim = 0; }, "key_dim");
  refused([](RecurrentHeads& h) { h.key_dim = kMaxRecurrentDim + 1; }, "key_dim");
  refused([](RecurrentHeads& h) { h.value_dim = 0; }, "value_dim");
  refused([](RecurrentHeads& h) { h.value_dim = kMaxRecurrentDim + 1; }, "value_dim");
  refused([](RecurrentHeads& h) { h.conv_channels = kMaxConvChannels + 1; }, "conv_channels");
  refused([](RecurrentHeads& h) { h.conv_taps = 1; }, "conv_taps");
  refused([](RecurrentHeads& h) { h.conv_taps = kMaxConvTaps + 1; }, "conv_taps");
  refused([](RecurrentHeads& h) { h.conv_channels = 0; }, "conv_taps");

  for (const uint32_t checkpoints : {0u, 2u}) {
    const uint64_t bytes = measured_bytes(kHeads, checkpoints);
    std::vector<Line> memory(bytes / 64 - 1, Line{});
    Arena arena(memory[0].bytes, memory.size() * 64);
    RecurrentStates states;
    REQUIRE(states.carve(arena, kHeads, checkpoints).code() == ErrorCode::kInternal);
  }
  Arena arena = Arena::measuring();
  RecurrentStates states;
  REQUIRE(states.carve(arena, {}, 3).ok());  // a model without recurrent layers
  REQUIRE(states.bytes() == 0);
}

}  // namespace lethe
