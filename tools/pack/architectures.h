// What differs between the architectures that can be packed: one table, an entry an architecture. Everything else about
// them is read from the source's keys and from the tensors that it has. How to add one: docs/architectures.md.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/model/model.h"

namespace lethe {

// Tensors of a source that hold a role, or up to three one after another: rows of a matrix, elements of a vector.
struct TensorName {
  constexpr TensorName(std::string_view n, Role a) : name(n), roles{a}, count(1) {}
  constexpr TensorName(std::string_view n, Role a, Role b) : name(n), roles{a, b}, count(2) {}
  constexpr TensorName(std::string_view n, Role a, Role b, Role c) : name(n), roles{a, b, c}, count(3) {}
  constexpr TensorName as_transposed() const {
    TensorName out = *this;
    out.transposed = true;
    return out;
  }

  std::string_view name;      // without the number of the layer and without ".weight" or ".bias"
  std::array<Role, 3> roles;  // of the weights; bias_role() has those of the biases
  uint8_t count;
  bool transposed = false;  // matrices are stored [inputs, outputs]
};

struct Architecture {
  const char* name;               // in a file of ours
  const char* gguf = "";          // general.architecture; empty: GGUF has no name of its own for it
  std::array<const char*, 2> hf;  // model_type
  Norm norm = Norm::kRms;
  Activation activation = Activation::kSilu;  // Hugging Face's hidden_act overrides it
  bool learned_positions = false;             // instead of RoPE
  bool scaled_embeddings = false;             // by sqrt(embed_dim)
  uint32_t ffn_ratio = 0;                     // ffn_dim by embed_dim where the source leaves it out; 0: it must not
  uint32_t local_period = 0;                  // with a window, every n-th layer is global; 0: none is
  float hf_norm_offset = 0;                   // what the code of Hugging Face adds to the weights of norms
  bool gguf_interleaved = false;              // rows of Q and K as RoPE of neighbours needs them
  uint32_t gguf_window = 0;                   // where the source leaves it out
  float gguf_local_rope_base = 0;             // likewise
  uint32_t gguf_wide_layers = 0;              // models of so many layers scale scores by sqrt(embed_dim / heads) (27B)
  const char* hf_defaults = "{}";             // of keys that config.json may leave out
  std::span<const TensorName> gguf_tensors = {};  // looked up before the common names
  std::span<const TensorName> hf_tensors = {};
  std::span<const Role> required = {};  // beyond those that every decoder needs
};

std::span<const Architecture> architectures();

// Null when there is none.
const Architecture* find_gguf_architecture(std::string_view name);
const Architecture* find_hf_architecture(std::string_view model_type);

// kUnsupported, with the names that would be known.
Status unknown_architecture(std::string_view name, bool gguf);

// Where a tensor belongs.
struct TensorPlace {
  const TensorName* name;
  bool is_bias;
  uint32_t layer;  // 0 for tensors of the whole model
};

// False for a name that the architecture does not have.
bool find_gguf_tensor(const Architecture& architecture, std::string_view name, TensorPlace* out);
bool find_hf_tensor(const Architecture& architecture, std::string_view name, TensorPlace* out);

// The role of the bias that belongs to a role's weights; false when there is none.
bool bias_role(Role role, Role* out);

}  // namespace lethe
