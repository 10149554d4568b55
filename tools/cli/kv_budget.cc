#include "tools/cli/kv_budget.h"

#include <algorithm>

#include "tools/cli/failure.h"

namespace lethe::cli {
namespace {

constexpr uint32_t kBlock = 32;
constexpr uint32_t kLeastChunk = 8;
constexpr uint64_t kNoCap = uint64_t{64} << 30;

lethe_memory plan(const api::Model& model, const lethe_session_params& params) {
  lethe_memory memory;
  check(model.plan(params, &memory));
  return memory;
}

}  // namespace

uint64_t pool_bytes(const lethe_memory& memory) { return memory.tag_bytes[LETHE_MEMORY_KV_POOL]; }

lethe_session_params full_cache_params(uint32_t tokens, uint32_t threads) {
  lethe_session_params params = api::session_params(kNoCap);
  params.policy = "full";
  params.max_tokens = tokens;
  params.prefill_chunk = kEvalChunk;
  params.threads = threads;
  params.ignore_head_plan = 1;
  return params;
}

uint64_t full_cache_bytes(const api::Model& model, uint32_t tokens) {
  return pool_bytes(plan(model, full_cache_params(tokens, 1)));
}

void check_budget(const std::optional<double>& kv_fraction, SessionOptions& session) {
  if (kv_fraction && (!(*kv_fraction > 0) || *kv_fraction > 1)) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--kv-fraction is %g: above 0, at most 1", *kv_fraction);
  }
  if (kv_fraction.has_value() == session.ram.text.has_value()) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "give either --kv-fraction or --ram");
  }
  if (!session.ram.text) session.ram.text = std::to_string(kNoCap);
}

void fit_budget(const api::Model& model, const std::optional<double>& fraction, uint32_t tokens,
                lethe_session_params& params) {
  const bool is_free = params.prefill_chunk == 0;
  if (is_free) params.prefill_chunk = kEvalChunk;
  if (!fraction) return;
  const auto limit = static_cast<uint64_t>(*fraction * static_cast<double>(full_cache_bytes(model, tokens)));
  params.max_tokens = 1;  // the plan takes what one step needs
  lethe_memory smallest{};
  while (pool_bytes(smallest = plan(model, params)) > limit && is_free && params.prefill_chunk > kLeastChunk) {
    params.prefill_chunk /= 2;
  }
  if (pool_bytes(smallest) > limit) {
    fail(LETHE_ERROR_INVALID_ARGUMENT,
         "--kv-fraction leaves %llu bytes for the cache: too few for a step of %u tokens, which takes %llu",
         static_cast<unsigned long long>(limit), params.prefill_chunk,
         static_cast<unsigned long long>(pool_bytes(smallest)));
  }
  // The longest cache within the limit; more than all the tokens serves nobody.
  uint32_t fits = smallest.cache_tokens / kBlock, too_many = std::max(fits, (tokens + kBlock - 1) / kBlock) + 1;
  while (fits + 1 < too_many) {
    const uint32_t middle = fits + (too_many - fits) / 2;
    params.max_tokens = middle * kBlock;
    (pool_bytes(plan(model, params)) <= limit ? fits : too_many) = middle;
  }
  params.max_tokens = fits * kBlock;
}

}  // namespace lethe::cli
