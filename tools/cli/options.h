// Options that several subcommands share, and how they become the library's structs.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lethe/lethe.hpp"
#include "runtime/os/file.h"

namespace CLI {
class App;
}

namespace lethe::cli {

// --ram SIZE. 0 bytes is a size (the library says what would do).
struct RamOption {
  std::optional<std::string> text;

  void add_to(CLI::App& command);
  // Throws invalid_argument when it is missing (and there is no default) or no size.
  uint64_t bytes() const;
};

// A NAMM file, mapped: sessions point into it.
class NammFile {
 public:
  explicit NammFile(const std::string& path);  // throws io
  void give_to(lethe_session_params& params) const;
  const uint8_t* data() const { return map_.data(); }
  size_t size() const { return map_.size(); }

 private:
  os::FileMap map_;
};

struct SessionOptions {
  RamOption ram = {};
  std::optional<std::string> policy = {}, kv = {}, positions = {}, budget = {}, pool = {}, hand_over = {};
  std::optional<uint32_t> sinks = {}, chunk = {}, threads = {}, recent = {};
  std::optional<uint64_t> policy_seed = {};
  bool value_norm = false;
  std::optional<std::string> namm = {};
  mutable std::shared_ptr<const NammFile> namm_file = {};  // mapped by params()

  void add_to(CLI::App& command);
  // Points into this object's strings and file. Throws invalid_argument, io.
  lethe_session_params params(uint64_t host_bytes) const;
};

struct SamplingOptions {
  bool greedy = false;
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<uint32_t> top_k;
  std::optional<uint64_t> seed;

  void add_to(CLI::App& command);
  // Throws invalid_argument when the options contradict each other.
  lethe_sampling sampling() const;
};

struct ReplyOptions {
  uint64_t max_tokens;
  std::vector<std::string> stop;
  bool ignore_eos = false;

  void add_to(CLI::App& command);
  // Points into this object and `stop_texts`, which it fills.
  lethe_generate_params params(std::vector<const char*>& stop_texts) const;
};

// --trace FILE.
struct TraceOption {
  std::optional<std::string> path = {};
  uint32_t interval_ms = api::trace_params().interval_ms;

  void add_to(CLI::App& command, const char* help);
  // Nothing without a file; with one, the tokens are in it. Throw what the library says.
  void start(api::Session& session) const;
  void stop(api::Session& session) const;
};

// MODEL, the first positional argument.
void add_model(CLI::App& command, std::string& path);
void add_json(CLI::App& command, bool& json);

}  // namespace lethe::cli
