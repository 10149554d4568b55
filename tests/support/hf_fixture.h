// The tiny models of tests/data/hf (tools/reference/architecture_fixtures.py says what they hold).
#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/tiny_model.h"

namespace lethe::test {

// Names of the models that there are as folders, and of those that there are as GGUF files, too.
inline std::vector<std::string> hf_fixtures() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(LETHE_TEST_DATA "/hf")) {
    if (std::filesystem::exists(entry.path() / "config.json")) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::vector<std::string> gguf_fixtures() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(LETHE_TEST_DATA "/hf/gguf")) {
    names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::string gguf_fixture(const std::string& name) { return LETHE_TEST_DATA "/hf/gguf/" + name + ".gguf"; }

// A copy of a fixture with all its files in one folder, which a test may change; removed at the end of the scope.
struct HfFolder {
  explicit HfFolder(const std::string& name) : path(temporary_path("-" + name)) {
    const std::filesystem::path root = LETHE_TEST_DATA "/hf";
    std::filesystem::create_directory(path);
    add(root / "tokenizer");
    const std::string described = root / name / "expected.json";
    if (std::filesystem::exists(described)) {
      add(root / nlohmann::json::parse(read_file(described))["base"].get<std::string>());
    }
    add(root / name);
  }
  ~HfFolder() { std::filesystem::remove_all(path); }
  HfFolder(const HfFolder&) = delete;
  HfFolder& operator=(const HfFolder&) = delete;

  std::string file(const std::string& name) const { return path + "/" + name; }
  nlohmann::json json(const std::string& name) const { return nlohmann::json::parse(read_file(file(name))); }
  void write_json(const std::string& name, const nlohmann::json& value) const { write_file(file(name), value.dump()); }

  std::string path;

 private:
  void add(const std::filesystem::path& from) const {
    using Options = std::filesystem::copy_options;
    std::filesystem::copy(from, path, Options::recursive | Options::overwrite_existing);
  }
};

// Logits of transformers after every token.
struct ExpectedLogits {
  explicit ExpectedLogits(const std::string& name) {
    const std::string bytes = read_file(LETHE_TEST_DATA "/hf/" + name + "/expected.bin");
    uint32_t counts[2];
    std::memcpy(counts, bytes.data(), sizeof counts);
    vocab = counts[1];
    ids.resize(counts[0]);
    logits.resize(size_t{counts[0]} * vocab);
    std::memcpy(ids.data(), bytes.data() + 8, ids.size() * 4);
    std::memcpy(logits.data(), bytes.data() + 8 + ids.size() * 4, logits.size() * 4);
  }
  const float* row(size_t token) const { return &logits[token * vocab]; }

  std::vector<int32_t> ids;
  std::vector<float> logits;  // [ids, vocab]
  uint32_t vocab;
};

}  // namespace lethe::test
