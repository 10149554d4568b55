#include "runtime/base/simd/target_choice.h"

#include "hwy/targets.h"
#include "runtime/base/simd/targets.h"

#if HWY_ARCH_ARM_A64 && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace lethe {

#if HWY_ARCH_ARM_A64
namespace {

bool has_dot_products() {
#if defined(__ARM_FEATURE_DOTPROD)  // the compiler may use them anywhere
  return true;
#elif defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return false;
#endif
}

}  // namespace
#endif

int64_t supported_targets() {
  int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
#if HWY_ARCH_ARM_A64
  if (!has_dot_products()) targets &= ~HWY_NEON;
#endif
  return targets;
}

const char* target_name(int64_t target) {
#if HWY_ARCH_ARM_A64
  if (target == HWY_NEON) return "NEON_DOTPROD";
  if (target == HWY_NEON_WITHOUT_AES) return "NEON";
#endif
  return hwy::TargetName(target);
}

void choose_target() { hwy::GetChosenTarget().Update(supported_targets()); }

}  // namespace lethe
