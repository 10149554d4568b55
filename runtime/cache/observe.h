// What a backend reports of the queries and the attention it computes, for policies that judge tokens by them.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

#include "runtime/cache/kv_layout.h"

namespace lethe {

// The attention that a tile of queries of a step pays to a range of one list. Tiles and ranges cover every block of
// the list up to the block of the tile's last query, also the blocks that a window hides.
//
// Calls for different ranges of a list may run at the same time; those for one range come in the order of the queries.
// So an observer touches the state of the slots in its range only.
struct ObserveArgs {
  KvPoolView pool;
  KvList list;  // with the step's own tokens
  uint32_t layer;
  uint32_t kv_head;
  uint32_t first_query_rank;      // rank of the tile's first query; the others follow
  uint32_t first_query_position;  // and its position in the conversation
  uint32_t queries;               // 1..8
  uint32_t rank_begin, rank_end;  // the range; rank_begin is a multiple of 32
  uint32_t start_block;           // block of rank_begin
  // Softmax weights over all that a query sees, averaged over the query heads that share the KV head; 0 where a query
  // does not see. The weight of rank r is at r - rank_begin.
  const float* attention;  // [queries][stride]
  uint32_t stride;         // floats
  bool last;               // the tile holds the step's last query
};

// All queries of a step that one KV head answers, before they pay attention. Steps come in order; lists of a layer may
// be reported at the same time.
struct QueryArgs {
  std::span<float> list_state;  // Policy::list_state_floats, of this list
  uint32_t layer;
  uint32_t kv_head;
  uint32_t first_position;  // of the step's first query
  uint32_t queries;
  uint32_t group;  // query heads that share the KV head
  uint32_t head_dim;
  // Rotated: dimension i with i + rotary_dim / 2.
  const float* q;          // [queries][q_stride], the group's heads adjacent
  uint32_t q_stride;       // floats
  const float *cos, *sin;  // [queries][rotary_dim / 2]
  uint32_t rotary_dim;
};

// Attention is observed when it wants queries, queries when there is a function to see them.
struct Observer {
  uint32_t queries = 0;  // how many of a step's last ones it must see; tiles that hold others besides are given whole
  void (*see)(const ObserveArgs& args) = nullptr;
  void (*see_queries)(const QueryArgs& args) = nullptr;
};
inline constexpr uint32_t kEveryQuery = std::numeric_limits<uint32_t>::max();

}  // namespace lethe
