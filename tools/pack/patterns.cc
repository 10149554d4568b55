#include "tools/pack/patterns.h"

#include <algorithm>
#include <iterator>

namespace lethe {
namespace {

// The references are Hugging Face's pre-tokenizers, whose classes come from Oniguruma (Unicode 16) and, for Digits,
// from Rust's char::is_numeric (Unicode 17). PCRE2 differs from them: its \s holds U+180E, and its properties
// are those of its own release (10.42: Unicode 14). So these classes are spelt out: white space as the list of
// White_Space, the others as the property plus what Unicode 15 and 16 added. Then every PCRE2 release splits
// alike. The ASCII ranges say nothing new; they let PCRE2 answer from a bit map. tools/reference/unicode_tables.py
// lists what each property lacks.
constexpr std::string_view kWhiteSpace =
    R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
struct Property {
  std::string_view name, items;  // the inside of a class
};
constexpr Property kProperties[] = {
    {"L", R"(a-zA-Z\p{L}\x{1c89}-\x{1c8a}\x{a7cb}-\x{a7cd}\x{a7da}-\x{a7dc}\x{105c0}-\x{105f3}\x{10d4a}-\x{10d65})"
          R"(\x{10d6f}-\x{10d85}\x{10ec2}-\x{10ec4}\x{1123f}-\x{11240}\x{11380}-\x{11389}\x{1138b}\x{1138e})"
          R"(\x{11390}-\x{113b5}\x{113b7}\x{113d1}\x{113d3}\x{11bc0}-\x{11be0}\x{11f02}\x{11f04}-\x{11f10})"
          R"(\x{11f12}-\x{11f33}\x{1342f}\x{13441}-\x{13446}\x{13460}-\x{143fa}\x{16100}-\x{1611d})"
          R"(\x{16d40}-\x{16d6c}\x{18cff}\x{1b132}\x{1b155}\x{1df25}-\x{1df2a}\x{1e030}-\x{1e06d})"
          R"(\x{1e4d0}-\x{1e4eb}\x{1e5d0}-\x{1e5ed}\x{1e5f0}\x{2b739}\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})"},
    {"N", R"(0-9\p{N}\x{10d40}-\x{10d49}\x{116d0}-\x{116e3}\x{11bf0}-\x{11bf9}\x{11f50}-\x{11f59})"
          R"(\x{16130}-\x{16139}\x{16d70}-\x{16d79}\x{1ccf0}-\x{1ccf9}\x{1d2c0}-\x{1d2d3}\x{1e4f0}-\x{1e4f9})"
          R"(\x{1e5f1}-\x{1e5fa})"},
    {"Lu", R"(\p{Lu}\x{1c89}\x{a7cb}-\x{a7cc}\x{a7da}\x{a7dc}\x{10d50}-\x{10d65})"},
    {"Ll", R"(\p{Ll}\x{1c8a}\x{a7cd}\x{a7db}\x{10d70}-\x{10d85}\x{1df25}-\x{1df2a})"},
    {"Lm", R"(\p{Lm}\x{10d4e}\x{10d6f}\x{16d40}-\x{16d42}\x{16d6b}-\x{16d6c}\x{1e030}-\x{1e06d}\x{1e4eb})"},
    {"Lo", R"(\p{Lo}\x{105c0}-\x{105f3}\x{10d4a}-\x{10d4d}\x{10d4f}\x{10ec2}-\x{10ec4}\x{1123f}-\x{11240})"
           R"(\x{11380}-\x{11389}\x{1138b}\x{1138e}\x{11390}-\x{113b5}\x{113b7}\x{113d1}\x{113d3})"
           R"(\x{11bc0}-\x{11be0}\x{11f02}\x{11f04}-\x{11f10}\x{11f12}-\x{11f33}\x{1342f}\x{13441}-\x{13446})"
           R"(\x{13460}-\x{143fa}\x{16100}-\x{1611d}\x{16d43}-\x{16d6a}\x{18cff}\x{1b132}\x{1b155})"
           R"(\x{1e4d0}-\x{1e4ea}\x{1e5d0}-\x{1e5ed}\x{1e5f0}\x{2b739}\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})"},
    {"M", R"(\p{M}\x{897}\x{cf3}\x{ece}\x{10d69}-\x{10d6d}\x{10efc}-\x{10eff}\x{11241}\x{113b8}-\x{113c0})"
          R"(\x{113c2}\x{113c5}\x{113c7}-\x{113ca}\x{113cc}-\x{113d0}\x{113d2}\x{113e1}-\x{113e2})"
          R"(\x{11f00}-\x{11f01}\x{11f03}\x{11f34}-\x{11f3a}\x{11f3e}-\x{11f42}\x{11f5a}\x{13440})"
          R"(\x{13447}-\x{13455}\x{1611e}-\x{1612f}\x{1e08f}\x{1e4ec}-\x{1e4ef}\x{1e5ee}-\x{1e5ef})"},
    {"P", R"(\p{P}\x{1b4e}-\x{1b4f}\x{1b7f}\x{10d6e}\x{113d4}-\x{113d5}\x{113d7}-\x{113d8}\x{11b00}-\x{11b09})"
          R"(\x{11be1}\x{11f43}-\x{11f4f}\x{16d6d}-\x{16d6f}\x{1e5ff})"},
    {"S", R"(\p{S}\x{2427}-\x{2429}\x{2ffc}-\x{2fff}\x{31e4}-\x{31e5}\x{31ef}\x{10d8e}-\x{10d8f})"
          R"(\x{1cc00}-\x{1ccef}\x{1cd00}-\x{1ceb3}\x{1f6dc}\x{1f774}-\x{1f776}\x{1f77b}-\x{1f77f}\x{1f7d9})"
          R"(\x{1f8b2}-\x{1f8bb}\x{1f8c0}-\x{1f8c1}\x{1fa75}-\x{1fa77}\x{1fa87}-\x{1fa89}\x{1fa8f})"
          R"(\x{1faad}-\x{1faaf}\x{1fabb}-\x{1fabf}\x{1fac6}\x{1face}-\x{1facf}\x{1fada}-\x{1fadc}\x{1fadf})"
          R"(\x{1fae8}-\x{1fae9}\x{1faf7}-\x{1faf8}\x{1fbcb}-\x{1fbef})"},
};

// Digits: the two ranges are Unicode 17's.
constexpr std::string_view kMoreDigits = R"(\x{11de0}-\x{11de9}\x{16ff4}-\x{16ff6})";

constexpr char kGpt2[] = R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
#define LETHE_CONTRACTION R"((?i:'s|'t|'re|'ve|'m|'ll|'d))"
#define LETHE_WORDS R"([^\r\n\p{L}\p{N}]?\p{L}+)"
#define LETHE_REST R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
constexpr char kLlama3[] = LETHE_CONTRACTION "|" LETHE_WORDS R"(|\p{N}{1,3}|)" LETHE_REST;
constexpr char kQwen2[] = LETHE_CONTRACTION "|" LETHE_WORDS R"(|\p{N}|)" LETHE_REST;
constexpr char kQwen35[] = LETHE_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)"
                                             R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Words of one case pattern: capitals, then small letters.
#define LETHE_UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define LETHE_LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
#define LETHE_CASED(end)                                                                                           \
  R"([^\r\n\p{L}\p{N}]?)" LETHE_UPPER "*" LETHE_LOWER "+" end R"(|[^\r\n\p{L}\p{N}]?)" LETHE_UPPER "+" LETHE_LOWER \
  "*" end
#define LETHE_SLASH_REST R"( ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
constexpr char kTekken[] = LETHE_CASED("") R"(|\p{N}|)" LETHE_SLASH_REST;
constexpr char kGpt4o[] = LETHE_CASED(LETHE_CONTRACTION "?") R"(|\p{N}{1,3}|)" LETHE_SLASH_REST;
constexpr char kDeepSeek3[] = R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
                              R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kHan[] = R"([\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+)";
constexpr char kHanHangul[] = R"([\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+)";
constexpr char kCasedLetters[] =
    R"(\s?[A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af})"
    R"(\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}\x{3a3}-)"
    R"(\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}\x{13f8}-\x{13fd})"
    R"(\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15})"
    R"(\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d}\x{1f5f}-)"
    R"(\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}\x{1fd0}-\x{1fd3})"
    R"(\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}\x{210a}-\x{2113})"
    R"(\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}\x{213c}-)"
    R"(\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}\x{2ceb}-\x{2cee})"
    R"(\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787}\x{a78b}-\x{a78e})"
    R"(\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{10400}-\x{1044f})"
    R"(\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-)"
    R"(\x{1e943}]+)";
constexpr char kFullWidth[] = R"(\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+)";
constexpr char kPunctuation[] = R"([\p{P}\$\+<=>\^~\|`]+)";
constexpr char kDigits[] = "";  // stands for digits_pattern(true)

struct Known {
  std::string_view names;  // of tokenizer.ggml.pre, between spaces
  const char* patterns[6];
  bool ignore_merges, add_bos, nfc;
};
constexpr Known kKnown[] = {
    {" gpt-2 phi-2 mpt olmo jais gigachat trillion exaone4 mellum granite-docling ", {kGpt2}, false, false, false},
    {" smollm starcoder refact command-r codeshell exaone minerva-7b mellum2 ", {kDigits, kGpt2}, false, false, false},
    {" llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 ", {kLlama3}, true, true, false},
    {" dbrx smaug-bpe chatglm-bpe ", {kLlama3}, false, false, false},
    {" glm4 glm5 ", {kLlama3}, true, false, false},
    {" qwen2 deepseek-r1-qwen megrez kormo ", {kQwen2}, false, false, true},
    {" stablelm2 hunyuan solar-open grok-2 ", {kQwen2}, false, false, false},
    {" qwen35 ", {kQwen35}, false, false, true},
    {" tekken ", {kTekken}, true, true, false},
    {" gpt-4o llama4 kanana2 minimax-m2 ", {kGpt4o}, false, false, false},
    {" deepseek-v3 hunyuan-dense joyai-llm ", {R"(\p{N}{1,3})", kHan, kDeepSeek3}, false, false, false},
    {" deepseek-llm ",
     {R"([\r\n])", kCasedLetters, kFullWidth, R"(\s+$)", kHanHangul, R"(\p{N}+)"},
     false,
     false,
     false},
    {" deepseek-coder ", {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kHanHangul, R"(\p{N})"}, false, false, false},
    {" falcon ", {kPunctuation, kGpt2, "[0-9][0-9][0-9]"}, false, false, false},
};

// One pass over a pattern; see translate_pattern.
class Translator {
 public:
  explicit Translator(std::string_view source) : source_(source) {}

