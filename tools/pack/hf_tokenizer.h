#pragma once
#include <string>

#include "runtime/base/status.h"
#include "tools/pack/tokenizer.h"
namespace lethe {
Status pack_hf_tokenizer(const std::string& folder, uint32_t vocab, PackedTokenizer* out);
}
