// Every single request for memory or a thread fails once: each call then ends with an error, nothing is lost, and the
// same process can do it all again.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <string_view>

#include "lethe/lethe.h"
#include "tests/support/fault_allocator.h"
#include "tests/support/tiny_model.h"

namespace lethe::test {
namespace {

constexpr int64_t kTemplateTables = 48 << 10;  // chat_template.h: what the first use leaves for the process
constexpr size_t kGenerated = 5;

struct Outcome {
  lethe_code code = LETHE_OK;
  const char* stage = "";  // of the call that failed
  lethe_error error{};
  int32_t ids[2][kGenerated] = {};  // of the session and of its copy
  uint64_t positions[2] = {};

  bool same_result(const Outcome& other) const {
    return memcmp(ids, other.ids, sizeof ids) == 0 && memcmp(positions, other.positions, sizeof positions) == 0;
  }
};

struct Replies {
  int32_t* at;
};
int32_t keep_id(void* user, const char*, size_t, int32_t id) {
  if (id >= 0) *static_cast<Replies*>(user)->at++ = id;
  return 0;
}

// A life: open, create, feed text and turns, generate, save, restore, fork, close. Ends at the first error. Itself it
// takes no memory.
Outcome live(const char* model_path, const char* save_path) {
  Outcome outcome;
  lethe_model* model = nullptr;
  lethe_session *session = nullptr, *copy = nullptr;
  lethe_session_params params;
  lethe_session_params_init(&params);
  params.ram_bytes = 4 << 20;
  params.threads = 3;
  params.max_tokens = 128;
  lethe_generate_params generate;
  lethe_generate_params_init(&generate);
  generate.max_tokens = kGenerated;
  generate.ignore_eos = 1;
  generate.on_piece = keep_id;
  const lethe_message first[] = {{"system", "hello"}, {"user", "you and the world"}};
  const lethe_message next[] = {{"user", "in the world"}};
  constexpr std::string_view kText = "hello the world";

  const auto ok = [&outcome](const char* stage, lethe_code code) {
    outcome.code = code;
    outcome.stage = stage;
    return code == LETHE_OK;
  };
  const auto reply = [&](lethe_session* s, int which) {
    Replies replies{outcome.ids[which]};
    generate.user = &replies;
    return lethe_session_generate(s, &generate, nullptr, nullptr, &outcome.error);
  };
  lethe_error* const e = &outcome.error;
  const bool all = ok("open", lethe_model_open(model_path, &model, e)) &&
                   ok("create", lethe_session_create(model, &params, &session, e)) &&
                   ok("feed_text", lethe_session_feed_text(session, kText.data(), kText.size(), 0, nullptr, e)) &&
                   ok("feed_turn", lethe_session_feed_turn(session, first, 2, nullptr, e)) &&
                   ok("generate", reply(session, 0)) && ok("save", lethe_session_save(session, save_path, e)) &&
                   ok("restore", lethe_session_restore(session, save_path, e)) &&
                   ok("fork", lethe_session_fork(session, &copy, e)) &&
                   ok("next feed_turn", lethe_session_feed_turn(copy, next, 1, nullptr, e)) &&
                   ok("next generate", reply(copy, 1));
  lethe_stats stats{};
  stats.struct_size = sizeof stats;
  for (int i = 0; i < 2 && all; ++i) {
    lethe_session_get_stats(i == 0 ? session : copy, &stats, nullptr);
    outcome.positions[i] = stats.position;
  }
  lethe_session_close(copy);
  lethe_session_close(session);
  lethe_error unclosed{};
  if (lethe_model_close(model, &unclosed) != LETHE_OK) {
    outcome.code = unclosed.code;
    outcome.stage = "close";
    outcome.error = unclosed;
  }
  return outcome;
}

bool expected_code(lethe_code code) {
  return code == LETHE_ERROR_OUT_OF_MEMORY || code == LETHE_ERROR_THREAD || code == LETHE_ERROR_IO ||
         code == LETHE_ERROR_TEMPLATE;
}

// What one life with failing requests was like; a plain struct, so that a process can send it.
struct Report {
  bool struck;       // the request that was to fail came
  bool clean;        // an error of the right kind with a sentence, or the right result in spite of it
  bool all_back;     // what was held before is held after, to the byte
  bool works_after;  // the next life gives the right result
  bool steady;       // and holds nothing afterwards but the tables of the template engine
  lethe_code code;
  const char* stage;  // a literal: at the same address in a child
  lethe_error error;
};

Report live_with_fault(const char* model_path, const char* save_path, uint64_t request, bool persistent,
                       const Outcome& expected) {
  Report report{};
  const MemoryCounts before = memory_counts();
  Outcome outcome;
  {
    const FaultScope fault(request, persistent);
    outcome = live(model_path, save_path);
    report.struck = fault.struck();
  }
  const MemoryCounts after = memory_counts();
  const Outcome again = live(model_path, save_path);
  const MemoryCounts last = memory_counts();
  const bool succeeded = outcome.code == LETHE_OK;
  report.clean =
      succeeded ? outcome.same_result(expected)
                : expected_code(outcome.code) && outcome.error.code == outcome.code && outcome.error.message[0] != '\0';
  report.all_back = after.holds_as_much_as(before);
  report.works_after = again.code == LETHE_OK && again.same_result(expected);
  report.steady = last.maps == before.maps && last.heap_bytes - before.heap_bytes <= kTemplateTables;
  report.code = outcome.code;
  report.stage = outcome.stage;
  report.error = outcome.error;
  return report;
}

// Lives with a failing request, a later one each time, until one is over before the request comes.
template <typename Live>
void for_each_request(uint64_t first, uint64_t step, Live live_once) {
  uint64_t failed = 0, survived = 0;
  bool stages[5] = {};
  for (uint64_t request = first;; request += step) {
    const Report report = live_once(request);
    CAPTURE(request);
    CAPTURE(report.code);
    CAPTURE(std::string(report.stage));
    CAPTURE(std::string(report.error.message));
    REQUIRE(report.clean);
    REQUIRE(report.all_back);
    REQUIRE(report.works_after);
    REQUIRE(report.steady);
    if (!report.struck) {
      CHECK(report.code == LETHE_OK);
      break;
    }
    ++(report.code == LETHE_OK ? survived : failed);
    const char* names[] = {"open", "create", "feed_turn", "restore", "fork"};
    for (int i = 0; i < 5; ++i) stages[i] = stages[i] || strcmp(report.stage, names[i]) == 0;
  }
  MESSAGE(failed << " requests that failed were errors, " << survived << " made no difference");
  CHECK(failed > 100);
  for (const bool seen : stages) CHECK((seen || step > 1));
}

struct Paths {
  std::string model = tiny_model_path(TinyOptions()), save = temporary_path(".session");
};

// Once the tables of the template engine are built: everything comes back.
void check_warm(bool persistent) {
  const Paths paths;
  const char *model = paths.model.c_str(), *save = paths.save.c_str();
  const Outcome expected = live(model, save);
  CAPTURE(std::string(expected.stage));
  CAPTURE(std::string(expected.error.message));
  REQUIRE(expected.code == LETHE_OK);
  REQUIRE(expected.positions[0] > 20);
  REQUIRE(expected.positions[1] > expected.positions[0]);
  for_each_request(1, 1, [&](uint64_t request) { return live_with_fault(model, save, request, persistent, expected); });
}

// In a new process each, where nothing is built yet. Its first life is the one with the fault. Most of its ten thousand
// requests are the same few that build regular expressions: one in 17 is tried.
void check_cold(bool persistent) {
  const Paths paths;
  const char *model = paths.model.c_str(), *save = paths.save.c_str();
  const auto in_child = [](auto work, auto* result) {
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      *result = work();
      _exit(write(ends[1], result, sizeof *result) == sizeof *result ? 0 : 1);
    }
    close(ends[1]);
    const bool told = read(ends[0], result, sizeof *result) == sizeof *result;
    close(ends[0]);
    int status = -1;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    REQUIRE_MESSAGE(status == 0, "wait status " << status);
    REQUIRE(told);
  };
  Outcome expected;
  in_child([&] { return live(model, save); }, &expected);
  REQUIRE(expected.code == LETHE_OK);
  for_each_request(persistent ? 9 : 1, 17, [&](uint64_t request) {
    Report report{};
    in_child(
        [&] {
          Report r = live_with_fault(model, save, request, persistent, expected);
          r.all_back = true;  // some of the tables may be there now: `steady` limits them
          return r;
        },
        &report);
    return report;
  });
}

// The cold ones first: they need a process that never rendered a template.
TEST_CASE("memory: a request of a new process fails") { check_cold(false); }
TEST_CASE("memory: a request of a new process and all after it fail") { check_cold(true); }
TEST_CASE("memory: each request fails once") { check_warm(false); }
TEST_CASE("memory: each request and all after it fail") { check_warm(true); }

}  // namespace
}  // namespace lethe::test
