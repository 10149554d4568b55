#include "runtime/text/template_check.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <initializer_list>

namespace lethe {
namespace {

constexpr size_t kMaxCommentBytes = 1024;
constexpr size_t kMaxWordBytes = 128;
constexpr size_t kMaxSpaces = 512;  // in a row
constexpr size_t kMaxTagTokens = 256;
constexpr size_t kMaxBrackets = 32;  // open at a time
constexpr int kMaxBlocks = 32;       // open at a time
constexpr size_t kMaxNamespaces = 32;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(char c) { return is_digit(c) || c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

enum class TokenType : uint8_t { kEnd, kName, kNumber, kText, kSymbol };
struct Token {
  TokenType type = TokenType::kEnd;
  std::string_view text;  // of a kText: what stands between the quotes, escapes as they are
  size_t offset = 0;      // in the template

  bool is(std::string_view other) const { return type != TokenType::kText && text == other; }
};

class Checker {
 public:
  explicit Checker(std::string_view source) : source_(source) {}

  Status run() {
    if (source_.size() > kMaxTemplateBytes) {
      return Status::error(ErrorCode::kTemplate, "the chat template has %zu bytes; at most %zu are supported",
                           source_.size(), kMaxTemplateBytes);
    }
    size_t spaces = 0;
    for (size_t i = 0; i < source_.size(); ++i) {
      spaces = is_space(source_[i]) ? spaces + 1 : 0;
      if (spaces > kMaxSpaces) return refuse(i, "too much white space");
      if (source_[i] == '\0') return refuse(i, "a zero byte");
    }
    while (at_ + 1 < source_.size()) {
      const std::string_view open = source_.substr(at_, 2);
      if (open == "{#") {
        LETHE_RETURN_IF_ERROR(skip_comment());
      } else if (open == "{{" || open == "{%") {
        LETHE_RETURN_IF_ERROR(read_tag(open == "{{" ? "}}" : "%}"));
        LETHE_RETURN_IF_ERROR(check_tag(open == "{%"));
      } else {
        ++at_;
      }
    }
    return {};
  }

 private:
  Status refuse(size_t offset, const char* what) const {
    return Status::error(ErrorCode::kTemplate, "the chat template is refused at byte %zu: %s", offset, what);
  }

  Status skip_comment() {
    const size_t end = source_.find("#}", at_ + 2);
    if (end == std::string_view::npos) return refuse(at_, "a comment without an end");
    if (end - at_ > kMaxCommentBytes) return refuse(at_, "a comment that is too long");
    at_ = end + 2;
    return {};
  }

  // The tokens of one tag, with kEnd behind them.
  Status read_tag(std::string_view close) {
    const size_t begin = at_;
    at_ += 2;
    count_ = 0;
    size_t brackets = 0;
    for (;;) {
      while (at_ < source_.size() && is_space(source_[at_])) ++at_;
      if (at_ == source_.size()) return refuse(begin, "a tag without an end");
      // "}}" also ends two dictionaries; the engine, too, takes it for the tag's end only outside of them.
      if (brackets == 0 && source_.substr(at_, 2) == close) break;
      if (count_ == kMaxTagTokens) return refuse(begin, "a tag that is too long");
      Token& token = tokens_[count_++];
      LETHE_RETURN_IF_ERROR(read_token(&token));
      if (token.is("(") || token.is("[") || token.is("{")) ++brackets;
      if (brackets > 0 && (token.is(")") || token.is("]") || token.is("}"))) --brackets;
      if (brackets > kMaxBrackets) return refuse(token.offset, "brackets that are nested too deep");
    }
    at_ += 2;
    tokens_[count_] = {};
    tokens_[count_].offset = at_;
    return {};
  }

  Status read_token(Token* token) {
    const size_t begin = at_;
    const char first = source_[at_];
    token->offset = begin;
    if (first == '"' || first == '\'') {
      for (++at_; at_ < source_.size() && source_[at_] != first; ++at_) {
        if (source_[at_] == '\\') ++at_;
      }
      if (at_ >= source_.size()) return refuse(begin, "a text without an end");
      token->type = TokenType::kText;
      token->text = source_.substr(begin + 1, at_++ - begin - 1);
      return {};
    }
    ++at_;
    if (is_word(first)) {
      while (at_ < source_.size() && is_word(source_[at_])) ++at_;
      token->type = is_digit(first) ? TokenType::kNumber : TokenType::kName;
    } else {
      if (first == '/' && at_ < source_.size() && source_[at_] == '/') ++at_;
      token->type = TokenType::kSymbol;
    }
    token->text = source_.substr(begin, at_ - begin);
    if (token->text.size() > kMaxWordBytes) return refuse(begin, "a word that is too long");
    return {};
  }

  const Token& token(size_t i) const { return tokens_[std::min(i, count_)]; }
  bool is_namespace(std::string_view name) const {
    return std::find(namespaces_.begin(), namespaces_.begin() + namespace_count_, name) !=
           namespaces_.begin() + namespace_count_;
  }

  Status check_tag(bool is_block) {
    size_t first = 0;  // the keyword of a block
    if (token(0).is("-") || token(0).is("+") || token(0).is("~")) first = 1;
    if (is_block) {
      const Token& keyword = token(first);
      const auto is_any_of = [&](std::initializer_list<std::string_view> words) {
        return std::any_of(words.begin(), words.end(), [&](std::string_view word) { return keyword.is(word); });
      };
      const bool has_value = std::any_of(tokens_.begin(), tokens_.begin() + static_cast<ptrdiff_t>(count_),
                                         [](const Token& each) { return each.is("="); });
      if (is_any_of({"if", "for", "macro", "filter", "generation"}) || (keyword.is("set") && !has_value)) {
        if (++open_blocks_ > kMaxBlocks) return refuse(keyword.offset, "blocks nested too deep");
      }
      if (is_any_of({"endif", "endfor", "endmacro", "endfilter", "endgeneration", "endset"})) --open_blocks_;
      if (keyword.is("call")) return refuse(keyword.offset, "a call block");
      if (keyword.is("macro") && open_scopes_ > 0) return refuse(keyword.offset, "a macro inside a loop or a macro");
      if (keyword.is("for") || keyword.is("macro")) ++open_scopes_;
      if (keyword.is("endfor") || keyword.is("endmacro")) --open_scopes_;
      if (keyword.is("set")) LETHE_RETURN_IF_ERROR(check_set(first + 1));
    }
    for (size_t i = 0; i < count_; ++i) {
      const Token& here = token(i);
      if (here.type == TokenType::kSymbol) LETHE_RETURN_IF_ERROR(check_symbol(i));
      if (here.type == TokenType::kName) LETHE_RETURN_IF_ERROR(check_name(i));
    }
    return {};
  }

  // `at` is the token behind "set".
  Status check_set(size_t at) {
    const Token& name = token(at);
    if (token(at + 1).is(".") && !is_namespace(name.text)) {
      return refuse(name.offset, "assignment to a member of what is not a namespace");
    }
    if (token(at + 1).is("=") && token(at + 2).is("namespace") && !is_namespace(name.text)) {
      if (namespace_count_ == kMaxNamespaces) return refuse(name.offset, "too many namespaces");
      namespaces_[namespace_count_++] = name.text;
    }
    return {};
  }

  Status check_name(size_t at) const {
    const Token& name = token(at);
    const bool is_member = at > 0 && token(at - 1).is(".");
    const Token& next = token(at + 1);
    if (is_member) {
      if (name.is("append") || name.is("insert") || name.is("cycle")) return refuse(name.offset, "an unsafe method");
      if (name.is("split") && !(next.is("(") && token(at + 2).type == TokenType::kText && !token(at + 2).text.empty() &&
                                token(at + 3).is(")"))) {
        return refuse(name.offset, "split() by what is not a text");
      }
      return {};
    }
    if (name.is("recursive")) return refuse(name.offset, "a recursive loop");
    if (name.is("loop") && !next.is(".")) return refuse(name.offset, "\"loop\" as a value");
    if (name.is("namespace") && !(at >= 3 && token(at - 1).is("=") && token(at - 3).is("set") && next.is("("))) {
      return refuse(name.offset, "a namespace that is not given a name at once");
    }
    if (is_namespace(name.text) && !next.is(".") && !(next.is("=") && token(at + 2).is("namespace"))) {
      return refuse(name.offset, "a namespace as a value");
    }
    return {};
  }

  Status check_symbol(size_t at) const {
    const Token& symbol = token(at);
    const Token& next = token(at + 1);
    if (symbol.is("*")) return refuse(symbol.offset, "repetition or expansion with \"*\"");
    if (symbol.is("%") || symbol.is("/") || symbol.is("//")) {
      const bool is_positive = next.type == TokenType::kNumber && next.text.size() <= 9 &&
                               std::all_of(next.text.begin(), next.text.end(), is_digit) &&
                               next.text.find_first_not_of('0') != std::string_view::npos;
      // "1.0e-999" and the like would be zero again; nothing but a whole number is.
      if (!is_positive || token(at + 2).is("."))
        return refuse(symbol.offset, "division by what is not a number above 0");
    }
    if (symbol.is(":")) return check_colon(at);
    return {};
  }

  // A second colon between the same square brackets gives a step.
  Status check_colon(size_t at) const {
    int depth = 0;
    for (size_t i = at; i-- > 0;) {
      const Token& before = token(i);
      if (before.is(")") || before.is("]") || before.is("}")) ++depth;
      if (before.is("(") || before.is("[") || before.is("{")) {
        if (depth-- == 0) return {};
      }
      if (depth != 0 || !before.is(":")) continue;
      // In a dictionary a comma stands between two colons, in a slice never.
      bool comma = false;
      for (size_t k = i; k < at; ++k) comma |= token(k).is(",");
      if (comma) return {};
      const bool is_reversal = i > 0 && token(i - 1).is("[") && i + 1 == at && token(at + 1).is("-") &&
                               token(at + 2).is("1") && token(at + 3).is("]");
      if (!is_reversal) return refuse(token(at).offset, "a slice with a step other than [::-1]");
      return {};
    }
    return {};
  }

  std::string_view source_;
  size_t at_ = 0;
  std::array<Token, kMaxTagTokens + 1> tokens_;
  size_t count_ = 0;
  std::array<std::string_view, kMaxNamespaces> namespaces_;
  size_t namespace_count_ = 0;
  int open_blocks_ = 0;
  int open_scopes_ = 0;  // loops and macros
};

}  // namespace

Status check_template(std::string_view source) { return Checker(source).run(); }

}  // namespace lethe
