// Linear layers with 8- and 4-bit weights, and the choice of the kernel by format.
#include "runtime/base/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/backend/cpu/linear_quantised.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/linear-inl.h"
#include "runtime/backend/cpu/linear_quantised-inl.h"
#include "runtime/backend/cpu/simd_tables.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

void linear(const LinearArgs& args, uint32_t panel_begin, uint32_t panel_end) {
  switch (args.weight.format) {
    case WeightFormat::kQ8: return linear_quantised<WeightFormat::kQ8>(args, panel_begin, panel_end);
    case WeightFormat::kQ4: return linear_quantised<WeightFormat::kQ4>(args, panel_begin, panel_end);
    case WeightFormat::kQ4M: return linear_quantised<WeightFormat::kQ4M>(args, panel_begin, panel_end);
    case WeightFormat::kQ5:
    case WeightFormat::kQ5M:
    case WeightFormat::kQ6: return linear_high_bits(args, panel_begin, panel_end);
    default: return linear_float(args, panel_begin, panel_end);
  }
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lethe::cpu {
HWY_EXPORT(linear);
void set_simd_linear(Kernels& kernels) { kernels.linear = HWY_DYNAMIC_POINTER(linear); }
}  // namespace lethe::cpu
#endif
