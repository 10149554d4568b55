// What holds for a tokenizer that its reader has accepted.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/support/loaded_tokenizer.h"
#include "tools/pack/tokenizer_source.h"

namespace lethe::test {

// Sums of a unigram model's scores begin anew at some cuts, so that they may round to the other of two equal ways.
inline bool rounds_apart(const TokenizerSource& source) {
  const auto extreme = [](const SourceToken& token) { return std::abs(token.score) > 80; };
  return source.kind == TokenizerKind::kUnigram &&
         (!source.single_precision || std::any_of(source.tokens.begin(), source.tokens.end(), extreme));
}

// If it packs, it loads; encoding ends without harm, and where a text is cut makes no difference. `text` is any UTF-8.
inline void check_tokenizer(const TokenizerSource& source, const std::string& text) {
  const auto fail = [](const char* what, const Status& status) {
    std::fprintf(stderr, "%s: %s\n", what, status.message());
    std::abort();
  };
  PackedTokenizer packed;
  if (!build_tokenizer(source, &packed).ok()) return;
  LoadedTokenizer cutting(packed), whole(packed, false);
  if (!cutting.status().ok()) fail("packed but not loaded", cutting.status());
  std::vector<int32_t> ids, ids_of_whole;
  const Status status = cutting.encode(text, {.parse_special = true, .add_bos = true}, &ids);
  if (status.code() == ErrorCode::kInternal) fail("encode", status);
  const Status status_of_whole = whole.encode(text, {.parse_special = true, .add_bos = true}, &ids_of_whole);
  if (rounds_apart(source)) return;
  if (status_of_whole.ok() && (!status.ok() || ids != ids_of_whole)) fail("cut", status);
}

// Text that meets the tokens: those of the source one after another, what tokenizers get wrong, and noise.
inline std::string text_for(const TokenizerSource& source) {
  std::string raw =
      "The light, 1234  don't\n\n e\xcc\x81 \xe2\x96\x81\xe2\x96\x81 \xef\xac\x81 \xf0\x9f\x98\x80<s></s> ";
  for (const SourceToken& token : source.tokens) {
    if (raw.size() > 1000) break;
    raw += token.text.substr(0, 100);
  }
  std::string text(3 * raw.size(), '\0');
  text.resize(utf8::replace_invalid(raw, text));
  return text;
}

}  // namespace lethe::test
