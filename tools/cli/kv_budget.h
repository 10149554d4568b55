// How much memory the cache under test gets: --ram as every command has it, or --kv-fraction, a share of what the full
// f16 cache of the same tokens takes. Policy state counts in both.
#pragma once

#include <cstdint>
#include <optional>

#include "lethe/lethe.hpp"
#include "tools/cli/options.h"

namespace lethe::cli {

uint64_t pool_bytes(const lethe_memory& memory);

// Bytes of an f16 cache that holds `tokens` tokens and forgets none.
uint64_t full_cache_bytes(const api::Model& model, uint32_t tokens);

// Session params under no cap but the given tokens: the full cache that others are compared with.
lethe_session_params full_cache_params(uint32_t tokens, uint32_t threads);

// Exactly one of the two options must be given; throws invalid_argument. Without --ram the session's cap is set out of
// the way.
void check_budget(const std::optional<double>& kv_fraction, SessionOptions& session);

// Tokens of a step where --chunk is not given: small, so that the cache is capped all along a prompt.
inline constexpr uint32_t kEvalChunk = 64;

// The cache of a run over `tokens` tokens. With a fraction: bounds params.max_tokens so that the pool takes at most
// that share of the full f16 cache, and throws invalid_argument when this is too little for one step. Sets the chunk
// where there is none: kEvalChunk, or less where the cap asks for it.
void fit_budget(const api::Model& model, const std::optional<double>& fraction, uint32_t tokens,
                lethe_session_params& params);

}  // namespace lethe::cli
