#include <cstdio>
#include <lethe/lethe.hpp>

namespace api = lethe::api;

static int fail(const api::Error& error) { return std::fprintf(stderr, "answer: %s\n", error.message()), 1; }

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: answer MODEL.lethe QUESTION\n"), 2;
  auto model = api::Model::open(argv[1]);
  if (!model.ok()) return fail(model.error());
  auto session = api::Session::create(model.value(), api::session_params(64 << 20));  // all that they ever take
  if (!session.ok()) return fail(session.error());
  const api::Error error = session.value().chat(argv[2], [](std::string_view text, int32_t) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  });
  return error.ok() ? 0 : fail(error);
}
