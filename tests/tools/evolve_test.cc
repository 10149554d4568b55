// lethe evolve: a run, resumed, killed, refused.
#include <csignal>
#include <filesystem>
#include <sstream>

#include "runtime/cache/namm/file.h"
#include "tests/tools/out_folder.h"
#include "tools/eval/task.h"

namespace lethe::test {
namespace {

const std::string& book() {
  static const std::string path = [] {
    std::string text;
    for (int i = 0; i < 400; ++i) text += "On day " + std::to_string(i * i) + " it rained, and the river rose. ";
    const std::string file = temporary_path(".txt");
    write_file(file, text);
    return file;
  }();
  return path;
}

Args evolve_args(const Folder& folder, uint32_t generations) {
  return {"evolve",
          long_model(),
          "--out",
          folder.path,
          "--text",
          book(),
          "--lengths",
          "320",
          "--inputs",
          "age,key-norm",
          "--population",
          "4",
          "--prompts",
          "2",
          "--kv-fraction",
          "0.5",
          "--interval",
          "64",
          "--held-out",
          "2",
          "--check-every",
          "2",
          "--jobs",
          "2",
          "--json",
          "--generations",
          std::to_string(generations)};
}

Args with(Args args, const std::string& option, const std::string& value) {
  const auto at = std::find(args.begin(), args.end(), option);
  if (at == args.end()) return args + Args{option, value};
  *(at + 1) = value;
  return args;
}

// The lines of a log without what depends on the clock.
std::vector<Json> log_of(const Folder& folder) {
  std::vector<Json> lines;
  std::istringstream stream(read_file(folder.file("log.jsonl")));
  for (std::string text; std::getline(stream, text);) {
    lines.push_back(Json::parse(text));
    lines.back().erase("seconds");
    lines.back().erase("evaluations_per_hour");
  }
  return lines;
}

TEST_CASE("a run writes its log, its state, a plot and a NAMM file that works") {
  const Folder folder;
  const Json json = run_json(evolve_args(folder, 3));
  CHECK(json["generations"] == 3);
  CHECK(json["run"] == 3);
  const std::vector<Json> log = log_of(folder);
  REQUIRE(log.size() == 3);
  for (uint32_t i = 0; i < 3; ++i) {
    CAPTURE(log[i].dump());
    CHECK(log[i]["generation"] == i);
    CHECK(log[i]["best"].get<double>() >= log[i]["population_mean"].get<double>());
    CHECK(log[i]["population_mean"].get<double>() >= log[i]["worst"].get<double>());
    CHECK(log[i]["best"] != log[i]["worst"]);  // half of the cache is gone, and what of it is the candidate's choice
    CHECK(log[i]["evaluations"] == 8);
    CHECK(log[i].contains("held_out") == (i != 1));
  }
  CHECK(read_file(folder.file("curve.svg")).find("</svg>") != std::string::npos);
  const Json state = Json::parse(read_file(folder.file("state.json")));
  const std::string bytes = read_file(folder.file("namm"));
  const Result<namm::Parameters> read =
      namm::read_file(std::span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()));
  REQUIRE(read.ok());
  const namm::Parameters& parameters = read.value();
  CHECK(parameters.interval == 64);
  CHECK(parameters.shape.list()[1] == namm::Input::kKeyNorm);
  CHECK(parameters.weights.size() == json["weights"]);
  CHECK(parameters.means[0] == state["moment_means"][0].get<float>());
  CHECK(parameters.variances[0] == state["moment_variances"][0].get<float>());
  CHECK(parameters.weights[7] == state["mean"][7].get<float>());
  const Json stream =
      run_json({"eval", "stream", long_model(), "--text", book(), "--tokens", "320", "--score-from", "160", "--policy",
                "namm", "--namm", folder.file("namm"), "--kv-fraction", "0.5", "--json"});
  CHECK(stream["evictions"].get<int>() > 0);
}

TEST_CASE("the first mean is zeros, but for the bias of the score") {
  const Folder folder;
  run_json(with(with(evolve_args(folder, 1), "--bias", "1.5"), "--sigma", "1e-12"));
  const Json mean = Json::parse(read_file(folder.file("state.json")))["mean"];
  for (size_t i = 0; i < mean.size(); ++i) {
    CHECK(std::abs(mean[i].get<double>() - (i + 1 == mean.size() ? 1.5 : 0.0)) < 1e-10);
  }
}

TEST_CASE("without a cap, the zeros that a run begins with are worth as much as the full cache") {
  for (const auto& [signal, worth] : {std::pair("nll", 0.0), std::pair("likelihood", 1.0), std::pair("score", 1.0)}) {
    CAPTURE(signal);
    const Folder folder;
    run_json(with(with(evolve_args(folder, 1), "--kv-fraction", "1"), "--signal", signal));
    CHECK(log_of(folder)[0]["held_out"].get<double>() == doctest::Approx(worth).epsilon(1e-6));
  }
}

TEST_CASE("the full cache's NLL of a stream that is held out is what lethe eval stream says") {
  const Folder folder;
  run_json(with(evolve_args(folder, 1), "--tasks", "stream"));
  const std::string text = read_file(book());
  const std::string tail = text.substr(text.find(' ', text.size() * 9 / 10)) + "\n", file = temporary_path(".txt");
  write_file(file, tail);
  const bool bos = run_json({"inspect", long_model(), "--json"})["tokenizer"]["add_bos"];
  const size_t tokens = run_json({"inspect", long_model(), "--tokenize", tail, "--json"})["ids"].size() + bos;
  std::istringstream lines(read_file(folder.file("full.jsonl")));
  size_t held_out = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json full = Json::parse(line);
    if (full["text"].get<std::string>().find("held out") == std::string::npos) continue;
    const uint64_t skip = eval::trial_seed(full["seed"], 0) % (tokens - 320 + 1);
    const Json stream =
        run_json({"eval", "stream", long_model(), "--text", file, "--tokens", "320", "--score-from", "160", "--skip",
                  std::to_string(skip), "--policy", "full", "--kv-fraction", "1", "--no-compare", "--json"});
    CHECK(full["metrics"]["nll"].get<double>() == doctest::Approx(stream["nll"].get<double>()).epsilon(1e-5));
    ++held_out;
  }
  CHECK(held_out == 2);
}

