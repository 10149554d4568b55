#include "tools/evolve/folder.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "runtime/os/file.h"

namespace lethe::evolve {
namespace {

Status write(const std::string& path, std::span<const uint8_t> bytes) {
  return os::write_file(path.c_str(), bytes.data(), bytes.size());
}
Status write(const std::string& path, const std::string& text) {
  return os::write_file(path.c_str(), text.data(), text.size());
}

// An array of `count` finite numbers.
template <typename T>
bool read_numbers(const Json& in, const char* name, size_t count, std::vector<T>& out) {
  if (!in.contains(name) || !in[name].is_array() || in[name].size() != count) return false;
  for (const Json& number : in[name]) {
    if (!number.is_number()) return false;  // JSON has no infinity: null
    out.push_back(number.get<T>());
  }
  return true;
}

bool read_state(const Json& in, const StrategyOptions& options, const namm::Shape& shape, RunState& out) {
  if (!in.is_object() || !in.contains("generation") || !in["generation"].is_number_unsigned()) return false;
  if (!in.contains("sigma") || !in["sigma"].is_number()) return false;
  StrategyState& strategy = out.strategy;
  strategy.generation = in["generation"];
  strategy.sigma = in["sigma"];
  const size_t n = options.dimensions, moments = shape.moments();
  return read_numbers(in, "mean", n, strategy.mean) && read_numbers(in, "variances", n, strategy.variances) &&
         read_numbers(in, "path_sigma", n, strategy.path_sigma) && read_numbers(in, "path_c", n, strategy.path_c) &&
         read_numbers(in, "moment_means", moments, out.moments.means) &&
         read_numbers(in, "moment_variances", moments, out.moments.variances);
}

Json to_json(const Json& identity, const RunState& state) {
  const StrategyState& strategy = state.strategy;
  return {{"identity", identity},
          {"generation", strategy.generation},
          {"sigma", strategy.sigma},
          {"moment_means", state.moments.means},
          {"moment_variances", state.moments.variances},
          {"mean", strategy.mean},
          {"variances", strategy.variances},
          {"path_sigma", strategy.path_sigma},
          {"path_c", strategy.path_c}};
}

// The first member in which a state's identity differs.
std::string difference(const Json& there, const Json& here) {
  for (const auto& [name, value] : here.items()) {
    const Json other = there.is_object() && there.contains(name) ? there[name] : Json();
    if (other != value) return name + " " + other.dump() + ", now it is " + value.dump();
  }
  return "";
}

}  // namespace

Status RunFolder::open(const Json& identity, const StrategyOptions& options, const namm::Shape& shape,
                       std::optional<RunState>* state) {
  std::error_code error;
  std::filesystem::create_directories(path_, error);
  if (error) return Status::error(ErrorCode::kIo, "%s cannot be made: %s", path_.c_str(), error.message().c_str());
  if (!std::filesystem::exists(file("state.json"))) return {};
  const Json in = Json::parse(std::ifstream(file("state.json")), nullptr, false);
  RunState read;
  if (in.is_object() && in.contains("identity")) {
    if (const std::string what = difference(in["identity"], identity); !what.empty()) {
      return Status::error(ErrorCode::kInvalidArgument, "%s has a run with %s: a run cannot change this", path_.c_str(),
                           what.c_str());
    }
  }
  if (!in.is_object() || !in.contains("identity") || !read_state(in, options, shape, read)) {
    return Status::error(ErrorCode::kCorruptSnapshot, "%s is no state of a run", file("state.json").c_str());
  }
  std::ifstream log(file("log.jsonl"));
  for (std::string text; std::getline(log, text);) {
    Json line = Json::parse(text, nullptr, false);
    // A run that was killed after it wrote the log makes the last generation again.
    const bool is_line = line.is_object() && line.contains("generation") && line["generation"].is_number_unsigned();
    if (is_line && line["generation"] < read.strategy.generation) log_.push_back(std::move(line));
  }
  *state = std::move(read);
  return {};
}

Status RunFolder::save(const Json& identity, const RunState& state, const Json& line, std::span<const uint8_t> namm) {
  log_.push_back(line);
  std::string log;
  for (const Json& each : log_) log += each.dump() + "\n";
  LETHE_RETURN_IF_ERROR(write(file("log.jsonl"), log));
  LETHE_RETURN_IF_ERROR(write(file("curve.svg"), curve(log_)));
  LETHE_RETURN_IF_ERROR(write(file("namm"), namm));
  return write(file("state.json"), to_json(identity, state).dump() + "\n");
}

}  // namespace lethe::evolve
