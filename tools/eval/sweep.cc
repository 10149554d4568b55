#include "tools/eval/sweep.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <tuple>

#include "runtime/cache/policy.h"
#include "tools/eval/task.h"

namespace lethe::eval {
namespace {

using Json = nlohmann::ordered_json;

// The members that identity() gives, of a whole line.
constexpr const char* kIdentity[] = {"task",  "policy",      "kv_fraction", "length", "seed",
                                     "model", "model_bytes", "text",        "trials"};

std::string identity_text(const Json& line) {
  Json out = Json::object();
  for (const char* member : kIdentity) out[member] = line.at(member);
  return out.dump();
}

Status failed(const char* what, const std::string& path) {
  return Status::error(errno == ENOSPC ? ErrorCode::kDiskFull : ErrorCode::kIo, "%s: %s: %s", path.c_str(), what,
                       strerror(errno));
}

template <typename T>
void drop_repeated(std::vector<T>& items) {
  for (auto at = items.begin(); at != items.end(); ++at)
    items.erase(std::remove(at + 1, items.end(), T(*at)), items.end());
}

}  // namespace

void add_controls(SweepGrid& grid) {
  for (const char* control : {"random", "window", kFullPolicy}) grid.policies.insert(grid.policies.begin(), control);
  drop_repeated(grid.tasks);
  drop_repeated(grid.policies);
  drop_repeated(grid.lengths);
  drop_repeated(grid.seeds);
  drop_repeated(grid.kv_fractions);
  std::sort(grid.kv_fractions.rbegin(), grid.kv_fractions.rend());
}

std::vector<Cell> cells(const SweepGrid& grid) {
  std::vector<Cell> out;
  for (const uint32_t length : grid.lengths) {
    for (const std::string& task : grid.tasks) {
      for (const uint64_t seed : grid.seeds) {
        for (const std::string& policy : grid.policies) {
          if (policy == kFullPolicy) {
            out.push_back({task, policy, 1, length, seed});
            continue;
          }
          for (const double fraction : grid.kv_fractions) out.push_back({task, policy, fraction, length, seed});
        }
      }
    }
  }
  return out;
}

std::vector<std::vector<Cell>> groups_of(const std::vector<Cell>& cells) {
  std::vector<std::vector<Cell>> groups;
  std::map<std::tuple<uint32_t, uint64_t, double>, size_t> streams;  // group by length, seed and fraction
  for (const Cell& cell : cells) {
    if (cell.task == kStreamTask) {
      const auto [known, is_new] = streams.try_emplace({cell.length, cell.seed, cell.kv_fraction}, groups.size());
      if (!is_new) {
        groups[known->second].push_back(cell);
        continue;
      }
    }
    groups.push_back({cell});
  }
  return groups;
}

Json identity(const Cell& cell, const SweepSetting& setting) {
  const Task* task = find_task(cell.task);
  const bool takes_text = task == nullptr || task->filler != FillerUse::kNone;
  const Policy* policy = find_policy(cell.policy);
  const bool takes_namm = policy != nullptr && policy->is_learned && !setting.namm.empty();
  return {{"task", cell.task},
          {"policy", cell.policy},
          {"kv_fraction", cell.kv_fraction},
          {"length", cell.length},
          {"seed", cell.seed},
          {"step", task == nullptr ? kStreamStep : 1},
          {"model", takes_namm ? setting.model + " + " + setting.namm : setting.model},
          {"model_bytes", setting.model_bytes},
          {"text", takes_text ? setting.text : ""},
          {"trials", task == nullptr ? 1 : setting.trials}};
}

SweepStore::~SweepStore() {
  if (fd_ >= 0) close(fd_);
}

Status SweepStore::open(const std::string& path) {
  path_ = path;
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) return failed("cannot be opened", path);
  if (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    return Status::error(ErrorCode::kBadState, "%s: another process writes to it", path.c_str());
  }
  std::string text;
  char block[65536];
  ssize_t got = 0;
  while ((got = read(fd_, block, sizeof block)) > 0) text.append(block, static_cast<size_t>(got));
  if (got < 0) return failed("cannot be read", path);
  const size_t whole = text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1;
  if (whole != text.size() && ftruncate(fd_, static_cast<off_t>(whole)) != 0) return failed("cannot be cut", path);
  size_t number = 0;
  for (size_t at = 0; at < whole;) {
    const size_t end = text.find('\n', at);
    ++number;
    Json line = Json::parse(text.begin() + static_cast<ptrdiff_t>(at), text.begin() + static_cast<ptrdiff_t>(end),
                            nullptr, false);
    bool is_result = line.is_object();
    for (const char* member : kIdentity) is_result = is_result && line.contains(member);
    if (!is_result) {
      return Status::error(ErrorCode::kInvalidArgument, "%s: line %zu is no result of a sweep", path.c_str(), number);
    }
    std::string key = identity_text(line);
    lines_.insert_or_assign(std::move(key), std::move(line));
    at = end + 1;
  }
  return Status();
}

