// The decoder against a plain reference in double precision, and against itself: chunks, threads and position modes
// that must not change a bit.
#include "runtime/engine/decoder.h"

#include <doctest/doctest.h>

#include <array>
#include <atomic>

#include "tests/engine/engine_support.h"
#include "tests/engine/llama_reference.h"

namespace lethe::test {
namespace {

using Cache = LlamaReference::Cache;

constexpr uint32_t kVocab = 3 + 256 + 41;

// Largest difference of a logit, relative to the root mean square of the reference's.

double compare(const Logits& logits, const std::vector<double>& expected) {
  REQUIRE(logits.size() == expected.size());
  double squares = 0, most = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double error = static_cast<double>(logits[i]) - expected[i];
    squares += expected[i] * expected[i];
    most = std::isnan(error) ? INFINITY : std::max(most, std::abs(error));
  }
  return most / std::sqrt(squares / static_cast<double>(logits.size()));
}

struct Difference {
  double median, worst;  // of all positions
};

// Feeds token by token to both.
Difference difference(const TinyOptions& shape, const SessionOptions& options,
                      const LlamaReference::Options& reference_options, size_t tokens) {
  const GgufSource source = tiny_gguf(shape);
  const OpenModel model(pack_source(source));
  const OpenSession session(model, options);
  LlamaReference reference(source, shape, reference_options);
  std::vector<double> all;
  for (const int32_t id : random_ids(tokens, model->config().vocab, shape.seed + 100)) {
    all.push_back(compare(feed(*session, {&id, 1}), reference.feed(id)));
  }
  std::sort(all.begin(), all.end());
  return {all[all.size() / 2], all.back()};
}

const std::vector<TinyOptions>& shapes() {
  static const std::vector<TinyOptions> all = {
      {.seed = 1},
      {.tied = false, .seed = 2},
      {.layers = 1, .heads = 4, .kv_heads = 4, .seed = 3},
      {.layers = 3, .embed_dim = 96, .heads = 6, .kv_heads = 1, .head_dim = 32, .ffn_dim = 32, .seed = 4},
      {.embed_dim = 192, .heads = 9, .kv_heads = 3, .head_dim = 64, .ffn_dim = 160, .all_bytes = false, .seed = 5},
      {.embed_dim = 32, .heads = 2, .kv_heads = 1, .head_dim = 128, .ffn_dim = 64, .tied = false, .seed = 6},
  };
  return all;
}

// Where the reference rounds as the runtime does (keys, values, activations), the two agree to f32 arithmetic until a
// number falls on the other side of a step; its key then stays in the cache. So: every position within the bound, and
// in at least half of the shapes the median position with hardly a trace.
void check_shapes(GgmlType type, const SessionOptions& options, const LlamaReference::Options& reference, double bound,
                  double typical) {
  size_t clean = 0;
  for (TinyOptions shape : shapes()) {
    shape.type = type;
    CAPTURE(shape.seed);
    const Difference d = difference(shape, options, reference, 80);
    CHECK(d.worst < bound);
    clean += d.median < typical;
  }
  CHECK(2 * clean >= shapes().size());
}

TEST_CASE("decoder: float weights and an f16 cache give the reference's logits at every position") {
  for (const GgmlType type : {GgmlType::kF32, GgmlType::kF16}) {
    check_shapes(type, full_options(96), {}, 1e-3, 1e-4);
    check_shapes(type, full_options(96), {.cache = Cache::kExact}, 1e-2, 2e-3);  // f16 steps of 2^-11
  }
}

TEST_CASE("decoder: quantised weights differ from the reference only by the int8 activations") {
  for (const GgmlType type : {GgmlType::kQ8_0, GgmlType::kQ4_0, GgmlType::kQ4_1}) {
    CAPTURE(static_cast<int>(type));
    check_shapes(type, full_options(96), {.quantise_activations = true}, 0.1, 1e-4);
    check_shapes(type, full_options(96), {}, 0.2, 0.1);  // int8 steps, through all layers
  }
}

TEST_CASE("decoder: an int8 cache stays within its rounding") {
  SessionOptions options = full_options(96);
  options.kv_type = KvType::kInt8;
  // Queries and weights of 14 bits move some more numbers to the other side of a step.
  check_shapes(GgmlType::kF32, options, {.cache = Cache::kInt8}, 1e-2, 2e-3);
  check_shapes(GgmlType::kF32, options, {.cache = Cache::kExact}, 0.15, 0.05);
}

// A number that falls on the other side of a step makes 16 times the difference that it makes with 8 bits.
TEST_CASE("decoder: caches of 4 bits stay within their rounding") {
  SessionOptions options = full_options(96);
  options.kv_type = KvType::kInt8k4v;
  check_shapes(GgmlType::kF32, options, {.cache = Cache::kInt8k4v}, 0.1, 2e-3);
  options.kv_type = KvType::kInt4;
  check_shapes(GgmlType::kF32, options, {.cache = Cache::kInt4}, 0.3, 2e-3);
}

// Log-probabilities of all tokens and the last logits: every bit that a session gives out.
struct Output {
  std::vector<float> log_probs;
  Logits logits;
  bool operator==(const Output&) const = default;
};

Output run(const Model& model, const SessionOptions& options, const Ids& ids) {
  const OpenSession session(model, options);
  Output out;
  out.log_probs.resize(ids.size() - 1);
  const Status status = session->score(ids, 1, out.log_probs);
  REQUIRE_MESSAGE(status.ok(), status.message());
  out.logits = logits_of(*session);
  for (const float value : out.log_probs) REQUIRE(value < 0);
  return out;
}

TEST_CASE("decoder: neither the prefill chunk, nor the rows of logits, nor the threads change a bit") {
  for (const GgmlType type : {GgmlType::kF32, GgmlType::kQ8_0, GgmlType::kQ4_1}) {
    for (const KvType kv : kKvTypes) {
      CAPTURE(static_cast<int>(type));
      TinyOptions shape;
      shape.type = type;
      shape.context_length = 2048;
      const OpenModel model(tiny_model_path(shape));
      const Ids ids = random_ids(150, kVocab, 7);
      SessionOptions options = full_options(192, 1);
      options.kv_type = kv;
      const Output expected = run(model, options, ids);
      for (uint32_t chunk = 2; chunk <= 17; ++chunk) {
        CAPTURE(chunk);
        options.prefill_chunk = chunk;
        CHECK(run(model, options, ids) == expected);
      }
      for (const uint32_t rows : {2u, 5u, 64u}) {
        CAPTURE(rows);
        options.prefill_chunk = 64;
        options.logit_rows = rows;
        CHECK(run(model, options, ids) == expected);
      }
      for (const uint32_t threads : {2u, 3u, 8u}) {
        CAPTURE(threads);
        options.threads = threads;
        for (const uint32_t chunk : {1u, 7u, 64u}) {
          options.prefill_chunk = chunk;
          options.logit_rows = 1;
          CHECK(run(model, options, ids) == expected);
        }
      }
    }
  }
}

TEST_CASE("decoder: chunks and threads also agree where attention is cut into parts") {
  TinyOptions shape;
  shape.context_length = 4096;
  shape.embed_dim = 32;
  shape.ffn_dim = 32;
  const OpenModel model(tiny_model_path(shape));
  const Ids ids = random_ids(1300, kVocab, 8);
  const Output expected = run(model, full_options(1312, 1), ids);
  for (const uint32_t threads : {1u, 3u}) {
    for (const uint32_t chunk : {33u, 512u}) {
      SessionOptions options = full_options(1312, chunk);
      options.threads = threads;
      CHECK(run(model, options, ids) == expected);
    }
  }
}

// Sums of the attention that a policy is shown, by list.
std::array<std::atomic<double>, 64> shown;

void observe_sums(const ObserveArgs& args) {
  double sum = 0;
  for (uint32_t t = 0; t < args.queries; ++t) {
    for (uint32_t i = 0; i < args.rank_end - args.rank_begin; ++i) {
      sum += static_cast<double>(args.attention[t * args.stride + i]);
    }
  }
  shown[args.layer * 8 + args.kv_head].fetch_add(sum);
}

TEST_CASE("decoder: what a policy sees sums up to one for every query and head, and changes no bit") {
  TinyOptions shape;
  shape.seed = 12;
  shape.context_length = 2048;
  shape.layers = 3;
  shape.heads = 6;
  shape.kv_heads = 2;
  shape.type = GgmlType::kQ4_1;
  const OpenModel model(pack_source(tiny_gguf(shape)));
  const Ids ids = random_ids(1300, model->config().vocab, 8);
  const Output expected = run(model, full_options(1312, 64), ids);
  Policy watching = kFullPolicy;
  for (const uint32_t wanted : {1u, 20u, kEveryQuery}) {
    watching.observer = {wanted, observe_sums};
    for (const uint32_t threads : {1u, 3u}) {
      for (const uint32_t chunk : {1u, 13u, 128u}) {
        for (std::atomic<double>& sum : shown) sum = 0;
        SessionOptions options = full_options(1312, chunk);
        options.threads = threads;
        options.policy = &watching;
        REQUIRE(run(model, options, ids) == expected);
        uint32_t queries = 0;  // by whole tiles of eight
        for (uint32_t at = 0; at < 1300; at += chunk) {
          const uint32_t step = std::min(chunk, 1300 - at);
          queries += step - (step - std::min(step, wanted)) / 8 * 8;
        }
        for (uint32_t layer = 0; layer < 3; ++layer) {
          for (uint32_t head = 0; head < 2; ++head) {
            CHECK(shown[layer * 8 + head] == doctest::Approx(queries).epsilon(1e-5));
          }
        }
      }
    }
  }
}

// Queries of the first layer that a policy is shown, rotated back to position 0: [KV heads][tokens].
std::array<std::vector<std::vector<float>>, 2> shown_queries;

void observe_queries(const QueryArgs& args) {
  if (args.layer != 0) return;
  const uint32_t half = args.rotary_dim / 2;
  for (uint32_t t = 0; t < args.queries; ++t) {
    std::vector<float> row;
    for (uint32_t head = 0; head < args.group; ++head) {
      const float* q = args.q + t * args.q_stride + head * args.head_dim;
      for (uint32_t i = 0; i < half; ++i) {
        const float c = args.cos[t * half + i], s = args.sin[t * half + i];
        row.push_back(q[i] * c + q[half + i] * s);
        row.push_back(q[half + i] * c - q[i] * s);
      }
    }
    CHECK(args.first_position + t == shown_queries[args.kv_head].size());
    shown_queries[args.kv_head].push_back(row);
  }
}

TEST_CASE("decoder: queries that a policy sees are those of their head and position, and it changes no bit") {
  TinyOptions shape;
  shape.heads = 6;
  shape.kv_heads = 2;
  const OpenModel model(tiny_model_path(shape));
  // In the first layer a token's query follows from the token and its position alone.
  const Ids ids(200, 77);
  const Output expected = run(model, full_options(224, 64), ids);
  Policy watching = kFullPolicy;
  watching.observer.see_queries = observe_queries;
  for (const uint32_t chunk : {1u, 13u, 64u}) {
    for (auto& queries : shown_queries) queries.clear();
    SessionOptions options = full_options(224, chunk);
    options.threads = 2;
    options.policy = &watching;
    REQUIRE(run(model, options, ids) == expected);
    for (const auto& queries : shown_queries) {
      REQUIRE(queries.size() == ids.size());
      float size = 0;
      for (const float x : queries[0]) size = std::max(size, std::abs(x));
      CHECK(size > 1e-3f);
      for (const auto& query : queries) {
        for (size_t i = 0; i < query.size(); ++i) REQUIRE(std::abs(query[i] - queries[0][i]) <= 1e-5f * size);
      }
    }
    CHECK(shown_queries[0][0] != shown_queries[1][0]);
  }
}

TEST_CASE("decoder: before anything is forgotten, rolling positions are absolute ones") {
  const OpenModel model(tiny_model_path(GgmlType::kF32));
  const Ids ids = random_ids(120, kVocab, 9);
  SessionOptions options = full_options(128);
  const Output expected = run(model, options, ids);
  options.positions = PositionMode::kRolling;
  CHECK(run(model, options, ids) == expected);
}

TEST_CASE("decoder: beyond the trained length clamped positions move on at the same tokens, however a text is fed") {
  TinyOptions shape;
  shape.context_length = 1024;
  const OpenModel model(tiny_model_path(shape));
  SessionOptions options = window_options(352, 16);
  options.positions = PositionMode::kClamped;
  const OpenSession begun(model, options);
  const Ids ids = random_ids(2000, kVocab, 10);
  size_t at = 0;  // until no eviction will fall into the next 30 tokens, and a step of the clamp (at 1280) will
  while (at <= 1255 || begun->stats().cached_tokens > 322) feed(*begun, std::span(ids).subspan(at++, 1));
  REQUIRE(at < 1280);
  const std::string path = temporary_path(".state");
  REQUIRE(begun->save(path.c_str()).ok());
  const std::span<const int32_t> next(&ids[at], 30);
  const Logits expected = feed(*begun, next);
  for (const uint32_t chunk : {1u, 7u, 30u}) {
    options.prefill_chunk = chunk;
    const OpenSession session(model, options);
    REQUIRE(session->restore(path.c_str()).ok());
    CHECK(feed(*session, next) == expected);
    CHECK(session->stats().cached_tokens == begun->stats().cached_tokens);
  }
}

TEST_CASE("decoder: after evictions, a window gives the reference's logits over the kept tokens") {
  for (const PositionMode mode : {PositionMode::kRolling, PositionMode::kAbsolute, PositionMode::kClamped}) {
    for (const uint32_t sinks : {0u, 4u, 33u}) {
      for (const uint32_t chunk : {1u, 5u, 16u}) {
        const bool compensation = sinks == 4 && chunk != 5;
        CAPTURE(sinks);
        CAPTURE(chunk);
        TinyOptions shape;
        shape.seed = 11 + sinks + chunk;
        const GgufSource source = tiny_gguf(shape);
        const OpenModel model(pack_source(source));
        SessionOptions options = window_options(96, chunk);
        options.sinks = sinks;
        options.positions = mode;
        if (compensation) options.hand_over = HandOver::kCompensation;
        const OpenSession session(model, options);
        LlamaReference reference(source, shape, {.positions = mode, .compensation = compensation});
        double worst = 0;
        const Ids ids = random_ids(800, kVocab, sinks + chunk);  // beyond the trained length, 512
        for (size_t at = 0; at < ids.size(); at += chunk) {
          const std::span<const int32_t> part(&ids[at], chunk);
          const Logits logits = feed(*session, part);
          // How many stay is the engine's choice; which ones is the policy's definition.
          const uint32_t kept = session->stats().cached_tokens - chunk;
          if (kept < reference.kept()) reference.keep(sinks, kept);
          std::vector<double> expected;
          for (const int32_t id : part) expected = reference.feed(id);
          worst = std::max(worst, compare(logits, expected));
        }
        CHECK(worst < 1e-3);
        CHECK(session->stats().cached_tokens <= 96);
        CHECK(session->stats().cached_tokens >= 64);
        CHECK(session->stats().cache.evictions >= 9);
      }
    }
  }
}

TEST_CASE("decoder: a program keeps every buffer from its first use to its last") {
  const OpenModel model(tiny_model_path(GgmlType::kQ4_1));
  const Program program = build_program(model);
  const auto lifetimes = buffer_lifetimes(program);
  for (uint32_t i = 0; i < program.step_count; ++i) {
    for (const BufferId id : {program.steps[i].in, program.steps[i].in2, program.steps[i].out}) {
      if (id == BufferId::kNone) continue;
      const Lifetime& lifetime = lifetimes[static_cast<size_t>(id)];
      CHECK(lifetime.used);
      CHECK(lifetime.first <= i);
      CHECK(lifetime.last >= i);
    }
  }
  const Lifetime& hidden = lifetimes[static_cast<size_t>(BufferId::kHidden)];
  CHECK(hidden.first == 0);
  CHECK(hidden.last == program.step_count);
}

}  // namespace
}  // namespace lethe::test
