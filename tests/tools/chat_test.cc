// lethe chat through a pipe.
#include "tests/tools/cli.h"

namespace lethe::test {
namespace {

const Args kChat = {"chat", tiny_model(), "--ram", "16MiB", "--greedy", "--max-tokens", "12"};

TEST_CASE("every line is a turn, and the first is run's answer") {
  const Finished one = run_cli(kChat, "hello\n");
  CHECK(one.status == 0);
  CHECK(one.err == "");
  CHECK(one.out == run_cli({"run", tiny_model(), "--ram", "16MiB", "--greedy", "--max-tokens", "12", "hello"}).out);
  const Finished two = run_cli(kChat, "hello\n\nhello the\n");
  CHECK(two.status == 0);
  CHECK(two.out.starts_with(one.out));
  CHECK(two.out.size() > one.out.size());
}

TEST_CASE("the last line needs no newline, and no line is no reply") {
  CHECK(run_cli(kChat, "hello").out == run_cli(kChat, "hello\n").out);
  const Finished nothing = run_cli(kChat, "");
  CHECK(nothing.status == 0);
  CHECK(nothing.out == "");
}

TEST_CASE("/reset forgets, /save and /restore keep") {
  const std::string one = run_cli(kChat, "hello\n").out;
  CHECK(run_cli(kChat, "hello\n/reset\nhello\n").out == one + one);
  const std::string file = temporary_path(".session");
  const std::string two = run_cli(kChat, "hello\nhello the\n").out;
  CHECK(run_cli(kChat, "hello\n/save " + file + "\n").out == one);
  CHECK(run_cli(kChat, "/restore " + file + "\nhello the\n").out == two.substr(one.size()));
}

TEST_CASE("commands") {
  CHECK(run_cli(kChat, "/quit\nhello\n").out == "");
  CHECK(run_cli(kChat, "/help\n").out.find("/restore FILE") != std::string::npos);
  CHECK(run_cli(kChat, "/memory\n").out.find("16,777,216") != std::string::npos);
  check_refused(run_cli(kChat, "/dance\n"), 2, "invalid_argument", "/dance");
  check_refused(run_cli(kChat, "/save\n"), 2, "invalid_argument", "/save FILE");
  check_refused(run_cli(kChat, "/restore /nowhere/at/all\n"), 1, "io", "/nowhere/at/all");
}

TEST_CASE("/ram lowers and raises the cap; one that cannot be changes nothing") {
  const Finished finished = run_cli(kChat, "hello\n/ram 8MiB\n/memory\nhello\n/ram 16MiB\n/memory\n");
  CHECK(finished.status == 0);
  const size_t lowered = finished.out.find("8,388,608");
  CHECK(lowered != std::string::npos);
  CHECK(finished.out.find("16,777,216", lowered) != std::string::npos);
  check_refused(run_cli(kChat, "/ram\n"), 2, "invalid_argument", "such as 48MiB");
  check_refused(run_cli(kChat, "/ram 1KiB\n"), 1, "ram_too_small", "1024");
}

TEST_CASE("lines that are no text") {
  check_refused(run_cli(kChat, "hello \xff\n"), 1, "invalid_utf8", "offset 6");
  check_refused(run_cli(kChat, std::string("a\0b\n", 4)), 2, "invalid_argument", "NUL");
  check_refused(run_cli(kChat, std::string(70000, 'a') + "\n"), 1, "prompt_too_long", "16384 bytes");
}

TEST_CASE("a conversation outlives the trained length") {
  std::string lines;
  for (int i = 0; i < 100; ++i) lines += "hello the hello\n";
  const Finished finished = run_cli(kChat, lines);  // 100 turns of about 50 tokens; trained for 512
  CHECK(finished.status == 0);
  CHECK(finished.err == "");
}

TEST_CASE("Ctrl-C ends a conversation through a pipe") {
  Cli::Options options;
  options.input = "hello\n/memory\n";
  Cli cli({"chat", tiny_model(), "--ram", "16MiB", "--ignore-eos", "--max-tokens", "0"}, options);
  for (int i = 0; cli.out_so_far().empty(); ++i) {
    REQUIRE(i < 30000);
    REQUIRE(!cli.poll());
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  cli.interrupt();
  const Finished finished = cli.finish();
  CHECK(finished.status == 1);
  CHECK(finished.err.starts_with("lethe: error cancelled: "));
  CHECK(finished.out.find("16,777,216") == std::string::npos);  // the next line was not read
}

}  // namespace
}  // namespace lethe::test
