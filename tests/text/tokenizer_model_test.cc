// The tokenizer of the real model against Hugging Face's, over lines that tokenizers get wrong.
#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/base/utf8.h"
#include "runtime/model/model.h"
#include "runtime/text/tokenizer.h"
#include "tests/support/base64.h"

namespace lethe {
namespace {

// Written by tools/reference/tokenizer_vectors.py, which explains the columns.
TEST_CASE("SmolLM2's tokenizer gives the ids of Hugging Face's") {
  const char* path = std::getenv("LETHE_TEST_MODEL");
  REQUIRE_MESSAGE(path != nullptr, "LETHE_TEST_MODEL must name the packed model; tools/test.sh sets it");
  Result<Model*> model = Model::open(path);
  REQUIRE_MESSAGE(model.ok(), model.status().message());

  constexpr uint64_t kMaxPieceBytes = 4096;
  Arena measuring = Arena::measuring();
  Tokenizer::layout(measuring, model.value()->tokenizer(), kMaxPieceBytes);
  auto* block = static_cast<uint8_t*>(std::aligned_alloc(64, measuring.used()));
  Arena arena(block, measuring.used());
  Tokenizer tokenizer;
  REQUIRE(
      tokenizer.open(model.value()->tokenizer(), Tokenizer::layout(arena, model.value()->tokenizer(), kMaxPieceBytes))
          .ok());

  std::ifstream file(LETHE_TEST_DATA "/tokenizer_smollm2_vectors.txt");
  std::string line;
  std::vector<int32_t> ids(4096);
  int lines = 0, different = 0;
  while (std::getline(file, line)) {
    const size_t tab = line.find('\t');
    REQUIRE(tab != std::string::npos);
    const std::string raw = test::from_base64(std::string_view(line).substr(0, tab));
    std::string text(3 * raw.size(), '\0');
    text.resize(utf8::replace_invalid(raw, text));
    std::vector<int32_t> expected;
    std::istringstream numbers(line.substr(tab + 3));
    for (int32_t id = 0; numbers >> id;) expected.push_back(id);

    uint64_t count = 0;
    const Status status = tokenizer.encode(text, {.parse_special = line[tab + 1] == 'S'}, ids, &count);
    REQUIRE_MESSAGE(status.ok(), status.message());
    if (std::vector<int32_t>(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(count)) != expected) {
      ++different;
      MESSAGE("line ", lines + 1, ": ", text);
    }
    ++lines;
  }
  CHECK(lines == 1000);
  CHECK(different == 0);
  std::free(block);
  Model::close(model.value());
}

}  // namespace
}  // namespace lethe
