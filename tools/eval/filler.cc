#include "tools/eval/filler.h"

#include <algorithm>
#include <cmath>

#include "tools/eval/draw.h"

namespace lethe::eval {
namespace {

constexpr std::string_view kSpace = " \t\r\n\f\v";

// Whether a sentence ends with this word: a full stop, a question or an exclamation mark, maybe within quotes.
bool ends_sentence(std::string_view word) {
  while (!word.empty() && std::string_view("\"')]").find(word.back()) != std::string_view::npos) word.remove_suffix(1);
  return !word.empty() && std::string_view(".?!").find(word.back()) != std::string_view::npos;
}

}  // namespace

const Filler& Filler::repeated() {
  static const Filler filler = [] {
    Filler made;
    for (const char* sentence :
         {"The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again."}) {
      made.sentences_.push_back({sentence});
    }
    made.starts_anywhere_ = false;
    return made;
  }();
  return filler;
}

Filler::Filler(std::string_view text) {
  bool open = false;
  while (true) {
    const size_t begin = text.find_first_not_of(kSpace);
    if (begin == std::string_view::npos) return;
    const size_t end = std::min(text.find_first_of(kSpace, begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    text.remove_prefix(end);
    if (!open) sentences_.emplace_back();
    sentences_.back().emplace_back(word);
    open = !ends_sentence(word);
  }
}

std::string Filler::hide(Random& random, size_t units, std::span<const Needle> needles,
                         std::string_view separator) const {
  // Pieces of the haystack, the last one cut to fit, and how many units stand before each.
  std::vector<std::string> pieces;
  std::vector<size_t> before{0};
  size_t at = starts_anywhere_ ? below(random, sentences_.size()) : 0;
  for (size_t left = units; left != 0; at = (at + 1) % sentences_.size()) {
    const std::vector<std::string>& sentence = sentences_[at];
    const size_t taken = std::min(left, sentence.size());
    std::string piece = sentence[0];
    for (size_t i = 1; i < taken; ++i) piece += " " + sentence[i];
    pieces.push_back(std::move(piece));
    left -= taken;
    before.push_back(units - left);
  }
  std::vector<std::pair<size_t, size_t>> places;  // boundary, needle
  for (size_t i = 0; i < needles.size(); ++i) {
    const double wanted = needles[i].depth * static_cast<double>(units);
    const auto distance = [&](size_t boundary) { return std::abs(static_cast<double>(boundary) - wanted); };
    const auto nearest =
        std::min_element(before.begin(), before.end(), [&](size_t a, size_t b) { return distance(a) < distance(b); });
    places.emplace_back(static_cast<size_t>(nearest - before.begin()), i);
  }
  std::sort(places.begin(), places.end());

  std::string out;
  const auto append = [&](std::string_view text) {
    if (!out.empty()) out += separator;
    out += text;
  };
  auto place = places.begin();
  for (size_t boundary = 0; boundary <= pieces.size(); ++boundary) {
    for (; place != places.end() && place->first == boundary; ++place) append(needles[place->second].text);
    if (boundary < pieces.size()) append(pieces[boundary]);
  }
  return out;
}

size_t boundary_at(double depth, size_t count) {
  return static_cast<size_t>(std::lround(std::clamp(depth, 0.0, 1.0) * static_cast<double>(count)));
}

}  // namespace lethe::eval