  Status run(std::string* out) {
    while (at_ < source_.size()) {
      const char c = source_[at_];
      if (c == '\\') {
        LETHE_RETURN_IF_ERROR(escape());
      } else if (in_class_) {
        LETHE_RETURN_IF_ERROR(class_character(c));
      } else {
        LETHE_RETURN_IF_ERROR(character(c));
      }
    }
    *out = (anchored_ ? "(?m)" : "") + out_;
    return {};
  }

 private:
  Status unsupported(const char* what) const {
    return Status::error(ErrorCode::kUnsupported, "split pattern, byte %zu: %s is not supported: %.100s", at_, what,
                         std::string(source_).c_str());
  }

  void copy(size_t bytes) {
    out_ += source_.substr(at_, bytes);
    at_ += bytes;
  }

  // A class of which `items` is the inside; `size` bytes of the source name it.
  void named_class(std::string_view items, bool negated, size_t size) {
    if (in_class_) {
      out_ += items;
    } else {
      out_.append(negated ? "[^" : "[").append(items).append("]");
    }
    at_ += size;
  }

  Status escape() {
    if (at_ + 1 == source_.size()) return unsupported("a backslash at the end");
    const char kind = source_[at_ + 1];
    if (std::string_view("hHRXGgkCKyYNO").find(kind) != std::string_view::npos) return unsupported("this escape");
    if (kind == 's') {
      named_class(kWhiteSpace, false, 2);
    } else if (kind == 'S' && !in_class_) {
      named_class(kWhiteSpace, true, 2);
    } else if (kind == 'u') {
      const std::string_view digits = source_.substr(at_ + 2, 4);
      if (digits.size() != 4) return unsupported("this escape");
      out_.append("\\x{").append(digits).append("}");
      at_ += 6;
    } else if (kind == 'p' || kind == 'P') {
      const size_t end = source_.find('}', at_);
      if (end == std::string_view::npos) return unsupported("a property without a name in braces");
      const std::string_view name = source_.substr(at_ + 3, end - at_ - 3);
      const bool negated = kind == 'P';
      const auto* property = std::find_if(std::begin(kProperties), std::end(kProperties),
                                          [name](const Property& p) { return p.name == name; });
      if (property != std::end(kProperties) && !(negated && in_class_)) {
        named_class(property->items, negated, end + 1 - at_);
      } else {
        copy(end + 1 - at_);
      }
    } else {
      copy(2);
    }
    return {};
  }

