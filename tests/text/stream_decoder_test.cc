#include "runtime/text/stream_decoder.h"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

#include "runtime/base/utf8.h"

namespace lethe {
namespace {

struct Collector {
  std::string text;
  bool whole = true;  // every piece was whole characters

  TextSink sink() {
    return {[](void* context, std::string_view piece) {
              Collector& self = *static_cast<Collector*>(context);
              self.text += piece;
              self.whole &= !piece.empty() && utf8::find_invalid(piece) == piece.size();
            },
            this};
  }
};

std::string decode_at_once(const std::string& bytes) {
  std::string out(3 * bytes.size(), '\0');
  out.resize(utf8::replace_invalid(bytes, out));
  return out;
}

TEST_CASE("random bytes cut at random places decode as at once") {
  std::mt19937 random(7);
  // Mostly pieces of characters, so that every kind of interruption comes up.
  const std::vector<std::string> parts = {"a",
                                          "\xC3\xA9",
                                          "\xE2\x82\xAC",
                                          "\xF0\x9F\x98\x80",
                                          "\xF0\x9F\x98",
                                          "\xF0\x9F",
                                          "\xF0",
                                          "\xE2\x82",
                                          "\xE2",
                                          "\xC3",
                                          "\x80",
                                          "\xFF",
                                          "\xC0",
                                          "\xED\xA0\x80",
                                          "\xF4\x90",
                                          "\xE0\x80",
                                          "\n",
                                          "long ascii text without end "};
  for (int trial = 0; trial < 20000; ++trial) {
    std::string bytes;
    for (size_t n = random() % 12; n > 0; --n) bytes += parts[random() % parts.size()];
    StreamDecoder decoder;
    Collector out;
    for (size_t at = 0; at < bytes.size();) {
      const size_t size = std::min<size_t>(random() % 4, bytes.size() - at);
      decoder.push(std::string_view(bytes).substr(at, size), out.sink());
      at += size;
      // Nothing that is certain is held back.
      const std::string_view seen = std::string_view(bytes).substr(0, at);
      REQUIRE(decoder.pending() == seen.substr(utf8::complete_prefix(seen)));
    }
    decoder.flush(out.sink());
    CAPTURE(bytes);
    REQUIRE(out.text == decode_at_once(bytes));
    REQUIRE(out.whole);
    REQUIRE(decoder.pending().empty());
  }
}

TEST_CASE("a character that comes byte by byte appears when it is whole") {
  StreamDecoder decoder;
  Collector out;
  for (const char byte : std::string("\xF0\x9F\x98")) decoder.push({&byte, 1}, out.sink());
  CHECK(out.text.empty());
  decoder.push("\x80!", out.sink());
  CHECK(out.text == "\xF0\x9F\x98\x80!");
}

TEST_CASE("flush ends an unfinished character, and the decoder starts afresh") {
  StreamDecoder decoder;
  Collector out;
  decoder.push("x\xE2\x82", out.sink());
  decoder.flush(out.sink());
  decoder.push("\xAC", out.sink());
  decoder.flush(out.sink());
  CHECK(out.text == "x\xEF\xBF\xBD\xEF\xBF\xBD");
}

}  // namespace
}  // namespace lethe
