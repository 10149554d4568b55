// KV heads that see their first and last tokens only: attention with that mask, less memory, and no other difference.
#include "tools/pack/head_plan.h"

#include "tests/engine/engine_support.h"
#include "tests/engine/llama_reference.h"

namespace lethe::test {
namespace {

const TinyOptions kShape{.layers = 3, .heads = 4, .kv_heads = 2, .context_length = 4096};
constexpr uint32_t kVocab = 3 + 256 + 41;

std::string model_with(const std::vector<PlannedWindow>& windows) {
  const std::string plan = temporary_path(".json");
  write_file(plan, head_plan_json({kShape.layers, kShape.kv_heads, windows}));
  return pack_source(tiny_gguf(kShape), PackType::kKeep, plan);
}

const std::vector<PlannedWindow> kWindows{{0, 0, 4, 24}, {0, 1, 0, 1}, {1, 1, 33, 50}, {2, 0, 4, 7}};

TEST_CASE("head plan: until the windows are full, nothing differs by a bit") {
  const std::vector<PlannedWindow> windows{{0, 0, 4, 120}, {1, 0, 100, 24}, {1, 1, 0, 124}, {2, 1, 64, 60}};
  const OpenModel planned(model_with(windows)), plain(tiny_model_path(kShape));
  const Ids ids = random_ids(125, kVocab, 1);
  for (const KvType type : kKvTypes) {
    for (const PositionMode positions : {PositionMode::kAbsolute, PositionMode::kRolling, PositionMode::kClamped}) {
      SessionOptions options = full_options(256, 48);
      options.kv_type = type;
      options.positions = positions;
      OpenSession one(planned, options), other(plain, options);
      for (size_t i = 0; i < 124; i += 31) {
        REQUIRE(feed(*one, std::span(ids).subspan(i, 31)) == feed(*other, std::span(ids).subspan(i, 31)));
      }
      CHECK(feed(*one, std::span(ids).last(1)) != feed(*other, std::span(ids).last(1)));  // the 125th token
    }
  }
}

TEST_CASE("head plan: attention is that of the reference with the same mask") {
  const OpenModel model(model_with(kWindows));
  std::vector<HeadWindow> mask(kShape.layers * kShape.kv_heads);
  for (const PlannedWindow& w : kWindows) mask[w.layer * kShape.kv_heads + w.kv_head] = {w.sinks, w.window};
  const Ids ids = random_ids(400, kVocab, 2);
  LlamaReference reference(tiny_gguf(kShape), kShape, {.windows = mask}), all(tiny_gguf(kShape), kShape, {});
  OpenSession session(model, full_options(400)), one_by_one(model, full_options(400));
  SessionOptions ignoring = full_options(400);
  ignoring.head_plan = false;
  OpenSession whole(model, ignoring);
  // Long steps of one session and single tokens of another see the same.
  for (size_t begin = 0; begin < ids.size(); begin += 40) {
    std::vector<double> expected, unmasked;
    for (size_t i = begin; i < begin + 40; ++i) {
      expected = reference.feed(ids[i]);
      unmasked = all.feed(ids[i]);
      feed(*one_by_one, std::span(ids).subspan(i, 1));
    }
    const Logits logits = feed(*session, std::span(ids).subspan(begin, 40)), single = logits_of(*one_by_one);
    const Logits ignored = feed(*whole, std::span(ids).subspan(begin, 40));
    double most = 0, most_single = 0, most_ignored = 0, gap = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      most = std::max(most, std::abs(static_cast<double>(logits[i]) - expected[i]));
      most_single = std::max(most_single, std::abs(static_cast<double>(single[i]) - expected[i]));
      most_ignored = std::max(most_ignored, std::abs(static_cast<double>(ignored[i]) - unmasked[i]));
      gap = std::max(gap, std::abs(expected[i] - unmasked[i]));
    }
    CAPTURE(begin);
    CHECK(most < 2e-3);
    CHECK(most_single < 2e-3);
    CHECK(most_ignored < 2e-3);
    if (begin > 80) CHECK(gap > 0.1);
  }
}

TEST_CASE("head plan: under the same cap the other heads remember longer") {
  const OpenModel planned(model_with(kWindows)), plain(tiny_model_path(kShape));
  SessionOptions options = window_options(0);
  options.ram_bytes = 1 << 20;
  SessionPlan with{}, without{}, ignoring{};
  REQUIRE(plan_session(planned, options, &with).ok());
  REQUIRE(plan_session(plain, options, &without).ok());
  options.head_plan = false;
  REQUIRE(plan_session(planned, options, &ignoring).ok());
  CHECK(with.total <= options.ram_bytes);
  CHECK(with.shape.cache_tokens() > 2 * without.shape.cache_tokens());
  CHECK(ignoring.shape.cache_tokens() == without.shape.cache_tokens());
  // All heads with a window: no cap buys more than they can use.
  std::vector<PlannedWindow> windows;
  for (uint32_t i = 0; i < 6; ++i) windows.push_back({i / 2, i % 2, 4, 20});
  const OpenModel bounded(model_with(windows));
  options.head_plan = true;
  options.ram_bytes = 64 << 20;
  options.policy = &kFullPolicy;
  REQUIRE(plan_session(bounded, options, &with).ok());
  CHECK(with.shape.cache_tokens() == kv_window_blocks({.sinks = 4, .window = 20}, 16) * kBlockSlots);
  OpenSession endless(bounded, options);
  for (int i = 0; i < 40; ++i)
    feed(*endless, random_ids(300, kVocab, 3));  // policy full, far beyond the trained length
  CHECK(endless->stats().position == 12'000);
}

TEST_CASE("head plan: a conversation is saved, restored and copied with it") {
  const OpenModel model(model_with(kWindows));
  const Ids ids = random_ids(300, kVocab, 4), more = random_ids(90, kVocab, 5);
  for (const Policy* policy : {&kWindowPolicy, &kH2oPolicy, &kKeyDiffPolicy}) {
    SessionOptions options = window_options(128);
    options.policy = policy;
    options.positions = policy->default_positions;
    OpenSession session(model, options);
    feed(*session, ids);
    const std::string path = temporary_path(".session");
    REQUIRE(session->save(path.c_str()).ok());
    OpenSession copy(session->fork()), restored(model, options);
    const Status status = restored->restore(path.c_str());
    REQUIRE_MESSAGE(status.ok(), status.message());
    const Logits expected = feed(*session, more);
    CHECK(feed(*copy, more) == expected);
    CHECK(feed(*restored, more) == expected);
    // A session of the same model that sees everything is another thing.
    options.head_plan = false;
    OpenSession whole(model, options);
    CHECK(whole->restore(path.c_str()).code() == ErrorCode::kWrongModel);
  }
}

}  // namespace
}  // namespace lethe::test