TEST_CASE("all inputs, either network, either covariance") {
  const Folder folder;
  Args args = with(evolve_args(folder, 1), "--lengths", "768");
  args = with(with(args, "--inputs", "age,spectrum,attention-sum,diversity,key-cosine,value-norm"), "--network", "mlp");
  const Json json = run_json(with(args, "--covariance", "identity"));
  CHECK(json["weights"] == (8 + 17 + 4) * 154 + 154 + 154 + 1);
  CHECK(std::isfinite(json["held_out"].get<double>()));
}

TEST_CASE("a run begins as the NAMM that it starts from scores, in any network that has its inputs") {
  const Folder sum, same, bam, mlp;
  const Args args = with(with(evolve_args(sum, 2), "--network", "linear"), "--inputs", "key-norm,key-cosine");
  const Json first = run_json(args);
  CHECK(first["weights"] == 3);
  const auto begin = [&](const Folder& folder, const std::string& network, const std::string& inputs) {
    Args next = with(with(evolve_args(folder, 1), "--network", network), "--inputs", inputs);
    run_json(with(next, "--start", sum.file("namm")));
    return log_of(folder)[0]["held_out"].get<double>();
  };
  const double worth = first["held_out"];
  CHECK(worth != 0);
  CHECK(begin(same, "linear", "key-norm,key-cosine") == worth);
  CHECK(begin(bam, "bam", "age,key-cosine,key-norm") == doctest::Approx(worth).epsilon(1e-3));
  CHECK(begin(mlp, "mlp", "key-cosine,recency,key-norm") == doctest::Approx(worth).epsilon(1e-3));
  const Folder refused;
  const auto refuse = [&](const Folder& from, const std::string& inputs, const std::string& part) {
    const Args next = with(with(evolve_args(refused, 1), "--network", "linear"), "--inputs", inputs);
    check_refused(run_cli(with(next, "--start", from.file("namm"))), 2, "invalid_argument", part);
  };
  refuse(sum, "key-cosine", "has the input key-norm, the run has not");
  refuse(bam, "age,key-cosine,key-norm", "begins with a linear NAMM, not with bam");
}

