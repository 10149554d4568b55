#include "runtime/text/normaliser.h"

#include "runtime/text/symbol.h"

namespace lethe {
namespace {

// What stands at the front of a text and what takes its place.
struct Replacement {
  size_t size;  // bytes of the text
  std::string_view by;
};

// The longest entry of the charsmap at the front of `text`, else its first character as it is. The trie is a double
// array in the layout of Darts-clone (Yata, https://github.com/s-yata/darts-clone): every step is checked, as it comes
// from the file.
Replacement replace_front(const TokenizerData& data, std::string_view text) {
  const auto offset = [](uint32_t unit) { return (unit >> 10) << ((unit & 1u << 9) >> 6); };
  const size_t character = front_character(text).size;
  Replacement best = {character, text.substr(0, character)};
  const std::span<const uint32_t> units = data.charsmap_units;
  if (units.empty()) return best;
  uint32_t node = offset(units[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const uint32_t label = static_cast<uint8_t>(text[i]);
    node ^= label;
    if (node >= units.size() || (units[node] & (1u << 31 | 0xffu)) != label) break;
    const bool has_value = (units[node] >> 8 & 1) != 0;
    node ^= offset(units[node]);
    if (!has_value) continue;
    if (node >= units.size()) break;
    const size_t begin = units[node] & 0x7fffffffu;
    if (begin >= data.charsmap_texts.size()) break;
    best = {i + 1, data.charsmap_texts.substr(begin, data.charsmap_texts.find('\0', begin) - begin)};
  }
  return best;
}

}  // namespace

Status normalise(const TokenizerData& data, std::string_view text, bool prefix, NormalisedSink sink, void* context) {
  bool any = false, waiting = false;  // a space waits until it is clear whether another follows it
  const auto add = [&](std::string_view character) -> Status {
    if (!any && prefix && !(data.prefix_unless_space && character == " ")) LETHE_RETURN_IF_ERROR(sink(context, " "));
    any = true;
    return sink(context, character);
  };
  while (!text.empty()) {
    Replacement front = replace_front(data, text);
    text.remove_prefix(front.size);
    while (!front.by.empty()) {
      const std::string_view character = front.by.substr(0, front_character(front.by).size);
      front.by.remove_prefix(character.size());
      if (data.space_rule != SpaceRule::kKeep && character == " ") {
        waiting = any || data.space_rule == SpaceRule::kCollapse;
        continue;
      }
      if (waiting) LETHE_RETURN_IF_ERROR(add(" "));
      waiting = false;
      LETHE_RETURN_IF_ERROR(add(character == kVisibleSpace ? " " : character));
    }
  }
  return waiting && data.space_rule == SpaceRule::kCollapse ? add(" ") : Status();
}

}  // namespace lethe
