// lethe eval sweep: complete, resumed, killed, refused.
#include <csignal>
#include <filesystem>
#include <sstream>

#include "runtime/cache/policy.h"
#include "tests/support/tiny_namm.h"
#include "tests/tools/out_folder.h"

namespace lethe::test {
namespace {

const std::string& book() {
  static const std::string path = [] {
    std::string text;
    for (int i = 0; i < 200; ++i) text += "On day " + std::to_string(i) + " it rained, and the river rose. ";
    const std::string file = temporary_path(".txt");
    write_file(file, text);
    return file;
  }();
  return path;
}

Args sweep_args(const Folder& folder, const std::string& seeds = "1,2") {
  return {"eval", "sweep",   long_model(), "--tasks",        "stream,passkey", "--policies", "keydiff", "--lengths",
          "768",  "--seeds", seeds,        "--kv-fractions", "1,0.5",          "--text",     book(),    "--trials",
          "2",    "--jobs",  "2",          "--out",          folder.path,      "--json"};
}

std::vector<Json> lines_of(const std::string& path) {
  std::vector<Json> lines;
  std::istringstream stream(read_file(path));
  for (std::string line; std::getline(stream, line);) lines.push_back(Json::parse(line));
  return lines;
}

// What must not depend on the run.
std::map<std::string, Json> results_of(const std::string& path) {
  std::map<std::string, Json> results;
  for (const Json& line : lines_of(path)) {
    Json key = line;
    for (const char* measured :
         {"metrics", "nll_by_eighth", "skip", "kv_bytes", "cache_tokens", "evictions", "eviction_seconds", "seconds"}) {
      key.erase(measured);
    }
    CHECK(results.emplace(key.dump(), line["metrics"]).second);
  }
  return results;
}

TEST_CASE("a sweep runs every cell once, and a second one none") {
  const Folder folder;
  const Json first = run_json(sweep_args(folder));
  // 2 tasks x 2 seeds x (full + 3 policies at 2 caps)
  CHECK(first["cells"] == 28);
  CHECK(first["run"] == 28);
  CHECK(first["failed"] == 0);
  const auto results = results_of(folder.file("results.jsonl"));
  CHECK(results.size() == 28);
  for (const Json& line : lines_of(folder.file("results.jsonl"))) {
    CAPTURE(line.dump());
    CHECK(line["kv_bytes"].get<double>() > 0);
    const bool is_full = line["policy"] == "full";
    if (line["task"] != "stream") {
      CHECK(line["metrics"].size() == 2);
    } else if (is_full) {
      CHECK(line["metrics"].size() == 1);
    } else if (line["kv_fraction"] == 1) {  // nothing is forgotten
      CHECK(line["metrics"]["kl_to_full"].get<double>() == doctest::Approx(0).epsilon(1e-9));
      CHECK(line["metrics"]["nll_over_full"].get<double>() == doctest::Approx(0).epsilon(1e-9));
    } else {
      CHECK(line["metrics"]["kl_to_full"].get<double>() > 0);
      CHECK(line["evictions"].get<int>() > 0);
    }
  }
  const Json rows = Json::parse(read_file(folder.file("results.json")))["rows"];
  CHECK(rows.size() == 14);
  CHECK(rows[0]["seeds"] == 2);
  CHECK(read_file(folder.file("table.md")).find("| keydiff |") != std::string::npos);
  CHECK(read_file(folder.file("plot.svg")).find("</svg>") != std::string::npos);

  const Json second = run_json(sweep_args(folder));
  CHECK(second["run"] == 0);
  CHECK(second["found"] == 28);
  // One job instead of two, from nothing: the same figures.
  const Folder other;
  Args alone = sweep_args(other);
  alone[std::find(alone.begin(), alone.end(), "--jobs") - alone.begin() + 1] = "1";
  run_json(alone);
  CHECK(results_of(other.file("results.jsonl")) == results);
  // A third seed: only its cells.
  CHECK(run_json(sweep_args(folder, "1,2,3"))["run"] == 14);
}

TEST_CASE("a stream cell can be run again by hand") {
  const Folder folder;
  run_json(sweep_args(folder, "1"));
  for (const Json& line : lines_of(folder.file("results.jsonl"))) {
    if (line["task"] != "stream" || line["policy"] != "keydiff" || line["kv_fraction"] != 0.5) continue;
    const Json json = run_json({"eval",
                                "stream",
                                long_model(),
                                "--text",
                                book(),
                                "--tokens",
                                "768",
                                "--score-from",
                                "384",
                                "--step",
                                std::to_string(line["step"].get<uint32_t>()),
                                "--skip",
                                std::to_string(line["skip"].get<uint64_t>()),
                                "--policy",
                                "keydiff",
                                "--policy-seed",
                                "1",
                                "--kv-fraction",
                                "0.5",
                                "--json"});
    CHECK(json["nll"] == line["metrics"]["nll"]);
    CHECK(json["kl_to_full"] == line["metrics"]["kl_to_full"]);
    return;
  }
  FAIL("no such cell");
}

TEST_CASE("a killed sweep leaves whole lines, and the next one finishes it") {
  const Folder folder;
  size_t kept = 0;
  for (const size_t wanted : {1u, 3u, 6u}) {
    Cli cli(sweep_args(folder));
    for (int i = 0; i < 20000 && !cli.poll(); ++i) {
      if (std::filesystem::exists(folder.file("results.jsonl"))) {
        const std::string text = read_file(folder.file("results.jsonl"));
        if (static_cast<size_t>(std::count(text.begin(), text.end(), '\n')) >= kept + wanted) break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    REQUIRE_FALSE(cli.poll());
    kill(cli.pid(), SIGKILL);
    CHECK(cli.finish().status == -SIGKILL);
    const std::string text = read_file(folder.file("results.jsonl"));
    CHECK(text.ends_with('\n'));
    const size_t now = lines_of(folder.file("results.jsonl")).size();  // all of them parse
    CHECK(now >= kept + wanted);
    kept = now;
  }
  const Json last = run_json(sweep_args(folder));
  CHECK(last["found"] == kept);
  CHECK(last["run"] == 28 - kept);
  CHECK(results_of(folder.file("results.jsonl")).size() == 28);
}

TEST_CASE("a cell that fails is said so, does not stop the others, and is tried again") {
  const Folder folder;
  Args args = sweep_args(folder, "1");
  args[std::find(args.begin(), args.end(), "1,0.5") - args.begin()] = "0.5,0.001";
  const Finished finished = run_cli(args);
  CHECK(finished.status == 1);
  CHECK(finished.err.find("6 cells failed") != std::string::npos);
  CHECK(finished.err.find("too few for a step") != std::string::npos);
  const Json json = Json::parse(finished.out);
  CHECK(json["run"] == 14);
  CHECK(json["failed"] == 6);
  const Finished again = run_cli(args);
  CHECK(Json::parse(again.out)["run"] == 6);
  CHECK(Json::parse(again.out)["found"] == 8);
}

TEST_CASE("all policies of the library, each once; steps shrink under a small cap") {
  const Folder folder;
  Args args = sweep_args(folder, "1");
  args[std::find(args.begin(), args.end(), "keydiff") - args.begin()] = "all";
  args[std::find(args.begin(), args.end(), "1,0.5") - args.begin()] = "0.11";  // 84 tokens: no step and a block
  args[std::find(args.begin(), args.end(), "stream,passkey") - args.begin()] = "stream";
  const Json json = run_json(args);
  CHECK(json["cells"] == policies().size() - 1);  // without namm, which has no parameters
  CHECK(json["failed"] == 0);
}

TEST_CASE("a sweep with a NAMM file has its policy too, and other parameters are other cells") {
  const Folder folder;
  Args args = sweep_args(folder, "1");
  args[std::find(args.begin(), args.end(), "keydiff") - args.begin()] = "all";
  args[std::find(args.begin(), args.end(), "1,0.5") - args.begin()] = "0.6";
  args[std::find(args.begin(), args.end(), "stream,passkey") - args.begin()] = "stream";
  for (const uint32_t interval : {48u, 96u}) {
    const std::vector<uint8_t> namm = make_namm(interval);
    const std::string file = temporary_path(".namm");
    write_file(file, std::string(namm.begin(), namm.end()));
    const Json json = run_json(args + Args{"--namm", file});
    CHECK(json["cells"] == policies().size());
    CHECK(json["failed"] == 0);
    CHECK(json["run"] == (interval == 48 ? policies().size() : 1));
  }
}

TEST_CASE("what a sweep cannot do is an argument error") {
  const Folder folder;
  const auto refused = [&](const Args& more, const char* part) {
    CAPTURE(part);
    check_refused(run_cli(Args{"eval", "sweep", long_model(), "--out", folder.path} + more), 2, "invalid_argument",
                  part);
    CHECK_FALSE(std::filesystem::exists(folder.path));
  };
  refused({"--tasks", "passkey,chess"}, "'chess'; there are stream, passkey");
  refused({"--tasks", "stream"}, "--text");
  refused({"--tasks", "niah-single-2"}, "--text");
  refused({"--tasks", "passkey", "--policies", "hope"}, "'hope'; there are all, ");
  refused({"--tasks", "passkey", "--kv-fractions", "0.5,2"}, "--kv-fractions has 2");
  refused({"--tasks", "passkey", "--lengths", "8"}, "--lengths has 8");
  refused({"--tasks", "passkey", "--trials", "0"}, "--trials");
  refused({"--tasks", "passkey", "--seeds", "one"}, "one");
  check_refused(run_cli({"eval", "sweep", long_model(), "--tasks", "passkey"}), 2, "invalid_argument", "--out");
  // A file that is not a sweep's is left alone.
  std::filesystem::create_directories(folder.path);
  write_file(folder.file("results.jsonl"), "notes\n");
  check_refused(run_cli(sweep_args(folder)), 2, "invalid_argument", "line 1 is no result");
  CHECK(read_file(folder.file("results.jsonl")) == "notes\n");
}

}  // namespace
}  // namespace lethe::test
