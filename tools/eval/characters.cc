#include "tools/eval/characters.h"

#include <algorithm>

#include "runtime/base/utf8.h"

namespace lethe::eval {
namespace {

bool between(char32_t c, char32_t first, char32_t last) { return c >= first && c <= last; }

}  // namespace

Characters decode(std::string_view text) {
  Characters out;
  while (!text.empty()) {
    const utf8::Front front = utf8::front(text);
    out.push_back(front.kind == utf8::Kind::kCharacter ? static_cast<char32_t>(front.code) : 0xFFFD);
    text.remove_prefix(front.size);
  }
  return out;
}

Characters ascii(std::string_view text) { return {text.begin(), text.end()}; }

void to_lower(Characters& text) {
  for (char32_t& c : text) {
    if (between(c, 'A', 'Z') || (between(c, 0xC0, 0xDE) && c != 0xD7) || (between(c, 0x391, 0x3A9) && c != 0x3A2) ||
        between(c, 0x410, 0x42F) || between(c, 0xFF21, 0xFF3A)) {
      c += 0x20;
    } else if (between(c, 0x400, 0x40F)) {
      c += 0x50;
    } else if ((between(c, 0x100, 0x137) && c != 0x130) || between(c, 0x14A, 0x177)) {
      c |= 1;  // pairs, the capital at the even place
    } else if (between(c, 0x139, 0x148) || between(c, 0x179, 0x17E)) {
      c += c & 1;  // pairs, the capital at the odd place
    }
  }
}

bool is_space(char32_t c) {
  return between(c, 0x09, 0x0D) || between(c, 0x1C, 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         between(c, 0x2000, 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_digit(char32_t c) { return between(c, '0', '9'); }

bool is_word(char32_t c) {
  if (c < 0x80) return is_digit(c) || between(c, 'A', 'Z') || between(c, 'a', 'z') || c == '_';
  if (c < 0xC0) {
    return c == 0xAA || c == 0xB2 || c == 0xB3 || c == 0xB5 || c == 0xB9 || c == 0xBA || between(c, 0xBC, 0xBE);
  }
  return c != 0xD7 && c != 0xF7 && !between(c, 0x2000, 0x206F) && !between(c, 0x20A0, 0x20CF) &&
         !between(c, 0x2190, 0x245F) && !between(c, 0x2500, 0x2BFF) && !between(c, 0x3000, 0x3004) &&
         !between(c, 0x3008, 0x3020) && c != 0x303D && c != 0x30FB && !between(c, 0xFF01, 0xFF0F) &&
         !between(c, 0xFF1A, 0xFF20) && !between(c, 0xFF3B, 0xFF40) && !between(c, 0xFF5B, 0xFF65) && c != 0xFFFD;
}

bool is_ascii_punctuation(char32_t c) { return between(c, 0x21, 0x7E) && (c == '_' || !is_word(c)); }

bool is_wide_punctuation(char32_t c) {
  static const Characters kAll = decode(
      "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞"
      "〟〰〾〿–—‘’‛“”„‟…‧﹏.");
  return std::find(kAll.begin(), kAll.end(), c) != kAll.end();
}

Words split_words(const Characters& text) {
  Words words;
  bool open = false;
  for (const char32_t c : text) {
    if (is_space(c)) {
      open = false;
      continue;
    }
    if (!open) words.emplace_back();
    words.back().push_back(c);
    open = true;
  }
  return words;
}

Words split_at(const Characters& text, char32_t separator) {
  Words pieces(1);
  for (const char32_t c : text) {
    if (c == separator) {
      pieces.emplace_back();
    } else {
      pieces.back().push_back(c);
    }
  }
  return pieces;
}

bool contains(const Characters& text, const Characters& part) {
  return std::search(text.begin(), text.end(), part.begin(), part.end()) != text.end();
}

}  // namespace lethe::eval
