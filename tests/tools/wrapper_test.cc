// lethe.hpp: ownership, callables, exceptions.
#include <doctest/doctest.h>

#include <stdexcept>
#include <string>

#include "lethe/lethe.hpp"
#include "tests/support/tiny_model.h"

namespace lethe::test {
namespace {

api::Model open_tiny() {
  static const std::string path = tiny_model_path(TinyOptions());
  auto model = api::Model::open(path.c_str());
  REQUIRE(model.ok());
  return std::move(model).value();
}

TEST_CASE("errors carry a code, its name and a sentence") {
  const auto model = api::Model::open("/nowhere/model.lethe");
  REQUIRE(!model.ok());
  CHECK(model.error().code() == LETHE_ERROR_IO);
  CHECK(model.error().name() == std::string("io"));
  CHECK(std::string(model.error().message()).find("/nowhere/model.lethe") != std::string::npos);
  const api::Model tiny = open_tiny();
  const auto session = api::Session::create(tiny, api::session_params(1));
  REQUIRE(!session.ok());
  CHECK(session.error().code() == LETHE_ERROR_RAM_TOO_SMALL);
}

TEST_CASE("objects move and close themselves") {
  api::Model model = open_tiny();
  const api::Model moved = std::move(model);
  auto session = api::Session::create(moved, api::session_params(16 << 20));
  REQUIRE(session.ok());
  api::Session a = std::move(session).value();
  REQUIRE(a.feed_text("hello").ok());
  auto fork = a.fork();
  REQUIRE(fork.ok());
  CHECK(fork.value().stats().position == a.stats().position);
  api::Session b = std::move(a);
  CHECK(b.stats().position > 0);
  CHECK(b.memory().total_bytes <= 16u << 20);
  lethe_memory plan;
  REQUIRE(moved.plan(api::session_params(16 << 20), &plan).ok());
  CHECK(plan.total_bytes == b.memory().total_bytes);
  CHECK(moved.token_bytes(1) == "<|im_start|>");
  CHECK(moved.token_bytes(-1) == "");
}

TEST_CASE("generate takes callables that return nothing or false, and passes exceptions on") {
  const api::Model model = open_tiny();
  auto opened = api::Session::create(model, api::session_params(16 << 20));
  REQUIRE(opened.ok());
  api::Session& session = opened.value();
  lethe_generate_params params = api::generate_params();
  params.max_tokens = 5;
  params.ignore_eos = 1;
  int tokens = 0;
  api::Reply reply;
  REQUIRE(session.chat("hello", [&](std::string_view, int32_t id) { tokens += id >= 0 ? 1 : 0; }, params, &reply).ok());
  CHECK(tokens == 5);
  CHECK(reply.tokens == 5);
  CHECK(reply.stop_reason == LETHE_STOP_MAX_TOKENS);

  REQUIRE(session.generate([](std::string_view, int32_t) { return false; }, params, &reply).ok());
  CHECK(reply.stop_reason == LETHE_STOP_CALLBACK);
  CHECK(reply.tokens == 1);

  const auto thrower = [](std::string_view, int32_t) { throw std::runtime_error("enough"); };
  CHECK_THROWS_WITH_AS((void)session.generate(thrower, params), "enough", std::runtime_error);
  CHECK(session.generate([](std::string_view, int32_t) {}, params).ok());  // still usable
}

}  // namespace
}  // namespace lethe::test
