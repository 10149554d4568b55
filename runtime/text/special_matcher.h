// Finds the texts of special tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "runtime/model/model.h"

namespace lethe {

// Immutable after open(). A match is the longest at its place; of tokens with the same text the smallest id.
class SpecialMatcher {
 public:
  struct Match {
    uint32_t id = kNoToken;  // kNoToken: no match
    size_t begin, end;       // in the text, with the white space that the token takes along
  };

  // `data` outlives the object.
  void open(const TokenizerData& data);

  // The first match in `text` (valid UTF-8) that begins at `from` or later; its white space begins there at the
  // earliest. User-defined tokens always match, control tokens only with `control`.
  Match find(std::string_view text, size_t from, bool control) const;

 private:
  Match match_at(std::string_view text, size_t at, bool control) const;

  const TokenizerData* data_ = nullptr;
  bool visible_spaces_ = false;  // U+2581 in the text is ' ' in tokens
  bool front_[256] = {};         // bytes of a text with which a special token can begin
};

}  // namespace lethe
