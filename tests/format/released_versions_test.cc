// Files of every released format version stay loadable: tests/data/models/format-N.model, never rewritten.
#include <doctest/doctest.h>

#include <cstring>
#include <string>

#include "runtime/model/model.h"
#include "tests/support/tiny_model.h"

using namespace lethe;
using namespace lethe::test;

// The file was packed from a GGUF file with Q4_1 matrices whose shapes and first weights are written out here.
TEST_CASE("a file of format version 2 loads, and its weights are those of its source") {
  const Result<Model*> opened = Model::open(LETHE_TEST_DATA "/models/format-2.model");
  REQUIRE_MESSAGE(opened.ok(), opened.status().message());
  Model* model = opened.value();
  const ModelConfig& config = model->config();
  CHECK(std::string(config.name) == "llama");
  CHECK(config.layers == 1);
  CHECK(config.embed_dim == 32);
  CHECK(config.heads == 2);
  CHECK(config.kv_heads == 1);
  CHECK(config.head_dim == 16);
  CHECK(config.ffn_dim == 96);
  CHECK(config.context_length == 512);
  for (uint32_t i = 0; i < model->segment_count(); ++i) CHECK(model->verify_segment(i).ok());

  // ffn_down is stored as its source has it: row r of a group has the halves d and m of the row's block.
  TinyOptions options{.type = GgmlType::kQ4_1, .layers = 1, .embed_dim = 32, .heads = 2, .kv_heads = 1, .ffn_dim = 96};
  options.all_bytes = false;
  GgufSource source = tiny_gguf(options);
  const std::string& blocks = source.tensor("blk.0.ffn_down.weight").data;
  const Tensor* tensor = model->find(Role::kFfnDown, 0);
  REQUIRE(tensor != nullptr);
  CHECK(tensor->format == WeightFormat::kQ4M);
  for (size_t row = 0; row < 16; ++row) {
    for (size_t group = 0; group < 3; ++group) {
      CAPTURE(row);
      CAPTURE(group);
      const char* block = blocks.data() + (row * 3 + group) * 20;  // ggml's block_q4_1: f16 d, f16 m, 16 bytes
      const uint8_t* stored = tensor->data + group * 320;          // parameters, then four lines of quants
      CHECK(std::memcmp(stored + 2 * row, block, 2) == 0);
      CHECK(std::memcmp(stored + 32 + 2 * row, block + 2, 2) == 0);
      for (size_t i = 0; i < 32; ++i) {
        const int nibble = static_cast<uint8_t>(block[4 + i % 16]) >> (i / 16 * 4) & 15;
        CHECK((stored[64 + i / 8 * 64 + 4 * row + i % 4] >> (i / 4 % 2 * 4) & 15) == nibble);
      }
    }
  }
  Model::close(model);
}
