// Generation: where it ends, what text it shows, and that a seed gives the same text again.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "runtime/base/utf8.h"
#include "tests/engine/engine_support.h"

namespace lethe::test {
namespace {

constexpr uint32_t kVocab = 3 + 256 + 41;

// Nearly uniform over the vocabulary, most of which is single bytes: text that is rarely UTF-8.
constexpr SamplerOptions noise(uint64_t seed) { return {.temperature = 4, .seed = seed}; }

struct Fixture {
  Fixture() : model(tiny_model_path(GgmlType::kF32)), session(model, window_options(64)) { restart(noise(0)); }
  void restart(const SamplerOptions& sampling) {
    REQUIRE(session->set_sampling(sampling).ok());
    session->reset();
    feed(*session, Ids{50, 60, 70});
  }
  Generated run(const SamplerOptions& sampling, uint64_t max_tokens, std::vector<std::string_view> stops = {},
                bool ignore_end = true) {
    restart(sampling);
    return generate(*session, max_tokens, {.stops = stops, .ignore_end = ignore_end});
  }
  // What the tokens say, with U+FFFD for what is not UTF-8; `so_far`: without a character that more tokens could
  // complete. Control tokens say nothing.
  std::string text_of(const Ids& ids, bool so_far = false) const {
    std::string bytes;
    for (const int32_t id : ids) {
      if (id > 2) bytes += model->tokenizer().token(static_cast<uint32_t>(id));
    }
    if (so_far) bytes.resize(utf8::complete_prefix(bytes));
    std::string text(3 * bytes.size(), '\0');
    text.resize(utf8::replace_invalid(bytes, text));
    return text;
  }
  OpenModel model;
  OpenSession session;
};

TEST_CASE_FIXTURE(Fixture, "generate: a character is never split, and the pieces are the text of the tokens") {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    const Generated out = run(noise(seed), 500);
    REQUIRE(out.status.ok());
    CHECK(out.reason == StopReason::kMaxTokens);
    CHECK(out.count == 500);
    CHECK(out.ids.size() == 500);
    for (const std::string& piece : out.pieces) CHECK(utf8::find_invalid(piece) == piece.size());
    CHECK(out.text == text_of(out.ids));
    CHECK(out.text.find(utf8::kReplacement) != std::string::npos);
    CHECK(session->stats().position == 503);
  }
}

TEST_CASE_FIXTURE(Fixture, "generate: every token is given once, before its text's other pieces") {
  struct Seen {
    Ids ids;
    uint64_t pieces = 0, first_without_id = 0;
  } seen;
  GenerateOptions options = kPastEnd;
  options.max_tokens = 300;
  options.user = &seen;
  options.on_piece = [](void* user, const char*, size_t bytes, int32_t id) -> int32_t {
    auto& s = *static_cast<Seen*>(user);
    if (id >= 0) s.ids.push_back(id);
    if (id < 0 && s.ids.empty()) ++s.first_without_id;
    if (id < 0) CHECK(bytes > 0);
    ++s.pieces;
    return 0;
  };
  StopReason reason;
  uint64_t count = 0;
  REQUIRE(session->generate(options, &reason, &count).ok());
  CHECK(seen.ids.size() == 300);
  CHECK(seen.first_without_id == 0);
  CHECK(seen.pieces >= 300);
  // The conversation is those tokens: fed to another session they give the same logits.
  OpenSession again(model, full_options(512));
  OpenSession generated(model, full_options(512));
  REQUIRE(generated->set_sampling(noise(0)).ok());
  feed(*generated, Ids{50, 60, 70});
  Ids all = {50, 60, 70};
  const Ids ids = generate(*generated, 300, kPastEnd).ids;
  all.insert(all.end(), ids.begin(), ids.end());
  CHECK(feed(*again, all) == logits_of(*generated));
}

TEST_CASE_FIXTURE(Fixture, "generate: an unfinished character is flushed at the end") {
  int unfinished = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const Generated out = run(noise(seed), 1);
    REQUIRE(out.ids.size() == 1);
    const std::string_view bytes = model->tokenizer().token(static_cast<uint32_t>(out.ids[0]));
    const auto lead = static_cast<unsigned char>(bytes.empty() ? 0 : bytes[0]);
    if (bytes.size() != 1 || lead < 0xC2 || lead > 0xF4) continue;
    ++unfinished;
    CHECK(out.pieces == std::vector<std::string>{"", std::string(utf8::kReplacement)});
  }
  CHECK(unfinished > 5);
}

