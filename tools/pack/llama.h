// The "llama" architecture of GGUF: its keys, its tensor names and the order of its rows.
#pragma once

#include <string_view>

#include "runtime/base/status.h"
#include "runtime/model/model.h"
#include "tools/pack/gguf.h"

namespace lethe {

// Reads and checks the hyper-parameters; `vocab` comes from the tokenizer. Errors: kUnsupported for other
// architectures and for keys that change the calculation in a way the decoder does not have, kCorruptModel.
Status read_llama_config(const GgufFile& file, uint32_t vocab, ModelConfig* config);

// Role and layer of a tensor by its name ("blk.3.attn_q.weight"); false for a name this architecture does not have.
bool parse_llama_tensor_name(std::string_view name, Role* role, uint32_t* layer);

// Row of the source that becomes row `row` of ours. GGUF stores the rows of Q and K so that RoPE turns neighbours
// (2i, 2i + 1); ours turns (i, i + rotary_dim / 2), as the original checkpoints do.
uint64_t llama_source_row(Role role, const ModelConfig& config, uint64_t row);

}  // namespace lethe
