// Traced sessions on a tiny model, and their traces read back.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/engine/engine_support.h"
#include "tools/trace/trace_file.h"

namespace lethe::test {

inline trace::Trace read_trace_bytes(const std::string& bytes) {
  trace::Trace out;
  const Status status = trace::read_trace({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, &out);
  REQUIRE_MESSAGE(status.ok(), status.message());
  return out;
}
inline trace::Trace read_trace_file(const std::string& path) { return read_trace_bytes(read_file(path)); }
inline Status try_trace(const std::string& bytes) {
  trace::Trace out;
  return trace::read_trace({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, &out);
}

inline const TraceOptions kEveryStep{.interval_ms = 0, .tokens = true, .library = "test"};

// The level of every position of a picture.
inline std::vector<int> levels_of(const trace::Held& held) {
  std::vector<int> out;
  for (size_t at = 0; at < held.runs.size();) {
    const int level = held.runs[at] >> 4;
    size_t length = held.runs[at++] & 15;
    if (length == 0) {
      for (int shift = 0;; shift += 7) {
        length |= size_t{held.runs[at] & 127u} << shift;
        if (held.runs[at++] < 128) break;
      }
    }
    out.insert(out.end(), length, level);
  }
  return out;
}

}  // namespace lethe::test
