// lethe profile: from a conversation to a report, and traces that are none.
#include "tests/tools/cli.h"
#include "tools/cli/process_share.h"

namespace lethe::test {
namespace {

std::string text_file() {
  const std::string path = temporary_path(".txt");
  std::string text;
  for (int i = 0; i < 400; ++i) text += "hello the world and you, number " + std::to_string(i) + ". ";
  write_file(path, text);
  return path;
}

TEST_CASE("profile memory: 20,000 tokens under a cap make a page under 2 MiB with the ledger's numbers") {
  const std::string out = temporary_path(".html"), trace = temporary_path(".trace");
  const Json json =
      run_json({"profile", "memory", tiny_model(), "--ram", "8MiB", "--text", text_file(), "--tokens", "20000",
                "--policy", "keydiff", "--interval", "0", "--out", out, "--trace", trace, "--json"});
  CHECK(json["out"] == out);
  CHECK(json["trace"] == trace);
  CHECK(json["tokens"].get<uint64_t>() >= 20'000);
  CHECK(json["evictions"].get<uint64_t>() > 0);
  if (cli::kOwnsPrivateMemory) CHECK(json["memory"]["private_peak_bytes"].get<uint64_t>() <= 8u << 20);
  const std::string page = read_file(out);
  CHECK(page.size() < 2u << 20);
  CHECK(page.find("http:") == std::string::npos);
  CHECK(page.find("https:") == std::string::npos);

  const Json report = run_json({"profile", "report", trace, "--out", out, "--json"});
  CHECK(read_file(out) == page);  // but for its name, the same trace is the same page
  CHECK(report["traces"][0]["ledger"] == json["memory"]["ledger"]);
  CHECK(report["traces"][0]["private_peak_bytes"] == json["memory"]["private_peak_bytes"]);
  CHECK(report["traces"][0]["ended"] == true);

  const std::string perfetto = temporary_path(".json"), csv = temporary_path(".csv");
  CHECK(run_cli({"profile", "report", trace, "-o", perfetto}).status == 0);
  CHECK(Json::parse(read_file(perfetto))["traceEvents"].size() > report["traces"][0]["samples"].get<size_t>());
  CHECK(run_cli({"profile", "report", trace, "-o", csv}).status == 0);
  CHECK(read_file(csv).starts_with("ms,position,cap_bytes,host_bytes,"));
  CHECK(run_cli({"profile", "report", trace, trace, "-o", out}).status == 0);
  check_refused(run_cli({"profile", "report", trace, trace, "-o", csv}), 2, "invalid_argument", "html");
  check_refused(run_cli({"profile", "report", trace, "-o", "report.pdf"}), 2, "invalid_argument", ".csv");
}

TEST_CASE("profile report: what is no trace is refused with the file's name") {
  const std::string file = text_file(), out = temporary_path(".html");
  check_refused(run_cli({"profile", "report", file, "-o", out}), 2, "invalid_argument", file + ": no trace");
  check_refused(run_cli({"profile", "report", "/nowhere.trace", "-o", out}), 1, "io", "/nowhere.trace");
  CHECK(read_file(out) == "");
}

TEST_CASE("run and chat write a trace, and a full disk is told") {
  const std::string trace = temporary_path(".trace"), out = temporary_path(".csv");
  const Args run = {"run", tiny_model(), "--ram", "8MiB", "hello", "--max-tokens", "20", "--ignore-eos", "--trace"};
  CHECK(run_cli(run + Args{trace}).status == 0);
  CHECK(run_json({"profile", "report", trace, "-o", out, "--json"})["traces"][0]["position"].get<int>() > 20);
  CHECK(
      run_cli({"chat", tiny_model(), "--ram", "8MiB", "--max-tokens", "5", "--trace", trace}, "hello\nyou\n").status ==
      0);
  CHECK(run_json({"profile", "report", trace, "-o", out, "--json"})["traces"][0]["ended"] == true);
  check_refused(run_cli(run + Args{"/dev/full"}), 1, "disk_full", "/dev/full");
}

}  // namespace
}  // namespace lethe::test
