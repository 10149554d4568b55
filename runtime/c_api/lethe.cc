// The C ABI over the engine: argument checks, struct sizes, one thread per session, error texts.
#include "lethe/lethe.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

#include "runtime/engine/session.h"
#include "runtime/os/process.h"

using namespace lethe;  // NOLINT(google-build-using-namespace): this file is the boundary

// The opaque handles are the engine's own objects: a handle of its own would be memory beside the plan.
namespace {

static_assert(LETHE_ERROR_INTERNAL == static_cast<int>(ErrorCode::kInternal));
static_assert(LETHE_ERROR_RAM_TOO_SMALL == static_cast<int>(ErrorCode::kRamTooSmall));
static_assert(LETHE_ERROR_THREAD == static_cast<int>(ErrorCode::kThread));
static_assert(LETHE_ERROR_TEMPLATE == static_cast<int>(ErrorCode::kTemplate));
static_assert(LETHE_ERROR_WRONG_MODEL == static_cast<int>(ErrorCode::kWrongModel));
static_assert(LETHE_MEMORY_TAGS == kMemoryTagCount);
static_assert(LETHE_BUDGET_GLOBAL - LETHE_BUDGET_LIST == static_cast<int>(Budget::kGlobal));
static_assert(LETHE_HAND_OVER_MERGE == static_cast<int>(HandOver::kMerge));
static_assert(LETHE_ALL_SO_FAR == Session::kAllSoFar);
static_assert(LETHE_MEMORY_KV_POOL == static_cast<int>(MemoryTag::kKvPool));
static_assert(LETHE_MEMORY_TRACE == static_cast<int>(MemoryTag::kTrace));

lethe_code report(const Status& status, lethe_error* error) {
  const auto code = static_cast<lethe_code>(status.code());
  if (error != nullptr) {
    error->code = code;
    snprintf(error->message, sizeof error->message, "%s", status.message());
  }
  return code;
}

lethe_code refuse_null(const char* name, lethe_error* error) {
  return report(Status::error(ErrorCode::kInvalidArgument, "%s is NULL", name), error);
}

#define LETHE_REQUIRE(pointer) \
  if ((pointer) == nullptr) return refuse_null(#pointer, error)

Model* engine(lethe_model* handle) { return reinterpret_cast<Model*>(handle); }
const Model* engine(const lethe_model* handle) { return reinterpret_cast<const Model*>(handle); }
Session* engine(lethe_session* handle) { return reinterpret_cast<Session*>(handle); }
const Session* engine(const lethe_session* handle) { return reinterpret_cast<const Session*>(handle); }

// A struct of the caller, whose own size it says: a newer library reads the fields that the caller has (the rest are
// defaults) and writes no others.
template <typename T>
Status read_struct(const T* from, T* to) {
  if (from->struct_size < sizeof(size_t) || from->struct_size > sizeof(T)) {
    return Status::error(ErrorCode::kInvalidArgument, "struct_size is %zu: set it to sizeof (at most %zu)",
                         from->struct_size, sizeof(T));
  }
  memcpy(to, from, from->struct_size);
  to->struct_size = sizeof(T);
  return {};
}
template <typename T>
Status write_struct(T from, T* to) {
  if (to->struct_size < sizeof(size_t) || to->struct_size > sizeof(T)) {
    return Status::error(ErrorCode::kInvalidArgument, "struct_size is %zu: set it to sizeof (at most %zu)",
                         to->struct_size, sizeof(T));
  }
  from.struct_size = to->struct_size;
  memcpy(to, &from, to->struct_size);
  return {};
}

// Gives a struct its defaults, as far as the caller's reaches.
template <typename T>
void init_struct(T defaults, T* to, size_t struct_size) {
  if (to == nullptr) return;
  defaults.struct_size = std::min(struct_size, sizeof(T));
  memcpy(static_cast<void*>(to), &defaults, defaults.struct_size);
}

// Runs `work(Session&) -> Status` with the session held. Two threads in one session is an error, not a race.
template <typename Work>
lethe_code with_session(lethe_session* session, lethe_error* error, Work work) {
  LETHE_REQUIRE(session);
  Session& s = *engine(session);
  if (!s.try_hold()) {
    return report(Status::error(ErrorCode::kBadState,
                                "the session is in use: by another thread, or this call comes from its callback"),
                  error);
  }
  const Status status = work(s);
  s.let_go();
  return report(status, error);
}

// with_session, for a turn: `work(Session&, messages) -> Status`.
template <typename Work>
lethe_code with_turn(lethe_session* session, const lethe_message* messages, size_t count, lethe_error* error,
                     Work work) {
  LETHE_REQUIRE(messages);
  constexpr size_t kMost = 64;
  if (count == 0 || count > kMost) {
    return report(Status::error(ErrorCode::kInvalidArgument, "%zu messages: a turn has 1 to %zu", count, kMost), error);
  }
  std::array<ChatMessage, kMost> turn;
  for (size_t i = 0; i < count; ++i) {
    if (messages[i].role == nullptr || messages[i].content == nullptr) return refuse_null("role or content", error);
    turn[i] = {messages[i].role, messages[i].content};
  }
  return with_session(session, error, [&](Session& s) { return work(s, std::span(turn).first(count)); });
}

// Where the caller names none: the learned policy if there are parameters for it, else the best of the others
// (docs/quality.md).
const char* default_policy(const Model& model, const lethe_session_params& params) {
  return params.namm != nullptr || !model.namm().empty() ? kNammPolicy.name : kH2oPolicy.name;
}

Status to_options(const Model& model, const lethe_session_params* params, SessionOptions* options) {
  lethe_session_params p;
  lethe_session_params_init(&p);
  LETHE_RETURN_IF_ERROR(read_struct(params, &p));
  options->ram_bytes = p.ram_bytes;
  options->host_bytes = p.host_bytes;
  const char* policy = p.policy == nullptr ? default_policy(model, p) : p.policy;
  options->policy = find_policy(policy);
  if (options->policy == nullptr) {
    char names[160];
    size_t used = 0;
    for (const Policy* known : policies()) {
      const int written = snprintf(names + used, sizeof names - used, "%s%s", used == 0 ? "" : ", ", known->name);
      used += std::min(static_cast<size_t>(written), sizeof names - used - 1);
    }
    return Status::error(ErrorCode::kInvalidArgument, "policy %.32s is unknown: %s", policy, names);
  }
  options->sinks = p.sinks;
  switch (p.kv_type) {
    case LETHE_KV_F16: options->kv_type = KvType::kF16; break;
    case LETHE_KV_INT8: options->kv_type = KvType::kInt8; break;
    case LETHE_KV_INT8K4V: options->kv_type = KvType::kInt8k4v; break;
    case LETHE_KV_INT4: options->kv_type = KvType::kInt4; break;
    default: return Status::error(ErrorCode::kInvalidArgument, "kv_type %d is unknown", p.kv_type);
  }
  switch (p.positions) {
    case LETHE_POSITIONS_AUTO: options->positions = options->policy->default_positions; break;
    case LETHE_POSITIONS_ABSOLUTE: options->positions = PositionMode::kAbsolute; break;
    case LETHE_POSITIONS_ROLLING: options->positions = PositionMode::kRolling; break;
    case LETHE_POSITIONS_CLAMPED: options->positions = PositionMode::kClamped; break;
    default: return Status::error(ErrorCode::kInvalidArgument, "positions %d is unknown", p.positions);
  }
  options->max_tokens = p.max_tokens;
  options->prefill_chunk = p.prefill_chunk;
  options->threads = p.threads != 0 ? p.threads : std::min(os::fast_core_count(), cpu::ThreadPool::kMaxThreads);
  options->logit_rows = p.logit_rows;
  options->turn_bytes = p.turn_bytes;
  if (p.recent_percent < -1 || p.recent_percent > 100) {
    return Status::error(ErrorCode::kInvalidArgument, "recent_percent is %d: -1 to 100", p.recent_percent);
  }
  if (p.recent_percent >= 0) options->recent_percent = static_cast<uint32_t>(p.recent_percent);
  if (p.budget < LETHE_BUDGET_AUTO || p.budget > LETHE_BUDGET_GLOBAL) {
    return Status::error(ErrorCode::kInvalidArgument, "budget %d is unknown", p.budget);
  }
  if (p.budget != LETHE_BUDGET_AUTO) options->budget = static_cast<Budget>(p.budget - LETHE_BUDGET_LIST);
  if (p.pool < LETHE_POOL_AUTO || p.pool > LETHE_POOL_MAX) {
    return Status::error(ErrorCode::kInvalidArgument, "pool %d is unknown", p.pool);
  }
  if (p.pool == LETHE_POOL_NONE) options->pooling = Pooling{};
  if (p.pool == LETHE_POOL_MEAN) options->pooling = Pooling{PoolKind::kMean, p.pool_width};
  if (p.pool == LETHE_POOL_MAX) options->pooling = Pooling{PoolKind::kMax, p.pool_width};
  if (p.value_norm != 0) options->value_norm = true;
  if (p.hand_over < LETHE_HAND_OVER_NONE || p.hand_over > LETHE_HAND_OVER_MERGE) {
    return Status::error(ErrorCode::kInvalidArgument, "hand_over %d is unknown", p.hand_over);
  }
  options->hand_over = static_cast<HandOver>(p.hand_over);
  if (p.namm != nullptr) options->namm = {static_cast<const uint8_t*>(p.namm), p.namm_bytes};
  options->policy_seed = p.policy_seed;
  options->head_plan = p.ignore_head_plan == 0;
  return {};
}

lethe_memory to_memory(const Model& model, const SessionOptions& options, const SessionPlan& plan) {
  lethe_memory memory{};
  memory.cap_bytes = options.ram_bytes;
  memory.total_bytes = memory.peak_bytes = plan.total;
  memory.minimum_ram_bytes = plan.minimum_ram;
  memory.weights_mapped_bytes = model.file_bytes();
  std::copy_n(plan.tag_bytes, kMemoryTagCount, memory.tag_bytes);
  memory.cache_tokens = plan.shape.cache_tokens();
  memory.prefill_chunk = plan.shape.chunk;
  memory.threads = options.threads;
  memory.policy = options.policy->name;
  return memory;
}

}  // namespace

const char* lethe_version(void) { return "0.1.0"; }

const char* lethe_code_name(lethe_code code) {
  switch (code) {
    case LETHE_OK: return "ok";
    case LETHE_ERROR_INVALID_ARGUMENT: return "invalid_argument";
    case LETHE_ERROR_INVALID_UTF8: return "invalid_utf8";
    case LETHE_ERROR_PROMPT_TOO_LONG: return "prompt_too_long";
    case LETHE_ERROR_BAD_STATE: return "bad_state";
    case LETHE_ERROR_CANCELLED: return "cancelled";
    case LETHE_ERROR_TEMPLATE: return "template";
    case LETHE_ERROR_RAM_TOO_SMALL: return "ram_too_small";
    case LETHE_ERROR_OUT_OF_MEMORY: return "out_of_memory";
    case LETHE_ERROR_KV_FULL: return "kv_full";
    case LETHE_ERROR_IO: return "io";
    case LETHE_ERROR_DISK_FULL: return "disk_full";
    case LETHE_ERROR_THREAD: return "thread";
    case LETHE_ERROR_NOT_A_MODEL: return "not_a_model";
    case LETHE_ERROR_CORRUPT_MODEL: return "corrupt_model";
    case LETHE_ERROR_UNSUPPORTED: return "unsupported";
    case LETHE_ERROR_CORRUPT_SNAPSHOT: return "corrupt_snapshot";
    case LETHE_ERROR_WRONG_MODEL: return "wrong_model";
    case LETHE_ERROR_INTERNAL: return "internal";
    default: return "unknown";
  }
}

const char* lethe_memory_tag_name(int32_t tag) {
  return tag < 0 || tag >= kMemoryTagCount ? "unknown" : memory_tag_name(static_cast<MemoryTag>(tag));
}

// ---- Models --------------------------------------------------------------------------------------------------------

lethe_code lethe_model_open(const char* path, lethe_model** out, lethe_error* error) {
  LETHE_REQUIRE(path);
  LETHE_REQUIRE(out);
  *out = nullptr;
  const Result<Model*> model = Model::open(path);
  if (!model.ok()) return report(model.status(), error);
  *out = reinterpret_cast<lethe_model*>(model.value());
  return report({}, error);
}

lethe_code lethe_model_close(lethe_model* model, lethe_error* error) {
  if (model == nullptr) return report({}, error);
  if (const uint32_t sessions = engine(model)->users(); sessions != 0) {
    return report(Status::error(ErrorCode::kBadState, "%u sessions of the model are open: close them first", sessions),
                  error);
  }
  Model::close(engine(model));
  return report({}, error);
}

lethe_code lethe_model_verify(const lethe_model* model, lethe_error* error) {
  LETHE_REQUIRE(model);
  for (uint32_t i = 0; i < engine(model)->segment_count(); ++i) {
    if (const Status status = engine(model)->verify_segment(i); !status.ok()) return report(status, error);
  }
  return report({}, error);
}

lethe_code lethe_model_get_info(const lethe_model* model, lethe_model_info* info, lethe_error* error) {
  LETHE_REQUIRE(model);
  LETHE_REQUIRE(info);
  const ModelConfig& config = engine(model)->config();
  lethe_model_info result{};
  result.architecture = config.name;
  result.layers = config.layers;
  result.embed_dim = config.embed_dim;
  result.heads = config.heads;
  result.kv_heads = config.kv_heads;
  result.head_dim = config.head_dim;
  result.ffn_dim = config.ffn_dim;
  result.vocab = config.vocab;
  result.context_length = config.context_length;
  result.file_bytes = engine(model)->file_bytes();
  result.private_bytes = engine(model)->private_bytes();
  result.kv_bytes_per_token = uint64_t{4} * config.layers * config.kv_heads * config.head_dim;  // K and V, 2 bytes each
  result.has_chat_template = engine(model)->tokenizer().chat_template.empty() ? 0 : 1;
  return report(write_struct(result, info), error);
}

lethe_code lethe_model_token_bytes(const lethe_model* model, int32_t id, const char** bytes, size_t* size,
                                   lethe_error* error) {
  LETHE_REQUIRE(model);
  LETHE_REQUIRE(bytes);
  LETHE_REQUIRE(size);
  if (id < 0 || static_cast<uint32_t>(id) >= engine(model)->config().vocab) {
    return report(Status::error(ErrorCode::kInvalidArgument, "token %d: ids go from 0 to %u", id,
                                engine(model)->config().vocab - 1),
                  error);
  }
  const std::string_view text = engine(model)->tokenizer().token(static_cast<uint32_t>(id));
  *bytes = text.data();
  *size = text.size();
  return report({}, error);
}

// ---- Sessions ------------------------------------------------------------------------------------------------------

void lethe_session_params_init_sized(lethe_session_params* params, size_t struct_size) {
  lethe_session_params p{};
  const SessionOptions defaults;
  p.sinks = defaults.sinks;
  p.kv_type = LETHE_KV_F16;
  p.positions = LETHE_POSITIONS_AUTO;
  p.logit_rows = defaults.logit_rows;
  p.turn_bytes = defaults.turn_bytes;
  p.recent_percent = -1;
  init_struct(p, params, struct_size);
}

lethe_code lethe_session_plan(const lethe_model* model, const lethe_session_params* params, lethe_memory* memory,
                              lethe_error* error) {
  LETHE_REQUIRE(model);
  LETHE_REQUIRE(params);
  LETHE_REQUIRE(memory);
  SessionOptions options;
  if (const Status status = to_options(*engine(model), params, &options); !status.ok()) return report(status, error);
  SessionPlan plan;
  const Status status = plan_session(*engine(model), options, &plan);
  const Status written = write_struct(to_memory(*engine(model), options, plan), memory);
  return report(status.ok() ? written : status, error);
}

lethe_code lethe_session_create(lethe_model* model, const lethe_session_params* params, lethe_session** out,
                                lethe_error* error) {
  LETHE_REQUIRE(model);
  LETHE_REQUIRE(params);
  LETHE_REQUIRE(out);
  *out = nullptr;
  SessionOptions options;
  if (const Status status = to_options(*engine(model), params, &options); !status.ok()) return report(status, error);
  const Result<Session*> session = Session::create(*engine(model), options);
  if (!session.ok()) return report(session.status(), error);
  *out = reinterpret_cast<lethe_session*>(session.value());
  return report({}, error);
}

void lethe_session_close(lethe_session* session) { Session::close(engine(session)); }

lethe_code lethe_session_memory(const lethe_session* session, lethe_memory* memory, lethe_error* error) {
  LETHE_REQUIRE(session);
  LETHE_REQUIRE(memory);
  const Session& s = *engine(session);
  lethe_memory result = to_memory(s.model(), s.options(), s.plan());
  result.total_bytes = s.ledger().total();
  result.peak_bytes = s.ledger().peak();
  for (int tag = 0; tag < kMemoryTagCount; ++tag) {
    result.tag_bytes[tag] = s.ledger().used(static_cast<MemoryTag>(tag));
  }
  return report(write_struct(result, memory), error);
}

lethe_code lethe_session_reset(lethe_session* session, lethe_error* error) {
  return with_session(session, error, [](Session& s) {
    s.reset();
    return Status();
  });
}

void lethe_session_cancel(lethe_session* session) {
  if (session != nullptr) engine(session)->cancel();
}

// ---- Text and tokens -----------------------------------------------------------------------------------------------

lethe_code lethe_session_tokenize(lethe_session* session, const char* text, size_t bytes, uint32_t flags, int32_t* ids,
                                  size_t capacity, size_t* count, lethe_error* error) {
  if (text == nullptr && bytes != 0) return refuse_null("text", error);
  if (ids == nullptr && capacity != 0) return refuse_null("ids", error);
  LETHE_REQUIRE(count);
  *count = 0;
  return with_session(session, error, [&](Session& s) {
    uint64_t tokens = 0;
    const Status status = s.tokenize({text, bytes}, flags, {ids, capacity}, &tokens);
    *count = static_cast<size_t>(tokens);
    return status;
  });
}

lethe_code lethe_session_set_ram(lethe_session* session, uint64_t ram_bytes, lethe_error* error) {
  return with_session(session, error, [&](Session& s) { return s.set_ram(ram_bytes); });
}

lethe_code lethe_session_pin(lethe_session* session, uint64_t begin, uint64_t end, lethe_error* error) {
  return with_session(session, error, [&](Session& s) { return s.pin(begin, end); });
}

lethe_code lethe_session_feed(lethe_session* session, const int32_t* ids, size_t n, lethe_error* error) {
  if (ids == nullptr && n != 0) return refuse_null("ids", error);
  return with_session(session, error, [&](Session& s) { return s.feed({ids, n}); });
}

lethe_code lethe_session_feed_embeddings(lethe_session* session, const float* rows, size_t n, lethe_error* error) {
  if (rows == nullptr && n != 0) return refuse_null("rows", error);
  return with_session(session, error, [&](Session& s) -> Status {
    const size_t width = s.model().config().embed_dim;
    if (n > SIZE_MAX / sizeof(float) / width) {
      return Status::error(ErrorCode::kInvalidArgument, "%zu embeddings of %zu do not fit the memory", n, width);
    }
    return s.feed_embeddings({rows, n * width});
  });
}

lethe_code lethe_session_feed_text(lethe_session* session, const char* text, size_t bytes, uint32_t flags, size_t* fed,
                                   lethe_error* error) {
  if (fed != nullptr) *fed = 0;
  if (text == nullptr && bytes != 0) return refuse_null("text", error);
  return with_session(session, error, [&](Session& s) {
    uint64_t tokens = 0;
    const Status status = s.feed_text({text, bytes}, flags, &tokens);
    if (fed != nullptr) *fed = static_cast<size_t>(tokens);
    return status;
  });
}

lethe_code lethe_session_feed_turn(lethe_session* session, const lethe_message* messages, size_t count, size_t* fed,
                                   lethe_error* error) {
  if (fed != nullptr) *fed = 0;
  return with_turn(session, messages, count, error, [&](Session& s, std::span<const ChatMessage> turn) {
    uint64_t tokens = 0;
    const Status status = s.feed_turn(turn, &tokens);
    if (fed != nullptr) *fed = static_cast<size_t>(tokens);
    return status;
  });
}

lethe_code lethe_session_tokenize_turn(lethe_session* session, const lethe_message* messages, size_t count,
                                       int32_t* ids, size_t capacity, size_t* id_count, lethe_error* error) {
  if (ids == nullptr && capacity != 0) return refuse_null("ids", error);
  LETHE_REQUIRE(id_count);
  *id_count = 0;
  return with_turn(session, messages, count, error, [&](Session& s, std::span<const ChatMessage> turn) {
    uint64_t tokens = 0;
    const Status status = s.tokenize_turn(turn, {ids, capacity}, &tokens);
    *id_count = static_cast<size_t>(tokens);
    return status;
  });
}

lethe_code lethe_session_logits(lethe_session* session, const float** logits, size_t* vocab, lethe_error* error) {
  LETHE_REQUIRE(logits);
  LETHE_REQUIRE(vocab);
  return with_session(session, error, [&](Session& s) {
    const Result<std::span<const float>> row = s.logits();
    if (!row.ok()) return row.status();
    *logits = row.value().data();
    *vocab = row.value().size();
    return Status();
  });
}

lethe_code lethe_session_feed_logits(lethe_session* session, const int32_t* ids, size_t n, size_t first,
                                     lethe_on_logits on_logits, void* user, lethe_error* error) {
  if (ids == nullptr && n != 0) return refuse_null("ids", error);
  LETHE_REQUIRE(on_logits);
  return with_session(session, error, [&](Session& s) { return s.feed_logits({ids, n}, first, {on_logits, user}); });
}

lethe_code lethe_session_score(lethe_session* session, const int32_t* ids, size_t n, size_t first, float* log_probs,
                               lethe_error* error) {
  if (ids == nullptr && n != 0) return refuse_null("ids", error);
  LETHE_REQUIRE(log_probs);
  return with_session(session, error,
                      [&](Session& s) { return s.score({ids, n}, first, {log_probs, first < n ? n - first : 0}); });
}

// ---- Generation ----------------------------------------------------------------------------------------------------

void lethe_sampling_init_sized(lethe_sampling* sampling, size_t struct_size) {
  const lethe_sampling p = {.struct_size = sizeof p,
                            .temperature = 0.8f,
                            .top_k = 40,
                            .top_p = 0.95f,
                            .min_p = 0,
                            .repetition_penalty = 1,
                            .penalty_window = 64,
                            .seed = 0};
  init_struct(p, sampling, struct_size);
}

lethe_code lethe_session_set_sampling(lethe_session* session, const lethe_sampling* sampling, lethe_error* error) {
  LETHE_REQUIRE(sampling);
  return with_session(session, error, [&](Session& s) {
    lethe_sampling p;
    lethe_sampling_init(&p);
    LETHE_RETURN_IF_ERROR(read_struct(sampling, &p));
    return s.set_sampling({.temperature = p.temperature,
                           .top_k = p.top_k,
                           .top_p = p.top_p,
                           .min_p = p.min_p,
                           .repetition_penalty = p.repetition_penalty,
                           .penalty_window = p.penalty_window,
                           .seed = p.seed});
  });
}

void lethe_generate_params_init_sized(lethe_generate_params* params, size_t struct_size) {
  init_struct(lethe_generate_params{}, params, struct_size);
}

lethe_code lethe_session_generate(lethe_session* session, const lethe_generate_params* params, int32_t* reason,
                                  uint64_t* generated, lethe_error* error) {
  if (reason != nullptr) *reason = LETHE_STOP_ERROR;
  if (generated != nullptr) *generated = 0;
  LETHE_REQUIRE(params);
  return with_session(session, error, [&](Session& s) -> Status {
    lethe_generate_params p;
    lethe_generate_params_init(&p);
    LETHE_RETURN_IF_ERROR(read_struct(params, &p));
    std::array<std::string_view, StopMatcher::kMaxStops> stops;
    if (p.stop_count > stops.size()) {
      return Status::error(ErrorCode::kInvalidArgument, "%zu stop texts: at most %zu", p.stop_count, stops.size());
    }
    for (size_t i = 0; i < p.stop_count; ++i) {
      if (p.stop == nullptr || p.stop[i] == nullptr) {
        return Status::error(ErrorCode::kInvalidArgument, "stop text %zu is NULL", i);
      }
      stops[i] = p.stop[i];
    }
    StopReason stopped{};
    uint64_t tokens = 0;
    const Status status = s.generate({.max_tokens = p.max_tokens,
                                      .stops = {stops.data(), p.stop_count},
                                      .ignore_end = p.ignore_eos != 0,
                                      .on_piece = p.on_piece,
                                      .user = p.user},
                                     &stopped, &tokens);
    if (reason != nullptr && status.ok()) *reason = static_cast<int32_t>(stopped);
    if (generated != nullptr) *generated = tokens;
    return status;
  });
}

lethe_code lethe_session_get_stats(const lethe_session* session, lethe_stats* stats, lethe_error* error) {
  LETHE_REQUIRE(session);
  LETHE_REQUIRE(stats);
  const SessionStats s = engine(session)->stats();
  lethe_stats result{};
  result.position = s.position;
  result.cached_tokens = s.cached_tokens;
  result.prefill_tokens = s.prefill_tokens;
  result.prefill_ns = s.prefill_ns;
  result.decode_tokens = s.decode_tokens;
  result.decode_ns = s.decode_ns;
  result.evictions = s.cache.evictions;
  result.evicted_tokens = s.cache.evicted_tokens;
  result.eviction_ns = s.cache.eviction_ns;
  result.last_lists = s.cache.last.lists;
  result.last_tokens = s.cache.last.tokens;
  result.last_fewest = s.cache.last.fewest;
  result.last_most = s.cache.last.most;
  result.last_ns = s.cache.last.ns;
  return report(write_struct(result, stats), error);
}

// ---- Traces --------------------------------------------------------------------------------------------------------

void lethe_trace_params_init_sized(lethe_trace_params* params, size_t struct_size) {
  const TraceOptions defaults;
  const lethe_trace_params p = {
      .struct_size = sizeof p, .interval_ms = defaults.interval_ms, .tokens = defaults.tokens ? 1 : 0};
  init_struct(p, params, struct_size);
}

lethe_code lethe_session_trace_start(lethe_session* session, const char* path, const lethe_trace_params* params,
                                     lethe_error* error) {
  LETHE_REQUIRE(path);
  return with_session(session, error, [&](Session& s) {
    lethe_trace_params p;
    lethe_trace_params_init(&p);
    if (params != nullptr) LETHE_RETURN_IF_ERROR(read_struct(params, &p));
    return s.start_trace(path, {.interval_ms = p.interval_ms, .tokens = p.tokens != 0, .library = lethe_version()});
  });
}

lethe_code lethe_session_trace_stop(lethe_session* session, lethe_error* error) {
  return with_session(session, error, [](Session& s) { return s.stop_trace(); });
}

// ---- Copies --------------------------------------------------------------------------------------------------------

lethe_code lethe_session_fork(lethe_session* session, lethe_session** out, lethe_error* error) {
  LETHE_REQUIRE(out);
  *out = nullptr;
  return with_session(session, error, [&](Session& s) {
    const Result<Session*> copy = s.fork();
    if (!copy.ok()) return copy.status();
    *out = reinterpret_cast<lethe_session*>(copy.value());
    return Status();
  });
}

lethe_code lethe_session_save(lethe_session* session, const char* path, lethe_error* error) {
  LETHE_REQUIRE(path);
  return with_session(session, error, [&](Session& s) { return s.save(path); });
}

lethe_code lethe_session_restore(lethe_session* session, const char* path, lethe_error* error) {
  LETHE_REQUIRE(path);
  return with_session(session, error, [&](Session& s) { return s.restore(path); });
}
