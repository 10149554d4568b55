// The grid, the results file and the report of a sweep.
#include "tools/eval/sweep.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/support/tiny_model.h"

namespace lethe::eval {
namespace {

using Json = nlohmann::ordered_json;
using test::read_file;
using test::temporary_path;
using test::write_file;

const SweepSetting kSetting = {"m.lethe", 123, "book.txt 0", 4};

SweepGrid small_grid() { return {{"stream", "passkey"}, {"keydiff"}, {0.25, 0.5}, {128}, {1, 2}}; }

Json line_of(const Cell& cell, double value) {
  Json line = identity(cell, kSetting);
  line["metrics"] = {{cell.task == "stream" ? "nll" : "accuracy", value}};
  line["kv_bytes"] = 1e6 * cell.kv_fraction;
  return line;
}

TEST_CASE("the controls are in every grid, once") {
  SweepGrid grid = small_grid();
  grid.policies = {"window", "keydiff", "window", "keydiff"};
  grid.seeds = {1, 2, 1};
  grid.kv_fractions = {0.25, 0.5, 0.25};
  add_controls(grid);
  CHECK(grid.policies == std::vector<std::string>{"full", "window", "random", "keydiff"});
  CHECK(grid.kv_fractions == std::vector<double>{0.5, 0.25});
  const std::vector<Cell> all = cells(grid);
  // 2 tasks x 2 seeds x (full once, 3 policies at 2 caps)
  CHECK(all.size() == 2 * 2 * 7);
  for (const Cell& cell : all) {
    if (cell.policy == "full") CHECK(cell.kv_fraction == 1);
  }
}

TEST_CASE("streams of one place, length and fraction are run together, all else alone") {
  SweepGrid grid = small_grid();
  add_controls(grid);
  size_t cells_in_groups = 0, streams = 0;
  for (const std::vector<Cell>& group : groups_of(cells(grid))) {
    cells_in_groups += group.size();
    if (group[0].task != "stream") {
      CHECK(group.size() == 1);
      continue;
    }
    ++streams;
    CHECK(group.size() == (group[0].policy == "full" ? 1 : 3));
    for (const Cell& cell : group) {
      CHECK(cell.task == "stream");
      CHECK(cell.seed == group[0].seed);
      CHECK(cell.kv_fraction == group[0].kv_fraction);
    }
  }
  CHECK(cells_in_groups == 2 * 2 * 7);
  CHECK(streams == 2 * 3);  // seeds x (the full cache, two fractions)
}

TEST_CASE("a cell is known by all that its result depends on, and by nothing else") {
  const Cell cell{"passkey", "window", 0.25, 128, 1};
  SweepSetting other = kSetting;
  other.trials = 5;
  CHECK(identity(cell, kSetting) != identity(cell, other));
  CHECK(identity({"stream", "window", 0.25, 128, 1}, kSetting) == identity({"stream", "window", 0.25, 128, 1}, other));
  other = kSetting;
  other.text = "other.txt 1";
  CHECK(identity(cell, kSetting) != identity(cell, other));
  CHECK(identity({"kvretrieval", "window", 1, 128, 1}, kSetting) ==
        identity({"kvretrieval", "window", 1, 128, 1}, other));
  other = kSetting;
  other.model_bytes = 124;
  CHECK(identity(cell, kSetting) != identity(cell, other));
}

TEST_CASE("what was appended is found again; a torn line is cut off") {
  const std::string path = temporary_path(".jsonl");
  const std::vector<Cell> all = cells(small_grid());
  {
    SweepStore store;
    REQUIRE(store.open(path).ok());
    CHECK(store.find(identity(all[0], kSetting)) == nullptr);
    REQUIRE(store.append(line_of(all[0], 1.5)).ok());
    Json failed = identity(all[1], kSetting);
    failed["error"] = "io: no";
    REQUIRE(store.append(failed).ok());
    SweepStore second;
    CHECK(second.open(path).code() == ErrorCode::kBadState);
  }
  const std::string whole = read_file(path);
  CHECK(std::count(whole.begin(), whole.end(), '\n') == 2);
  for (size_t cut = 1; cut < 40; cut += 13) {
    write_file(path, whole + line_of(all[2], 2).dump().substr(0, cut));
    SweepStore store;
    REQUIRE(store.open(path).ok());
    CHECK(read_file(path) == whole);
    REQUIRE(store.find(identity(all[0], kSetting)) != nullptr);
    CHECK((*store.find(identity(all[0], kSetting)))["metrics"]["nll"] == 1.5);
    CHECK(store.find(identity(all[1], kSetting)) == nullptr);  // a failed cell is run again
    CHECK(store.find(identity(all[2], kSetting)) == nullptr);
  }
  for (const char* junk : {"junk\n", "{}\n", "[1]\n"}) {
    write_file(path, whole + junk);
    SweepStore store;
    CHECK(store.open(path).code() == ErrorCode::kInvalidArgument);
    CHECK(read_file(path) == whole + junk);  // nothing of somebody else's file is lost
  }
  SweepStore store;
  CHECK(store.open("/nonexistent/results.jsonl").code() == ErrorCode::kIo);
}

TEST_CASE("rows are means over the seeds") {
  SweepStore store;
  REQUIRE(store.open(temporary_path(".jsonl")).ok());
  SweepGrid grid = small_grid();
  add_controls(grid);
  const std::vector<Cell> all = cells(grid);
  for (const Cell& cell : all) {
    if (cell.policy != "random") REQUIRE(store.append(line_of(cell, static_cast<double>(cell.seed) / 2)).ok());
  }
  const std::vector<SweepRow> rows = sweep_rows(all, kSetting, store);
  REQUIRE(rows.size() == 2 * 5);
  CHECK(rows[0].policy == "full");
  CHECK(rows[0].seeds == 2);
  CHECK(rows[1].policy == "window");
  CHECK(rows[1].kv_bytes == 5e5);
  CHECK(rows[1].metrics.at("nll").mean == doctest::Approx(0.75));
  CHECK(rows[1].metrics.at("nll").deviation == doctest::Approx(0.35355));

  const Json json = Json::parse(results_json(rows, kSetting));
  CHECK(json["rows"].size() == rows.size());
  CHECK(json["rows"][1]["metrics"]["nll"]["mean"] == 0.75);
  CHECK(json["setting"]["trials"] == 4);

  const std::string table = results_table(rows, kSetting);
  CHECK(table.find("| policy | 100 % | 50 % | 25 % |") != std::string::npos);
  CHECK(table.find("| full | 0.7500 ± 0.3536 | | |") != std::string::npos);
  CHECK(table.find("| keydiff | | 0.750 ± 0.354 | 0.750 ± 0.354 |") != std::string::npos);
  CHECK(table.find("random") == std::string::npos);

  const std::string plot = results_plot(rows);
  CHECK(plot.starts_with("<svg xmlns="));
  CHECK(plot.find("</svg>") != std::string::npos);
  for (const char* part : {">full<", ">window<", ">keydiff<", ">stream, 128 tokens<", ">passkey, 128 tokens<",
                           "bytes of the cache", "KiB<"}) {
    CAPTURE(part);
    CHECK(plot.find(part) != std::string::npos);
  }
  CHECK(plot.find("nan") == std::string::npos);
  CHECK(plot.find("inf") == std::string::npos);
}

TEST_CASE("a sweep of nothing has a table and a plot") {
  CHECK(results_plot({}).find("</svg>") != std::string::npos);
  CHECK(results_table({}, kSetting).find("m.lethe") != std::string::npos);
}

}  // namespace
}  // namespace lethe::eval
