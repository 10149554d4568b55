// lethe eval TASK and lethe eval file, with a tiny model whose tokens are mostly bytes.
#include <cmath>
#include <set>

#include "lethe/lethe.hpp"
#include "runtime/cache/policy.h"
#include "tests/tools/cli.h"
#include "tools/eval/task.h"

namespace lethe::test {
namespace {

const std::string& long_model() {
  static const std::string path = [] {
    TinyOptions options;
    options.context_length = 8192;
    return tiny_model_path(options);
  }();
  return path;
}

const std::string& book() {
  static const std::string path = [] {
    std::string text;
    for (int i = 0; i < 300; ++i) text += "On day " + std::to_string(i) + " it rained, and the river rose. ";
    const std::string file = temporary_path(".txt");
    write_file(file, text);
    return file;
  }();
  return path;
}

Args task_args(const std::string& task, const Args& more) {
  Args args = {"eval", task, long_model(), "--json"};
  if (eval::find_task(task)->filler == eval::FillerUse::kRequired) args = args + Args{"--filler", book()};
  return args + more;
}

TEST_CASE("every task reaches its length, stays under its cap and repeats itself") {
  for (const eval::Task* task : eval::tasks()) {
    const std::string name = task->name;
    CAPTURE(name);
    const Args args = task_args(name, {"--length", "2500", "--trials", "2", "--seed", "3", "--policy", "window",
                                       "--kv-fraction", "0.25", "--question-hidden"});
    Json json = run_json(args);
    CHECK(json["task"] == name);
    CHECK(json["trials"] == 2);
    CHECK(json["seed"] == 3);
    CHECK(json["question_hidden"] == true);
    CHECK(json["kv_share_of_full"].get<double>() <= 0.25);
    CHECK(json["kv_share_of_full"].get<double>() > 0.2);
    CHECK(json["evictions"].get<int>() > 0);
    CHECK(json["accuracy"].get<double>() <= 1);
    CHECK(json["answer_nll"].get<double>() > 0);
    CHECK(std::isfinite(json["answer_nll"].get<double>()));
    REQUIRE(json["results"].size() == 2);
    double mean = 0;
    for (const Json& trial : json["results"]) {
      CHECK(trial["tokens"] <= 2500);
      CHECK(trial["tokens"] > 2500 - 150);  // no haystack grows by more bytes at once
      CHECK(trial.contains("depth") == task->has_depth);
      mean += trial["score"].get<double>() / 2;
    }
    CHECK(json["accuracy"].get<double>() == doctest::Approx(mean));
    if (task->has_depth) CHECK(json["results"][1]["depth"] == 0.75);
    Json again = run_json(args);
    json.erase("seconds");
    again.erase("seconds");
    CHECK(json == again);
  }
}

TEST_CASE("other seeds, other prompts; other depths, other trials of the same seed") {
  const auto replies = [](const char* seed, const char* trials) {
    return run_json(task_args("passkey", {"--length", "1200", "--trials", trials, "--seed", seed, "--policy", "full",
                                          "--kv-fraction", "1"}))["results"];
  };
  const Json one = replies("1", "2");
  CHECK(one[0]["answers"] != one[1]["answers"]);
  CHECK(one[0]["answers"] != replies("2", "2")[0]["answers"]);
  CHECK(one[1]["answers"] == replies("1", "3")[1]["answers"]);
}

// The tokens of a turn of the chat template; at most `capacity`.
std::vector<int32_t> turn(api::Session& session, const std::string& text) {
  const lethe_message message{"user", text.c_str()};
  std::vector<int32_t> ids(8192);
  size_t count = 0;
  REQUIRE(session.tokenize_turn(&message, 1, ids.data(), ids.size(), &count).ok());
  ids.resize(count);
  return ids;
}

std::vector<int32_t> plain(api::Session& session, const std::string& text) {
  std::vector<int32_t> ids(8192);
  size_t count = 0;
  REQUIRE(session.tokenize(text, 0, ids.data(), ids.size(), &count).ok());
  ids.resize(count);
  return ids;
}

// The prompt put together here, through the library's own calls.
TEST_CASE("answer_nll is the library's likelihood of the answer after the prompt") {
  auto model = api::Model::open(long_model().c_str());
  REQUIRE(model.ok());
  lethe_session_params params = api::session_params(256 << 20);
  params.policy = "full";
  params.prefill_chunk = 64;
  auto opened = api::Session::create(model.value(), params);
  REQUIRE(opened.ok());
  api::Session& session = opened.value();
  for (const bool hidden : {true, false}) {
    CAPTURE(hidden);
    const auto text_of = [&](const eval::Sample& sample) {
      return hidden ? sample.context + sample.question
                    : "What is the pass key? Answer with the number.\n\n" + sample.context + sample.question;
    };
    const eval::Task& task = *eval::find_task("passkey");
    const auto sample = eval::fit(
        task, {eval::trial_seed(9, 0), 0.5, 1500, 0, nullptr},
        [&](const eval::Sample& tried) {
          return turn(session, text_of(tried)).size() + plain(session, "The pass key is").size();
        },
        nullptr);
    REQUIRE(sample.has_value());
    std::vector<int32_t> ids = turn(session, text_of(*sample));
    for (const int32_t id : plain(session, "The pass key is")) ids.push_back(id);
    const size_t first = ids.size();
    for (const int32_t id : plain(session, sample->gold)) ids.push_back(id);
    std::vector<float> log_probs(ids.size() - first);
    REQUIRE(session.reset().ok());
    REQUIRE(session.score(ids.data(), ids.size(), first, log_probs.data()).ok());
    double nll = 0;
    for (const float log_prob : log_probs) nll -= static_cast<double>(log_prob) / static_cast<double>(log_probs.size());

    Args args = task_args("passkey",
                          {"--length", "1500", "--trials", "1", "--seed", "9", "--policy", "full", "--ram", "256MiB"});
    if (hidden) args.push_back("--question-hidden");
    const Json json = run_json(args);
    CHECK(json["results"][0]["tokens"] == first);
    CHECK(json["results"][0]["answers"][0] == sample->answers[0]);
    CHECK(json["answer_nll"].get<double>() == doctest::Approx(nll).epsilon(1e-4));
  }
}

TEST_CASE("a filler is what the needle is hidden in") {
  const Args args = {"--length", "1500", "--trials", "1", "--policy", "full", "--kv-fraction", "1"};
  const Json own = run_json(task_args("passkey", args));
  const Json text = run_json(task_args("passkey", args + Args{"--filler", book()}));
  CHECK(own["results"][0]["answers"] == text["results"][0]["answers"]);
  CHECK(own["answer_nll"] != text["answer_nll"]);
  CHECK(text["filler"] == book());
}

TEST_CASE("what a task cannot do is an argument error") {
  const std::string& model = long_model();
  const auto refused = [&](const Args& args, const char* part) {
    CAPTURE(part);
    check_refused(run_cli(args), 2, "invalid_argument", part);
  };
  const Args passkey = {"eval", "passkey", model};
  refused(passkey, "either --kv-fraction or --ram");
  refused(passkey + Args{"--kv-fraction", "0.5", "--ram", "64MiB"}, "either");
  refused(passkey + Args{"--kv-fraction", "0"}, "above 0");
  refused(passkey + Args{"--kv-fraction", "0.5", "--length", "100"}, "the shortest prompt of passkey has");
  refused(passkey + Args{"--kv-fraction", "0.5", "--trials", "0"}, "--trials");
  refused(passkey + Args{"--kv-fraction", "0.5", "--policy", "hope"}, "hope");
  refused(passkey + Args{"--kv-fraction", "0.5", "--seed", "-1"}, "-1");
  refused({"eval", "niah-single-2", model, "--kv-fraction", "0.5"}, "--filler");
  refused({"eval", "kvretrieval", model, "--kv-fraction", "0.5", "--filler", book()}, "--filler");
  refused({"eval", "fly", model}, "no subcommand fly");
  const std::string blank = temporary_path(".txt");
  write_file(blank, " \n ");
  refused(passkey + Args{"--kv-fraction", "0.5", "--filler", blank}, "white space");
  check_refused(run_cli(passkey + Args{"--kv-fraction", "0.5", "--filler", blank + "-none"}), 1, "io", blank);
}

TEST_CASE("help of every task has an example") {
  for (const eval::Task* task : eval::tasks()) {
    const Finished help = run_cli({"eval", task->name, "--help"});
    CHECK(help.status == 0);
    CHECK(help.out.find("lethe eval " + std::string(task->name) + " model.lethe") != std::string::npos);
  }
  const std::string all = run_cli({"eval", "--help"}).out;
  for (const char* command : {"ppl", "stream", "file", "sweep", "niah-multiquery"}) {
    CHECK(all.find(command) != std::string::npos);
  }
}

TEST_CASE("a benchmark's file is run sample by sample") {
  const std::string data = temporary_path(".jsonl");
  std::string context;
  for (int i = 0; i < 40; ++i) context += "The cat sat on the mat. ";
  std::string lines;
  for (int i = 0; i < 3; ++i) {
    lines += Json{{"input", "Who sat?"}, {"context", context}, {"answers", {"the cat", "cat"}}}.dump() + "\n";
  }
  write_file(data, lines);
  const Args args = {"eval",   "file", long_model(), "--format", "longbench", "--task",        "hotpotqa",
                     "--data", data,   "--json",     "--policy", "window",    "--kv-fraction", "0.5"};
  const Json json = run_json(args);
  CHECK(json["samples"] == 3);
  CHECK(json["cut_samples"] == 0);
  CHECK(json["results"].size() == 3);
  CHECK(json["results"][0] == json["results"][2]);  // a session of its own each
  CHECK(json["kv_share_of_full"].get<double>() <= 0.5);
  CHECK(json["evictions"].get<int>() > 0);
  CHECK(json["score"].get<double>() <= 100);
  const Json cut = run_json(args + Args{"--max-length", "700", "--samples", "2"});
  CHECK(cut["samples"] == 2);
  CHECK(cut["cut_samples"] == 2);
  CHECK(cut["mean_length"].get<double>() < json["mean_length"].get<double>() - 50);
  CHECK(cut["mean_length"].get<double>() < 700 + 64);  // and what the template adds

  const auto file = [&](const char* format, const char* task, const std::string& path) {
    return run_cli(
        {"eval", "file", long_model(), "--format", format, "--task", task, "--data", path, "--kv-fraction", "1"});
  };
  check_refused(file("longbench", "chess", data), 2, "invalid_argument", "hotpotqa");
  check_refused(file("shortbench", "chess", data), 2, "invalid_argument", "longbench, infinitebench, choubun, scrolls");
  check_refused(file("scrolls", "qasper", data), 2, "invalid_argument", "line 1 ");
  check_refused(file("longbench", "hotpotqa", data + "-none"), 1, "io", data);
  check_refused(run_cli(args + Args{"--max-length", "20"}), 2, "invalid_argument", "a question alone has");
  write_file(data, "");
  check_refused(file("longbench", "hotpotqa", data), 2, "invalid_argument", "no sample");
}

}  // namespace
}  // namespace lethe::test
