// Which Highway targets vector code is compiled for. Included before any Highway header, in every file of such code.
//
// Left out: SSSE3, AVX3_ZEN4, AVX3_SPR and AVX10.2, which add nothing that these kernels use over SSE4 and AVX3_DL
// (VNNI); NEON_BF16; and the scalable vectors of SVE and RVV, whose types cannot stand in the arrays of accumulators
// that the kernels are built from. Arm cores with SVE run NEON.
//
// On 64-bit Arm, Highway's NEON stands for cores with dot products of bytes (FEAT_DotProd; most since 2018), for which
// Highway has a target only where they have bf16 too. Its own NEON differs from NEON_WITHOUT_AES by AES alone, which no
// kernel wants. target_choice.h keeps it from cores without dot products.
#pragma once

#include "hwy/detect_targets.h"

#ifndef HWY_AVX10_2  // Highway 1.2 does not know it
#define HWY_AVX10_2 0
#endif
#if defined(__has_feature)  // clang; GCC has macros
#define LETHE_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LETHE_SANITIZED 1
#else
#define LETHE_SANITIZED 0
#endif
#if LETHE_SANITIZED
// Sanitizers make the compilation of a target many times slower; the narrowest and the widest remain.
#define LETHE_SKIPPED_TARGETS (HWY_SSE4 | HWY_AVX2 | HWY_AVX3)
#else
#define LETHE_SKIPPED_TARGETS 0
#endif
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS                                                                        \
  (HWY_SSSE3 | HWY_AVX3_ZEN4 | HWY_AVX3_SPR | HWY_AVX10_2 | HWY_NEON_BF16 | HWY_ALL_SVE | HWY_RVV | \
   LETHE_SKIPPED_TARGETS)
#if HWY_ARCH_ARM_A64 && !defined(__ARM_FEATURE_DOTPROD)
// AES for the whole program does not make NEON, as it is here, the least that a core has.
#undef HWY_BASELINE_TARGETS
#define HWY_BASELINE_TARGETS HWY_NEON_WITHOUT_AES
#endif
