// The grid of a sweep, its results file, and what is made of them. Knows no model and no session.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/base/status.h"

namespace lethe::eval {

inline constexpr const char* kStreamTask = "stream";  // beside the names of task.h
inline constexpr const char* kFullPolicy = "full";

struct Cell {
  std::string task, policy;
  double kv_fraction;
  uint32_t length;  // tokens
  uint64_t seed;
};

// What all cells of a sweep share. Part of a cell's identity where it has an influence on its result.
// Tokens of the scored part of a stream that arrive at once: one by one a sweep takes five times as long.
inline constexpr uint32_t kStreamStep = 16;

struct SweepSetting {
  std::string model;  // file name
  uint64_t model_bytes;
  std::string text;       // file name and checksum; empty: none
  uint32_t trials;        // prompts of a cell
  std::string namm = {};  // NAMM file that learned policies are given, and checksum; empty: the model's own
};

struct SweepGrid {
  std::vector<std::string> tasks, policies;
  std::vector<double> kv_fractions;
  std::vector<uint32_t> lengths;
  std::vector<uint64_t> seeds;
};

// Adds the controls (the full cache, random, and sinks + window), drops what is named twice, and sorts the fractions,
// largest first.
void add_controls(SweepGrid& grid);

// Every cell once, those that share prompts together; the full cache at fraction 1 only, whatever the fractions.
std::vector<Cell> cells(const SweepGrid& grid);

// Cells that are run together: those of one stream and one fraction, which share what the full cache makes of it. All
// others stand alone.
std::vector<std::vector<Cell>> groups_of(const std::vector<Cell>& cells);

// A line of the results file: the members that identify the cell, and after a run "metrics": {name: number} with
// figures of the cache, or "error".
nlohmann::ordered_json identity(const Cell& cell, const SweepSetting& setting);

// The results file: one finished cell a line, appended with one write each, so that a killed sweep leaves whole lines.
// At most one process at a time. Thread-compatible.
class SweepStore {
 public:
  SweepStore() = default;
  SweepStore(const SweepStore&) = delete;
  SweepStore& operator=(const SweepStore&) = delete;
  ~SweepStore();

  // Opens or creates the file and reads what is there; a last line without its end (a full disk, a crash of the system)
  // is cut off. kBadState: another process has it open. kInvalidArgument: a line that is no result.
  Status open(const std::string& path);
  Status append(const nlohmann::ordered_json& line);

  // The line of a cell that did not fail, or null.
  const nlohmann::ordered_json* find(const nlohmann::ordered_json& identity) const;

 private:
  int fd_ = -1;
  std::string path_;
  std::map<std::string, nlohmann::ordered_json> lines_;  // by the text of the identity
};

// Mean and standard deviation over the seeds.
struct Spread {
  double mean, deviation;
};

// The seeds of one (task, length, policy, fraction), together.
struct SweepRow {
  std::string task, policy;
  uint32_t length;
  double kv_fraction, kv_bytes;
  size_t seeds;
  std::map<std::string, Spread> metrics;
};

// Rows of the cells that have a result, in the order of cells().
std::vector<SweepRow> sweep_rows(const std::vector<Cell>& cells, const SweepSetting& setting, const SweepStore& store);

// A metric as tables and plots show it.
enum class Scale { kLinear, kLogarithmic, kShare };  // kShare: linear, from 0 to 1
struct Metric {
  const char* name;
  const char* title;
  bool higher_is_better;
  int decimals;
  Scale scale;
};
std::vector<Metric> metrics_of(const std::string& task);

// results.json: {"setting": {...}, "rows": [...]}
std::string results_json(const std::vector<SweepRow>& rows, const SweepSetting& setting);
// table.md: for every task, length and metric a table of policies by fractions.
std::string results_table(const std::vector<SweepRow>& rows, const SweepSetting& setting);
// plot.svg: for every task, length and metric a panel of quality against bytes, a line per policy. Self-contained.
std::string results_plot(const std::vector<SweepRow>& rows);

}  // namespace lethe::eval
