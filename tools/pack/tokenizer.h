// Turns the tokenizer of a GGUF file or of a Hugging Face folder into the tables of a .lethe file's tokenizer segment.
#pragma once

#include <cstdint>
#include <string>
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

// tokenizer.ggml.model gpt2 (with a known tokenizer.ggml.pre), llama, gemma4 or t5. Errors: kCorruptModel,
// kUnsupported.
Status pack_gguf_tokenizer(const GgufFile& file, PackedTokenizer* out);

// Of the folder's tokenizer.json, else of its tokenizer.model (SentencePiece). Special ids, added tokens and the chat
// template also come from tokenizer_config.json, special_tokens_map.json, added_tokens.json, generation_config.json,
// config.json and chat_template.jinja, where they exist. `vocab` is the number of rows of the embedding: ids without a
// token become unused ones. Errors: kIo, kCorruptModel, kUnsupported; they name the file.
Status pack_hf_tokenizer(const std::string& folder, uint32_t vocab, PackedTokenizer* out);

}  // namespace lethe
