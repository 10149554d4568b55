// lethe profile heads.
#include "tests/tools/cli.h"

namespace lethe::test {
namespace {

std::string book() {
  static const std::string path = [] {
    std::string text;
    for (int i = 0; i < 200; ++i) text += "On day " + std::to_string(i) + " it rained, and the river rose. ";
    const std::string file = temporary_path(".txt");
    write_file(file, text);
    return file;
  }();
  return path;
}

Args heads_args() {
  return {"profile",  "heads", tiny_model(), "--text", book(),        "--task", "mqar",
          "--window", "16",    "--tokens",   "400",    "--sequences", "3"};
}

TEST_CASE("ratios, counts and a plan") {
  const std::string plan = temporary_path(".json"), plot = temporary_path(".svg");
  const Args args = heads_args() + Args{"--groups", "2", "--plan", plan, "--plot", plot};
  const Json json = run_json(args + Args{"--json"});
  CHECK(json["domains"].size() == 2);
  CHECK(json["domains"][0]["tokens"] == 1200);
  CHECK(json["domains"][1]["name"] == "mqar");
  CHECK(json["domains"][1]["tokens"].get<int>() > 600);
  REQUIRE(json["heads"].size() == 8);
  for (const Json& head : json["heads"]) {
    const double near = head["recency"].get<double>(), with_sinks = head["recency_with_sinks"].get<double>();
    CHECK(near > 0);
    CHECK(with_sinks > near);
    CHECK(with_sinks < 1);
    REQUIRE(head["by_domain"].size() == 2);
    CHECK(with_sinks == std::min(head["by_domain"][0].get<double>(), head["by_domain"][1].get<double>()));
  }
  CHECK(json["groups"].size() == 4);
  CHECK(json["windows"] == 2);
  const Json written = Json::parse(read_file(plan));
  CHECK(written["layers"] == 2);
  CHECK(written["kv_heads"] == 2);
  REQUIRE(written["windows"].size() == 2);
  for (const Json& window : written["windows"]) {
    CHECK(window["sinks"] == 4);
    CHECK(window["window"] == 16);
    const auto place = window["layer"].get<size_t>() * 2 + window["kv_head"].get<size_t>();
    CHECK(json["groups"][place]["window"] == true);
  }
  CHECK(read_file(plot).ends_with("</svg>\n"));

  const Finished table = run_cli(args);
  CHECK(table.status == 0);
  CHECK(table.out.find("of the last 16 and the first 4") != std::string::npos);
  CHECK(table.out.find("2 of 4 KV heads get a window") != std::string::npos);
}

TEST_CASE("impossible wishes are refused") {
  check_refused(run_cli({"profile", "heads", tiny_model()}), 2, "invalid_argument", "--text FILE or --task NAME");
  check_refused(run_cli(heads_args() + Args{"--groups", "1", "--beta", "0.5"}), 2, "invalid_argument", "give one");
  check_refused(run_cli(heads_args() + Args{"--plan", "x.json"}), 2, "invalid_argument", "--groups, --beta or --save");
  check_refused(run_cli(heads_args() + Args{"--task", "nothing"}), 2, "invalid_argument", "no task 'nothing'");
  check_refused(run_cli({"profile", "heads", tiny_model(), "--text", book(), "--tokens", "256"}), 2, "invalid_argument",
                "longer than 4 windows");
  check_refused(run_cli({"profile", "heads", tiny_model(), "--task", "niah-single-2"}), 2, "invalid_argument",
                "give --text");
}

}  // namespace
}  // namespace lethe::test
