// A session on a tiny model and its saved form, for everything that damages snapshots.
#pragma once

#include <string>

#include "runtime/base/hash.h"
#include "runtime/engine/session.h"
#include "tests/support/tiny_model.h"

namespace lethe::test {

// Identifier, version and identity of model and options at the start of a snapshot (engine/snapshot.cc).
inline constexpr size_t kSnapshotPrefix = 8 + 4 + 72;

inline TinyOptions snapshot_model() {
  TinyOptions options;
  options.type = GgmlType::kQ4_1;
  options.layers = 1;
  options.embed_dim = 32;
  options.heads = 2;
  options.kv_heads = 1;
  options.ffn_dim = 32;
  options.all_bytes = false;
  return options;
}

// A fresh session of 64 tokens; the process ends on an error.
inline Session* snapshot_session() {
  static Model* const model = [] {
    const Result<Model*> opened = Model::open(tiny_model_path(snapshot_model()).c_str());
    if (!opened.ok()) std::abort();
    return opened.value();
  }();
  SessionOptions options;
  options.ram_bytes = 8 << 20;
  options.max_tokens = 64;
  options.prefill_chunk = 16;
  const Result<Session*> session = Session::create(*model, options);
  if (!session.ok()) std::abort();
  return session.value();
}

// The checksum at the end, made right.
inline void seal_snapshot(std::string& bytes) {
  const uint64_t digest = hash64(bytes.data(), bytes.size() - sizeof(uint64_t));
  std::memcpy(bytes.data() + bytes.size() - sizeof digest, &digest, sizeof digest);
}

}  // namespace lethe::test
