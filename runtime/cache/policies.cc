#include "runtime/cache/policy.h"

namespace lethe {
namespace {

constexpr const Policy* kPolicies[] = {&kFullPolicy,         &kWindowPolicy,
                                       &kRandomPolicy,       &kL2Policy,
                                       &kKeyDiffPolicy,      &kLagKvPolicy,
                                       &kH2oPolicy,          &kTovaPolicy,
                                       &kSnapKvPolicy,       &kPyramidKvPolicy,
                                       &kPyramidInferPolicy, &kScissorhandsPolicy,
                                       &kFastGenPolicy,      &kExpectedAttentionPolicy,
                                       &kNammPolicy};

}  // namespace

std::span<const Policy* const> policies() { return kPolicies; }

size_t policy_work_floats(const Policy& policy, size_t tokens, size_t head_dim) {
  if (policy.work_floats != nullptr) return policy.work_floats(policy, tokens, head_dim);
  return head_dim * (kBlockSlots + 4);
}

const Policy* find_policy(std::string_view name) {
  for (const Policy* policy : kPolicies) {
    if (name == policy->name) return policy;
  }
  return nullptr;
}

}  // namespace lethe
