#include "runtime/cache/policy.h"

namespace lethe {
namespace {

constexpr const Policy* kPolicies[] = {&kFullPolicy, &kWindowPolicy};

}  // namespace

std::span<const Policy* const> policies() { return kPolicies; }

const Policy* find_policy(std::string_view name) {
  for (const Policy* policy : kPolicies) {
    if (name == policy->name) return policy;
  }
  return nullptr;
}

void keep_ranks(std::span<uint64_t> keep_bits, uint32_t begin, uint32_t end) {
  for (uint32_t rank = begin; rank < end; ++rank) keep_bits[rank / 64] |= uint64_t{1} << rank % 64;
}

}  // namespace lethe
