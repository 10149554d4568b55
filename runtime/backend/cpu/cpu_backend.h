// Runs a program on the CPU: owns the activations, the logits and the threads of one session.
//
// Results do not depend on the number of threads: work is cut by shapes alone, and partial results are merged in order.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>

#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/thread_pool.h"
#include "runtime/backend/program.h"
#include "runtime/base/status.h"
#include "runtime/cache/kv_pool.h"
#include "runtime/cache/observe.h"
#include "runtime/memory/arena.h"
#include "runtime/model/model.h"

namespace lethe::cpu {

struct BackendOptions {
  uint32_t chunk;         // most tokens of one step
  uint32_t logit_rows;    // most rows of logits at once, at most `chunk`
  uint32_t cache_tokens;  // capacity of the longest KV list
  uint32_t threads;
  PositionMode positions;
  bool absorbs = false;                // the pool keeps what became of dropped tokens
  Observer observer = {};              // of attention
  std::span<const Sight> sights = {};  // [layers * kv_heads], or empty: all is seen
};

// Bytes of one activation buffer for `tokens` tokens.
uint64_t buffer_bytes(const Program& program, BufferId id, uint64_t tokens);

// Where the planner put the activation buffers.
struct BufferPlan {
  std::array<uint64_t, kBufferCount> offsets;
  uint64_t total;
};

// What goes into the first layer: the ids of tokens, or rows that stand in for their embeddings.
struct StepInput {
  std::span<const int32_t> ids;
  std::span<const float> rows;  // [tokens][embed_dim], used when `ids` is empty
  size_t tokens;

  StepInput part(size_t begin, size_t count) const {
    const size_t width = rows.size() / tokens;
    return {ids.empty() ? ids : ids.subspan(begin, count), rows.subspan(begin * width, count * width), count};
  }
};

// Sees what goes into every linear map of the layers, before the map runs.
struct LinearObserver {
  void (*see)(void* user, Role role, uint32_t layer, const float* in, uint32_t tokens) = nullptr;  // in [tokens][cols]
  void* user = nullptr;
};

// Sees the attention of every KV head before it is paid: the kernel's arguments for all tokens of the step over all
// ranks of the list, without places for results (and `clamp` as for the step's first token). Calls for the KV heads of
// a layer may come at the same time, each from another thread of those that the session has.
struct AttentionObserver {
  void (*see)(void* user, uint32_t layer, uint32_t kv_head, uint32_t thread, const AttendArgs& args) = nullptr;
  void* user = nullptr;
};

// One thread at a time. Lives in the session's block; stop() must be called before that block goes.
class CpuBackend {
 public:
  // The three parts of the memory, measured or carved by the caller's arena in this order.
  void lay_out_activations(Arena& arena, const Model& model, const Program& program, const BufferPlan& plan,
                           const BackendOptions& options);
  void lay_out_logits(Arena& arena);
  void lay_out_threads(Arena& arena) { pool_.lay_out(arena, options_.threads); }

  Status start();
  void stop() { pool_.stop(); }
  void observe_linears(LinearObserver observer) { linear_observer_ = observer; }
  void observe_attention(AttentionObserver observer) { attention_observer_ = observer; }

  // Runs all layers over the tokens of `input` (1..chunk) that begin at `first_position`; `kv` has an append of as many
  // tokens under way, which the caller commits or rolls back. kCancelled when `cancelled` became true.
  Status run_layers(const StepInput& input, uint32_t first_position, const KvPool& kv,
                    const std::atomic<bool>& cancelled);
  // Logits of rows [row, row + rows) of the last step: logits(0) ... logits(rows - 1). rows <= logit_rows.
  void run_head(uint32_t row, uint32_t rows);

  std::span<float> logits(uint32_t row) const { return logits_.subspan(row * vocab_, vocab_); }
  const Kernels& kernels() const { return kernels_; }
  RopeTable rope(uint32_t layer) const;  // of the step at hand; the frequencies stay

 private:
  float* floats(BufferId id) const;
  QuantisedRows quantised(uint32_t tokens) const;
  MatrixView weight(Role role, uint32_t layer) const;