TEST_CASE("a run that is resumed, or killed, ends as one that was not; so it does with another number of jobs") {
  const Folder whole, resumed, killed;
  run_json(with(evolve_args(whole, 3), "--jobs", "1"));
  const std::string end = read_file(whole.file("state.json"));
  run_json(evolve_args(resumed, 1));
  CHECK(read_file(resumed.file("state.json")) != end);
  CHECK(run_json(evolve_args(resumed, 3))["run"] == 2);
  CHECK(read_file(resumed.file("state.json")) == end);
  CHECK(read_file(resumed.file("namm")) == read_file(whole.file("namm")));
  CHECK(log_of(resumed) == log_of(whole));
  CHECK(run_json(evolve_args(resumed, 3))["run"] == 0);
  CHECK(read_file(resumed.file("state.json")) == end);

  Cli cli(evolve_args(killed, 3));
  while (!std::filesystem::exists(killed.file("log.jsonl")) && !cli.poll()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  REQUIRE_FALSE(cli.poll());
  kill(cli.pid(), SIGKILL);
  CHECK(cli.finish().status == -SIGKILL);
  run_json(evolve_args(killed, 3));
  CHECK(read_file(killed.file("state.json")) == end);
  CHECK(log_of(killed) == log_of(whole));
}

TEST_CASE("a further stage has other tasks; what the strategy is about cannot change") {
  const Folder folder;
  run_json(with(evolve_args(folder, 1), "--tasks", "stream"));
  const Json before = Json::parse(read_file(folder.file("state.json")));
  CHECK(run_json(evolve_args(folder, 2))["run"] == 1);
  CHECK(log_of(folder)[0]["tasks"].size() == 1);
  CHECK(log_of(folder)[1]["tasks"].size() == 2);
  CHECK(Json::parse(read_file(folder.file("state.json")))["moment_means"] == before["moment_means"]);
  const auto refused = [&](const std::string& option, const std::string& value, const std::string& part) {
    check_refused(run_cli(with(evolve_args(folder, 3), option, value)), 2, "invalid_argument", part);
  };
  refused("--inputs", "age", "a run with inputs [\"age\",\"key-norm\"], now it is [\"age\"]");
  refused("--interval", "128", "a run with interval 64");
  refused("--population", "8", "a run with population 4");
  refused("--seed", "2", "a run with seed 1");
  refused("--bias", "1", "a run with bias 0.0");
  write_file(folder.file("state.json"), "{\"identity\"");
  check_refused(run_cli(evolve_args(folder, 3)), 1, "corrupt_snapshot", "is no state of a run");
}

TEST_CASE("what a run cannot do is an argument error") {
  const Folder folder;
  const auto refused = [&](const Args& more, const char* part) {
    CAPTURE(part);
    check_refused(run_cli(Args{"evolve", long_model(), "--out", folder.path} + more), 2, "invalid_argument", part);
    CHECK_FALSE(std::filesystem::exists(folder.file("state.json")));
  };
  refused({"--tasks", "passkey,chess"}, "'chess'; there are stream, passkey");
  refused({"--tasks", "stream"}, "--text");
  refused({"--tasks", "passkey", "--inputs", "age,smell"}, "'smell'; there are age, spectrum");
  refused({"--tasks", "passkey", "--inputs", "age,age"}, "named twice");
  refused({"--tasks", "passkey", "--interval", "100"}, "--interval is 100: a multiple of 16");
  refused({"--tasks", "passkey", "--kv-fraction", "0"}, "--kv-fraction is 0");
  refused({"--tasks", "passkey", "--sigma", "0"}, "--sigma is 0");
  refused({"--tasks", "passkey", "--lengths", "8"}, "--lengths has 8");
  refused({"--tasks", "passkey", "--network", "rnn"}, "--network");
  refused({"--tasks", "passkey", "--start", "nothing", "--bias", "1"}, "--bias");
  refused({"--tasks", "passkey", "--population", "3"}, "--population");
  refused({"--tasks", "passkey", "--lengths", "320", "--kv-fraction", "0.01", "--held-out", "0"}, "too few for a step");
  refused({"--tasks", "stream", "--text", book(), "--lengths", "4000"}, "one token in ten is held out");
}

}  // namespace
}  // namespace lethe::test
