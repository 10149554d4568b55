#include "tools/cli/json_writer.h"

#include <charconv>
#include <cmath>
#include <cstdio>

#include "runtime/base/utf8.h"
#include "tools/cli/failure.h"

namespace lethe::cli {

void JsonWriter::separate() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  const uint32_t bit = 1u << depth_;
  if ((has_items_ & bit) != 0) fputc(',', stdout);
  has_items_ |= bit;
}

JsonWriter& JsonWriter::open(char bracket) {
  separate();
  fputc(bracket, stdout);
  ++depth_;
  has_items_ &= ~(1u << depth_);
  return *this;
}

JsonWriter& JsonWriter::close(char bracket) {
  --depth_;
  fputc(bracket, stdout);
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  value(name);
  fputc(':', stdout);
  after_key_ = true;
  return *this;
}

JsonWriter& JsonWriter::value(std::string_view text) { return begin_string().piece(text).end_string(); }

JsonWriter& JsonWriter::value(bool flag) {
  separate();
  fputs(flag ? "true" : "false", stdout);
  return *this;
}

JsonWriter& JsonWriter::value(double number) {
  separate();
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, number);
  if (error != std::errc() || !std::isfinite(number)) {
    fputs("null", stdout);
  } else {
    fwrite(text, 1, static_cast<size_t>(end - text), stdout);
  }
  return *this;
}

JsonWriter& JsonWriter::integer(bool negative, uint64_t magnitude) {
  separate();
  printf("%s%llu", negative ? "-" : "", static_cast<unsigned long long>(magnitude));
  return *this;
}

JsonWriter& JsonWriter::begin_string() {
  separate();
  fputc('"', stdout);
  return *this;
}

JsonWriter& JsonWriter::piece(std::string_view text) {
  while (!text.empty()) {
    const utf8::Front front = utf8::front(text);
    if (front.kind != utf8::Kind::kCharacter) {
      fwrite(utf8::kReplacement.data(), 1, utf8::kReplacement.size(), stdout);
    } else if (front.code < 0x20 || front.code == 0x7f) {
      printf("\\u%04x", static_cast<unsigned>(front.code));
    } else {
      if (front.code == '"' || front.code == '\\') fputc('\\', stdout);
      fwrite(text.data(), 1, front.size, stdout);
    }
    text.remove_prefix(front.size);
  }
  return *this;
}

JsonWriter& JsonWriter::end_string() {
  fputc('"', stdout);
  return *this;
}

void JsonWriter::finish() {
  fputc('\n', stdout);
  flush_output();
}

}  // namespace lethe::cli