TEST_CASE_FIXTURE(Fixture, "generate: a stop text ends the reply and never shows, wherever tokens part it") {
  const SamplerOptions sampling{.temperature = 1, .seed = 3};
  const Generated plain = run(sampling, 60);
  REQUIRE(plain.text.size() > 60);
  std::vector<size_t> border;  // of characters
  for (size_t at = 0; at < plain.text.size(); ++at) {
    if ((plain.text[at] & 0xC0) != 0x80) border.push_back(at);
  }
  int across = 0;
  for (size_t begin = 0; begin + 12 < border.size() && begin < 40; ++begin) {
    for (const size_t length : {size_t{1}, size_t{2}, size_t{5}, size_t{11}}) {
      const std::string stop = plain.text.substr(border[begin], border[begin + length] - border[begin]);
      if (stop.size() > 64) continue;
      CAPTURE(stop);
      const Generated out = run(sampling, 60, {stop});
      REQUIRE(out.status.ok());
      CHECK(out.reason == StopReason::kText);
      CHECK(out.text == plain.text.substr(0, plain.text.find(stop)));
      // The tokens are those up to the one that completed the stop text, and they are in the conversation.
      REQUIRE(out.ids.size() <= plain.ids.size());
      CHECK(std::equal(out.ids.begin(), out.ids.end(), plain.ids.begin()));
      Ids before = out.ids;
      before.pop_back();
      CHECK(text_of(before, true).find(stop) == std::string::npos);
      CHECK(session->stats().position == 3 + out.count);
      across += out.text != text_of(before, true);  // some of the stop text lay in an earlier token
    }
  }
  CHECK(across > 20);

  // The earliest of several wins, and one that begins but never ends costs nothing.
  const std::string early = plain.text.substr(border[4], border[7] - border[4]);
  const std::string late = plain.text.substr(border[9], border[12] - border[9]);
  CHECK(run(sampling, 60, {late, early}).text ==
        plain.text.substr(0, std::min(plain.text.find(early), plain.text.find(late))));
  const Generated never = run(sampling, 60, {early + "\x01never"});
  CHECK(never.reason == StopReason::kMaxTokens);
  CHECK(never.text == plain.text);

  const std::string long_stop(65, 'x');
  const std::vector<std::string_view> nine(9, "x");
  CHECK(run(sampling, 60, {""}).status.code() == ErrorCode::kInvalidArgument);
  CHECK(run(sampling, 60, {long_stop}).status.code() == ErrorCode::kInvalidArgument);
  CHECK(run(sampling, 60, {"\xC3"}).status.code() == ErrorCode::kInvalidArgument);
  CHECK(run(sampling, 60, nine).status.code() == ErrorCode::kInvalidArgument);
  CHECK(session->stats().position == 3);
}

TEST_CASE_FIXTURE(Fixture, "generate: ends at an end token, which is not in the conversation, unless told to go on") {
  int ended = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    CAPTURE(seed);
    const Generated out = run(noise(seed), 0, {}, false);
    REQUIRE(out.status.ok());
    CHECK(out.reason == StopReason::kEnd);
    CHECK(session->stats().position == 3 + out.count);
    const auto is_end = [&](int32_t id) {
      const auto ends = model->tokenizer().end_ids;
      return std::find(ends.begin(), ends.end(), id) != ends.end();
    };
    CHECK(std::none_of(out.ids.begin(), out.ids.end(), is_end));
    const Generated on = run(noise(seed), out.count + 20);
    REQUIRE(on.ids.size() == out.count + 20);
    CHECK(std::equal(out.ids.begin(), out.ids.end(), on.ids.begin()));
    CHECK(is_end(on.ids[out.count]));
    CHECK(session->stats().position == 3 + on.count);
    ended += out.count > 0;
  }
  CHECK(ended > 5);
}

TEST_CASE_FIXTURE(Fixture, "generate: the callback stops after the token it was given") {
  const Generated plain = run(noise(1), 40);
  for (const size_t after : {size_t{1}, size_t{2}, size_t{17}}) {
    restart(noise(1));
    const Generated out = generate(*session, 40, kPastEnd, after);
    CHECK(out.reason == StopReason::kCallback);
    CHECK(out.count == after);
    CHECK(out.ids == Ids(plain.ids.begin(), plain.ids.begin() + static_cast<ptrdiff_t>(after)));
    CHECK(session->stats().position == 3 + after);
    // Going on is as if it had not stopped.
    const Generated rest = generate(*session, 40 - after, kPastEnd);
    CHECK(rest.ids == Ids(plain.ids.begin() + static_cast<ptrdiff_t>(after), plain.ids.end()));
  }
}

TEST_CASE_FIXTURE(Fixture, "generate: a seed gives the same tokens on any number of threads, another seed others") {
  std::set<Ids> all;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const SamplerOptions sampling{
        .temperature = 1.2f, .top_k = 50, .top_p = 0.9f, .min_p = 0.01f, .repetition_penalty = 1.2f, .seed = seed};
    const Ids ids = run(sampling, 100).ids;
    CHECK(run(sampling, 100).ids == ids);
    SessionOptions options = window_options(64);
    options.threads = 3;
    OpenSession other(model, options);
    REQUIRE(other->set_sampling(sampling).ok());
    feed(*other, Ids{50, 60, 70});
    CHECK(generate(*other, 100, kPastEnd).ids == ids);
    all.insert(ids);
  }
  CHECK(all.size() == 5);
}

TEST_CASE_FIXTURE(Fixture, "generate: greedy takes the largest logit, the lowest id of equals") {
  restart({});
  for (int i = 0; i < 50; ++i) {
    const Logits logits = logits_of(*session);
    const auto largest = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    CHECK(generate(*session, 1, kPastEnd).ids == Ids{largest});
  }
}

}  // namespace
}  // namespace lethe::test
