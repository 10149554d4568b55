// The smallest Hugging Face model: its config and tokenizer, and weights of zero as a safetensors file.
#pragma once

#include <cstdint>
#include <string>

namespace lethe::test {

inline constexpr const char* kTinyHfConfig = R"({"model_type": "llama", "vocab_size": 4, "hidden_size": 4,
  "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
  "max_position_embeddings": 16, "rms_norm_eps": 1e-6, "tie_word_embeddings": true})";

inline constexpr const char* kTinyHfTokenizer = R"({"version": "1.0",
  "added_tokens": [{"id": 3, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true}],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
  "post_processor": null, "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}})";

inline std::string tiny_safetensors() {
  struct {
    const char *name, *dtype, *shape;
    uint32_t bytes;
  } const tensors[] = {{"model.embed_tokens.weight", "F16", "4,4", 32},
                       {"model.layers.0.input_layernorm.weight", "F32", "4", 16},
                       {"model.layers.0.mlp.down_proj.weight", "BF16", "4,4", 32},
                       {"model.layers.0.mlp.gate_proj.weight", "BF16", "4,4", 32},
                       {"model.layers.0.mlp.up_proj.weight", "BF16", "4,4", 32},
                       {"model.layers.0.post_attention_layernorm.weight", "BF16", "4", 8},
                       {"model.layers.0.self_attn.k_proj.weight", "F32", "2,4", 32},
                       {"model.layers.0.self_attn.o_proj.weight", "F16", "4,4", 32},
                       {"model.layers.0.self_attn.q_proj.weight", "F16", "4,4", 32},
                       {"model.layers.0.self_attn.v_proj.weight", "F16", "2,4", 16},
                       {"model.norm.weight", "F16", "4", 8}};
  std::string header = R"({"__metadata__":{"format":"pt"})";
  uint32_t end = 0;
  for (const auto& t : tensors) {
    header += std::string(",\"") + t.name + "\":{\"dtype\":\"" + t.dtype + "\",\"shape\":[" + t.shape +
              "],\"data_offsets\":[" + std::to_string(end) + "," + std::to_string(end + t.bytes) + "]}";
    end += t.bytes;
  }
  header += "}";
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + std::string(end, '\0');
}

}  // namespace lethe::test
