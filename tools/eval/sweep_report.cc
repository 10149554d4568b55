// results.json and table.md of a sweep.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tools/eval/sweep.h"

namespace lethe::eval {
namespace {

std::string number(const char* format, double value) {
  char text[48];
  snprintf(text, sizeof text, format, value);
  return text;
}

std::string shown(const Spread& spread, const Metric& metric, size_t seeds) {
  char text[64];
  snprintf(text, sizeof text, "%.*f", metric.decimals, spread.mean);
  std::string out = text;
  if (seeds > 1) {
    snprintf(text, sizeof text, " ± %.*f", metric.decimals, spread.deviation);
    out += text;
  }
  return out;
}

template <typename T, typename Of>
std::vector<T> distinct(const std::vector<SweepRow>& rows, Of&& of) {
  std::vector<T> out;
  for (const SweepRow& row : rows) {
    if (std::find(out.begin(), out.end(), of(row)) == out.end()) out.push_back(of(row));
  }
  return out;
}

}  // namespace

std::string results_json(const std::vector<SweepRow>& rows, const SweepSetting& setting) {
  using Json = nlohmann::ordered_json;
  Json list = Json::array();
  for (const SweepRow& row : rows) {
    Json metrics = Json::object();
    for (const auto& [name, spread] : row.metrics) {
      metrics[name] = {{"mean", spread.mean}, {"deviation", spread.deviation}};
    }
    list.push_back({{"task", row.task},
                    {"length", row.length},
                    {"policy", row.policy},
                    {"kv_fraction", row.kv_fraction},
                    {"kv_bytes", row.kv_bytes},
                    {"seeds", row.seeds},
                    {"metrics", metrics}});
  }
  const Json out = {{"setting",
                     {{"model", setting.model},
                      {"model_bytes", setting.model_bytes},
                      {"text", setting.text},
                      {"trials", setting.trials}}},
                    {"rows", list}};
  return out.dump(2) + "\n";
}

std::string results_table(const std::vector<SweepRow>& rows, const SweepSetting& setting) {
  std::string out = "Model " + setting.model +
                    ". Columns: the cache's bytes, policy state included, as a share of the "
                    "full f16 cache's.\nWhere there are several seeds: mean ± standard deviation over them.\n";
  const auto task_of = [](const SweepRow& row) { return std::make_pair(row.task, row.length); };
  const auto fractions = [&] {
    auto all = distinct<double>(rows, [](const SweepRow& row) { return row.kv_fraction; });
    std::sort(all.rbegin(), all.rend());
    return all;
  }();
  for (const auto& [task, length] : distinct<std::pair<std::string, uint32_t>>(rows, task_of)) {
    for (const Metric& metric : metrics_of(task)) {
      out += "\n## " + task + ", " + std::to_string(length) + " tokens: " + metric.title + " (" +
             (metric.higher_is_better ? "higher" : "lower") + " is better)\n\n| policy |";
      for (const double fraction : fractions) out += number(" %g % |", 100 * fraction);
      out += "\n| --- |";
      for (size_t i = 0; i < fractions.size(); ++i) out += " ---: |";
      out += "\n";
      for (const std::string& policy : distinct<std::string>(rows, [](const SweepRow& row) { return row.policy; })) {
        std::string line = "| " + policy + " |";
        bool any = false;
        for (const double fraction : fractions) {
          const auto row = std::find_if(rows.begin(), rows.end(), [&](const SweepRow& other) {
            return other.task == task && other.length == length && other.policy == policy &&
                   other.kv_fraction == fraction && other.metrics.contains(metric.name);
          });
          line += row == rows.end() ? " |" : " " + shown(row->metrics.at(metric.name), metric, row->seeds) + " |";
          any = any || row != rows.end();
        }
        if (any) out += line + "\n";
      }
    }
  }
  return out;
}

}  // namespace lethe::eval