  Status class_character(char c) {
    if (c == '[') {
      const size_t end = source_.substr(at_).starts_with("[:") ? source_.find(":]", at_) : std::string_view::npos;
      if (end == std::string_view::npos) return unsupported("a class in a class");
      copy(end + 2 - at_);
      return {};
    }
    if (source_.substr(at_).starts_with("&&")) return unsupported("an intersection of classes");
    in_class_ = c != ']';
    copy(1);
    return {};
  }

  Status character(char c) {
    const std::string_view rest = source_.substr(at_);
    if (c == '[') {
      in_class_ = true;
      copy(rest.starts_with("[^]") ? 3 : rest.starts_with("[^") || rest.starts_with("[]") ? 2 : 1);
      return {};
    }
    if (rest.starts_with("(?")) {
      static constexpr std::string_view kGroups[] = {"(?:", "(?=",  "(?!",  "(?<=", "(?<!",
                                                     "(?>", "(?i:", "(?i)", "(?-i:"};
      const auto known = [rest](std::string_view group) { return rest.starts_with(group); };
      if (std::none_of(std::begin(kGroups), std::end(kGroups), known)) return unsupported("this group");
      copy(2);
      return {};
    }
    if (rest.starts_with("}+")) return unsupported("a + after {}");
    // Oniguruma's ^ and $ stand at lines.
    anchored_ = anchored_ || c == '^' || c == '$';
    copy(1);
    return {};
  }

