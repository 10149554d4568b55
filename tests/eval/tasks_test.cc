// The generated tasks: lengths, needles, seeds. Tokens are counted as words here; the tokens of models are in the tests
// of the executable.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <sstream>

#include "runtime/base/hash.h"
#include "tools/eval/task.h"

namespace lethe::eval {
namespace {

std::string book() {
  std::string text;
  for (int i = 0; i < 400; ++i) {
    text += "It was evening " + std::string(static_cast<size_t>(i % 7), 'x') + " in the\n  town, and rain fell. ";
    if (i % 3 == 0) text += "\"Who goes there?\" ";
  }
  return text;
}

std::string whole(const Sample& sample) {
  std::string text = sample.context + sample.question + sample.reply_start + sample.gold;
  for (const Recall& recall : sample.recalls) text += recall.cue + recall.answer;
  return text;
}

size_t words(const Sample& sample) {
  std::istringstream stream(whole(sample));
  size_t count = 0;
  for (std::string word; stream >> word;) ++count;
  return count;
}

size_t occurrences(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

const Filler& filler() {
  static const Filler made{book()};
  return made;
}

Recipe recipe_of(const Task& task, uint64_t seed, uint32_t length, double depth) {
  return {seed, depth, length, 0, task.filler == FillerUse::kNone ? nullptr : &filler()};
}

Sample fitted(const Task& task, uint64_t seed, uint32_t length = 900, double depth = 0.5) {
  const std::optional<Sample> sample = fit(task, recipe_of(task, seed, length, depth), words, nullptr);
  REQUIRE(sample.has_value());
  return *sample;
}

TEST_CASE("every task hits its length, and repeats itself by its seed alone") {
  CHECK(tasks().size() == 17);
  for (const Task* task : tasks()) {
    CAPTURE(task->name);
    CHECK(find_task(task->name) == task);
    for (const uint32_t length : {700u, 2000u, 5000u}) {
      CAPTURE(length);
      const Sample sample = fitted(*task, 1, length);
      CHECK(words(sample) <= length);
      // The largest step of any haystack: a word of the frequent kind, 30 times.
      CHECK(words(sample) + 60 > length);
      CHECK(whole(fitted(*task, 1, length)) == whole(sample));
      CHECK(whole(fitted(*task, 2, length)) != whole(sample));
    }
  }
  CHECK(find_task("no-such-task") == nullptr);
}

TEST_CASE("what does not fit is said with its length") {
  for (const Task* task : tasks()) {
    CAPTURE(task->name);
    size_t smallest = 0;
    CHECK_FALSE(fit(*task, recipe_of(*task, 1, 3, 0.5), words, &smallest).has_value());
    CHECK(smallest > 3);
  }
}

TEST_CASE("what is asked for stands in the context, once, at its depth") {
  const std::map<std::string, std::string> needles = {
      {"passkey", "The pass key is "},
      {"numstring", "The sequence of digits is "},
  };
  for (const Task* task : tasks()) {
    CAPTURE(task->name);
    if (!task->has_depth) continue;
    for (const double depth : {0.0, 0.25, 0.5, 0.75, 1.0}) {
      CAPTURE(depth);
      const Sample sample = fitted(*task, 3, 1500, depth);
      CHECK(sample.context.find(sample.question) == std::string::npos);
      for (const std::string& answer : sample.answers) {
        const bool is_stated_twice = needles.contains(task->name);
        CHECK(occurrences(sample.context, answer) == (is_stated_twice ? 2 : 1));
        if (is_stated_twice) CHECK(occurrences(sample.context, needles.at(task->name) + answer) == 1);
        CHECK(sample.gold.find(answer) != std::string::npos);
        CHECK(sample.question.find(answer) == std::string::npos);
      }
      const double place =
          static_cast<double>(sample.context.find(sample.answers[0])) / static_cast<double>(sample.context.size());
      CHECK(std::abs(place - depth) < 0.16);  // the instruction in front takes its part
    }
  }
}

TEST_CASE("right replies score 1, wrong ones 0, halves a half") {
  for (const Task* task : tasks()) {
    CAPTURE(task->name);
    const Sample sample = fitted(*task, 5);
    if (task->score == nullptr) {
      CHECK(task->reply_tokens == 0);
      CHECK(sample.recalls.size() == 16);
      continue;
    }
    CHECK(task->score(sample.answers, sample.gold + " and more") == 1);
    CHECK(task->score(sample.answers, "I do not know.") == 0);
    CHECK(task->score(sample.answers, "") == 0);
    CHECK(task->score(sample.answers, fitted(*task, 6).gold) < 0.5);
    if (sample.answers.size() == 4) CHECK(task->score(sample.answers, sample.answers[3] + sample.answers[1]) == 0.5);
  }
  CHECK(find_task("passkey")->score(std::vector<std::string>{"12345"}, "It is 7, not 12345") == 0);
  CHECK(find_task("passkey")->score(std::vector<std::string>{"12345"}, "It is 12345.") == 1);
  CHECK(find_task("passkey")->score(std::vector<std::string>{"12345"}, "123456") == 0);
  CHECK(find_task("kvretrieval")->score(std::vector<std::string>{"a-b"}, "\"a-b\"}") == 1);
  CHECK(find_task("kvretrieval")->score(std::vector<std::string>{"a-b"}, "a-bc") == 0);
  CHECK(find_task("vt")->score(std::vector<std::string>{"ABC", "DEF"}, "abc") == 0.5);
}

TEST_CASE("mqar asks for pairs of its list") {
  const Sample sample = fitted(*find_task("mqar"), 1);
  for (const Recall& recall : sample.recalls) {
    CHECK(occurrences(" " + sample.context + " ", recall.cue + recall.answer + " ") == 1);
  }
}

TEST_CASE("hashhop's chain leads from the start to the answer") {
  const Sample sample = fitted(*find_task("hashhop"), 1);
  const std::string start = sample.reply_start.substr(1, sample.reply_start.find(" =") - 1);
  const size_t first = sample.context.find(start + " = ");
  REQUIRE(first != std::string::npos);
  const std::string middle = sample.context.substr(first + start.size() + 3, 16);
  CHECK(sample.context.find(middle + " = '" + sample.answers[0] + "'") != std::string::npos);
}

// "1. word 2. word ..." after the example's blank line.
std::map<std::string, int> counted_words(const std::string& text) {
  std::istringstream stream(text);
  std::map<std::string, int> counts;
  for (std::string word; stream >> word;) ++counts[word];
  return counts;
}

TEST_CASE("cwe and fwe ask for the most frequent words") {
  for (const uint32_t length : {1500u, 5000u}) {
    const Sample sample = fitted(*find_task("cwe"), 1, length);
    const auto counts = counted_words(sample.context.substr(sample.context.find("\n\n")));
    CHECK(sample.answers.size() == 10);
    for (const std::string& answer : sample.answers) CHECK(counts.at(answer) == (length < 4096 ? 6 : 30));
    for (const auto& [word, count] : counts) {
      if (std::find(sample.answers.begin(), sample.answers.end(), word) == sample.answers.end()) CHECK(count <= 3);
    }
  }
  const Sample sample = fitted(*find_task("fwe"), 1);
  const auto counts = counted_words(sample.context);
  std::vector<std::pair<int, std::string>> coded;
  for (const auto& [word, count] : counts) coded.emplace_back(count, word);
  std::sort(coded.rbegin(), coded.rend());
  CHECK(coded[0].second == "...");
  for (int i = 0; i < 3; ++i) {
    CHECK(coded[static_cast<size_t>(i) + 1].second == sample.answers[static_cast<size_t>(i)]);
  }
}

TEST_CASE("a filler is cut at words, starts anywhere and goes round") {
  Random random(1);
  const Filler three("One two three. \"Four five?\"\n\nSix");
  const Needle needle{0.5, "HERE."};
  std::map<std::string, int> seen;
  for (int i = 0; i < 60; ++i) ++seen[three.hide(random, 6, {&needle, 1}, " ")];
  CHECK(seen.size() == 3);
  CHECK(seen.contains("One two three. HERE. \"Four five?\" Six"));
  CHECK(seen.contains("\"Four five?\" Six HERE. One two three."));
  CHECK(seen.contains("Six One two three. HERE. \"Four five?\""));
  CHECK(three.hide(random, 8, {}, " ").size() > 8);
  CHECK(Filler(" \n ").empty());
  CHECK(Filler::repeated().hide(random, 2, {}, "\n") == "The grass is green.\nThe sky is blue.");
}

TEST_CASE("trials lie at depths spread evenly, and are the same however many there are") {
  CHECK(trial_depth(0, 4) == 0.125);
  CHECK(trial_depth(3, 4) == 0.875);
  CHECK(trial_depth(0, 1) == 0.5);
  CHECK(trial_seed(1, 0) != trial_seed(1, 1));
  CHECK(trial_seed(1, 0) != trial_seed(2, 0));
}

}  // namespace
}  // namespace lethe::eval
