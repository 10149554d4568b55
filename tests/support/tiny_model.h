// A tiny llama model as a GGUF file, made from a seed: tests of the engine and of the formats need no download.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tools/pack/gguf.h"
#include "tools/pack/pack.h"

namespace lethe::test {

struct GgufKey {
  std::string key;
  std::string value;  // type and payload as in the file
};

struct GgufSourceTensor {
  std::string name;
  GgmlType type;
  std::vector<uint64_t> dims;  // GGUF's order: columns first
  std::string data;
};

// A GGUF file that is about to be written; tests change what they like before bytes().
struct GgufSource {
  uint32_t version = 3;
  std::vector<GgufKey> keys;
  std::vector<GgufSourceTensor> tensors;

  void set_u32(std::string_view key, uint32_t value);
  void set_f32(std::string_view key, float value);
  void set_bool(std::string_view key, bool value);
  void set_string(std::string_view key, std::string_view value);
  void set_strings(std::string_view key, const std::vector<std::string>& values);
  void set_i32s(std::string_view key, const std::vector<int32_t>& values);
  void set_raw(std::string_view key, std::string value);  // replaces the key or appends it
  void erase(std::string_view key);
  GgufSourceTensor& tensor(std::string_view name);  // must exist

  std::string bytes(uint64_t* metadata_bytes = nullptr) const;
};

struct TinyOptions {
  GgmlType type = GgmlType::kF32;  // of the matrices, not a K type; norms are F32
  uint32_t layers = 2;
  uint32_t embed_dim = 64;
  uint32_t heads = 4;
  uint32_t kv_heads = 2;
  uint32_t head_dim = 16;
  uint32_t ffn_dim = 96;
  uint32_t context_length = 512;
  bool tied = true;       // no output.weight
  bool all_bytes = true;  // 256 byte tokens; false: only those that the merges need, for small files
  uint32_t seed = 1;
};

// Vocabulary: <|endoftext|> 0, <|im_start|> 1, <|im_end|> 2, the byte tokens from 3 in order of the byte, then the
// merges ("hello", " the", ...). Chat template: ChatML. bos = 1, eos = 2. Pre-tokenizer "smollm". Matrices are normal
// with deviation 1 / sqrt(columns) and norms near 1, so that activations stay of the order of 1.
GgufSource tiny_gguf(const TinyOptions& options);

// The weights of a tensor as floats [rows * cols], after ggml's definition of its types. Independent of the packer.
std::vector<float> reference_dequantise(GgmlType type, std::string_view data);

// Path of a new name in the system's folder for temporary files; removed when the process ends.
std::string temporary_path(std::string_view suffix);
void write_file(const std::string& path, std::string_view bytes);
std::string read_file(const std::string& path);

// Packs tiny_gguf(options) with `type` to a temporary file and returns its path. Fails the process on an error.
std::string tiny_model_path(const TinyOptions& options, PackType type = PackType::kKeep);
std::string tiny_model_path(GgmlType type);

}  // namespace lethe::test