  void embed(const StepInput& input, uint32_t first_position);
  void fill_rope(uint32_t first_position, uint32_t tokens);
  void run_step(const Step& step, uint32_t layer, uint32_t tokens, uint32_t first_position, const KvPool& kv);
  const float* vector(Role role, uint32_t layer) const;  // null when the model has none
  void norm(const float* in, Role weight, const float* bias, uint32_t layer, uint32_t floats, float* out);
  void quantise(const float* in, uint32_t rows, uint32_t width);
  struct Linear {
    MatrixView weight;
    const float* bias;  // may be null
    float* out;
    uint32_t out_stride;
  };
  void run_linears(std::span<const Linear> linears, const float* in, uint32_t tokens);
  void store_kv(const Step& step, uint32_t layer, uint32_t tokens, uint32_t first_position, const KvPool& kv);
  void attend(const Step& step, uint32_t layer, uint32_t tokens, uint32_t first_position, const KvPool& kv);
  // Attention is cut into units, a tile of queries of one KV head, and these into parts, kPartTokens ranks: fixed, so
  // that the order of summation is a property of the conversation, not of the thread count or the chunk.
  static constexpr uint32_t kPartTokens = 512;
  struct AttendStep;
  struct AttendUnit;
  static uint32_t parts_of(uint32_t tokens);
  uint32_t partial_units() const;
  uint64_t unit_floats() const;
  void lay_out_attention(Arena& arena);
  float* attend_scratch(uint32_t thread) const;
  Sight sight(uint32_t layer, uint32_t head) const;
  AttendArgs attend_args(const AttendStep& s, uint32_t head) const;
  AttendUnit attend_unit(const AttendStep& s, uint32_t head, uint32_t tile, float* partials) const;
  void attend_part(const AttendStep& s, const AttendUnit& unit, uint32_t part, uint32_t thread, float* scores);
  void attend_absorbed(const AttendStep& s, const AttendUnit& unit);
  void merge_parts(const AttendStep& s, const AttendUnit& unit);
  void show_queries(const AttendStep& s);
  void show_attention(const AttendStep& s);
  void attend_tiles(const AttendStep& s, uint32_t tiles);
  void attend_observed(const AttendStep& s, uint32_t tile);
  void observe_part(const AttendStep& s, const AttendUnit& unit, uint32_t part, uint32_t thread, const float* scores);

  // Calls f(begin, end, thread) over ranges that cover [0, count), each of at least `grain`.
  template <typename F>
  void parallel_ranges(uint32_t count, uint32_t grain, F f) {
    constexpr uint32_t kTasksPerThread = 4;  // so that a thread that was held up leaves little behind
    const uint32_t most = options_.threads == 1 ? 1 : options_.threads * kTasksPerThread;
    struct Context {
      F* f;
      uint32_t count, tasks;
    } context{&f, count, std::clamp(count / std::max(grain, 1u), 1u, most)};
    pool_.run(
        context.tasks,
        [](void* raw, uint32_t task, uint32_t thread) {
          const Context& c = *static_cast<Context*>(raw);
          const auto bound = [&](uint32_t i) { return static_cast<uint32_t>(uint64_t{c.count} * i / c.tasks); };
          (*c.f)(bound(task), bound(task + 1), thread);
        },
        &context);
  }

  const Model* model_ = nullptr;
  const Program* program_ = nullptr;
  Kernels kernels_{};
  BackendOptions options_{};
  BufferPlan plan_{};
  ThreadPool pool_;
  LinearObserver linear_observer_;
  AttentionObserver attention_observer_;
  uint32_t vocab_ = 0;

  std::span<uint8_t> activations_;        // plan_.total
  uint32_t rope_kinds_ = 1;               // 2 when local layers are rotated differently: 0 global, 1 local
  std::span<float> rope_cos_, rope_sin_;  // [rope_kinds][chunk][rotary_dim/2]
  std::span<float> inv_freq_;             // [rope_kinds][rotary_dim/2]
  uint64_t linear_scratch_bytes_ = 0;     // of one thread
  std::span<uint8_t> linear_scratch_;     // [threads][linear_scratch_bytes]
  std::span<float> attend_scratch_;       // [threads][attend_scratch_floats]
  std::span<float> partials_;             // [units][parts][tile][group][head_dim + 2]
  std::span<float> scores_;               // [kv_heads][parts][tile][group][kPartTokens], for a policy that observes
  std::span<float> weights_;              // [threads][tile][kPartTokens], likewise
  std::span<uint32_t> part_blocks_;       // [kv_heads][parts]
  std::span<uint32_t> append_blocks_;     // [kv_heads][chunk]
  std::span<float> logits_;               // [logit_rows][vocab]
};

}  // namespace lethe::cpu
