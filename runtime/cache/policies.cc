#include "runtime/cache/policy.h"

namespace lethe {
namespace {

constexpr const Policy* kPolicies[] = {&kFullPolicy,    &kWindowPolicy, &kRandomPolicy, &kL2Policy,
                                       &kKeyDiffPolicy, &kH2oPolicy,    &kTovaPolicy,   &kSnapKvPolicy};

}  // namespace

std::span<const Policy* const> policies() { return kPolicies; }

const Policy* find_policy(std::string_view name) {
  for (const Policy* policy : kPolicies) {
    if (name == policy->name) return policy;
  }
  return nullptr;
}

}  // namespace lethe
