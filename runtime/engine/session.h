// A conversation with a model: cache, activations, sampler and position, in one block of memory under one cap.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/backend/cpu/cpu_backend.h"
#include "runtime/cache/kv_pool.h"
#include "runtime/cache/manager.h"
#include "runtime/cache/namm/scorer.h"
#include "runtime/engine/session_plan.h"
#include "runtime/memory/ledger.h"
#include "runtime/sample/sampler.h"
#include "runtime/text/chat_template.h"
#include "runtime/text/stop_matcher.h"
#include "runtime/text/stream_decoder.h"
#include "runtime/text/tokenizer.h"
#include "runtime/trace/trace_writer.h"

namespace lethe {

enum TextFlags : uint32_t { kTextSpecial = 1, kTextBos = 2 };

struct SessionStats {
  uint64_t position;
  uint32_t cached_tokens;
  uint64_t prefill_tokens, prefill_ns;
  uint64_t decode_tokens, decode_ns;
  CacheStats cache;
};

enum class StopReason : int32_t { kEnd = 0, kText = 1, kMaxTokens = 2, kCallback = 3 };

struct GenerateOptions {
  uint64_t max_tokens = 0;  // 0: no limit
  std::span<const std::string_view> stops;
  bool ignore_end = false;
  // Text (whole characters, maybe empty) and the token sampled, -1 at the final flush; nonzero stops.
  int32_t (*on_piece)(void* user, const char* text, size_t bytes, int32_t id) = nullptr;
  void* user = nullptr;
};

// Logits [vocab] of token `index` of a call, valid until it returns.
struct OnLogits {
  void (*call)(void* user, size_t index, const float* logits, size_t vocab);
  void* user;
};

// Lives at the start of its own block of memory; nothing is obtained after create(). One thread at a time, except
// cancel(). After an error that may have left the cache inconsistent, every call gives kBadState until reset().
class Session {
 public:
  static Result<Session*> create(const Model& model, const SessionOptions& options);
  static void close(Session* session);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Model& model() const { return *model_; }
  const SessionOptions& options() const { return options_; }
  const SessionPlan& plan() const { return plan_; }
  const Ledger& ledger() const { return ledger_; }
  SessionStats stats() const;

  void reset();
  // Another cap for the rest of the conversation: lowering evicts by policy and gives pages back to the system, raising
  // gives the cache more room, up to what it was created with. kRamTooSmall: too small for any cache; kKvFull: policy
  // `full` holds more. On an error nothing changes.
  Status set_ram(uint64_t bytes);
  // The tokens at positions [begin, end) are never forgotten from now on: those that the cache still has and those to
  // come. kInvalidArgument for an empty range or too many ranges apart; kRamTooSmall when the cache has no room for a
  // step besides. On an error nothing changes.
  static constexpr uint64_t kAllSoFar = UINT64_MAX;
  Status pin(uint64_t begin, uint64_t end = kAllSoFar);
  // For callers that enforce one thread at a time: false when another holds the session.
  bool try_hold() { return !held_.exchange(true, std::memory_order_acquire); }
  void let_go() { held_.store(false, std::memory_order_release); }
  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  void observe_linears(cpu::LinearObserver observer) { backend_.observe_linears(observer); }
  void observe_attention(cpu::AttentionObserver observer) { backend_.observe_attention(observer); }
  Status set_sampling(const SamplerOptions& options) { return sampler_.configure(options); }

  Status tokenize(std::string_view text, uint32_t flags, std::span<int32_t> ids, uint64_t* count);
  Status feed(std::span<const int32_t> ids);
  // Rows in place of the embeddings of tokens, as they enter the first layer: what a vision or decision model gives.
  // rows [n * embed_dim]
  Status feed_embeddings(std::span<const float> rows);
  Status feed_text(std::string_view text, uint32_t flags, uint64_t* fed);
  Status feed_turn(std::span<const ChatMessage> messages, uint64_t* fed);
  // The ids that feed_turn would append now; `ids` and `*count` as in tokenize().
  Status tokenize_turn(std::span<const ChatMessage> messages, std::span<int32_t> ids, uint64_t* count);
  // As feed, and shows the logits of every token from `first` on.
  Status feed_logits(std::span<const int32_t> ids, uint64_t first, OnLogits on_logits);
  // log_probs [ids.size() - first]
  Status score(std::span<const int32_t> ids, uint64_t first, std::span<float> log_probs);
  Result<std::span<const float>> logits() const;  // [vocab]
  Status generate(const GenerateOptions& options, StopReason* reason, uint64_t* generated);