Status SweepStore::append(const Json& line) {
  const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  const ssize_t written = write(fd_, text.data(), text.size());
  if (written != static_cast<ssize_t>(text.size())) {
    if (written >= 0) errno = ENOSPC;  // what else cuts a write to a file short
    return failed("cannot be written", path_);
  }
  lines_.insert_or_assign(identity_text(line), line);
  return Status();
}

const Json* SweepStore::find(const Json& identity) const {
  const auto at = lines_.find(identity_text(identity));
  return at == lines_.end() || !at->second.contains("metrics") ? nullptr : &at->second;
}

std::vector<SweepRow> sweep_rows(const std::vector<Cell>& cells, const SweepSetting& setting, const SweepStore& store) {
  struct Sums {
    SweepRow row;
    std::map<std::string, std::vector<double>> values;
  };
  std::vector<Sums> all;
  for (const Cell& cell : cells) {
    const Json* line = store.find(identity(cell, setting));
    if (line == nullptr) continue;
    const auto same = [&](const Sums& sums) {
      return sums.row.task == cell.task && sums.row.policy == cell.policy && sums.row.length == cell.length &&
             sums.row.kv_fraction == cell.kv_fraction;
    };
    auto at = std::find_if(all.begin(), all.end(), same);
    if (at == all.end()) {
      all.push_back({{cell.task, cell.policy, cell.length, cell.kv_fraction, 0, 0, {}}, {}});
      at = all.end() - 1;
    }
    ++at->row.seeds;
    at->row.kv_bytes += line->value("kv_bytes", 0.0);
    for (const auto& [name, value] : line->at("metrics").items()) {
      if (value.is_number()) at->values[name].push_back(value.get<double>());  // JSON has no infinity: null
    }
  }
  std::vector<SweepRow> rows;
  for (Sums& sums : all) {
    sums.row.kv_bytes /= static_cast<double>(sums.row.seeds);
    for (const auto& [name, values] : sums.values) {
      const auto n = static_cast<double>(values.size());
      double mean = 0, squares = 0;
      for (const double value : values) mean += value / n;
      for (const double value : values) squares += (value - mean) * (value - mean);
      sums.row.metrics[name] = {mean, n > 1 ? std::sqrt(squares / (n - 1)) : 0};
    }
    rows.push_back(std::move(sums.row));
  }
  return rows;
}

std::vector<Metric> metrics_of(const std::string& task) {
  if (task == kStreamTask) {
    return {{"nll_over_full", "NLL above the full cache's, nats per token", false, 4, Scale::kLinear},
            {"nll", "NLL, nats per token", false, 4, Scale::kLinear},
            {"kl_to_full", "KL to the full cache, nats", false, 4, Scale::kLogarithmic},
            {"top1_agreement", "same best token as the full cache", true, 4, Scale::kLinear}};
  }
  return {{"accuracy", "accuracy", true, 3, Scale::kShare},
          {"answer_nll", "NLL of the right answer, nats per token", false, 3, Scale::kLinear}};
}

}  // namespace lethe::eval
