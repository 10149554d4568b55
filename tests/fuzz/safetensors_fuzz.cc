// The packer on any safetensors file beside a fixed config and tokenizer. What it accepts, the loader must accept, too;
// what it refuses must leave nothing behind.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "runtime/model/model.h"
#include "tests/support/tiny_model.h"
#include "tests/support/tiny_safetensors.h"

using namespace lethe;

namespace {

std::string make_folder() {
  const std::string path = test::temporary_path("-hf");
  std::filesystem::create_directory(path);
  test::write_file(path + "/config.json", test::kTinyHfConfig);
  test::write_file(path + "/tokenizer.json", test::kTinyHfTokenizer);
  return path;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string folder = make_folder();
  static const std::string output = test::temporary_path(".lethe");
  if (size == 0) return 0;
  test::write_file(folder + "/model.safetensors", {reinterpret_cast<const char*>(data), size});
  std::filesystem::remove(output);
  PackOptions options;
  options.input = folder;
  options.output = output;
  PackReport report;
  const Status packed = pack_model(options, &report);
  if (packed.ok() != std::filesystem::exists(output)) std::abort();
  if (!packed.ok()) {
    if (packed.code() == ErrorCode::kInternal || packed.code() == ErrorCode::kIo) {
      std::fprintf(stderr, "%s\n", packed.message());
      std::abort();
    }
    return 0;
  }
  Result<Model*> model = Model::open(output.c_str());
  if (!model.ok()) {
    std::fprintf(stderr, "packed but not loaded: %s\n", model.status().message());
    std::abort();
  }
  Model::close(model.value());
  return 0;
}
