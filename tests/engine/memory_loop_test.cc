// After a session is created nothing is obtained any more, except by the template engine, which gives it back.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "lethe/lethe.hpp"
#include "runtime/cache/policy.h"
#include "runtime/text/chat_template.h"
#include "tests/support/fault_allocator.h"
#include "tests/support/tiny_model.h"
#include "tests/support/tiny_namm.h"

namespace lethe::test {
namespace {

constexpr int64_t kTemplateTables = 48 << 10;  // chat_template.h: what the first use leaves for the process

api::Model open_model(const std::string& path) {
  api::Result<api::Model> model = api::Model::open(path.c_str());
  REQUIRE_MESSAGE(model.ok(), model.error().message());
  return std::move(model).value();
}
api::Session open_session(const api::Model& model, const lethe_session_params& params) {
  api::Result<api::Session> session = api::Session::create(model, params);
  REQUIRE_MESSAGE(session.ok(), session.error().message());
  return std::move(session).value();
}

struct Text {
  uint64_t bytes = 0, tokens = 0;
};
int32_t count_text(void* text, const char*, size_t bytes, int32_t id) {
  static_cast<Text*>(text)->bytes += bytes;
  static_cast<Text*>(text)->tokens += id >= 0 ? 1 : 0;
  return 0;
}

TEST_CASE("memory: the counter sees every way to obtain some") {
  const auto requests_of = [](auto work) {
    const uint64_t before = memory_counts().requests;
    work();
    return memory_counts().requests - before;
  };
  void* volatile kept = nullptr;
  CHECK(requests_of([] {}) == 0);
  CHECK(requests_of([&] { kept = malloc(10); }) == 1);
  free(kept);
  CHECK(requests_of([&] { kept = calloc(2, 10); }) == 1);
  CHECK(requests_of([&] { kept = realloc(kept, 100'000); }) == 1);
  free(kept);
  CHECK(requests_of([&] { kept = aligned_alloc(64, 128); }) == 1);
  free(kept);
  CHECK(requests_of([&] {
          void* p = nullptr;
          CHECK(posix_memalign(&p, 64, 100) == 0);
          kept = p;
        }) == 1);
  free(kept);
  CHECK(requests_of([&] { kept = new char[100]; }) == 1);
  delete[] static_cast<char*>(kept);
  CHECK(requests_of([&] { kept = strdup("inside the C library"); }) == 1);
  free(kept);

  const std::string path = tiny_model_path(TinyOptions());
  const char* const file = path.c_str();
  lethe_model_info info{};
  info.struct_size = sizeof info;
  // The checks come after: doctest itself takes memory.
  const MemoryCounts before = memory_counts();
  lethe_model* model = nullptr;
  lethe_model_open(file, &model, nullptr);
  const MemoryCounts opened = memory_counts();
  lethe_model_get_info(model, &info, nullptr);
  lethe_model_close(model, nullptr);
  const MemoryCounts closed = memory_counts();
  REQUIRE(model != nullptr);
  CHECK(opened.requests - before.requests == 2);  // the map of the file and the block of tables
  CHECK(opened.maps - before.maps == 2);
  CHECK(opened.heap_bytes == before.heap_bytes);
  CHECK(opened.file_bytes - before.file_bytes == static_cast<int64_t>(info.file_bytes));
  CHECK(opened.private_bytes - before.private_bytes == static_cast<int64_t>(info.private_bytes));
  CHECK(closed.holds_as_much_as(before));
}

TEST_CASE("memory: feeding and generating obtain nothing") {
  const api::Model model = open_model(tiny_model_path(TinyOptions()));
  std::string prompt;
  while (prompt.size() < 8000) prompt += "hello the world and you, ";
  std::vector<int32_t> ids(1000);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(3 + i * 7 % 250);

  for (const uint32_t threads : {1u, 2u}) {
    for (const bool greedy : {true, false}) {
      for (const int32_t kv : {LETHE_KV_F16, LETHE_KV_INT8, LETHE_KV_INT8K4V, LETHE_KV_INT4}) {
        CAPTURE(threads);
        CAPTURE(greedy);
        CAPTURE(kv);
        lethe_session_params params = api::session_params(8 << 20);
        params.threads = threads;
        params.kv_type = kv;
        params.max_tokens = 128;
        params.logit_rows = 4;
        api::Session session = open_session(model, params);
        const lethe_memory planned = session.memory();
        const char* stops[] = {"never to be found in such a text"};
        lethe_generate_params generate = api::generate_params();
        generate.max_tokens = 2000;
        generate.ignore_eos = 1;
        generate.stop = stops;
        generate.stop_count = 1;
        generate.on_piece = count_text;
        Text text;
        generate.user = &text;
        lethe_sampling sampling = api::sampling();
        if (greedy) sampling.temperature = 0;
        sampling.repetition_penalty = 1.1f;
        sampling.min_p = 0.01f;
        std::vector<float> log_probs(ids.size());

        const MemoryCounts before = memory_counts();
        lethe_code codes[9] = {};
        lethe_session* const s = session.handle();
        codes[0] = lethe_session_set_sampling(s, &sampling, nullptr);
        codes[1] = lethe_session_feed(s, ids.data(), ids.size(), nullptr);
        codes[2] = lethe_session_feed_text(s, prompt.data(), prompt.size(), LETHE_TEXT_SPECIAL, nullptr, nullptr);
        codes[3] = lethe_session_generate(s, &generate, nullptr, nullptr, nullptr);
        codes[4] = lethe_session_score(s, ids.data(), ids.size(), 0, log_probs.data(), nullptr);
        lethe_session_cancel(s);
        codes[5] = lethe_session_feed(s, ids.data(), ids.size(), nullptr);
        codes[6] = lethe_session_reset(s, nullptr);
        codes[7] = lethe_session_feed(s, ids.data(), 20, nullptr);
        codes[8] = lethe_session_feed_logits(
            s, ids.data(), ids.size(), 0, [](void*, size_t, const float*, size_t) {}, nullptr, nullptr);
        const MemoryCounts after = memory_counts();

        for (const int i : {0, 1, 2, 3, 4, 6, 7, 8}) CHECK(codes[i] == LETHE_OK);
        CHECK(codes[5] == LETHE_ERROR_CANCELLED);
        CHECK(text.tokens == 2000);
        CHECK(text.bytes > 0);
        CHECK(after.requests == before.requests);
        CHECK(after.holds_as_much_as(before));

        const lethe_memory now = session.memory();
        CHECK(now.total_bytes == planned.total_bytes);
        CHECK(now.peak_bytes == planned.total_bytes);
      }
    }
  }
}

TEST_CASE("memory: evictions happen in the loop that obtains nothing, by any policy") {
  const api::Model model = open_model(tiny_model_path(TinyOptions()));
  for (const Policy* policy : policies()) {
    if (!policy->evicts) continue;
    CAPTURE(std::string(policy->name));
    lethe_session_params params = api::session_params(8 << 20);
    params.policy = policy->name;
    params.namm = tiny_namm().data();
    params.namm_bytes = tiny_namm().size();
    params.max_tokens = 128;
    params.threads = 2;
    api::Session session = open_session(model, params);
    lethe_generate_params generate = api::generate_params();
    generate.max_tokens = 2000;
    generate.ignore_eos = 1;
    const int32_t id = 3;
    REQUIRE(session.feed(&id, 1).ok());
    const MemoryCounts before = memory_counts();
    const lethe_code code = lethe_session_generate(session.handle(), &generate, nullptr, nullptr, nullptr);
    const MemoryCounts after = memory_counts();
    CHECK(code == LETHE_OK);
    CHECK(after.requests == before.requests);
    const lethe_stats stats = session.stats();
    CHECK(stats.position == 2001);
    CHECK(stats.evictions > 10);
    CHECK(stats.evicted_tokens >= 2001 - session.memory().cache_tokens);
  }
}

TEST_CASE("memory: a trace obtains nothing, from its start to its end") {
  const api::Model model = open_model(tiny_model_path(TinyOptions()));
  for (const char* policy : {"window", "keydiff"}) {
    lethe_session_params params = api::session_params(8 << 20);
    params.policy = policy;
    params.max_tokens = 128;
    api::Session session = open_session(model, params);
    const lethe_memory planned = session.memory();
    lethe_generate_params generate = api::generate_params();
    generate.max_tokens = 2000;
    generate.ignore_eos = 1;
    lethe_trace_params trace = api::trace_params();
    trace.interval_ms = 0;
    trace.tokens = 1;
    const std::vector<int32_t> ids(1000, 5);
    const std::string path = temporary_path(".trace");
    lethe_session* const s = session.handle();
    const MemoryCounts before = memory_counts();
    lethe_code codes[4];
    codes[0] = lethe_session_trace_start(s, path.c_str(), &trace, nullptr);
    codes[1] = lethe_session_feed(s, ids.data(), ids.size(), nullptr);
    codes[2] = lethe_session_generate(s, &generate, nullptr, nullptr, nullptr);
    codes[3] = lethe_session_trace_stop(s, nullptr);
    const MemoryCounts after = memory_counts();
    for (const lethe_code code : codes) CHECK(code == LETHE_OK);
    CHECK(after.requests == before.requests);
    CHECK(after.holds_as_much_as(before));
    CHECK(session.stats().evictions > 10);
    CHECK(session.memory().total_bytes == planned.total_bytes);
    CHECK(planned.tag_bytes[LETHE_MEMORY_TRACE] > 0);
    CHECK(read_file(path).size() > 2000 * 100);  // a sample after every step was written
  }
}

// Turns of a conversation whose texts nearly fill turn_bytes. What the heap gave at most, and what it did not get back.
struct TurnHeap {
  int64_t peak = 0, kept = 0;
  lethe_code code = LETHE_OK;
};
TurnHeap turn_heap(api::Session& session, uint32_t turn_bytes) {
  const std::string text(turn_bytes > 400 ? (turn_bytes - 300) / 6 * 6 : 60, 'x');
  std::string words = text;
  for (size_t i = 0; i + 6 <= words.size(); i += 6) words.replace(i, 6, "hello ");
  const std::string half = words.substr(0, words.size() / 2);
  const lethe_message first[] = {{"system", half.c_str()}, {"user", half.c_str()}};
  const lethe_message next[] = {{"user", words.c_str()}};
  TurnHeap heap;
  const int64_t before = memory_counts().heap_bytes;
  start_heap_peak();
  heap.code = lethe_session_feed_turn(session.handle(), first, 2, nullptr, nullptr);
  if (heap.code == LETHE_OK) heap.code = lethe_session_feed_turn(session.handle(), next, 1, nullptr, nullptr);
  const MemoryCounts after = memory_counts();
  heap.peak = after.heap_peak - before;
  heap.kept = after.heap_bytes - before;
  return heap;
}

void check_turns(const std::string& path, uint32_t turn_bytes) {
  CAPTURE(turn_bytes);
  const Result<Model*> internal = Model::open(path.c_str());
  REQUIRE(internal.ok());
  const std::string chat_template(internal.value()->tokenizer().chat_template);
  Model::close(internal.value());
  REQUIRE(!chat_template.empty());
  const auto reserved = static_cast<int64_t>(chat_heap_bytes(chat_template.size(), turn_bytes));

  const api::Model model = open_model(path);
  lethe_session_params params = api::session_params(64 << 20);
  params.threads = 1;
  params.turn_bytes = turn_bytes;
  params.max_tokens = 256;
  {  // the ledger has the reserve, beside the turn's own text
    const api::Session session = open_session(model, params);
    CHECK(static_cast<int64_t>(session.memory().tag_bytes[LETHE_MEMORY_TOKENIZER]) >= reserved + turn_bytes);
  }

  // The first use in a process builds tables: in a process of its own.
  int pipe_ends[2];
  REQUIRE(pipe(pipe_ends) == 0);
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    api::Result<api::Session> session = api::Session::create(model, params);
    TurnHeap heap[2];
    for (TurnHeap& h : heap) {
      if (session.ok()) h = turn_heap(session.value(), turn_bytes);
      if (session.ok() && !session.value().reset().ok()) _exit(2);
    }
    _exit(session.ok() && write(pipe_ends[1], heap, sizeof heap) == sizeof heap ? 0 : 1);
  }
  TurnHeap heap[2];
  const bool told = read(pipe_ends[0], heap, sizeof heap) == sizeof heap;
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  int status = -1;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  REQUIRE(status == 0);
  REQUIRE(told);
  for (const TurnHeap& h : heap) {
    CHECK(h.code == LETHE_OK);
    CHECK(h.peak > 0);
    CHECK(h.peak <= reserved);
  }
  MESSAGE("turns of " << turn_bytes << " bytes: heap " << heap[0].peak << " then " << heap[1].peak << " of " << reserved
                      << " reserved, kept " << heap[0].kept);
  CHECK(heap[0].kept <= kTemplateTables);
  CHECK(heap[1].kept == 0);
}

TEST_CASE("memory: a turn stays below what the plan reserves for the template engine, and gives it back") {
  const std::string path = tiny_model_path(TinyOptions());
  for (const uint32_t turn_bytes : {400u, 4u << 10, 16u << 10, 200u << 10}) check_turns(path, turn_bytes);
}

TEST_CASE("memory: the same with the template of a real model") {
  const char* path = std::getenv("LETHE_TEST_MODEL");
  REQUIRE_MESSAGE(path != nullptr, "LETHE_TEST_MODEL must be the path of the packed test model");
  check_turns(path, 1 << 10);
}

}  // namespace
}  // namespace lethe::test
