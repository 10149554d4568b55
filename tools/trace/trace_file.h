// Reading a trace of a session's memory (schema/trace.fbs): all of it is checked, whoever wrote it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"

namespace lethe::trace {

// The fields of schema/trace.fbs, `lengths` with one number for every list.
struct Sample {
  uint64_t ns, position, cap_bytes;
  std::vector<uint64_t> tag_bytes;  // [Trace::tags]
  uint64_t anonymous_bytes, swapped_bytes, file_bytes, pss_bytes;
  uint64_t minor_faults, major_faults;
  std::vector<uint32_t> lengths;  // [layers * kv_heads]
  uint64_t prefill_tokens, prefill_ns, decode_tokens, decode_ns;
  uint64_t evictions, evicted_tokens, eviction_ns;
  uint64_t last_began_ns, last_took_ns, last_tokens;
  uint32_t last_lists;

  uint64_t ledger_bytes() const;  // sum of tag_bytes
  uint64_t private_bytes() const { return anonymous_bytes + swapped_bytes; }
};

// How many lists held each position, from 0 on.
struct Held {
  uint64_t ns;
  std::vector<uint8_t> runs;  // as in the file
};

struct Trace {
  std::string library, architecture, policy, kv_type;
  uint64_t unix_ms, model, weights_bytes;
  uint32_t layers, kv_heads, vocab, cache_tokens, prefill_chunk, threads, interval_ms;
  std::vector<std::string> tags;
  std::vector<Sample> samples;  // one at least, in order of time
  std::vector<Held> held;       // likewise
  // The tokens from position `first_token` on, as of the last sample. Empty when the trace has none.
  uint64_t first_token = 0;
  std::vector<int32_t> ids;
  std::vector<uint8_t> sizes;  // bytes of each in `text`
  std::string text;
  bool ended = false;       // it was stopped; otherwise the writer was killed
  uint64_t lost_bytes = 0;  // at the end, of a record that is not whole

  const Sample& peak() const;  // most private memory; of several the first
};

// kInvalidArgument: no trace, or damaged (with the byte); kUnsupported: of a later version.
Status read_trace(std::span<const uint8_t> file, Trace* out);

}  // namespace lethe::trace
