// Turns the tokenizer of a GGUF file into the tables of a .lethe file's tokenizer segment.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/base/status.h"
#include "tools/pack/gguf.h"
#include "tools/pack/header.h"

namespace lethe {

struct PackedTokenizer {
  uint32_t vocab = 0;
  TokenizerEntry entry;
  std::vector<uint8_t> segment;
};

// Byte-level BPE only (tokenizer.ggml.model "gpt2"). Errors: kCorruptModel, kUnsupported.
Status pack_gguf_tokenizer(const GgufFile& file, PackedTokenizer* out);

}  // namespace lethe
