// Models and sessions for the tests of the engine, closed at the end of a scope.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "runtime/engine/session.h"
#include "runtime/model/model.h"
#include "tests/support/tiny_model.h"

namespace lethe::test {

using Ids = std::vector<int32_t>;
using Logits = std::vector<float>;

struct OpenModel {
  explicit OpenModel(const std::string& path) {
    Result<Model*> opened = Model::open(path.c_str());
    REQUIRE_MESSAGE(opened.ok(), opened.status().message());
    model = opened.value();
  }
  ~OpenModel() { Model::close(model); }
  OpenModel(const OpenModel&) = delete;
  OpenModel& operator=(const OpenModel&) = delete;
  operator const Model&() const { return *model; }  // NOLINT(google-explicit-constructor)
  Model* operator->() const { return model; }
  Model* model;
};

struct OpenSession {
  OpenSession(const Model& model, const SessionOptions& options) {
    Result<Session*> created = Session::create(model, options);
    REQUIRE_MESSAGE(created.ok(), created.status().message());
    session = created.value();
  }
  explicit OpenSession(Result<Session*> created) {
    REQUIRE_MESSAGE(created.ok(), created.status().message());
    session = created.value();
  }
  ~OpenSession() { Session::close(session); }
  OpenSession(const OpenSession&) = delete;
  OpenSession& operator=(const OpenSession&) = delete;
  Session& operator*() const { return *session; }
  Session* operator->() const { return session; }
  Session* session;
};

// Packs a GGUF source that a test has changed; `head_plan` is the path of one.
inline std::string pack_source(const GgufSource& source, PackType type = PackType::kKeep,
                               const std::string& head_plan = {}) {
  PackOptions options;
  options.input = temporary_path(".gguf");
  options.output = temporary_path(".lethe");
  options.type = type;
  options.head_plan = head_plan;
  write_file(options.input, source.bytes());
  PackReport report;
  const Status status = pack_model(options, &report);
  REQUIRE_MESSAGE(status.ok(), status.message());
  return options.output;
}

// A cache of `tokens` that never forgets.
inline SessionOptions full_options(uint32_t tokens, uint32_t chunk = 16) {
  SessionOptions options;
  options.ram_bytes = 256 << 20;
  options.policy = &kFullPolicy;
  options.positions = PositionMode::kAbsolute;
  options.max_tokens = tokens;
  options.prefill_chunk = chunk;
  return options;
}

// A window of `tokens` with 4 sinks.
inline SessionOptions window_options(uint32_t tokens, uint32_t chunk = 16) {
  SessionOptions options = full_options(tokens, chunk);
  options.policy = &kWindowPolicy;
  options.positions = PositionMode::kRolling;
  return options;
}

inline Ids random_ids(size_t count, uint32_t vocab, uint32_t seed) {
  std::mt19937 random(seed);
  Ids ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % vocab);
  return ids;
}

inline Logits logits_of(const Session& session) {
  const Result<std::span<const float>> row = session.logits();
  REQUIRE_MESSAGE(row.ok(), row.status().message());
  return {row.value().begin(), row.value().end()};
}

// Feeds and gives the logits of the last token.
inline Logits feed(Session& session, std::span<const int32_t> ids) {
  const Status status = session.feed(ids);
  REQUIRE_MESSAGE(status.ok(), status.message());
  return logits_of(session);
}

struct Generated {
  Status status;
  StopReason reason;
  uint64_t count;
  Ids ids;                          // as given to the callback, -1 left out
  std::string text;                 // all pieces
  std::vector<std::string> pieces;  // one by one
};

inline const GenerateOptions kPastEnd{.stops = {}, .ignore_end = true};

// `stop_after`: the callback says stop at that many tokens (0: never).
inline Generated generate(Session& session, uint64_t max_tokens, GenerateOptions options = {}, size_t stop_after = 0) {
  struct Collector {
    Generated* out;
    size_t stop_after;
  };
  Generated out{};
  Collector collector{&out, stop_after};
  options.max_tokens = max_tokens;
  options.user = &collector;
  options.on_piece = [](void* user, const char* text, size_t bytes, int32_t id) -> int32_t {
    auto& to = *static_cast<Collector*>(user);
    to.out->pieces.emplace_back(text, bytes);
    to.out->text.append(text, bytes);
    if (id >= 0) to.out->ids.push_back(id);
    return to.stop_after != 0 && to.out->ids.size() >= to.stop_after ? 1 : 0;
  };
  out.status = session.generate(options, &out.reason, &out.count);
  return out;
}

}  // namespace lethe::test
