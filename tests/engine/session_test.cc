// Feeding, scoring, refusing, cancelling and failing: what a session promises besides its numbers.
#include "runtime/engine/session.h"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "runtime/os/process.h"
#include "tests/engine/engine_support.h"
#include "tests/engine/llama_reference.h"

namespace lethe::test {
namespace {

constexpr uint32_t kVocab = 3 + 256 + 41;
const std::string kText =
    "hello world and the user is in you, hello 123 the\n\nworld of \xC3\xA9t\xC3\xA9 and \xE2\x82\xAC and you";

TinyOptions long_context() {
  TinyOptions shape;
  shape.context_length = 32768;
  shape.embed_dim = shape.ffn_dim = 32;
  return shape;
}

void check_error(const Status& status, ErrorCode code, std::string_view part) {
  CHECK(status.code() == code);
  CHECK_MESSAGE(std::string_view(status.message()).find(part) != std::string_view::npos, status.message());
}

TEST_CASE("session: feeding in pieces, at once, or as text gives the same bits") {
  const OpenModel model(tiny_model_path(GgmlType::kQ4_1));
  OpenSession at_once(model, full_options(256));
  uint64_t count = 0;
  Ids ids(256);
  REQUIRE(at_once->tokenize(kText, 0, ids, &count).ok());
  REQUIRE(count > 32);
  ids.resize(count);
  const Logits expected = feed(*at_once, ids);
  for (const size_t piece : {size_t{1}, size_t{2}, size_t{13}, size_t{31}}) {
    CAPTURE(piece);
    OpenSession session(model, full_options(256));
    for (size_t at = 0; at < ids.size(); at += piece) {
      feed(*session, std::span(ids).subspan(at, std::min(piece, ids.size() - at)));
    }
    CHECK(logits_of(*session) == expected);
    CHECK(session->stats().position == count);
    CHECK(session->stats().prefill_tokens == count);
  }
  for (const uint32_t chunk : {1u, 7u, 100u}) {
    CAPTURE(chunk);
    OpenSession session(model, full_options(256, chunk));
    uint64_t fed = 0;
    REQUIRE(session->feed_text(kText, 0, &fed).ok());
    CHECK(fed == count);
    CHECK(logits_of(*session) == expected);
  }
}

TEST_CASE("session: rows of the embedding, fed as embeddings, are the tokens themselves") {
  TinyOptions shape;
  const GgufSource source = tiny_gguf(shape);
  const OpenModel model(pack_source(source));
  GgufSource copy = source;
  const std::vector<float> table = reference_dequantise(GgmlType::kF32, copy.tensor("token_embd.weight").data);
  const Ids ids = random_ids(40, kVocab, 3);
  std::vector<float> rows;
  for (const int32_t id : ids) {
    const auto row = table.begin() + ptrdiff_t{id} * shape.embed_dim;
    rows.insert(rows.end(), row, row + shape.embed_dim);
  }
  OpenSession by_ids(model, full_options(64)), by_rows(model, full_options(64));
  const Logits expected = feed(*by_ids, ids);
  const std::span<const float> all = rows;
  feed(*by_rows, std::span(ids).first(3));  // both kinds in one conversation
  REQUIRE(by_rows->feed_embeddings(all.subspan(3 * shape.embed_dim)).ok());
  CHECK(logits_of(*by_rows) == expected);
  CHECK(by_rows->stats().position == 40);

  check_error(by_rows->feed_embeddings({}), ErrorCode::kInvalidArgument, "0 floats are not one or more embeddings");
  check_error(by_rows->feed_embeddings(all.first(63)), ErrorCode::kInvalidArgument, "63 floats");
  check_error(by_rows->feed_embeddings(all.first(25 * 64)), ErrorCode::kKvFull, "25 tokens do not fit");
  rows[64 + 5] = NAN;
  check_error(by_rows->feed_embeddings(all.first(128)), ErrorCode::kInvalidArgument,
              "embedding 1: value 5 is not finite");
  CHECK(by_rows->stats().position == 40);
}

TEST_CASE("session: a cap lowered and raised in mid-conversation") {
  TinyOptions shape;  // 2 KiB of cache a token, so that few tokens are many pages
  shape.context_length = 2048;
  shape.embed_dim = shape.ffn_dim = 32;
  shape.kv_heads = 4;
  shape.head_dim = 64;
  const OpenModel model(tiny_model_path(shape));
  SessionOptions options = window_options(0);
  options.ram_bytes = 64 << 20;
  OpenSession session(model, options);
  const uint32_t created = session->plan().shape.cache_tokens();
  REQUIRE(created == 2048);
  const uint64_t pool = session->ledger().used(MemoryTag::kKvPool);
  REQUIRE(pool > 4 << 20);
  const uint64_t fixed = session->plan().total - pool, half = fixed + pool / 2;
  feed(*session, random_ids(created + 100, kVocab, 1));
  REQUIRE(session->stats().cache.evictions > 0);

  const uint64_t before = os::process_memory().private_bytes;
  REQUIRE(session->set_ram(half).ok());
  const uint64_t after = os::process_memory().private_bytes;
  const uint32_t lowered = session->plan().shape.cache_tokens();
  CHECK(lowered > created / 2 - 64);
  CHECK(lowered <= created / 2);
  CHECK(session->stats().cached_tokens <= lowered);
  CHECK(session->ledger().total() <= half);
  CHECK(session->ledger().cap() == half);
  CHECK(session->plan().total == session->ledger().total());
  const uint64_t returned = pool - session->ledger().used(MemoryTag::kKvPool);
  CHECK(returned >= pool / 2);
  CHECK(before - after > returned - (256 << 10));  // back with the system at once
  feed(*session, random_ids(created, kVocab, 2));
  CHECK(session->ledger().total() <= half);

  check_error(session->set_ram(fixed), ErrorCode::kRamTooSmall, "this session works with");
  CHECK(session->plan().shape.cache_tokens() == lowered);
  CHECK(session->ledger().cap() == half);

  OpenSession copy(session->fork());
  CHECK(feed(*copy, random_ids(300, kVocab, 3)) == feed(*session, random_ids(300, kVocab, 3)));

  REQUIRE(session->set_ram(128 << 20).ok());  // more than it was created with: the cache it was created with
  CHECK(session->plan().shape.cache_tokens() == created);
  CHECK(session->ledger().cap() == 128 << 20);
  feed(*session, random_ids(created, kVocab, 4));
  CHECK(session->stats().cached_tokens > lowered);

  OpenSession full(model, full_options(512));
  const Logits expected = feed(*full, random_ids(400, kVocab, 5));
  const uint64_t total = full->ledger().total();
  check_error(full->set_ram(total - full->ledger().used(MemoryTag::kKvPool) / 2), ErrorCode::kKvFull,
              "400 tokens are cached");
  CHECK(full->ledger().total() == total);
  CHECK(logits_of(*full) == expected);
}

TEST_CASE("session: policy full refuses a whole sequence before anything changes") {
  const OpenModel model(tiny_model_path(GgmlType::kF32));
  OpenSession session(model, full_options(64));
  REQUIRE(session->plan().shape.cache_tokens() == 64);
  const Ids ids = random_ids(65, kVocab, 1);
  const auto first = [&](size_t n) { return std::span(ids).first(n); };

  check_error(session->feed(ids), ErrorCode::kPromptTooLong,
              "65 tokens do not fit: the cache holds 64, 0 are taken, and policy full never evicts");
  CHECK(session->stats().position == 0);
  CHECK(session->logits().status().code() == ErrorCode::kBadState);

  const Logits before = feed(*session, first(60));
  std::vector<float> scores(5);
  check_error(session->feed(first(5)), ErrorCode::kKvFull,
              "5 tokens do not fit: the cache holds 64, 60 are taken, and policy full never evicts");
  check_error(session->score(first(5), 0, scores), ErrorCode::kKvFull, "60 are taken");
  uint64_t fed = 7;
  check_error(session->feed_text("12345", 0, &fed), ErrorCode::kKvFull, "5 tokens do not fit");
  CHECK(fed == 0);
  check_error(session->feed_text(std::string(65, '9'), 0, &fed), ErrorCode::kPromptTooLong, "65 tokens do not fit");
  CHECK(session->stats().position == 60);
  CHECK(session->stats().cached_tokens == 60);
  CHECK(logits_of(*session) == before);

  // Exactly full is fine; generating then ends with an error, and the session can still be saved.
  const Generated generated = generate(*session, 100, kPastEnd);
  check_error(generated.status, ErrorCode::kKvFull, "full");
  CHECK(generated.count == 4);
  CHECK(generated.ids.size() == 4);
  CHECK(session->stats().position == 64);
  const Logits full = logits_of(*session);
  const std::string path = temporary_path(".session");
  REQUIRE(session->save(path.c_str()).ok());
  OpenSession other(model, full_options(64));
  REQUIRE(other->restore(path.c_str()).ok());
  CHECK(logits_of(*other) == full);
  check_error(other->feed(first(1)), ErrorCode::kKvFull, "64 are taken");
}

TEST_CASE("session: bad input is refused with the numbers and changes nothing") {
  const OpenModel model(tiny_model_path(GgmlType::kF32));
  OpenSession session(model, window_options(64));
  check_error(generate(*session, 1).status, ErrorCode::kBadState, "feed a prompt first");
  check_error(session->logits().status(), ErrorCode::kBadState, "feed a token first");
  const Logits before = feed(*session, Ids{5, 6, 7});
  check_error(session->feed({}), ErrorCode::kInvalidArgument, "no tokens");
  check_error(session->feed(Ids{1, 2, -1}), ErrorCode::kInvalidArgument, "token 2 is -1: ids go from 0 to 299");
  check_error(session->feed(Ids{300}), ErrorCode::kInvalidArgument, "token 0 is 300: ids go from 0 to 299");
  check_error(session->feed(Ids{INT32_MIN}), ErrorCode::kInvalidArgument, "-2147483648");
  uint64_t fed = 9;
  check_error(session->feed_text("", 0, &fed), ErrorCode::kInvalidArgument, "the text is empty");
  CHECK(fed == 0);
  check_error(session->feed_text("\xFFhello", 0, &fed), ErrorCode::kInvalidUtf8, "0");
  std::vector<float> scores(3);
  check_error(session->score({}, 0, {}), ErrorCode::kInvalidArgument, "no tokens");
  check_error(session->score(Ids{1, 2}, 3, scores), ErrorCode::kInvalidArgument, "first is 3 of 2 tokens");
  check_error(session->score(Ids{1, 2, 3, 4}, 0, scores), ErrorCode::kInvalidArgument, "3 results fit");
  check_error(session->score(Ids{1, 400}, 1, scores), ErrorCode::kInvalidArgument, "token 1 is 400");
  CHECK(session->stats().position == 3);
  CHECK(logits_of(*session) == before);

  SessionOptions options = window_options(64);
  const auto refused = [&](const SessionOptions& bad) { return Session::create(model, bad).status(); };
  options.threads = 65;
  check_error(refused(options), ErrorCode::kInvalidArgument, "threads is 65: at most 64");
  options = window_options(64, 2049);
  check_error(refused(options), ErrorCode::kInvalidArgument, "prefill_chunk is 2049: at most 2048");
  options = window_options(64);
  options.logit_rows = 65;
  check_error(refused(options), ErrorCode::kInvalidArgument, "logit_rows is 65: at most 64");
  options = window_options(64);
  options.sinks = 4097;
  check_error(refused(options), ErrorCode::kInvalidArgument, "sinks is 4097: at most 4096");
  CHECK(model->users() == 1);
}

TEST_CASE("session: a window never ends") {
  const OpenModel model(tiny_model_path(long_context()));
  OpenSession session(model, window_options(128));
  feed(*session, random_ids(100, kVocab, 3));
  const Generated generated = generate(*session, 20'000, kPastEnd);
  REQUIRE_MESSAGE(generated.status.ok(), generated.status.message());
  CHECK(generated.reason == StopReason::kMaxTokens);
  CHECK(generated.count == 20'000);
  const SessionStats stats = session->stats();
  CHECK(stats.position == 20'100);
  CHECK(stats.decode_tokens == 20'000);
  CHECK(stats.cached_tokens <= 128);
  CHECK(stats.position == stats.cached_tokens + stats.cache.evicted_tokens);
  for (const float logit : logits_of(*session)) REQUIRE(std::isfinite(logit));
  // A prompt far longer than the cache as well.
  feed(*session, random_ids(3000, kVocab, 4));
  CHECK(session->stats().position == 23'100);
}

TEST_CASE("session: after a reset, the first run again") {
  const OpenModel model(tiny_model_path(GgmlType::kF32));
  OpenSession session(model, window_options(64));
  REQUIRE(session->set_sampling({.temperature = 1.5f, .repetition_penalty = 1.3f, .seed = 42}).ok());
  const auto run = [&] {
    feed(*session, random_ids(30, kVocab, 5));
    const Generated generated = generate(*session, 150, kPastEnd);
    REQUIRE(generated.status.ok());
    return std::pair(generated.ids, logits_of(*session));
  };
  const auto first = run();
  session->reset();
  const SessionStats stats = session->stats();
  CHECK(stats.position == 0);
  CHECK(stats.cached_tokens == 0);
  CHECK(stats.prefill_tokens + stats.decode_tokens + stats.cache.evictions + stats.cache.evicted_tokens == 0);
  CHECK(session->logits().status().code() == ErrorCode::kBadState);
  CHECK(run() == first);
}

TEST_CASE("session: scores are the reference's log-probabilities, from `first` on") {
  TinyOptions shape;
  shape.seed = 21;
  const GgufSource source = tiny_gguf(shape);
  const OpenModel model(pack_source(source));
  LlamaReference reference(source, shape, {});
  const Ids ids = random_ids(50, kVocab, 6);
  std::vector<double> expected = {0};  // of token i, given those before; the first has none
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    const std::vector<double> logits = reference.feed(ids[i]);
    double total = 0;
    for (const double logit : logits) total += std::exp(logit);
    expected.push_back(logits[static_cast<size_t>(ids[i + 1])] - std::log(total));
  }
  for (const size_t first : {size_t{1}, size_t{2}, size_t{16}, size_t{17}, size_t{49}, size_t{50}}) {
    for (const uint32_t rows : {1u, 3u, 64u}) {
      CAPTURE(first);
      CAPTURE(rows);
      SessionOptions options = full_options(64, 64);
      options.logit_rows = rows;
      OpenSession session(model, options);
      std::vector<float> scores(ids.size() - first + 1, 1.0f);
      REQUIRE(session->score(ids, first, scores).ok());
      for (size_t i = first; i < ids.size(); ++i) {
        CHECK(static_cast<double>(scores[i - first]) == doctest::Approx(expected[i]).epsilon(0.002));
      }
      CHECK(scores.back() == 1.0f);  // nothing beyond the results is written
      CHECK(session->stats().prefill_tokens == ids.size());
      OpenSession fed(model, full_options(64));
      CHECK(logits_of(*session) == feed(*fed, ids));
    }
  }

  // The first token has a probability only when something came before.
  OpenSession session(model, full_options(64));
  std::vector<float> scores(50);
  check_error(session->score(ids, 0, scores), ErrorCode::kInvalidArgument, "first token of a conversation");
  feed(*session, std::span(ids).first(20));
  REQUIRE(session->score(std::span(ids).subspan(20), 0, scores).ok());
  for (size_t i = 20; i < ids.size(); ++i) {
    CHECK(static_cast<double>(scores[i - 20]) == doctest::Approx(expected[i]).epsilon(0.002));
  }
}

TEST_CASE("session: a cancel before a call cancels that call and no other") {
  const OpenModel model(tiny_model_path(GgmlType::kF32));
  OpenSession session(model, full_options(64));
  const Ids ids = random_ids(20, kVocab, 7);
  std::vector<float> scores(20);
  session->cancel();
  check_error(session->feed(ids), ErrorCode::kCancelled, "cancelled");
  CHECK(session->stats().position == 0);
  const Logits logits = feed(*session, ids);
  session->cancel();
  check_error(session->score(ids, 0, scores), ErrorCode::kCancelled, "cancelled");
  session->cancel();
  uint64_t fed = 0;
  check_error(session->feed_text("hello", 0, &fed), ErrorCode::kCancelled, "cancelled");
  CHECK(fed == 0);
  session->cancel();
  const Generated cancelled = generate(*session, 5);
  check_error(cancelled.status, ErrorCode::kCancelled, "cancelled after 0 tokens");
  CHECK(cancelled.count == 0);
  CHECK(session->stats().position == 20);
  CHECK(logits_of(*session) == logits);
  CHECK(generate(*session, 5, kPastEnd).status.ok());
}

// Cancels a session from another thread, `delay` after go().
class Canceller {
 public:
  Canceller(Session& session, std::chrono::microseconds delay)
      : thread_([this, &session, delay] {
          while (!go_.load()) std::this_thread::yield();
          std::this_thread::sleep_for(delay);
          session.cancel();
        }) {}
  ~Canceller() { thread_.join(); }
  void go() { go_.store(true); }

 private:
  std::atomic<bool> go_{false};
  std::thread thread_;
};

TEST_CASE("session: a feed cancelled at any moment leaves whole chunks, and going on gives the same logits") {
  const OpenModel model(tiny_model_path(long_context()));
  const Ids ids = random_ids(2000, kVocab, 8);
  const SessionOptions kinds[] = {full_options(2048), window_options(128)};
  Logits expected[2];
  std::chrono::microseconds took[2];
  for (int kind = 0; kind < 2; ++kind) {
    OpenSession whole(model, kinds[kind]);
    const auto begin = std::chrono::steady_clock::now();
    expected[kind] = feed(*whole, ids);
    took[kind] = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
  }
  std::mt19937 random(1);
  int cancelled = 0;
  for (int round = 0; round < 80; ++round) {
    const int kind = round % 2;
    SessionOptions options = kinds[kind];
    options.threads = 1 + static_cast<uint32_t>(random() % 3);
    OpenSession session(model, options);
    Status status;
    {
      Canceller canceller(*session, took[kind] * (random() % 100) / 100);
      canceller.go();
      status = session->feed(ids);
    }
    const SessionStats stats = session->stats();
    CHECK(stats.cached_tokens + stats.cache.evicted_tokens == stats.position);
    if (!status.ok()) {
      CHECK(status.code() == ErrorCode::kCancelled);
      CHECK(stats.position % 16 == 0);
      cancelled += stats.position < ids.size();
    } else {
      // The cancel came after the end, so it is the next call's.
      CHECK(stats.position == ids.size());
      CHECK(session->feed(Ids{5}).code() == ErrorCode::kCancelled);
    }
    if (stats.position < ids.size()) REQUIRE(session->feed(std::span(ids).subspan(stats.position)).ok());
    REQUIRE(session->stats().position == ids.size());
    CHECK(logits_of(*session) == expected[kind]);
  }
  CHECK(cancelled > 10);
}

TEST_CASE("session: a generation cancelled at any moment has given out exactly the conversation's tokens") {
  const OpenModel model(tiny_model_path(long_context()));
  const Ids prompt = random_ids(10, kVocab, 9);
  std::mt19937 random(2);
  int cancelled = 0;
  for (int round = 0; round < 60; ++round) {
    SessionOptions options = full_options(4096);
    options.threads = 1 + round % 3;
    OpenSession session(model, options);
    REQUIRE(session->set_sampling({.temperature = 1, .seed = static_cast<uint64_t>(round)}).ok());
    feed(*session, prompt);
    Generated generated;
    {
      Canceller canceller(*session, std::chrono::microseconds(random() % 20'000));
      canceller.go();
      generated = generate(*session, 1000, kPastEnd);
    }
    cancelled += generated.count < 1000;
    CHECK((generated.status.ok() || generated.status.code() == ErrorCode::kCancelled));
    CHECK(generated.ids.size() == generated.count);
    CHECK(session->stats().position == prompt.size() + generated.count);
    OpenSession again(model, full_options(4096));
    Ids all = prompt;
    all.insert(all.end(), generated.ids.begin(), generated.ids.end());
    CHECK(feed(*again, all) == logits_of(*session));
  }
  CHECK(cancelled > 10);
}

TEST_CASE("session: two sessions of one model in two threads give what each gives alone") {
  const OpenModel model(tiny_model_path(GgmlType::kQ8_0));
  const auto run = [&](uint32_t seed, uint32_t threads, Ids* ids, Logits* logits) {
    SessionOptions options = window_options(64);
    options.threads = threads;
    const Result<Session*> created = Session::create(model, options);
    if (!created.ok()) return;
    Session& session = *created.value();
    GenerateOptions generate_options = kPastEnd;
    generate_options.max_tokens = 300;
    generate_options.user = ids;
    generate_options.on_piece = [](void* to, const char*, size_t, int32_t id) {
      if (id >= 0) static_cast<Ids*>(to)->push_back(id);
      return 0;
    };
    StopReason reason;
    uint64_t count = 0;
    const bool ok = session.set_sampling({.temperature = 1, .seed = seed}).ok() &&
                    session.feed(random_ids(50, kVocab, seed)).ok() &&
                    session.generate(generate_options, &reason, &count).ok();
    if (ok) *logits = {session.logits().value().begin(), session.logits().value().end()};
    Session::close(&session);
  };
  Ids alone[2], together[2];
  Logits alone_logits[2], together_logits[2];
  for (uint32_t i = 0; i < 2; ++i) run(i, 1, &alone[i], &alone_logits[i]);
  {
    std::thread other(run, 0, 2, &together[0], &together_logits[0]);
    run(1, 2, &together[1], &together_logits[1]);
    other.join();
  }
  CHECK(alone[0].size() == 300);
  CHECK(alone[0] != alone[1]);
  for (int i = 0; i < 2; ++i) {
    CHECK(together[i] == alone[i]);
    CHECK(together_logits[i] == alone_logits[i]);
  }
  CHECK(model->users() == 0);
}

// A model whose logit 5 overflows to infinity after token 7 and after no other: dimension 0 of the residual stream is
// not 0 for token 7 only, and the output row of token 5 takes it times the largest float.
std::string poisonous_model() {
  TinyOptions shape;
  shape.tied = false;
  GgufSource source = tiny_gguf(shape);
  const auto edit = [&](const std::string& name, const auto& change) {
    std::string& data = source.tensor(name).data;
    std::vector<float> floats(data.size() / sizeof(float));
    std::memcpy(floats.data(), data.data(), data.size());
    change(floats);
    std::memcpy(data.data(), floats.data(), data.size());
  };
  edit("token_embd.weight", [&](auto& w) {
    for (size_t row = 0; row < kVocab; ++row) w[row * shape.embed_dim] = row == 7 ? 100.0f : 0.0f;
  });
  edit("output.weight", [&](auto& w) { w[5 * shape.embed_dim] = 3e38f; });
  for (uint32_t layer = 0; layer < shape.layers; ++layer) {
    const std::string name = "blk." + std::to_string(layer) + ".";
    edit(name + "attn_output.weight", [&](auto& w) { std::fill_n(w.begin(), shape.heads * shape.head_dim, 0.0f); });
    edit(name + "ffn_down.weight", [&](auto& w) { std::fill_n(w.begin(), shape.ffn_dim, 0.0f); });
  }
  return pack_source(source);
}

TEST_CASE("session: logits that are not numbers poison the session until it is reset") {
  const OpenModel model(poisonous_model());
  OpenSession session(model, full_options(64));
  const Ids ids = {10, 11, 12};
  const Logits healthy = feed(*session, ids);
  const Generated first = generate(*session, 4, kPastEnd);
  REQUIRE_MESSAGE(first.status.ok(), first.status.message());
  REQUIRE(first.count == 4);

  REQUIRE(session->feed(Ids{7}).ok());
  CHECK(std::isinf(logits_of(*session)[5]));
  const Generated failed = generate(*session, 4, kPastEnd);
  check_error(failed.status, ErrorCode::kInternal, "1 of 300 logits are not finite");
  CHECK(failed.count == 0);
  const auto is_poisoned = [](const Status& status) { check_error(status, ErrorCode::kBadState, "reset it"); };
  std::vector<float> scores(3);
  uint64_t fed = 0;
  const std::string path = temporary_path(".session");
  is_poisoned(session->feed(ids));
  is_poisoned(session->feed_text("hello", 0, &fed));
  is_poisoned(session->score(ids, 0, scores));
  is_poisoned(session->logits().status());
  is_poisoned(generate(*session, 1).status);
  is_poisoned(session->save(path.c_str()));
  is_poisoned(session->fork().status());
  CHECK(read_file(path).empty());
  CHECK(model->users() == 1);

  session->reset();
  CHECK(feed(*session, ids) == healthy);
  const Generated again = generate(*session, 4, kPastEnd);
  CHECK(again.status.ok());
  CHECK(again.ids == first.ids);
}

TEST_CASE("session: a turn is its template's text, and a later turn closes the reply before it") {
  const OpenModel model(tiny_model_path(GgmlType::kF32));
  OpenSession session(model, full_options(512));
  const ChatMessage first[] = {{"user", "hello"}};
  const ChatMessage second[] = {{"user", "the world"}};
  const auto tokens_of = [&](std::string_view text) {
    uint64_t count = 0;
    Ids ids(256);
    REQUIRE(session->tokenize(text, kTextSpecial, ids, &count).ok());
    ids.resize(count);
    return ids;
  };
  const Ids first_ids = tokens_of("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
  const Ids second_ids = tokens_of("<|im_end|>\n<|im_start|>user\nthe world<|im_end|>\n<|im_start|>assistant\n");
  Ids ids(256);
  uint64_t count = 0;
  REQUIRE(session->tokenize_turn(first, ids, &count).ok());
  CHECK(Ids(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(count)) == first_ids);
  uint64_t fed = 0;
  REQUIRE(session->feed_turn(first, &fed).ok());
  CHECK(fed == first_ids.size());
  const Generated reply = generate(*session, 5, kPastEnd);
  REQUIRE(session->tokenize_turn(second, ids, &count).ok());
  CHECK(Ids(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(count)) == second_ids);
  REQUIRE(session->feed_turn(second, &fed).ok());
  CHECK(fed == second_ids.size());

  OpenSession plain(model, full_options(512));
  feed(*plain, first_ids);
  feed(*plain, reply.ids);
  CHECK(feed(*plain, second_ids) == logits_of(*session));

  SessionOptions small = full_options(512);
  small.turn_bytes = 20;
  OpenSession narrow(model, small);
  check_error(narrow->feed_turn(first, &fed), ErrorCode::kPromptTooLong, "turn_bytes is 20");
  CHECK(narrow->stats().position == 0);
}

}  // namespace
}  // namespace lethe::test
