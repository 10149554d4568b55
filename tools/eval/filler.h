// The haystack: text of any length in which a generator hides what is to be remembered.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/sample/random.h"

namespace lethe::eval {

// A statement and where it goes: 0 is the front of the haystack, 1 its end.
struct Needle {
  double depth;
  std::string text;
};

class Filler {
 public:
  // "The grass is green. The sky is blue. ...": five sentences, in turn. A unit is a sentence.
  static const Filler& repeated();
  // A free text, such as a book; white space becomes single spaces. A unit is a word.
  explicit Filler(std::string_view text);

  bool empty() const { return sentences_.empty(); }

  // `units` units, from a sentence that `random` chooses (the repeated one: from its first) and round to the front
  // again after the last; the needles stand between sentences, at the boundaries nearest to their depths, those of
  // equal depth in their order. Everything is joined with `separator`.
  std::string hide(Random& random, size_t units, std::span<const Needle> needles, std::string_view separator) const;

 private:
  Filler() = default;

  std::vector<std::vector<std::string>> sentences_;  // of units; no sentence is empty
  bool starts_anywhere_ = true;
};

// Boundary of `count` pieces in a row nearest to `depth`: 0 ... count.
size_t boundary_at(double depth, size_t count);

}  // namespace lethe::eval
