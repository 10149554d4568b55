// The cap: refused below the minimum, kept above it, and the ledger counts what the system was really asked for.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>

#include "lethe/lethe.hpp"
#include "runtime/model/model.h"
#include "runtime/text/chat_template.h"
#include "tests/support/fault_allocator.h"
#include "tests/support/tiny_model.h"

namespace lethe::test {
namespace {

// What the plan counts for the C library's own tables of a thread, which it takes from the heap.
constexpr uint64_t kThreadTable = 4096;

struct Opened {
  std::string path = tiny_model_path(TinyOptions());
  api::Model model = [this] {
    api::Result<api::Model> opened = api::Model::open(path.c_str());
    REQUIRE_MESSAGE(opened.ok(), opened.error().message());
    return std::move(opened).value();
  }();
  uint64_t template_bytes = [this] {
    const Result<Model*> internal = Model::open(path.c_str());
    REQUIRE(internal.ok());
    const uint64_t bytes = internal.value()->tokenizer().chat_template.size();
    Model::close(internal.value());
    return bytes;
  }();

  uint64_t minimum(lethe_session_params params) const {
    params.ram_bytes = 0;
    lethe_memory memory;
    CHECK(model.plan(params, &memory).code() == LETHE_ERROR_RAM_TOO_SMALL);
    return memory.minimum_ram_bytes;
  }
};

void check_refused(const Opened& opened, lethe_session_params params, uint64_t cap, uint64_t minimum) {
  CAPTURE(cap);
  params.ram_bytes = cap;
  lethe_memory memory;
  REQUIRE(opened.model.plan(params, &memory).code() == LETHE_ERROR_RAM_TOO_SMALL);
  REQUIRE(memory.minimum_ram_bytes == minimum);
  lethe_session* session = nullptr;
  lethe_error error;
  const MemoryCounts before = memory_counts();
  const lethe_code code = lethe_session_create(opened.model.handle(), &params, &session, &error);
  const MemoryCounts after = memory_counts();
  REQUIRE(code == LETHE_ERROR_RAM_TOO_SMALL);
  REQUIRE(session == nullptr);
  REQUIRE(after.requests == before.requests);  // refused before anything is obtained
  REQUIRE(std::string(error.message).find(" " + std::to_string(minimum) + " bytes") != std::string::npos);
}

// Creates with params.ram_bytes and checks the bytes of everything. Returns what was taken.
lethe_memory check_created(const Opened& opened, const lethe_session_params& params, bool use) {
  CAPTURE(params.ram_bytes);
  lethe_memory planned;
  const api::Error plan_error = opened.model.plan(params, &planned);
  REQUIRE_MESSAGE(plan_error.ok(), plan_error.message());

  lethe_session* session = nullptr;
  lethe_memory taken{}, used{};
  taken.struct_size = used.struct_size = sizeof taken;
  const int32_t ids[] = {3, 4, 5, 6, 7, 8, 9, 10};
  lethe_generate_params generate = api::generate_params();
  generate.max_tokens = 8;
  generate.ignore_eos = 1;
  lethe_code used_code = LETHE_OK;
  // The checks come after: doctest itself takes memory.
  const MemoryCounts before = memory_counts();
  const lethe_code code = lethe_session_create(opened.model.handle(), &params, &session, nullptr);
  const MemoryCounts created = memory_counts();
  lethe_session_memory(session, &taken, nullptr);
  if (use) {
    used_code = lethe_session_feed(session, ids, std::size(ids), nullptr);
    if (used_code == LETHE_OK) used_code = lethe_session_generate(session, &generate, nullptr, nullptr, nullptr);
  }
  lethe_session_memory(session, &used, nullptr);
  const MemoryCounts after_use = memory_counts();
  lethe_session_close(session);
  const MemoryCounts closed = memory_counts();

  REQUIRE(code == LETHE_OK);
  REQUIRE(used_code == LETHE_OK);
  uint64_t sum = 0;
  for (int tag = 0; tag < LETHE_MEMORY_TAGS; ++tag) {
    CAPTURE(std::string(lethe_memory_tag_name(tag)));
    REQUIRE(taken.tag_bytes[tag] == planned.tag_bytes[tag]);
    REQUIRE(used.tag_bytes[tag] == planned.tag_bytes[tag]);
    sum += taken.tag_bytes[tag];
  }
  REQUIRE(sum == planned.total_bytes);
  REQUIRE(taken.total_bytes == sum);
  REQUIRE(used.peak_bytes == sum);
  REQUIRE(sum <= params.ram_bytes);
  REQUIRE(taken.cap_bytes == params.ram_bytes);
  REQUIRE(taken.minimum_ram_bytes == planned.minimum_ram_bytes);
  REQUIRE(taken.cache_tokens == planned.cache_tokens);
  REQUIRE(taken.prefill_chunk == planned.prefill_chunk);
  REQUIRE(taken.tag_bytes[LETHE_MEMORY_HOST] == params.host_bytes);
  REQUIRE(taken.tag_bytes[LETHE_MEMORY_MODEL] == opened.model.info().value().private_bytes);

  // Against what the system was asked for: one block that holds everything but these.
  const uint64_t beside = taken.tag_bytes[LETHE_MEMORY_HOST] + taken.tag_bytes[LETHE_MEMORY_MODEL] +
                          chat_heap_bytes(opened.template_bytes, params.turn_bytes) + kThreadTable * params.threads;
  REQUIRE(created.maps - before.maps == 1);
  REQUIRE(static_cast<uint64_t>(created.private_bytes - before.private_bytes) == sum - beside);
  REQUIRE(created.heap_bytes - before.heap_bytes <= static_cast<int64_t>(kThreadTable * (params.threads - 1)));
  REQUIRE(after_use.requests == created.requests);
  REQUIRE(closed.holds_as_much_as(before));
  return taken;
}

TEST_CASE("memory: the ladder of caps") {
  const Opened opened;
  for (const uint32_t threads : {1u, 2u}) {
    lethe_session_params params = api::session_params(0);
    params.threads = threads;
    const uint64_t minimum = opened.minimum(params);
    REQUIRE(minimum > 100'000);
    for (uint64_t rung = 0; rung < 200; ++rung) check_refused(opened, params, minimum * rung / 200, minimum);
    for (uint64_t below = 300; below >= 1; --below) check_refused(opened, params, minimum - below, minimum);
    params.ram_bytes = minimum;
    const lethe_memory smallest = check_created(opened, params, true);
    CHECK(smallest.total_bytes == minimum);
    uint32_t chunk = smallest.prefill_chunk;
    for (uint64_t above = 1; above < 16 << 20; above += above / 8 + 1) {
      params.ram_bytes = minimum + above;
      const lethe_memory memory = check_created(opened, params, false);
      CHECK(memory.minimum_ram_bytes == minimum);
      CHECK(memory.prefill_chunk >= chunk);
      CHECK(memory.cache_tokens >= smallest.cache_tokens);
      chunk = memory.prefill_chunk;
    }
  }
}

TEST_CASE("memory: more memory never gives a smaller cache for the same prefill chunk") {
  const Opened opened;
  for (const char* policy : {"window", "expected-attention", "full"}) {
    for (const uint32_t chunk : {0u, 1u, 16u, 100u}) {
      CAPTURE(policy);
      CAPTURE(chunk);
      lethe_session_params params = api::session_params(0);
      params.policy = policy;
      params.prefill_chunk = chunk;
      params.threads = 1;
      const uint64_t minimum = opened.minimum(params);
      lethe_memory last{};
      uint32_t steps = 0;
      for (uint64_t above = 0; above < 2 << 20; above += 1500) {
        CAPTURE(above);
        params.ram_bytes = minimum + above;
        lethe_memory memory;
        REQUIRE(opened.model.plan(params, &memory).ok());
        REQUIRE(memory.prefill_chunk >= last.prefill_chunk);
        // A chunk that grows takes at most a quarter of what the cap leaves above the minimum.
        if (memory.prefill_chunk == last.prefill_chunk) REQUIRE(memory.cache_tokens >= last.cache_tokens);
        REQUIRE(4 * memory.cache_tokens >= 3 * last.cache_tokens);
        steps += memory.cache_tokens != last.cache_tokens ? 1 : 0;
        last = memory;
      }
      CHECK(steps > 5);
      CHECK(last.cache_tokens == 512);  // the trained length
    }
  }
}

TEST_CASE("memory: the plan is what is taken, for 200 random sets of options") {
  const Opened opened;
  std::mt19937 random(20240607);
  const auto up_to = [&random](uint32_t most) { return static_cast<uint32_t>(random() % (uint64_t{most} + 1)); };
  constexpr const char* kPolicies[] = {"window", "expected-attention", "full"};  // one remembers something of lists
  uint32_t evicting = 0, at_the_minimum = 0;
  for (int round = 0; round < 200; ++round) {
    lethe_session_params params = api::session_params(0);
    params.policy = kPolicies[up_to(2)];
    params.kv_type = static_cast<int32_t>(up_to(LETHE_KV_INT4));
    params.positions = static_cast<int32_t>(up_to(2));
    params.prefill_chunk = up_to(2) == 0 ? 0 : 1 + up_to(up_to(1) == 0 ? 64 : 2047);
    params.threads = 1 + up_to(5);
    params.sinks = up_to(3) == 0 ? up_to(4096) : up_to(64);
    params.max_tokens = up_to(2) == 0 ? 0 : up_to(5000);
    params.logit_rows = 1 + up_to(63);
    params.turn_bytes = up_to(3) == 0 ? 0 : up_to(1 << 16);
    params.host_bytes = up_to(1) == 0 ? 0 : up_to(1 << 22);
    CAPTURE(round);
    CAPTURE(std::string(params.policy));
    CAPTURE(params.kv_type);
    CAPTURE(params.positions);
    CAPTURE(params.prefill_chunk);
    CAPTURE(params.threads);
    CAPTURE(params.sinks);
    CAPTURE(params.max_tokens);
    CAPTURE(params.logit_rows);
    CAPTURE(params.turn_bytes);
    CAPTURE(params.host_bytes);
    const uint64_t minimum = opened.minimum(params);
    REQUIRE(minimum > 0);
    check_refused(opened, params, minimum - 1, minimum);
    check_refused(opened, params, up_to(static_cast<uint32_t>(minimum - 1)), minimum);
    params.ram_bytes = minimum;
    const lethe_memory smallest = check_created(opened, params, round % 4 == 0);
    REQUIRE(smallest.total_bytes == minimum);
    params.ram_bytes = minimum + up_to(up_to(1) == 0 ? 1 << 18 : 1 << 25);
    const lethe_memory memory = check_created(opened, params, round % 8 == 0);
    REQUIRE(memory.minimum_ram_bytes == minimum);
    REQUIRE(memory.cache_tokens >= params.max_tokens);
    evicting += params.policy == std::string("full") ? 0 : 1;
    at_the_minimum += memory.cache_tokens == smallest.cache_tokens ? 1 : 0;
  }
  CHECK(evicting > 50);
  CHECK(at_the_minimum > 20);
  CHECK(at_the_minimum < 180);
}

}  // namespace
}  // namespace lethe::test
