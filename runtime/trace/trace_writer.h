// A trace of where a session's memory goes, written while it runs: records appended to a file (schema/trace.fbs), so
// that a killed app leaves all but its last moments.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/base/status.h"
#include "runtime/cache/kv_pool.h"
#include "runtime/cache/manager.h"
#include "runtime/memory/arena.h"
#include "runtime/memory/ledger.h"
#include "runtime/model/model.h"
#include "runtime/os/file.h"

namespace lethe {

struct TraceOptions {
  uint32_t interval_ms = 100;  // samples are at least this far apart; 0: one after every step
  bool tokens = false;         // the tokens and their text, too
  const char* library = "";    // its version
};

// What is traced. All of it outlives the trace.
struct TraceSubject {
  const Model* model;
  const Ledger* ledger;
  const KvPool* kv;
  const char* policy;
  uint32_t cache_tokens, prefill_chunk, threads;
};

// What the session counts.
struct TraceFigures {
  uint64_t position;
  uint64_t prefill_tokens, prefill_ns, decode_tokens, decode_ns;
  CacheStats cache;
};

// Obtains nothing: its buffers are carved when the session is created, whether it will be traced or not. One thread at
// a time. An error while writing ends the trace and waits for stop(); the session does not notice.
class TraceWriter {
 public:
  TraceWriter() = default;
  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;

  void carve(Arena& arena, uint64_t lists);

  // Creates or empties the file and takes the first sample. kIo, kDiskFull: nothing was started. kBadState when a trace
  // runs, or has ended in an error that stop() has not told yet.
  Status start(const char* path, const TraceSubject& subject, const TraceFigures& figures, const TraceOptions& options);
  // Takes the last sample and closes the file. The error that ended the trace, if one did; kBadState without a trace.
  Status stop(const TraceFigures& figures);
  bool is_running() const { return file_.is_open(); }

  // After a step of `tokens` tokens, figures.position included. `ids` is empty for embeddings.
  void after_step(std::span<const int32_t> ids, uint32_t tokens, const TraceFigures& figures);

 private:
  class Record;
  // Where a sweep over the positions stands in a list.
  struct Cursor {
    uint32_t block, rank;
  };

  void append(const Record& record);
  void write_start();
  void keep_token(uint64_t position, int32_t id);
  void write_tokens();
  void sample(uint64_t now, const TraceFigures& figures);
  void write_sample(uint64_t now, const TraceFigures& figures);
  void write_held(uint64_t now, uint64_t position);
  uint32_t begin_sweep();
  void sweep(uint64_t first, std::span<uint32_t> counts);
  bool counts_list(uint32_t index) const;
  const KvList& list(uint32_t index) const {
    return subject_.kv->list(index / subject_.kv->kv_heads(), index % subject_.kv->kv_heads());
  }

  TraceOptions options_;
  TraceSubject subject_{};
  os::AppendFile file_;
  Status failure_;
  std::span<uint8_t> record_;   // the one that is being built
  std::span<int32_t> ids_;      // [kTokens] not written yet
  std::span<uint8_t> sizes_;    // [kTokens] bytes of each in text_
  std::span<uint8_t> text_;     // [kTextBytes]
  std::span<uint8_t> runs_;     // [kRunBytes]
  std::span<uint32_t> counts_;  // [kSweep] lists that hold a position
  std::span<Cursor> cursors_;   // [lists]
  uint64_t first_id_ = 0;       // position of ids_[0]
  uint32_t id_count_ = 0, text_size_ = 0;
  uint64_t began_ns_ = 0, sampled_ns_ = 0, pss_due_ns_ = 0;
  uint64_t evictions_ = 0;  // as of the last Held
};

}  // namespace lethe
