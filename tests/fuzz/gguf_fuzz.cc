// The packer on any GGUF file. What it accepts, the loader must accept, too; what it refuses must leave nothing behind.
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "runtime/model/model.h"
#include "tests/support/tiny_model.h"
#include "tools/pack/pack.h"

using namespace lethe;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string input = test::temporary_path(".gguf");
  static const std::string output = test::temporary_path(".lethe");
  if (size == 0) return 0;
  test::write_file(input, {reinterpret_cast<const char*>(data), size});
  for (const PackType type : {PackType::kKeep, PackType::kQ4}) {
    std::filesystem::remove(output);
    PackReport report;
    const Status packed = pack_model({input, output, type, {}}, &report);
    struct stat found;
    if (packed.ok() != (stat(output.c_str(), &found) == 0)) std::abort();
    if (!packed.ok()) {
      if (packed.code() == ErrorCode::kInternal || packed.code() == ErrorCode::kIo) {
        std::fprintf(stderr, "%s\n", packed.message());
        std::abort();
      }
      continue;
    }
    Result<Model*> model = Model::open(output.c_str());
    if (!model.ok()) {
      std::fprintf(stderr, "packed but not loaded: %s\n", model.status().message());
      std::abort();
    }
    Model::close(model.value());
  }
  return 0;
}
