// Random walks: whatever is done in whatever order, under any options, the cap holds and the plan is what is taken.
#include <doctest/doctest.h>

#include <memory>

#include "tests/engine/engine_support.h"
#include "tests/support/tiny_namm.h"
#include "tools/pack/head_plan.h"

namespace lethe::test {
namespace {

constexpr uint32_t kVocab = 3 + 256 + 41;

struct Walk {
  explicit Walk(uint32_t seed) : random(seed) {
    TinyOptions shape;
    shape.context_length = 4096;
    shape.embed_dim = shape.ffn_dim = 32;
    const std::string head_plan = temporary_path(".json");
    write_file(head_plan, head_plan_json({2, 2, {{0, 1, pick(9), 1 + pick(99)}, {1, 0, pick(9), 1 + pick(99)}}}));
    model = std::make_unique<OpenModel>(pick(3) == 0 ? pack_source(tiny_gguf(shape), PackType::kKeep, head_plan)
                                                     : tiny_model_path(shape));
    options.policy = policies()[seed % policies().size()];
    options.namm = tiny_namm();
    options.sinks = pick(9);
    options.policy_seed = seed;
    if (pick(2) == 0) options.recent_percent = pick(101);
    if (pick(2) == 0) options.budget = static_cast<Budget>(pick(4));
    if (pick(3) == 0) options.pooling = Pooling{PoolKind::kMax, 5};
    if (options.policy->is_share && pick(2) == 0) options.value_norm = true;
    options.hand_over = static_cast<HandOver>(pick(3));
    options.kv_type = kKvTypes[pick(4)];
    options.positions = static_cast<PositionMode>(pick(3));
    options.prefill_chunk = 1 + pick(48);
    options.threads = 1 + pick(3);
    options.logit_rows = 1 + pick(4);
    SessionPlan plan;
    REQUIRE(plan_session(*model, options, &plan).code() == ErrorCode::kRamTooSmall);
    minimum = plan.minimum_ram;
    options.ram_bytes = highest_cap = minimum + pick(300'000);
    session = std::make_unique<OpenSession>(*model, options);
  }

  uint32_t pick(uint32_t below) { return static_cast<uint32_t>(random() % below); }
  Ids ids(uint32_t count) { return random_ids(count, kVocab, pick(UINT32_MAX)); }
  static bool refused(const Status& status, std::initializer_list<ErrorCode> codes) {
    return std::find(codes.begin(), codes.end(), status.code()) != codes.end();
  }

  void require_sound() {
    Session& s = **session;
    const Ledger& ledger = s.ledger();
    REQUIRE(ledger.total() <= ledger.cap());
    REQUIRE(ledger.peak() <= highest_cap);
    uint64_t sum = 0;
    for (int tag = 0; tag < kMemoryTagCount; ++tag) {
      REQUIRE(ledger.used(static_cast<MemoryTag>(tag)) == s.plan().tag_bytes[tag]);
      sum += s.plan().tag_bytes[tag];
    }
    REQUIRE(s.plan().total == sum);
    REQUIRE(ledger.total() == sum);
    const uint32_t longest = longest_list(retention_of(options).budget, s.plan().shape.cache_tokens());
    REQUIRE(s.stats().cached_tokens <= longest);
  }

  void feed_some() {
    const Status status = (*session)->feed(ids(1 + pick(pick(4) == 0 ? 300 : 20)));
    REQUIRE_MESSAGE(
        (status.ok() || (!options.policy->evicts && refused(status, {ErrorCode::kKvFull, ErrorCode::kPromptTooLong}))),
        status.message());
    fed += status.ok() ? 1 : 0;
  }
  void generate_some() {
    if (!(*session)->logits().ok()) return;
    const Generated out = generate(**session, 1 + pick(30), kPastEnd);
    REQUIRE_MESSAGE((out.status.ok() || (!options.policy->evicts && refused(out.status, {ErrorCode::kKvFull}))),
                    out.status.message());
  }
  void pin_some() {
    const uint64_t begin = (*session)->stats().position + pick(30);
    const Status status = (*session)->pin(begin, begin + 1 + pick(6));
    REQUIRE_MESSAGE((status.ok() || refused(status, {ErrorCode::kRamTooSmall, ErrorCode::kInvalidArgument})),
                    status.message());
    pinned += status.ok() ? 1 : 0;
  }
  void set_ram() {
    const Status status = (*session)->set_ram(minimum - 2000 + pick(320'000));
    REQUIRE_MESSAGE((status.ok() || refused(status, {ErrorCode::kRamTooSmall}) ||
                     (!options.policy->evicts && refused(status, {ErrorCode::kKvFull}))),
                    status.message());
    highest_cap = std::max(highest_cap, (*session)->ledger().cap());
    moved += status.ok() ? 1 : 0;
  }
  // The copy and the original go on alike; one of them is the walk's from now on.
  void fork() {
    auto copy = std::make_unique<OpenSession>((*session)->fork());
    REQUIRE((*copy)->ledger().cap() == (*session)->ledger().cap());
    require_alike(**copy);
    if (pick(2) == 0) std::swap(copy, session);
  }
  // A conversation that is taken back.
  void save_and_restore() {
    const std::string path = temporary_path(".state");
    REQUIRE((*session)->save(path.c_str()).ok());
    OpenSession copy((*session)->fork());
    feed_some();
    const Status status = (*session)->restore(path.c_str());
    REQUIRE_MESSAGE(status.ok(), status.message());
    require_alike(*copy);
  }
  void require_alike(Session& other) {
    REQUIRE(other.stats().position == (*session)->stats().position);
    const Ids next = ids(1 + pick(40));
    const Status one = (*session)->feed(next), two = other.feed(next);
    REQUIRE(one.code() == two.code());
    if (one.ok()) REQUIRE(logits_of(other) == logits_of(**session));
  }

  void step() {
    switch (pick(16)) {
      case 0: pin_some(); break;
      case 1:
      case 2: set_ram(); break;
      case 3: fork(); break;
      case 4: save_and_restore(); break;
      case 5:
        if (pick(4) == 0) (*session)->reset();
        break;
      case 6:
      case 7:
      case 8: generate_some(); break;
      default: feed_some();
    }
    require_sound();
  }

  std::mt19937 random;
  std::unique_ptr<OpenModel> model;
  SessionOptions options;
  uint64_t minimum = 0, highest_cap = 0;
  std::unique_ptr<OpenSession> session;
  uint32_t fed = 0, pinned = 0, moved = 0;
};

TEST_CASE("walk: no order of calls takes a session over its cap or its plan") {
  uint32_t fed = 0, pinned = 0, moved = 0;
  uint64_t evictions = 0;
  for (uint32_t seed = 0; seed < 48; ++seed) {
    CAPTURE(seed);
    Walk walk(seed);
    CAPTURE(std::string(walk.options.policy->name));
    walk.require_sound();
    for (int i = 0; i < 80; ++i) {
      CAPTURE(i);
      walk.step();
      evictions = std::max(evictions, (*walk.session)->stats().cache.evictions);
    }
    fed += walk.fed, pinned += walk.pinned, moved += walk.moved;
  }
  CHECK(fed > 1000);
  CHECK(pinned > 50);
  CHECK(moved > 200);
  CHECK(evictions > 10);
}

TEST_CASE("policies: with room for all tokens every policy gives the full cache's bits") {
  TinyOptions shape;
  const OpenModel model(tiny_model_path(shape));
  const Ids prompt = random_ids(150, kVocab, 1);
  for (const KvType type : kKvTypes) {
    SessionOptions options = full_options(256, 20);
    options.kv_type = type;
    OpenSession full(model, options);
    const Logits fed = feed(*full, prompt);
    const Ids generated = generate(*full, 60, kPastEnd).ids;
    const Logits last = logits_of(*full);
    const std::vector<uint8_t> quiet_namm = make_namm(512);
    for (const Policy* policy : policies()) {
      for (const PositionMode positions : {PositionMode::kAbsolute, PositionMode::kRolling, PositionMode::kClamped}) {
        CAPTURE(std::string(policy->name));
        options.policy = policy;
        options.namm = quiet_namm;
        options.positions = positions;
        OpenSession session(model, options);
        CHECK(feed(*session, prompt) == fed);
        CHECK(generate(*session, 60, kPastEnd).ids == generated);
        CHECK(logits_of(*session) == last);
      }
    }
  }
}

// That pinned tokens stay is tested with the manager (tests/cache/selection_test.cc).
TEST_CASE("pins: hold in a restored and in a forked conversation") {
  TinyOptions shape;
  shape.context_length = 2048;
  const OpenModel model(tiny_model_path(shape));
  const Ids begin = random_ids(340, kVocab, 2), end = random_ids(300, kVocab, 3);
  for (const Policy* policy : policies()) {
    if (!policy->evicts) continue;
    CAPTURE(std::string(policy->name));
    SessionOptions options = window_options(128, 16);
    options.policy = policy;
    options.namm = tiny_namm();
    options.hand_over = HandOver::kCompensation;  // and what it keeps
    const auto begun = [&](OpenSession& session, bool pin) {
      feed(*session, std::span(begin).first(40));
      if (pin) REQUIRE(session->pin(0).ok());
      feed(*session, std::span(begin).subspan(40));
    };
    OpenSession pinned(model, options), unpinned(model, options), restored(model, options);
    begun(pinned, true);
    begun(unpinned, false);
    const std::string path = temporary_path(".state");
    REQUIRE(pinned->save(path.c_str()).ok());
    REQUIRE(restored->restore(path.c_str()).ok());
    OpenSession copy(pinned->fork());
    const Logits expected = feed(*pinned, end);
    CHECK(feed(*restored, end) == expected);
    CHECK(feed(*copy, end) == expected);
    CHECK(feed(*unpinned, end) != expected);
  }
}

TEST_CASE("pins: refused with the numbers, changing nothing") {
  TinyOptions shape;
  const OpenModel model(tiny_model_path(shape));
  OpenSession session(model, window_options(128, 16));
  feed(*session, random_ids(100, kVocab, 5));
  const auto refused = [&](const Status& status, ErrorCode code, std::string_view part) {
    CHECK(status.code() == code);
    CHECK_MESSAGE(std::string_view(status.message()).find(part) != std::string_view::npos, status.message());
  };
  refused(session->pin(7, 7), ErrorCode::kInvalidArgument, "tokens 7 to 7");
  refused(session->pin(8, 7), ErrorCode::kInvalidArgument, "tokens 8 to 7");
  refused(session->pin(0, uint64_t{1} << 40), ErrorCode::kInvalidArgument, "at 2147483648 at most");
  REQUIRE(session->pin(0, 108).ok());
  refused(session->pin(120, 130), ErrorCode::kRamTooSmall, "118 first and pinned tokens and a step of 16");
  REQUIRE(session->pin(110, 114).ok());
  feed(*session, random_ids(300, kVocab, 6));
  session->reset();
  for (uint64_t i = 0; i < 16; ++i) REQUIRE(session->pin(2 * i, 2 * i + 1).ok());
  refused(session->pin(50, 51), ErrorCode::kInvalidArgument, "16 ranges");
  REQUIRE(session->pin(3, 5).ok());  // touches two of them: fewer ranges
}

}  // namespace
}  // namespace lethe::test
