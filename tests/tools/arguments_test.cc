// Bad input of every kind: exit status, code and sentence.
#include "tests/tools/cli.h"

namespace lethe::test {
namespace {

const Args kRun = {"run", tiny_model(), "--ram", "16MiB"};

TEST_CASE("help and version") {
  CHECK(run_cli({"--version"}).out == "lethe 0.1.0\n");
  const std::vector<Args> commands = {{},
                                      {"run"},
                                      {"chat"},
                                      {"plan"},
                                      {"pack"},
                                      {"inspect"},
                                      {"bench"},
                                      {"eval"},
                                      {"eval", "ppl"},
                                      {"eval", "stream"},
                                      {"eval", "file"},
                                      {"eval", "sweep"},
                                      {"bench", "kernels"}};
  for (const Args& command : commands) {
    const Finished help = run_cli(command + Args{"--help"});
    CAPTURE(help.out);
    CHECK(help.status == 0);
    CHECK(help.err == "");
    CHECK(help.out.find("Example") != std::string::npos);
    CHECK(help.out.find("lethe " + (command.empty() ? "run" : command[0])) != std::string::npos);
  }
}

TEST_CASE("bad arguments end with status 2") {
  const std::string& model = tiny_model();
  struct Case {
    Args args;
    const char* part;
  };
  const std::vector<Case> cases = {
      {{}, "subcommand"},
      {{"walk"}, "walk"},
      {{"run"}, "MODEL"},
      {{"run", model, "hello"}, "--ram"},
      {{"run", model, "--ram", "lots", "hello"}, "'lots'"},
      {{"run", model, "--ram", "-5", "hello"}, "-5"},
      {{"run", model, "--ram", "64Q", "hello"}, "'64Q'"},
      {{"run", model, "--ram", "", "hello"}, "''"},
      {{"run", model, "--ram", "99999999999G", "hello"}, "no size"},
      {kRun, "no prompt"},
      {kRun + Args{""}, "prompt is empty"},
      {kRun + Args{"hello", "--frobnicate"}, "--frobnicate"},
      {kRun + Args{"hello", "again"}, "again"},
      {kRun + Args{"hello", "--prompt-file", "f"}, "--prompt-file"},
      {kRun + Args{"hello", "--greedy", "--temperature", "1"}, "--temperature"},
      {kRun + Args{"hello", "--greedy", "--top-k", "4"}, "--top-k"},
      {kRun + Args{"hello", "--greedy", "--top-p", "0.5"}, "--top-p"},
      {kRun + Args{"hello", "--greedy", "--min-p", "0.5"}, "--min-p"},
      {kRun + Args{"hello", "--temperature", "-1"}, "temperature"},
      {kRun + Args{"hello", "--temperature", "nan"}, "temperature"},
      {kRun + Args{"hello", "--temperature", "warm"}, "warm"},
      {kRun + Args{"hello", "--top-p", "2"}, "top_p"},
      {kRun + Args{"hello", "--max-tokens", "many"}, "many"},
      {kRun + Args{"hello", "--max-tokens", "-1"}, "-1"},
      {kRun + Args{"hello", "--threads", "65"}, "65"},
      {kRun + Args{"hello", "--chunk", "1000000"}, "1000000"},
      {kRun + Args{"hello", "--policy", "hope"}, "hope"},
      {kRun + Args{"hello", "--kv", "int2"}, "f16, int8, int8k4v, int4"},
      {kRun + Args{"hello", "--positions", "relative"}, "auto, absolute, rolling, clamped"},
      {kRun + Args{"hello", "--recent", "101"}, "at most 100"},
      {kRun + Args{"hello", "--budget", "fair"}, "list, pyramid, layer, global"},
      {kRun + Args{"hello", "--pool", "max"}, "such as max7"},
      {kRun + Args{"hello", "--pool", "mean8", "--policy", "l2"}, "odd"},
      {kRun + Args{"hello", "--value-norm", "--policy", "keydiff"}, "may be negative"},
      {kRun + Args{"hello", "--hand-over", "all"}, "none, compensation, merge"},
      {kRun + Args{"hello", "--pin-system"}, "--system TEXT"},
      {kRun + Args{"hello", "--raw", "--system", "Be brief."}, "--system"},
      {kRun + Args{"hello", "--system", ""}, "system prompt is empty"},
      {kRun + Args{"hello", "--json", "--max-tokens", "0"}, "--max-tokens"},
      {kRun + Args{"hello", "--stop", std::string(65, 'x')}, "64"},
      {{"chat", model}, "--ram"},
      {{"plan", model}, "--ram"},
      {{"plan", model, "--ram", "16MiB", "hello"}, "hello"},
      {{"inspect", model, "--tokenize", "a", "--tokenize-lines", "b"}, "--tokenize-lines"},
      {{"inspect", model, "--tokenize", "a", "--verify"}, "--verify"},
      {{"pack", "in.gguf"}, "--output"},
      {{"pack", "in.gguf", "-o", "out.lethe", "--type", "q3"}, "'q3'"},
      {{"eval"}, "subcommand"},
      {{"eval", "ppl", model}, "--text"},
      {{"eval", "file", model}, "--format"},
      {{"eval", "ppl", model, "--text", "f", "--context", "3"}, "--context"},
  };
  for (const Case& bad : cases) {
    std::string line;
    for (const std::string& word : bad.args) line += word + " ";
    CAPTURE(line);
    check_refused(run_cli(bad.args), 2, "invalid_argument", bad.part);
  }
}

TEST_CASE("sizes are read as they are written") {
  const auto cap = [](const char* size) {
    return run_json({"plan", tiny_model(), "--ram", size, "--json"})["cap_bytes"].get<uint64_t>();
  };
  CHECK(cap("16777217") == 16777217);
  CHECK(cap("16777217B") == 16777217);
  CHECK(cap("64MiB") == 64u << 20);
  CHECK(cap("48M") == 48u << 20);
  CHECK(cap("20000k") == 20000u << 10);
  CHECK(cap("48mb") == 48000000);
  CHECK(cap("1.5GiB") == 3u << 29);
  CHECK(cap("0.25G") == 1u << 28);
}

TEST_CASE("prompts that are no text") {
  const std::string file = temporary_path(".txt");
  const Args run_file = kRun + Args{"--prompt-file", file};
  check_refused(run_cli(run_file), 1, "io", file);
  check_refused(run_cli(kRun + Args{"--prompt-file", "/"}), 1, "io", "directory");
  write_file(file, "");
  check_refused(run_cli(run_file), 2, "invalid_argument", "empty");
  write_file(file, "hello \xff world");
  check_refused(run_cli(run_file), 1, "invalid_utf8", "byte 0xff at offset 6 of 13");
  write_file(file, "hello \xe2\x82");  // cut in the middle of a character
  check_refused(run_cli(run_file), 1, "invalid_utf8", "offset 6");
  write_file(file, std::string("a\0b", 3));
  check_refused(run_cli(run_file), 2, "invalid_argument", "NUL byte at offset 1");
  check_refused(run_cli(kRun + Args{"-"}), 2, "invalid_argument", "empty");
  check_refused(run_cli(kRun + Args{"-"}, "\x80"), 1, "invalid_utf8", "offset 0");
}

TEST_CASE("files that are no models or sessions") {
  const std::string file = temporary_path(".lethe");
  for (const char* command : {"run", "chat", "plan", "inspect"}) {
    CAPTURE(command);
    Args args = {command, file};
    if (std::string(command) != "inspect") args = args + Args{"--ram", "16MiB"};
    if (std::string(command) == "run") args.push_back("hello");
    std::remove(file.c_str());
    check_refused(run_cli(args), 1, "io", file);
    write_file(file, "");
    CHECK(run_cli(args).status == 1);
    write_file(file, std::string(4096, 'x'));
    check_refused(run_cli(args), 1, "not_a_model", "");
    const std::string model = read_file(tiny_model());
    write_file(file, model.substr(0, model.size() / 2));
    check_refused(run_cli(args), 1, "corrupt_model", "");
  }
  write_file(file, std::string(4096, 'x'));
  check_refused(run_cli(kRun + Args{"hello", "--restore", file}), 1, "corrupt_snapshot", "");
  check_refused(run_cli(kRun + Args{"hello", "--restore", file + "-none"}), 1, "io", file);
}

TEST_CASE("output that cannot be written is a failure") {
  Cli::Options full;
  full.out_path = "/dev/full";
  for (const Args& args :
       {Args{"plan", tiny_model(), "--ram", "16MiB"}, Args{"plan", tiny_model(), "--ram", "16MiB", "--json"},
        kRun + Args{"hello", "--max-tokens", "5"}, kRun + Args{"hello", "--max-tokens", "5", "--json"},
        Args{"inspect", tiny_model()}}) {
    const Finished finished = run_cli(args, full);
    CAPTURE(finished.err);
    CHECK(finished.status == 1);
    CHECK(finished.err.starts_with("lethe: error disk_full: "));
  }
}

}  // namespace
}  // namespace lethe::test
