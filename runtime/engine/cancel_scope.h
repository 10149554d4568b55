// Cancellation of one call.
#pragma once

#include <atomic>

namespace lethe {

// A call that may be cancelled takes the request with it when it ends, so the next call runs.
class CancelScope {
 public:
  explicit CancelScope(std::atomic<bool>& flag) : flag_(flag) {}
  ~CancelScope() { flag_.store(false, std::memory_order_relaxed); }
  CancelScope(const CancelScope&) = delete;
  CancelScope& operator=(const CancelScope&) = delete;

 private:
  std::atomic<bool>& flag_;
};

}  // namespace lethe
