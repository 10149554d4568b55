#include "runtime/memory/planner.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "runtime/memory/plan_verify.h"

using namespace lethe;

namespace {

struct Plan {
  std::vector<uint64_t> offsets;
  uint64_t total;
};

Plan make_plan(const std::vector<PlanBuffer>& buffers) {
  Plan plan{std::vector<uint64_t>(buffers.size()), 0};
  std::vector<uint32_t> scratch(2 * buffers.size());
  const Result<uint64_t> total = plan_buffers(buffers, plan.offsets, scratch);
  REQUIRE_MESSAGE(total.ok(), total.status().message());
  plan.total = total.value();
  return plan;
}

// Every byte of the block, step by step: true when no byte has two owners and all lie inside the total.
bool holds_by_byte_map(const std::vector<PlanBuffer>& buffers, const std::vector<uint64_t>& offsets, uint64_t total) {
  uint32_t steps = 0;
  for (const PlanBuffer& buffer : buffers) steps = std::max(steps, buffer.last_step + 1);
  for (uint32_t step = 0; step < steps; ++step) {
    std::vector<bool> taken(total);
    for (size_t i = 0; i < buffers.size(); ++i) {
      if (step < buffers[i].first_step || step > buffers[i].last_step) continue;
      for (uint64_t byte = offsets[i]; byte < offsets[i] + buffers[i].bytes; ++byte) {
        if (byte >= total || taken[byte]) return false;
        taken[byte] = true;
      }
    }
  }
  return true;
}

uint64_t rounded(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

std::vector<PlanBuffer> random_buffers(std::mt19937& rng) {
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(rng() % n); };
  const uint32_t steps = 1 + below(12);
  std::vector<PlanBuffer> buffers(below(16));
  for (PlanBuffer& buffer : buffers) {
    buffer.bytes = below(4) == 0 ? below(3) * 64 : below(700);
    buffer.first_step = below(steps);
    buffer.last_step = buffer.first_step + below(steps - buffer.first_step);
  }
  return buffers;
}

}  // namespace

TEST_CASE("planner: 3000 random plans hold by a byte map, between the overlap bound and the sum") {
  std::mt19937 rng(1);
  for (int round = 0; round < 3000; ++round) {
    const std::vector<PlanBuffer> buffers = random_buffers(rng);
    const Plan plan = make_plan(buffers);
    uint64_t sum = 0;
    uint64_t most_alive = 0;
    for (uint32_t step = 0; step < 12; ++step) {
      uint64_t alive = 0;
      for (const PlanBuffer& buffer : buffers) {
        if (buffer.first_step <= step && step <= buffer.last_step) alive += rounded(buffer.bytes);
      }
      most_alive = std::max(most_alive, alive);
    }
    for (const PlanBuffer& buffer : buffers) sum += rounded(buffer.bytes);
    CAPTURE(round);
    REQUIRE(holds_by_byte_map(buffers, plan.offsets, plan.total));
    REQUIRE(std::all_of(plan.offsets.begin(), plan.offsets.end(), [](uint64_t at) { return at % 64 == 0; }));
    REQUIRE(plan.total % 64 == 0);
    REQUIRE(plan.total >= most_alive);
    REQUIRE(plan.total <= sum);
    const Status verified = verify_plan(buffers, plan.offsets, plan.total);
    REQUIRE_MESSAGE(verified.ok(), verified.message());
  }
}

TEST_CASE("verifier: agrees with the byte map on 3000 plans of which many are broken") {
  std::mt19937 rng(2);
  int broken = 0;
  for (int round = 0; round < 3000; ++round) {
    const std::vector<PlanBuffer> buffers = random_buffers(rng);
    if (buffers.empty()) continue;
    Plan plan = make_plan(buffers);
    plan.offsets[rng() % buffers.size()] = rng() % 10 * 64;
    if (rng() % 4 == 0 && plan.total >= 64) plan.total -= 64;
    // An empty buffer owns no byte, but must not point outside.
    bool expected = holds_by_byte_map(buffers, plan.offsets, plan.total);
    for (const uint64_t offset : plan.offsets) expected = expected && offset <= plan.total;
    broken += expected ? 0 : 1;
    CAPTURE(round);
    REQUIRE(verify_plan(buffers, plan.offsets, plan.total).ok() == expected);
  }
  CHECK(broken > 500);
  CHECK(broken < 2500);
}

TEST_CASE("verifier: names what is wrong") {
  const std::vector<PlanBuffer> buffers = {{100, 0, 1}, {64, 2, 3}, {10, 1, 2}};
  const auto message = [&](std::vector<uint64_t> offsets, uint64_t total) {
    const Status status = verify_plan(buffers, offsets, total);
    CHECK((status.ok() || status.code() == ErrorCode::kInternal));
    return std::string(status.message());
  };
  CHECK(message({0, 0, 128}, 192).empty());
  CHECK(message({0, 128, 64}, 192) ==
        "buffers 0 (100 bytes at 0, steps 0-1) and 2 (10 bytes at 64, steps 1-2) overlap");
  CHECK(message({0, 0, 100}, 192) == "buffer 2 at offset 100, which is not a multiple of 64");
  CHECK(message({0, 0, 128}, 137) == "buffer 2 of 10 bytes at offset 128 ends beyond the total of 137");
  CHECK(message({0, 0, UINT64_MAX - 63}, 192) != "");
  CHECK(message({0, 0}, 192) == "a plan of 2 offsets for 3 buffers");
}

TEST_CASE("planner: buffers in a chain share two places; a hand-made gap is filled") {
  // A chain of equal layers: each output is alive while the next step reads it. Two places suffice.
  std::vector<PlanBuffer> chain;
  for (uint32_t step = 0; step < 20; ++step) chain.push_back({256, step, step + 1});
  CHECK(make_plan(chain).total == 512);
  // 512 and 256 alive all the time; 128 bytes in step 0 leave a gap that 64 + 64 bytes of step 1 fill.
  CHECK(make_plan({{512, 0, 1}, {256, 0, 1}, {128, 0, 0}, {64, 1, 1}, {64, 1, 1}}).total == 512 + 256 + 128);
}

TEST_CASE("planner: impossible input is an error with numbers") {
  std::vector<uint64_t> offsets(2);
  std::vector<uint32_t> scratch(4);
  const auto code = [&](std::vector<PlanBuffer> buffers) {
    return plan_buffers(buffers, offsets, scratch).status().code();
  };
  CHECK(code({{64, 1, 0}}) == ErrorCode::kInvalidArgument);
  CHECK(code({{UINT64_MAX - 10, 0, 0}}) == ErrorCode::kInvalidArgument);
  CHECK(code({{UINT64_MAX / 2, 0, 0}, {UINT64_MAX / 2, 0, 0}}) == ErrorCode::kInvalidArgument);
  CHECK(code({{1, 0, 0}, {1, 0, 0}, {1, 0, 0}}) == ErrorCode::kInvalidArgument);
  scratch.resize(3);
  CHECK(code({{1, 0, 0}, {1, 0, 0}}) == ErrorCode::kInvalidArgument);
}
