// Every head forgets in its own way, the cheapest one that would have kept its attention (Ge et al. 2024, "Model Tells
// You What to Discard: Adaptive KV Cache Compression for LLMs", arXiv 2310.01801, section 3). From the attention that a
// list's tokens have drawn, the first of these is chosen that recovers 95 % of it:
//
//   special    the first tokens
//   frequent   these, and the 30 % that drew the most
//   local      these, and the newest 30 %
//   full       all
//
// There the choice is made once, after the prompt, and the cache is as large as the choices want. Under a cap it is
// made anew whenever room is needed, from what the cache still holds; what a list does not want goes at once, and the
// lists of a layer that want more than the rest leaves them lose the tokens that drew the least. (The class of
// punctuation is left out: a cache does not know the text.)
#include <algorithm>
#include <limits>

#include "runtime/cache/list_reader.h"
#include "runtime/cache/policy.h"
#include "runtime/cache/select.h"

namespace lethe {
namespace {

constexpr float kRecovery = 0.95f, kFrequentShare = 0.3f, kLocalShare = 0.3f;

// Sums over the queries that saw a token.
struct Drawn {
  float all;
  float near;  // by those for which it was among the newest 30 %
};

uint32_t share_of(float share, uint32_t tokens) { return static_cast<uint32_t>(share * static_cast<float>(tokens)); }

void observe_fastgen(const ObserveArgs& args) {
  for_each_observed(args, [](const ObservedSlots& slots) {
    auto* const drawn = reinterpret_cast<Drawn*>(slots.state);
    const uint32_t seen = slots.query_rank + 1, far = seen - share_of(kLocalShare, seen);
    for (uint32_t slot = 0; slot < slots.count; ++slot) {
      drawn[slot].all += slots.attention[slot];
      drawn[slot].near += slots.rank + slot < far ? 0.0f : slots.attention[slot];
    }
  });
}

// Calls visit(rank, what the token drew) for the tokens of ranks [begin, end).
template <typename Visit>
void for_each_drawn(const ScoreArgs& args, uint32_t begin, uint32_t end, Visit visit) {
  for_each_block(args.pool, args.list, [&](const uint8_t* block, uint32_t rank, uint32_t count) {
    const auto* drawn = reinterpret_cast<const Drawn*>(block + args.pool.layout.state_offset);
    for (uint32_t slot = 0; slot < count; ++slot) {
      if (rank + slot >= begin && rank + slot < end) visit(rank + slot, drawn[slot]);
    }
  });
}

struct Sums {
  double all = 0, near = 0;
  void add(Drawn drawn) {
    all += static_cast<double>(drawn.all);
    near += static_cast<double>(drawn.near);
  }
};

void score_fastgen(const ScoreArgs& args, std::span<float> scores) {
  const uint32_t length = args.list.length, special = std::min(args.sinks, length);
  const uint32_t local = std::max(special, length - share_of(kLocalShare, length));
  const auto worth = [&](uint32_t rank, Drawn drawn) { return entry_of(worth_of(drawn.all), length - rank); };
  // The frequent ones of the ranks [special, end).
  const auto frequent_cut = [&](uint32_t end) {
    return find_cut(std::min(end - special, share_of(kFrequentShare, length)), [&](auto visit) {
      for_each_drawn(args, special, end, [&](uint32_t rank, Drawn drawn) { visit(worth(rank, drawn)); });
    });
  };
  const auto kept = [&](Cut cut, uint32_t end) {
    Sums sums;
    for_each_drawn(args, special, end, [&](uint32_t rank, Drawn drawn) {
      if (cut.keeps(worth(rank, drawn))) sums.add(drawn);
    });
    return sums;
  };
  Sums of_special, others;
  for_each_drawn(args, 0, length,
                 [&](uint32_t rank, Drawn drawn) { (rank < special ? of_special : others).add(drawn); });
  const auto recovers = [&](double attention) {
    return attention >= static_cast<double>(kRecovery) * (of_special.all + others.all);
  };

  std::fill(scores.begin(), scores.end(), -1.0f);
  if (recovers(of_special.all)) return;
  uint32_t end = length;
  Cut cut = frequent_cut(end);
  if (!recovers(of_special.all + kept(cut, end).all)) {
    end = local;
    cut = frequent_cut(end);
    const Sums frequent = kept(cut, end);
    if (!recovers(of_special.all + others.near + frequent.all - frequent.near)) cut = {};  // all
  }
  for_each_drawn(args, special, length, [&](uint32_t rank, Drawn drawn) {
    if (rank >= end) {
      scores[rank] = std::numeric_limits<float>::infinity();
    } else if (cut.keeps(worth(rank, drawn))) {
      scores[rank] = drawn.all;
    }
  });
}

}  // namespace

constexpr Policy kFastGenPolicy = {.name = "fastgen",
                                   .retention = {.recent_percent = 0, .budget = Budget::kLayer},
                                   .drop_below = 0,
                                   .state_bytes_per_slot = sizeof(Drawn),
                                   .observer = {kEveryQuery, observe_fastgen},
                                   .score = score_fastgen};

}  // namespace lethe
