// Which Highway targets the kernels are compiled for. Included before any Highway header, in every kernel file.
//
// Left out: SSSE3, AVX3_ZEN4, AVX3_SPR and AVX10.2, which add nothing that these kernels use over SSE4 and AVX3_DL
// (VNNI), and the scalable vectors of SVE and RVV, whose types cannot stand in the arrays of accumulators that the
// kernels are built from; Arm cores with SVE run the NEON targets.
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
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_AVX3_ZEN4 | HWY_AVX3_SPR | HWY_AVX10_2 | HWY_ALL_SVE | HWY_RVV | LETHE_SKIPPED_TARGETS)
