// What tests of commands with an --out folder share.
#pragma once

#include <filesystem>
#include <string>

#include "tests/tools/cli.h"

namespace lethe::test {

// A folder that is removed with the test.
struct Folder {
  std::string path = temporary_path(".out");
  ~Folder() { std::filesystem::remove_all(path); }
  std::string file(const char* name) const { return path + "/" + name; }
};

// A tiny model with room for prompts of some thousand tokens.
inline const std::string& long_model() {
  static const std::string path = [] {
    TinyOptions options;
    options.context_length = 4096;
    return tiny_model_path(options);
  }();
  return path;
}

}  // namespace lethe::test
