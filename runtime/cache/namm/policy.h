// NAMM as an eviction policy: kNammPolicy, completed by parameters.
#pragma once

#include "runtime/cache/namm/parameters.h"
#include "runtime/cache/namm/scorer.h"
#include "runtime/cache/policy.h"

namespace lethe::namm {

// `scorer`, filled with these parameters before the first eviction, must outlive the policy.
Policy policy_of(const Parameters& parameters, const Scorer& scorer);

}  // namespace lethe::namm
