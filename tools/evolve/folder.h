// The folder of a run: what it needs to go on after it was stopped, and what it says of itself. Knows no model.
//
//   state.json   the strategy and the frozen moments; numbers are written so that they read back bit for bit
//   log.jsonl    a line for every generation
//   namm         NAMM file of the strategy's mean
//   curve.svg    the log as a plot
//   full.jsonl   what the full cache scores on prompts (tools/eval/sweep.h: SweepStore)
//
// All but the last are replaced whole, state.json last: a killed run loses the generation that it was at.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "tools/evolve/moments.h"
#include "tools/evolve/strategy.h"

namespace lethe::evolve {

using Json = nlohmann::ordered_json;

struct RunState {
  StrategyState strategy;
  FrozenMoments moments;
};

class RunFolder {
 public:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}

  std::string file(const char* name) const { return path_ + "/" + name; }

  // Makes the folder, or reads the state and the log that are there. `identity`: what a run cannot change on its way;
  // kInvalidArgument when the state has another, kCorruptSnapshot when it is none.
  Status open(const Json& identity, const StrategyOptions& options, const namm::Shape& shape,
              std::optional<RunState>* state);
  // Ends a generation: `line` goes to the log.
  Status save(const Json& identity, const RunState& state, const Json& line, std::span<const uint8_t> namm);

  const std::vector<Json>& log() const { return log_; }

 private:
  std::string path_;
  std::vector<Json> log_;
};

// curve.svg: fitness and step size by generation.
std::string curve(const std::vector<Json>& log);

}  // namespace lethe::evolve
