// Files in the formats of the benchmarks.
#include "tools/eval/file_task.h"

#include <doctest/doctest.h>

#include <set>

namespace lethe::eval {
namespace {

FileSample only(const char* format, const char* name, const std::string& jsonl) {
  const FileTask* task = find_file_task(format, name);
  REQUIRE(task != nullptr);
  auto samples = load_samples(*task, jsonl);
  CAPTURE(samples.status().message());
  REQUIRE(samples.ok());
  REQUIRE(samples.value().size() == 1);
  return samples.value()[0];
}

TEST_CASE("every task is known once, with a prompt that its format can fill") {
  std::set<std::string> names;
  size_t per_format[4] = {};
  for (const FileTask& task : file_tasks()) {
    CAPTURE(task.name);
    CHECK(names.insert(std::string(task.format) + "/" + task.name).second);
    CHECK(find_file_task(task.format, task.name) == &task);
    CHECK(task.reply_tokens > 0);
    const std::string_view format = task.format;
    per_format[format == "longbench" ? 0 : format == "infinitebench" ? 1 : format == "choubun" ? 2 : 3]++;
    const std::string line =
        R"({"context":"CONTEXT","input":"The largest number of it is func_7(-3).","answers":["w"],"answer":["w"],)"
        R"("output":"w","options":["v","w","x","y"]})";
    const FileSample sample = only(task.format, task.name, line);
    CHECK(sample.context.find(format == "scrolls" ? "The largest" : "CONTEXT") != std::string::npos);
    CHECK(sample.answers[0] == "w");
    CHECK((sample.context + sample.question).find('{') == std::string::npos);
    const bool has_rouges = format == "scrolls" && task.reply_tokens == 512;
    CHECK(task.score(sample, "").size() == (has_rouges ? 3 : 1));
  }
  CHECK(per_format[0] == 21);
  CHECK(per_format[1] == 12);
  CHECK(per_format[2] == 4);
  CHECK(per_format[3] == 7);
  CHECK(find_file_task("longbench", "gov_report") != find_file_task("scrolls", "gov_report"));
  CHECK(find_file_task("longbench", "passkey") == nullptr);
}

TEST_CASE("LongBench: the prompt is cut behind the context; the best reference counts") {
  const std::string line =
      R"({"input":"Who?","context":"It was Ada.","answers":["Grace Hopper","Ada"],"all_classes":null,"length":3})";
  const FileSample sample = only("longbench", "hotpotqa", line + "\n\n");
  CHECK(sample.context.ends_with("passages.\nIt was Ada."));
  CHECK(sample.question.starts_with("\n\nAnswer the question based on"));
  CHECK(sample.question.ends_with("Question: Who?\nAnswer:"));
  CHECK(find_file_task("longbench", "hotpotqa")->score(sample, "the Ada!")[0] == 1);

  const FileSample classed =
      only("longbench", "trec", R"({"input":"q","context":"c","answers":["City"],"all_classes":["City","Food"]})");
  CHECK(find_file_task("longbench", "trec")->score(classed, "City")[0] == 1);
  CHECK(find_file_task("longbench", "trec")->score(classed, "City or Food")[0] == 0.5);
}

TEST_CASE("InfiniteBench: options, calls and numbers find their places") {
  const FileSample choice =
      only("infinitebench", "longbook_choice_eng",
           R"({"id":1,"context":"BOOK","input":"Who?","answer":["Mary"],"options":["Bob","Mary","Sue","Tom"]})");
  CHECK(choice.answers == std::vector<std::string>{"Mary", "B"});
  CHECK(choice.question.find("\nA. Bob\nB. Mary\nC. Sue\nD. Tom\n") != std::string::npos);
  const FileSample run =
      only("infinitebench", "code_run",
           R"({"context":"CODE","input":"value of func_1 and func_12(-5).","answer":[8],"options":[]})");
  CHECK(run.context.starts_with("There is a function called func_12 in"));
  CHECK(run.question.ends_with("The value of func_12(-5) is"));
  CHECK(run.answers == std::vector<std::string>{"8"});
  const FileSample find =
      only("infinitebench", "math_find",
           R"({"context":"[1, 2]","input":"Only one number. The largest number of the list is:","answer":2})");
  CHECK(find.context == "What is the largest number in the following list?\n\n[1, 2]");
}

TEST_CASE("SCROLLS: lines of one id are references of one sample") {
  const FileTask& task = *find_file_task("scrolls", "qasper");
  const auto samples = load_samples(task, R"({"id":"a","input":"I","output":"x"}
{"id":"b","input":"J","output":"z"}
{"id":"a","input":"I","output":"y"})");
  REQUIRE(samples.ok());
  REQUIRE(samples.value().size() == 2);
  CHECK(samples.value()[0].answers == std::vector<std::string>{"x", "y"});
  CHECK(samples.value()[1].answers == std::vector<std::string>{"z"});
  CHECK(task.score(samples.value()[0], "y")[0] == 1);
}

TEST_CASE("lines that are no samples are refused with their number") {
  const FileTask& task = *find_file_task("longbench", "hotpotqa");
  const std::string good = R"({"input":"q","context":"c","answers":["a"]})"
                           "\n";
  for (const std::string& bad :
       {std::string("{"), std::string("[]"), std::string("7"), std::string(R"({"input":"q","answers":["a"]})"),
        std::string(R"({"input":"q","context":3,"answers":["a"]})"),
        std::string(R"({"input":"q","context":"c","answers":[]})"), good.substr(0, 20), std::string("\xff")}) {
    CAPTURE(bad);
    const auto samples = load_samples(task, good + bad + "\n" + good);
    REQUIRE_FALSE(samples.ok());
    CHECK(samples.status().code() == ErrorCode::kInvalidArgument);
    CHECK(std::string(samples.status().message()).find("line 2 ") != std::string::npos);
  }
  const auto optionless = load_samples(*find_file_task("infinitebench", "code_debug"),
                                       R"({"context":"c","input":"q","answer":["a"],"options":["b","c","d","e"]})");
  CHECK_FALSE(optionless.ok());
  CHECK(load_samples(task, "").value().empty());
}

}  // namespace
}  // namespace lethe::eval
