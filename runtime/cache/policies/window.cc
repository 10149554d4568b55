// Sinks and a recent window (StreamingLLM, Xiao et al. 2023, arXiv 2309.17453, section 3.2): the first tokens, which
// soak up attention that has nowhere else to go, and the newest ones. Distances are counted in ranks of the cache, so
// they stay inside the trained length for ever.
#include "runtime/cache/policy.h"

namespace lethe {
namespace {

void select_window(const SelectArgs& args, std::span<uint64_t> keep_bits) {
  const uint32_t recent = args.target_length - args.sinks;
  keep_ranks(keep_bits, 0, args.sinks);
  keep_ranks(keep_bits, args.list.length - recent, args.list.length);
}

}  // namespace

constexpr Policy kWindowPolicy = {
    .name = "window", .default_positions = PositionMode::kRolling, .state_bytes_per_slot = 0, .select = select_window};

}  // namespace lethe
