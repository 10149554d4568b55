// The activation of a feed-forward network; a header of its own, so that kernels need not know the model.
#pragma once

#include <cstdint>

namespace lethe {

// Values of schema/model.fbs.
enum class Activation : uint8_t {
  kSilu = 0,      // x / (1 + exp(-x))
  kGeluTanh = 1,  // x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 (Hendrycks & Gimpel 2016, section 2)
  kGelu = 2,      // x (1 + erf(x / sqrt(2))) / 2
  kRelu = 3,      // max(x, 0)
};

}  // namespace lethe
