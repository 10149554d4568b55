// Linear layers with 5- and 6-bit weights.
#include "runtime/base/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/backend/cpu/linear_high_bits.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/linear-inl.h"
#include "runtime/backend/cpu/linear_quantised-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

void linear_high_bits(const LinearArgs& args, uint32_t panel_begin, uint32_t panel_end) {
  switch (args.weight.format) {
    case WeightFormat::kQ5: return linear_quantised<WeightFormat::kQ5>(args, panel_begin, panel_end);
    case WeightFormat::kQ5M: return linear_quantised<WeightFormat::kQ5M>(args, panel_begin, panel_end);
    default: return linear_quantised<WeightFormat::kQ6>(args, panel_begin, panel_end);
  }
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
