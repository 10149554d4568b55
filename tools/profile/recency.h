// How near the tokens are that a query head pays attention to.
//
// The recency ratio (RecurFormer, arXiv 2410.12850, which gives no window and no queries; both are our choice): of the
// attention that a query pays, the share that goes to the last `window` tokens, its own included; the mean over all
// queries that see at least four windows, so that a short past cannot pass for a short sight:
//
//   near(l, h)  =  1 / |R|  sum over i in R  sum over j in (i - window, i]  A(l, h)[i][j],   R = {i : i >= 4 window}
//
// A head with a ratio near 1 would lose little if it saw the window only. Many heads park what they have no use for on
// the first tokens (StreamingLLM, arXiv 2309.17453, section 3.1); `near_or_first` counts attention to those as well,
// which is what a window that keeps them can still pay.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/engine/session.h"

namespace lethe::profile {

struct RecencyOptions {
  uint32_t window = 64;
  uint32_t sinks = 4;      // first tokens; at most `window`
  uint32_t tokens = 1024;  // of a text that is read at once; more than four windows
  uint32_t threads = 1;
};

struct Recency {
  double near = 0;
  double near_or_first = 0;
};

// Reads token sequences with a cache that forgets nothing and adds up where attention goes. Twice the work of
// attention, the decoder's own unchanged. One thread at a time.
class RecencyMeter {
 public:
  // `model` outlives the meter.
  explicit RecencyMeter(const Model& model) : model_(&model) {}
  ~RecencyMeter() { Session::close(session_); }
  RecencyMeter(const RecencyMeter&) = delete;
  RecencyMeter& operator=(const RecencyMeter&) = delete;

  // Before all else, once. kInvalidArgument for options that contradict each other; otherwise as Session::create.
  Status open(const RecencyOptions& options);

  Status tokenize(std::string_view text, std::vector<int32_t>* ids) const;
  // One sequence of more than four windows and at most options.tokens tokens, from an empty cache.
  Status read(std::span<const int32_t> ids);

  // Of all that was read since the last clear(); zeros when nothing was.  [layers * heads]
  std::vector<Recency> ratios() const;
  void clear();

 private:
  void see(uint32_t layer, uint32_t kv_head, uint32_t thread, const cpu::AttendArgs& args);

  const Model* model_;
  RecencyOptions options_;
  Session* session_ = nullptr;
  struct alignas(64) Line {  // kernels want their scratch aligned
    float floats[16];
  };
  std::vector<std::vector<Line>> scratch_;  // [threads]
  std::vector<Recency> sums_;               // [layers * heads]
  uint64_t queries_ = 0;                    // that `sums_` are of
};

}  // namespace lethe::profile