  // A trace of the memory, from now on (trace_writer.h). A session that is closed stops its trace.
  Status start_trace(const char* path, const TraceOptions& options);
  Status stop_trace() { return trace_.stop(trace_figures()); }

  Result<Session*> fork();
  Status save(const char* path);
  Status restore(const char* path);

 private:
  friend Status plan_session(const Model& model, const SessionOptions& options, SessionPlan* plan);
  struct SavedState;  // what a snapshot holds besides the blocks

  Session(const Model& model, const SessionOptions& options, const SessionPlan& plan)
      : model_(&model), options_(options), plan_(plan), ledger_(options.ram_bytes) {}

  // Carves everything but the KV blocks and counts the bytes by tag. The first `take` is this object itself.
  Status lay_out(Arena& arena, const SessionShape& shape, uint64_t* tag_bytes);
  Status open(uint8_t* block);

  // Text of a turn through the chat template, in turn_; and how it is tokenised.
  Result<std::string_view> render_turn(std::span<const ChatMessage> messages);
  uint32_t turn_flags(std::string_view text) const;
  EncodeOptions encode_options(uint32_t flags) const;
  Status check_usable() const;
  Status check_ids(std::span<const int32_t> ids) const;
  Status check_rows(std::span<const float> rows) const;
  Status check_fits(uint64_t tokens) const;
  uint32_t step_tokens() const;  // most of the next step
  // One step: room, layers, commit. At most step_tokens(). Leaves the hidden rows in the backend. All or nothing.
  Status step(const cpu::StepInput& input, const std::atomic<bool>& cancelled);
  // In steps; calls after(begin, end) with the tokens of each.
  template <typename AfterStep>
  Status feed_steps(const cpu::StepInput& input, AfterStep after);
  // As feed_logits, for tokens [first, last), after the arguments were checked.
  template <typename Visit>
  Status feed_visited(std::span<const int32_t> ids, size_t first, size_t last, Visit visit);
  Status feed_all(const cpu::StepInput& input);  // with the logits of the last token
  void compute_logits(size_t row);               // of the last step, to logits(0)
  Status finish(Status status);
  Status finish_feed(uint64_t begin_ns, Status status);
  bool is_end(int32_t id) const;
  TraceFigures trace_figures() const;
  SavedState saved_state() const;
  void adopt(const SavedState& state, const Sampler& sampler, const Pins& pins);

  const Model* model_;
  SessionOptions options_;
  SessionPlan plan_;
  Ledger ledger_;
  Program program_;
  cpu::CpuBackend backend_;
  KvPool kv_;
  Policy policy_;      // the options', completed by parameters
  namm::Scorer namm_;  // of a learned policy
  CacheManager manager_;
  Tokenizer tokenizer_;
  Sampler sampler_;
  StreamDecoder decoder_;
  StopMatcher stops_;
  TraceWriter trace_;
  std::span<int32_t> pending_ids_;       // [chunk] tokens of a text on their way into the cache
  std::span<char> turn_;                 // [turn_bytes] text of one turn, rendered
  std::span<Sight> sights_;              // [layers * kv_heads] when not all see everything
  std::span<LayerAttention> attention_;  // [layers] when the policy sees queries
  uint64_t position_ = 0;                // tokens fed since the start, forgotten ones included
  bool has_logits_ = false;              // logits(0) belong to the last token
  bool in_turn_ = false;                 // a turn was fed before: the next one closes the assistant's reply first
  bool failed_ = false;
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> held_{false};
  uint32_t created_blocks_ = 0;  // per list: the most that set_ram can give
  uint64_t prefill_tokens_ = 0, prefill_ns_ = 0, decode_tokens_ = 0, decode_ns_ = 0;
};

}  // namespace lethe
