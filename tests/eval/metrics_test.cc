// Metrics against the results of the original code (tools/reference/eval_metrics.py).
#include "tools/eval/metrics.h"

#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tools/eval/draw.h"
#include "tools/eval/infinitebench.h"
#include "tools/eval/task.h"

namespace lethe::eval {
namespace {

using Json = nlohmann::json;

const Json& reference() {
  static const Json json = [] {
    std::ifstream file(LETHE_TEST_DATA "/eval_metrics.json");
    REQUIRE(file.good());
    return Json::parse(file);
  }();
  return json;
}

TEST_CASE("pairs of texts score what the original code says") {
  CHECK(reference()["pairs"].size() >= 25);
  for (const Json& pair : reference()["pairs"]) {
    const auto reply = pair["reply"].get<std::string>(), truth = pair["truth"].get<std::string>();
    CAPTURE(reply);
    CAPTURE(truth);
    const auto expected = [&](const char* name) { return doctest::Approx(pair[name].get<double>()).epsilon(1e-9); };
    CHECK(f1_words(reply, truth) == expected("f1_words"));
    CHECK(exact_match(reply, truth) == expected("exact_match"));
    CHECK(f1_characters(reply, truth) == expected("f1_characters"));
    CHECK(rouge_l(reply, truth) == expected("rouge_l"));
    CHECK(rouge_l_characters(reply, truth) == expected("rouge_l_characters"));
    CHECK(rouge_n_fmeasure(reply, truth, 1) == expected("rouge1"));
    CHECK(rouge_n_fmeasure(reply, truth, 2) == expected("rouge2"));
    CHECK(rouge_l_fmeasure(reply, truth) == expected("rougeL"));
    CHECK(rouge_lsum_fmeasure(reply, truth) == expected("rougeLsum"));
  }
}

template <typename Score>
void check_list(const char* name, Score&& score) {
  CHECK(reference()[name].size() >= 5);
  for (const Json& item : reference()[name]) {
    const auto reply = item["reply"].get<std::string>(), truth = item["truth"].get<std::string>();
    CAPTURE(reply);
    CAPTURE(truth);
    CHECK(score(reply, truth) == doctest::Approx(item["score"].get<double>()).epsilon(1e-9));
  }
}

TEST_CASE("code, classes, numbers") {
  const auto classes = reference()["classes"].get<std::vector<std::string>>();
  check_list("code", code_similarity);
  check_list("classification",
             [&](const auto& reply, const auto& truth) { return classification(reply, truth, classes); });
  check_list("retrieval", [](const auto& reply, const auto& truth) { return retrieval(reply, truth, "Paragraph "); });
  check_list("count", count_score);
  CHECK(retrieval("段落3", "段落3", "段落") == 1);
  CHECK(retrieval("段落3和4", "段落3", "段落") == 0.5);
}

TEST_CASE("InfiniteBench's looks at a reply") {
  using Labels = infinitebench::Labels;
  const std::map<std::string, double (*)(Labels, std::string_view)> scores = {
      {"letter_of_choice",
       [](Labels l, std::string_view r) -> double { return infinitebench::letter_of_choice(l, r); }},
      {"letter_of_bug", [](Labels l, std::string_view r) -> double { return infinitebench::letter_of_bug(l, r); }},
      {"last_number", [](Labels l, std::string_view r) -> double { return infinitebench::last_number(l, r); }},
      {"found_number", [](Labels l, std::string_view r) -> double { return infinitebench::found_number(l, r); }},
      {"right_prefix", infinitebench::right_prefix},
      {"name_of_speaker", [](Labels l, std::string_view r) -> double { return infinitebench::name_of_speaker(l, r); }},
      {"first_number", [](Labels l, std::string_view r) -> double { return infinitebench::first_number(l, r); }},
      {"retrieved", [](Labels l, std::string_view r) -> double { return infinitebench::retrieved(l, r); }},
  };
  CHECK(reference()["infinitebench"].size() == scores.size());
  for (const Json& item : reference()["infinitebench"]) {
    const auto name = item["score"].get<std::string>();
    const auto labels = item["labels"].get<std::vector<std::string>>();
    CAPTURE(name);
    for (const Json& pair : item["replies"]) {
      const auto reply = pair["reply"].get<std::string>();
      CAPTURE(reply);
      CHECK(scores.at(name)(labels, reply) == doctest::Approx(pair["score"].get<double>()));
    }
  }
}

TEST_CASE("the first line, after empty ones") {
  CHECK(first_line("\n\nyes\nno") == "yes");
  CHECK(first_line("yes") == "yes");
  CHECK(first_line("\n\n") == "");
}

// The generators' own definition of chance, from another implementation: the same prompts on every machine.
TEST_CASE("seeds draw what their definition says") {
  for (const Json& draw : reference()["draws"]) {
    const auto seed = draw["seed"].get<uint64_t>();
    CAPTURE(seed);
    const Recipe recipe{seed, 0.5, 1000, 5, nullptr};
    CHECK(find_task("passkey")->make(recipe).answers[0] == draw["passkey"].get<std::string>());
    Random random(seed);
    CHECK(draw_uuid(random) == draw["uuid"].get<std::string>());
    CHECK(find_task("kvretrieval")->make(recipe).question == "\n\nKey: \"" + draw["uuid"].get<std::string>() + "\"");
  }
}

}  // namespace
}  // namespace lethe::eval