  std::string_view source_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false, anchored_ = false;
};

}  // namespace

Status translate_pattern(std::string_view source, std::string* out) { return Translator(source).run(out); }

std::string digits_pattern(bool individual) {
  return std::string("[").append(kProperties[1].items).append(kMoreDigits).append(individual ? "]" : "]+");
}

std::string gpt2_pattern() {
  std::string out;
  (void)translate_pattern(kGpt2, &out);
  return out;
}

Status find_pre_tokenizer(std::string_view name, PreTokenizer* out) {
  const std::string key = " " + std::string(name) + " ";
  for (const Known& known : kKnown) {
    if (known.names.find(key) == std::string_view::npos) continue;
    *out = {{}, known.ignore_merges, known.add_bos, known.nfc};
    for (const char* pattern : known.patterns) {
      if (pattern == nullptr) break;
      std::string translated;
      if (pattern == kDigits) {
        translated = digits_pattern(true);
      } else {
        LETHE_RETURN_IF_ERROR(translate_pattern(pattern, &translated));
      }
      out->patterns.push_back(std::move(translated));
    }
    return {};
  }
  return Status::error(ErrorCode::kUnsupported, "pre-tokenizer %.*s is unknown",
                       static_cast<int>(std::min<size_t>(name.size(), 64)), name.data());
}

}  // namespace lethe
