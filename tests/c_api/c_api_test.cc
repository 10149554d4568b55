// Runs the checks written in C, and what needs threads.
#include <doctest/doctest.h>

#include <cstring>
#include <thread>

#include "lethe/lethe.h"
#include "tests/c_api/abi_test.h"
#include "tests/support/tiny_model.h"

namespace lethe::test {
namespace {

const std::string& model_path() {
  static const std::string path = tiny_model_path(GgmlType::kF32);
  return path;
}

TEST_CASE("C ABI: names, pinned numbers, defaults") {
  CHECK(abi_names_and_numbers() == 0);
  CHECK(abi_defaults() == 0);
}

TEST_CASE("C ABI: NULL is an error that names the argument, or means what the header says") {
  CHECK(abi_null_arguments(model_path().c_str()) == 0);
}

TEST_CASE("C ABI: structs of other sizes") { CHECK(abi_struct_sizes(model_path().c_str()) == 0); }

TEST_CASE("C ABI: a whole run") { CHECK(abi_whole_run(model_path().c_str(), temporary_path(".session").c_str()) == 0); }

TEST_CASE("C ABI: a second thread in a session is refused, except to cancel") {
  lethe_model* model = nullptr;
  lethe_session* session = nullptr;
  REQUIRE(lethe_model_open(model_path().c_str(), &model, nullptr) == LETHE_OK);
  lethe_session_params params;
  lethe_session_params_init(&params);
  params.ram_bytes = 16 << 20;
  params.threads = 2;
  REQUIRE(lethe_session_create(model, &params, &session, nullptr) == LETHE_OK);
  const int32_t ids[] = {4, 5, 6};
  REQUIRE(lethe_session_feed(session, ids, 3, nullptr) == LETHE_OK);

  struct Seen {
    lethe_session* session;
    lethe_code feed = -1, generate = -1, fork = -1;
    lethe_error error{};
    uint64_t tokens = 0;
  } seen{.session = session};
  lethe_generate_params generate;
  lethe_generate_params_init(&generate);
  generate.ignore_eos = 1;
  generate.user = &seen;
  generate.on_piece = [](void* user, const char*, size_t, int32_t id) -> int32_t {
    auto& s = *static_cast<Seen*>(user);
    s.tokens += id >= 0;
    if (s.tokens != 3) return 0;
    std::thread([&s] {
      const int32_t id_of_other = 7;
      lethe_generate_params params_of_other;
      lethe_generate_params_init(&params_of_other);
      lethe_session* copy = nullptr;
      s.feed = lethe_session_feed(s.session, &id_of_other, 1, &s.error);
      s.generate = lethe_session_generate(s.session, &params_of_other, nullptr, nullptr, nullptr);
      s.fork = lethe_session_fork(s.session, &copy, nullptr);
      lethe_session_cancel(s.session);
    }).join();
    return 0;
  };
  uint64_t generated = 0;
  CHECK(lethe_session_generate(session, &generate, nullptr, &generated, nullptr) == LETHE_ERROR_CANCELLED);
  CHECK(generated == 3);
  CHECK(seen.tokens == 3);
  CHECK(seen.feed == LETHE_ERROR_BAD_STATE);
  CHECK(std::string_view(seen.error.message).find("another thread") != std::string_view::npos);
  CHECK(seen.generate == LETHE_ERROR_BAD_STATE);
  CHECK(seen.fork == LETHE_ERROR_BAD_STATE);
  lethe_stats stats{};
  stats.struct_size = sizeof stats;
  CHECK(lethe_session_get_stats(session, &stats, nullptr) == LETHE_OK);
  CHECK(stats.position == 6);
  CHECK(lethe_session_feed(session, ids, 3, nullptr) == LETHE_OK);
  lethe_session_close(session);
  CHECK(lethe_model_close(model, nullptr) == LETHE_OK);
}

}  // namespace
}  // namespace lethe::test
