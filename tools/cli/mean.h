// Mean of what is measured token by token, and its standard error.
#pragma once

#include <cmath>
#include <cstdint>

namespace lethe::cli {

class Mean {
 public:
  void add(double value) {
    sum_ += value;
    squares_ += value * value;
    ++count_;
  }
  uint64_t count() const { return count_; }
  double mean() const { return sum_ / static_cast<double>(count_); }  // NaN of nothing
  double standard_error() const {
    const double variance = squares_ / static_cast<double>(count_) - mean() * mean();
    return count_ > 1 && variance > 0 ? std::sqrt(variance / static_cast<double>(count_ - 1)) : 0;
  }

 private:
  double sum_ = 0, squares_ = 0;
  uint64_t count_ = 0;
};

}  // namespace lethe::cli
