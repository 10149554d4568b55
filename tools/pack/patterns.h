// Split patterns of the known pre-tokenizers, in the form in which they stand in a model file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lethe {

struct PreTokenizer {
  std::vector<std::string> patterns;  // PCRE2, applied one after another (Splitter)
  bool ignore_merges = false;         // a whole piece that is a token becomes it without merging
  bool add_bos = false;               // when the file does not say
  bool nfc = false;                   // text becomes Unicode NFC first
};

// By the name that GGUF files give (tokenizer.ggml.pre). kUnsupported: an unknown one.
Status find_pre_tokenizer(std::string_view name, PreTokenizer* out);

// A pattern in the syntax of tokenizer.json (Oniguruma) as PCRE2, with the meaning that it has there. kUnsupported:
// what the two libraries read differently.
Status translate_pattern(std::string_view source, std::string* out);

std::string digits_pattern(bool individual);  // Hugging Face's Digits
std::string gpt2_pattern();                   // ByteLevel with use_regex

}  // namespace lethe
