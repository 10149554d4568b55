// The two files in which a Hugging Face folder can hold its tokenizer.
#pragma once

#include <cstdint>
#include <string_view>

#include "runtime/base/status.h"
#include "tools/pack/tokenizer_source.h"

namespace lethe {

// The bytes of a tokenizer.json (Hugging Face's tokenizers). Understood: BPE over bytes or characters and Unigram, with
// the normalisers and pre-tokenizers of the known model families. bos_id and add_bos are set if its template begins
// with a special token. Errors: kCorruptModel, also for an id that is not below `vocab`; kUnsupported names the part
// that is not understood.
Status read_tokenizer_json(std::string_view bytes, uint32_t vocab, TokenizerSource* out);

// The bytes of a tokenizer.model (SentencePiece, BPE or unigram). Errors: kCorruptModel, kUnsupported.
Status read_sentencepiece_model(std::string_view bytes, TokenizerSource* out);

}  // namespace lethe
