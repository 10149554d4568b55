// What `lethe bench kernels` measures: every kernel of the CPU backend and of policy namm, with arguments such as a
// session gives it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "runtime/backend/cpu/kernels.h"
#include "runtime/memory/arena.h"
#include "runtime/model/model.h"

namespace lethe::cli {

// What kernels see of a model.
struct KernelShapes {
  struct Matrix {
    WeightFormat format;
    uint32_t rows, cols;
    auto operator<=>(const Matrix&) const = default;
  };
  std::vector<Matrix> matrices;  // of the layers
  Matrix output;                 // makes the logits
  Matrix embedding;
  ModelConfig config;
};
KernelShapes default_kernel_shapes();  // SmolLM2-135M's, in every weight format
KernelShapes kernel_shapes_of(const Model& model);

// Calls a kernel `calls` times; the first one counts as number `first`, so that calls can walk through memory. The
// target of `kernels` is the process's meanwhile, for code that is dispatched where it is called.
using KernelCalls = std::function<void(const cpu::Kernels& kernels, uint64_t first, uint64_t calls)>;

struct KernelCase {
  std::string kernel;        // as in cpu::Kernels, or namm_score, namm_observe
  std::string what;          // shapes: tokens x outputs x inputs of a linear map, else tokens x values
  double flops = 0;          // of one call; 0: not what bounds it
  double bytes = 0;          // of one call, read and written; 0: not what bounds it
  bool from_memory = false;  // what it reads lies in no cache, as for a decode step
  // Lays its arguments out in a thread's memory: kKernelMemory, of which every byte is kKernelFill.
  std::function<KernelCalls(Arena& memory)> prepare;

  std::string label() const { return kernel + " " + what; }
};
inline constexpr uint64_t kKernelMemory = 128 << 20;
// No subnormal number is made of it: 0.011 as a float, 1.06 as a half.
inline constexpr uint8_t kKernelFill = 0x3c;

std::vector<KernelCase> kernel_cases(const KernelShapes& shapes);
std::vector<KernelCase> namm_cases(const ModelConfig& config);  // of them: those of policy namm

}  // namespace lethe::cli
