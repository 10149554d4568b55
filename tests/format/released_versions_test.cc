// Files of every released format version stay loadable: tests/data/models/format-N.model, never rewritten.
#include <doctest/doctest.h>

#include <cstring>
#include <string>

#include "runtime/model/model.h"
#include "tests/support/tiny_model.h"

using namespace lethe;
using namespace lethe::test;

// The file was packed from a GGUF file with Q4_1 matrices whose shapes and first weights are written out here.
TEST_CASE("a file of format version 1 loads, and its weights are those of its source") {
  const Result<Model*> opened = Model::open(LETHE_TEST_DATA "/models/format-1.model");
  REQUIRE_MESSAGE(opened.ok(), opened.status().message());
  Model* model = opened.value();
  const ModelConfig& config = model->config();
  CHECK(std::string(config.name) == "llama");
  CHECK(config.layers == 1);
  CHECK(config.embed_dim == 32);
  CHECK(config.heads == 2);
  CHECK(config.kv_heads == 1);
  CHECK(config.head_dim == 16);
  CHECK(config.ffn_dim == 32);
  CHECK(config.context_length == 512);
  for (uint32_t i = 0; i < model->segment_count(); ++i) CHECK(model->verify_segment(i).ok());

  // ffn_down is stored as its source has it: row r of the panel's first group has the halves d and m of block r.
  TinyOptions options{.type = GgmlType::kQ4_1, .layers = 1, .embed_dim = 32, .heads = 2, .kv_heads = 1, .ffn_dim = 32};
  options.all_bytes = false;
  GgufSource source = tiny_gguf(options);
  const std::string& blocks = source.tensor("blk.0.ffn_down.weight").data;
  const Tensor* tensor = model->find(Role::kFfnDown, 0);
  REQUIRE(tensor != nullptr);
  CHECK(tensor->format == WeightFormat::kQ4M);
  for (size_t row = 0; row < kPanelRows; ++row) {
    CAPTURE(row);
    const char* block = blocks.data() + row * 20;  // ggml's block_q4_1: f16 d, f16 m, 16 bytes
    CHECK(std::memcmp(tensor->data + 2 * row, block, 2) == 0);
    CHECK(std::memcmp(tensor->data + 2 * kPanelRows + 2 * row, block + 2, 2) == 0);
  }
  Model::close(model);
}
