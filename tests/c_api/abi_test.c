/* A C11 program's view of the library: numbers and layouts that may never change, NULL, struct sizes, a whole run. */
#include "tests/c_api/abi_test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lethe/lethe.h"

static int failures;

static void check(int right, int line, const char* what) {
  if (right) return;
  ++failures;
  fprintf(stderr, "abi_test.c:%d: not true: %s\n", line, what);
}
#define CHECK(condition) check((condition) != 0, __LINE__, #condition)

/* ---- What is pinned: written out, never derived ------------------------------------------------------------------ */

_Static_assert(LETHE_OK == 0, "pinned");
_Static_assert(LETHE_ERROR_INVALID_ARGUMENT == 1, "pinned");
_Static_assert(LETHE_ERROR_INVALID_UTF8 == 2, "pinned");
_Static_assert(LETHE_ERROR_PROMPT_TOO_LONG == 3, "pinned");
_Static_assert(LETHE_ERROR_BAD_STATE == 4, "pinned");
_Static_assert(LETHE_ERROR_CANCELLED == 5, "pinned");
_Static_assert(LETHE_ERROR_TEMPLATE == 6, "pinned");
_Static_assert(LETHE_ERROR_RAM_TOO_SMALL == 20, "pinned");
_Static_assert(LETHE_ERROR_OUT_OF_MEMORY == 21, "pinned");
_Static_assert(LETHE_ERROR_KV_FULL == 22, "pinned");
_Static_assert(LETHE_ERROR_IO == 23, "pinned");
_Static_assert(LETHE_ERROR_DISK_FULL == 24, "pinned");
_Static_assert(LETHE_ERROR_THREAD == 25, "pinned");
_Static_assert(LETHE_ERROR_NOT_A_MODEL == 40, "pinned");
_Static_assert(LETHE_ERROR_CORRUPT_MODEL == 41, "pinned");
_Static_assert(LETHE_ERROR_UNSUPPORTED == 42, "pinned");
_Static_assert(LETHE_ERROR_CORRUPT_SNAPSHOT == 43, "pinned");
_Static_assert(LETHE_ERROR_WRONG_MODEL == 44, "pinned");
_Static_assert(LETHE_ERROR_INTERNAL == 60, "pinned");
_Static_assert(LETHE_KV_F16 == 0 && LETHE_KV_INT8 == 1 && LETHE_KV_INT8K4V == 2 && LETHE_KV_INT4 == 3, "pinned");
_Static_assert(LETHE_POSITIONS_AUTO == 0 && LETHE_POSITIONS_ABSOLUTE == 1 && LETHE_POSITIONS_ROLLING == 2, "pinned");
_Static_assert(LETHE_POSITIONS_CLAMPED == 3, "pinned");
_Static_assert(LETHE_TEXT_SPECIAL == 1 && LETHE_TEXT_BOS == 2, "pinned");
_Static_assert(LETHE_STOP_ERROR == -1 && LETHE_STOP_END == 0 && LETHE_STOP_TEXT == 1 && LETHE_STOP_MAX_TOKENS == 2 &&
                   LETHE_STOP_CALLBACK == 3,
               "pinned");
_Static_assert(LETHE_MEMORY_HOST == 0 && LETHE_MEMORY_MODEL == 1 && LETHE_MEMORY_SESSION == 2 &&
                   LETHE_MEMORY_TOKENIZER == 3 && LETHE_MEMORY_ACTIVATIONS == 4 && LETHE_MEMORY_LOGITS == 5 &&
                   LETHE_MEMORY_KV_POOL == 6 && LETHE_MEMORY_KV_INDEX == 7 && LETHE_MEMORY_SAMPLER == 8 &&
                   LETHE_MEMORY_THREADS == 9 && LETHE_MEMORY_TRACE == 10 && LETHE_MEMORY_TAGS == 11,
               "pinned");

_Static_assert(sizeof(lethe_code) == 4, "pinned");
_Static_assert(sizeof(lethe_error) == 256 && offsetof(lethe_error, message) == 4, "pinned");
#if UINTPTR_MAX == UINT64_MAX /* the fields of the first version stay where they are; new ones come behind them */
_Static_assert(offsetof(lethe_model_info, architecture) == 8, "pinned");
_Static_assert(offsetof(lethe_model_info, layers) == 16, "pinned");
_Static_assert(offsetof(lethe_model_info, context_length) == 44, "pinned");
_Static_assert(offsetof(lethe_model_info, kv_bytes_per_token) == 64, "pinned");
_Static_assert(offsetof(lethe_model_info, has_chat_template) == 72, "pinned");
_Static_assert(offsetof(lethe_session_params, ram_bytes) == 8, "pinned");
_Static_assert(offsetof(lethe_session_params, policy) == 24, "pinned");
_Static_assert(offsetof(lethe_session_params, kv_type) == 36, "pinned");
_Static_assert(offsetof(lethe_session_params, threads) == 52, "pinned");
_Static_assert(offsetof(lethe_session_params, turn_bytes) == 60, "pinned");
_Static_assert(offsetof(lethe_memory, minimum_ram_bytes) == 32, "pinned");
_Static_assert(offsetof(lethe_memory, tag_bytes) == 48, "pinned");
_Static_assert(offsetof(lethe_memory, cache_tokens) == 304, "pinned");
_Static_assert(offsetof(lethe_memory, threads) == 312, "pinned");
_Static_assert(offsetof(lethe_sampling, temperature) == 8, "pinned");
_Static_assert(offsetof(lethe_sampling, repetition_penalty) == 24, "pinned");
_Static_assert(offsetof(lethe_sampling, seed) == 32, "pinned");
_Static_assert(offsetof(lethe_generate_params, stop) == 16, "pinned");
_Static_assert(offsetof(lethe_generate_params, ignore_eos) == 32, "pinned");
_Static_assert(offsetof(lethe_generate_params, user) == 48, "pinned");
_Static_assert(offsetof(lethe_trace_params, interval_ms) == 8 && offsetof(lethe_trace_params, tokens) == 12, "pinned");
_Static_assert(offsetof(lethe_stats, cached_tokens) == 16, "pinned");
_Static_assert(offsetof(lethe_stats, prefill_tokens) == 24, "pinned");
_Static_assert(offsetof(lethe_stats, eviction_ns) == 72, "pinned");
#endif

static int is(const char* text, const char* expected) { return text != NULL && strcmp(text, expected) == 0; }

int abi_names_and_numbers(void) {
  failures = 0;
  CHECK(is(lethe_version(), "0.1.0"));
  CHECK(is(lethe_code_name(0), "ok"));
  CHECK(is(lethe_code_name(1), "invalid_argument"));
  CHECK(is(lethe_code_name(2), "invalid_utf8"));
  CHECK(is(lethe_code_name(3), "prompt_too_long"));
  CHECK(is(lethe_code_name(4), "bad_state"));
  CHECK(is(lethe_code_name(5), "cancelled"));
  CHECK(is(lethe_code_name(6), "template"));
  CHECK(is(lethe_code_name(20), "ram_too_small"));
  CHECK(is(lethe_code_name(21), "out_of_memory"));
  CHECK(is(lethe_code_name(22), "kv_full"));
  CHECK(is(lethe_code_name(23), "io"));
  CHECK(is(lethe_code_name(24), "disk_full"));
  CHECK(is(lethe_code_name(25), "thread"));
  CHECK(is(lethe_code_name(40), "not_a_model"));
  CHECK(is(lethe_code_name(41), "corrupt_model"));
  CHECK(is(lethe_code_name(42), "unsupported"));
  CHECK(is(lethe_code_name(43), "corrupt_snapshot"));
  CHECK(is(lethe_code_name(44), "wrong_model"));
  CHECK(is(lethe_code_name(60), "internal"));
  for (lethe_code code = -1; code <= 70; ++code) {
    const int known =
        (code >= 0 && code <= 6) || (code >= 20 && code <= 25) || (code >= 40 && code <= 44) || code == 60;
    CHECK(is(lethe_code_name(code), "unknown") == !known);
  }
  CHECK(is(lethe_memory_tag_name(0), "host"));
  CHECK(is(lethe_memory_tag_name(LETHE_MEMORY_KV_POOL), "kv_pool"));
  CHECK(is(lethe_memory_tag_name(LETHE_MEMORY_THREADS), "threads"));
  CHECK(is(lethe_memory_tag_name(LETHE_MEMORY_TRACE), "trace"));
  CHECK(is(lethe_memory_tag_name(-1), "unknown"));
  CHECK(is(lethe_memory_tag_name(LETHE_MEMORY_TAGS), "unknown"));
  return failures;
}

int abi_defaults(void) {
  lethe_session_params params;
  lethe_sampling sampling;
  lethe_generate_params generate;
  int32_t untouched;
  lethe_trace_params trace;
  failures = 0;
  memset(&params, 0xAA, sizeof params);
  memset(&sampling, 0xAA, sizeof sampling);
  memset(&generate, 0xAA, sizeof generate);
  lethe_session_params_init(&params);
  CHECK(params.struct_size == sizeof params);
  CHECK(params.ram_bytes == 0 && params.host_bytes == 0);
  CHECK(params.policy == NULL);
  CHECK(params.sinks == 4);
  CHECK(params.kv_type == LETHE_KV_F16 && params.positions == LETHE_POSITIONS_AUTO);
  CHECK(params.max_tokens == 0 && params.prefill_chunk == 0 && params.threads == 0);
  CHECK(params.logit_rows == 1 && params.turn_bytes == 16384);
  lethe_sampling_init(&sampling);
  CHECK(sampling.struct_size == sizeof sampling);
  CHECK(sampling.temperature == 0.8f && sampling.top_k == 40 && sampling.top_p == 0.95f && sampling.min_p == 0.0f);
  CHECK(sampling.repetition_penalty == 1.0f && sampling.penalty_window == 64 && sampling.seed == 0);
  lethe_generate_params_init(&generate);
  CHECK(generate.struct_size == sizeof generate);
  CHECK(generate.max_tokens == 0 && generate.stop == NULL && generate.stop_count == 0 && generate.ignore_eos == 0);
  CHECK(generate.on_piece == NULL && generate.user == NULL);
  /* A program that was compiled with a smaller struct: nothing behind it is written. */
  memset(&params, 0xAA, sizeof params);
  lethe_session_params_init_sized(&params, offsetof(lethe_session_params, kv_type));
  CHECK(params.struct_size == offsetof(lethe_session_params, kv_type) && params.sinks == 4);
  memset(&untouched, 0xAA, sizeof untouched);
  CHECK(memcmp(&params.kv_type, &untouched, sizeof untouched) == 0);
  memset(&trace, 0xAA, sizeof trace);
  lethe_trace_params_init(&trace);
  CHECK(trace.struct_size == sizeof trace && trace.interval_ms == 100 && trace.tokens == 0);
  lethe_trace_params_init(NULL);
  lethe_session_params_init(NULL);
  lethe_sampling_init(NULL);
  lethe_generate_params_init(NULL);
  return failures;
}

/* ---- A model and a session for the checks below ------------------------------------------------------------------ */

static lethe_model* model;
static lethe_session* session;

static int open_both(const char* model_path) {
  lethe_error error;
  lethe_session_params params;
  failures = 0;
  lethe_session_params_init(&params);
  params.ram_bytes = 16u << 20;
  params.threads = 1;
  model = NULL;
  session = NULL;
  CHECK(lethe_model_open(model_path, &model, &error) == LETHE_OK);
  CHECK(error.code == LETHE_OK && error.message[0] == '\0');
  if (model == NULL) return 0;
  CHECK(lethe_session_create(model, &params, &session, &error) == LETHE_OK);
  if (session == NULL) fprintf(stderr, "%s\n", error.message);
  return session != NULL;
}

static int close_both(void) {
  lethe_error error;
  CHECK(lethe_model_close(model, &error) == LETHE_ERROR_BAD_STATE);
  CHECK(strstr(error.message, "1 sessions") != NULL);
  lethe_session_close(session);
  CHECK(lethe_model_close(model, &error) == LETHE_OK);
  return failures;
}

/* The call is refused because `name` is NULL, and the same call without an error to write gives the same code. */
static void check_null(lethe_code with_error, lethe_code without, const lethe_error* error, const char* name,
                       int line) {
  char sentence[64];
  snprintf(sentence, sizeof sentence, "%s is NULL", name);
  check(with_error == LETHE_ERROR_INVALID_ARGUMENT, line, name);
  check(without == LETHE_ERROR_INVALID_ARGUMENT, line, name);
  check(error->code == LETHE_ERROR_INVALID_ARGUMENT, line, name);
  check(strcmp(error->message, sentence) == 0, line, error->message);
}
#define E (&error)
#define REFUSES(name, call_with_E, call_with_NULL)               \
  do {                                                           \
    const lethe_code code_ = (call_with_E);                      \
    const lethe_error seen_ = error;                             \
    check_null(code_, (call_with_NULL), &seen_, name, __LINE__); \
  } while (0)

struct seen_logits {
  size_t count, first, last;
  double sum; /* of the absolute logit of token i after token i */
};

static void see_logits(void* user, size_t index, const float* logits, size_t vocab) {
  struct seen_logits* seen = user;
  if (seen->count == 0) seen->first = index;
  ++seen->count;
  seen->last = index;
  seen->sum += index < vocab ? fabs((double)logits[index]) : 0;
}

int abi_null_arguments(const char* model_path) {
  lethe_error error;
  lethe_session_params params;
  lethe_memory memory;
  lethe_model_info info;
  lethe_sampling sampling;
  lethe_generate_params generate;
  lethe_stats stats;
  lethe_message message = {"user", NULL};
  lethe_session* other = NULL;
  lethe_model* other_model = NULL;
  const float* logits;
  const char* bytes;
  float score;
  size_t n;
  const int32_t ids[2] = {4, 5};
  int32_t out[4];
  if (!open_both(model_path)) return failures + 1;
  lethe_session_params_init(&params);
  params.ram_bytes = 16u << 20;
  lethe_sampling_init(&sampling);
  lethe_generate_params_init(&generate);
  memory.struct_size = sizeof memory;
  info.struct_size = sizeof info;
  stats.struct_size = sizeof stats;

  REFUSES("path", lethe_model_open(NULL, &other_model, E), lethe_model_open(NULL, &other_model, NULL));
  REFUSES("out", lethe_model_open(model_path, NULL, E), lethe_model_open(model_path, NULL, NULL));
  CHECK(lethe_model_close(NULL, NULL) == LETHE_OK && lethe_model_close(NULL, E) == LETHE_OK);
  REFUSES("model", lethe_model_verify(NULL, E), lethe_model_verify(NULL, NULL));
  REFUSES("model", lethe_model_get_info(NULL, &info, E), lethe_model_get_info(NULL, &info, NULL));
  REFUSES("info", lethe_model_get_info(model, NULL, E), lethe_model_get_info(model, NULL, NULL));
  REFUSES("model", lethe_model_token_bytes(NULL, 0, &bytes, &n, E), lethe_model_token_bytes(NULL, 0, &bytes, &n, NULL));
  REFUSES("bytes", lethe_model_token_bytes(model, 0, NULL, &n, E), lethe_model_token_bytes(model, 0, NULL, &n, NULL));
  REFUSES("size", lethe_model_token_bytes(model, 0, &bytes, NULL, E),
          lethe_model_token_bytes(model, 0, &bytes, NULL, NULL));

  REFUSES("model", lethe_session_plan(NULL, &params, &memory, E), lethe_session_plan(NULL, &params, &memory, NULL));
  REFUSES("params", lethe_session_plan(model, NULL, &memory, E), lethe_session_plan(model, NULL, &memory, NULL));
  REFUSES("memory", lethe_session_plan(model, &params, NULL, E), lethe_session_plan(model, &params, NULL, NULL));
  REFUSES("model", lethe_session_create(NULL, &params, &other, E), lethe_session_create(NULL, &params, &other, NULL));
  REFUSES("params", lethe_session_create(model, NULL, &other, E), lethe_session_create(model, NULL, &other, NULL));
  REFUSES("out", lethe_session_create(model, &params, NULL, E), lethe_session_create(model, &params, NULL, NULL));
  lethe_session_close(NULL);
  lethe_session_cancel(NULL);
  REFUSES("session", lethe_session_memory(NULL, &memory, E), lethe_session_memory(NULL, &memory, NULL));
  REFUSES("memory", lethe_session_memory(session, NULL, E), lethe_session_memory(session, NULL, NULL));
  REFUSES("session", lethe_session_reset(NULL, E), lethe_session_reset(NULL, NULL));

  REFUSES("session", lethe_session_tokenize(NULL, "a", 1, 0, out, 4, &n, E),
          lethe_session_tokenize(NULL, "a", 1, 0, out, 4, &n, NULL));
  REFUSES("text", lethe_session_tokenize(session, NULL, 1, 0, out, 4, &n, E),
          lethe_session_tokenize(session, NULL, 1, 0, out, 4, &n, NULL));
  REFUSES("ids", lethe_session_tokenize(session, "a", 1, 0, NULL, 4, &n, E),
          lethe_session_tokenize(session, "a", 1, 0, NULL, 4, &n, NULL));
  REFUSES("count", lethe_session_tokenize(session, "a", 1, 0, out, 4, NULL, E),
          lethe_session_tokenize(session, "a", 1, 0, out, 4, NULL, NULL));
  REFUSES("session", lethe_session_feed(NULL, ids, 2, E), lethe_session_feed(NULL, ids, 2, NULL));
  REFUSES("ids", lethe_session_feed(session, NULL, 2, E), lethe_session_feed(session, NULL, 2, NULL));
  REFUSES("session", lethe_session_set_ram(NULL, 1, E), lethe_session_set_ram(NULL, 1, NULL));
  CHECK(lethe_session_set_ram(session, 1, E) == LETHE_ERROR_RAM_TOO_SMALL);
  REFUSES("session", lethe_session_feed_embeddings(NULL, NULL, 0, E),
          lethe_session_feed_embeddings(NULL, NULL, 0, NULL));
  REFUSES("rows", lethe_session_feed_embeddings(session, NULL, 2, E),
          lethe_session_feed_embeddings(session, NULL, 2, NULL));
  REFUSES("session", lethe_session_feed_text(NULL, "a", 1, 0, &n, E),
          lethe_session_feed_text(NULL, "a", 1, 0, &n, NULL));
  REFUSES("text", lethe_session_feed_text(session, NULL, 1, 0, &n, E),
          lethe_session_feed_text(session, NULL, 1, 0, &n, NULL));
  REFUSES("messages", lethe_session_feed_turn(session, NULL, 1, &n, E),
          lethe_session_feed_turn(session, NULL, 1, &n, NULL));
  REFUSES("role or content", lethe_session_feed_turn(session, &message, 1, &n, E),
          lethe_session_feed_turn(session, &message, 1, &n, NULL));
  message.content = "hello";
  REFUSES("session", lethe_session_feed_turn(NULL, &message, 1, &n, E),
          lethe_session_feed_turn(NULL, &message, 1, &n, NULL));
  message.role = NULL;
  REFUSES("role or content", lethe_session_feed_turn(session, &message, 1, &n, E),
          lethe_session_feed_turn(session, &message, 1, &n, NULL));
  message.role = "user";
  CHECK(lethe_session_feed_turn(session, &message, 0, &n, E) == LETHE_ERROR_INVALID_ARGUMENT);
  REFUSES("session", lethe_session_tokenize_turn(NULL, &message, 1, out, 4, &n, E),
          lethe_session_tokenize_turn(NULL, &message, 1, out, 4, &n, NULL));
  REFUSES("messages", lethe_session_tokenize_turn(session, NULL, 1, out, 4, &n, E),
          lethe_session_tokenize_turn(session, NULL, 1, out, 4, &n, NULL));
  REFUSES("ids", lethe_session_tokenize_turn(session, &message, 1, NULL, 4, &n, E),
          lethe_session_tokenize_turn(session, &message, 1, NULL, 4, &n, NULL));
  REFUSES("id_count", lethe_session_tokenize_turn(session, &message, 1, out, 4, NULL, E),
          lethe_session_tokenize_turn(session, &message, 1, out, 4, NULL, NULL));
  REFUSES("session", lethe_session_logits(NULL, &logits, &n, E), lethe_session_logits(NULL, &logits, &n, NULL));
  REFUSES("logits", lethe_session_logits(session, NULL, &n, E), lethe_session_logits(session, NULL, &n, NULL));
  REFUSES("vocab", lethe_session_logits(session, &logits, NULL, E), lethe_session_logits(session, &logits, NULL, NULL));
  REFUSES("session", lethe_session_feed_logits(NULL, ids, 2, 0, see_logits, NULL, E),
          lethe_session_feed_logits(NULL, ids, 2, 0, see_logits, NULL, NULL));
  REFUSES("ids", lethe_session_feed_logits(session, NULL, 2, 0, see_logits, NULL, E),
          lethe_session_feed_logits(session, NULL, 2, 0, see_logits, NULL, NULL));
  REFUSES("on_logits", lethe_session_feed_logits(session, ids, 2, 0, NULL, NULL, E),
          lethe_session_feed_logits(session, ids, 2, 0, NULL, NULL, NULL));
  REFUSES("session", lethe_session_score(NULL, ids, 2, 1, &score, E),
          lethe_session_score(NULL, ids, 2, 1, &score, NULL));
  REFUSES("ids", lethe_session_score(session, NULL, 2, 1, &score, E),
          lethe_session_score(session, NULL, 2, 1, &score, NULL));
  REFUSES("log_probs", lethe_session_score(session, ids, 2, 1, NULL, E),
          lethe_session_score(session, ids, 2, 1, NULL, NULL));

  REFUSES("session", lethe_session_set_sampling(NULL, &sampling, E), lethe_session_set_sampling(NULL, &sampling, NULL));
  REFUSES("sampling", lethe_session_set_sampling(session, NULL, E), lethe_session_set_sampling(session, NULL, NULL));
  REFUSES("session", lethe_session_generate(NULL, &generate, NULL, NULL, E),
          lethe_session_generate(NULL, &generate, NULL, NULL, NULL));
  REFUSES("params", lethe_session_generate(session, NULL, NULL, NULL, E),
          lethe_session_generate(session, NULL, NULL, NULL, NULL));
  generate.stop_count = 1;
  CHECK(lethe_session_generate(session, &generate, NULL, NULL, E) == LETHE_ERROR_INVALID_ARGUMENT);
  CHECK(strstr(error.message, "stop text 0 is NULL") != NULL);
  REFUSES("session", lethe_session_get_stats(NULL, &stats, E), lethe_session_get_stats(NULL, &stats, NULL));
  REFUSES("stats", lethe_session_get_stats(session, NULL, E), lethe_session_get_stats(session, NULL, NULL));
  REFUSES("session", lethe_session_fork(NULL, &other, E), lethe_session_fork(NULL, &other, NULL));
  REFUSES("out", lethe_session_fork(session, NULL, E), lethe_session_fork(session, NULL, NULL));
  REFUSES("session", lethe_session_save(NULL, "x", E), lethe_session_save(NULL, "x", NULL));
  REFUSES("path", lethe_session_save(session, NULL, E), lethe_session_save(session, NULL, NULL));
  REFUSES("session", lethe_session_restore(NULL, "x", E), lethe_session_restore(NULL, "x", NULL));
  REFUSES("path", lethe_session_restore(session, NULL, E), lethe_session_restore(session, NULL, NULL));
  REFUSES("session", lethe_session_trace_start(NULL, "x", NULL, E), lethe_session_trace_start(NULL, "x", NULL, NULL));
  REFUSES("path", lethe_session_trace_start(session, NULL, NULL, E),
          lethe_session_trace_start(session, NULL, NULL, NULL));
  REFUSES("session", lethe_session_trace_stop(NULL, E), lethe_session_trace_stop(NULL, NULL));
  CHECK(lethe_session_trace_stop(session, E) == LETHE_ERROR_BAD_STATE);

  /* NULL that is allowed. */
  CHECK(lethe_session_tokenize(session, "hello", 5, 0, NULL, 0, &n, NULL) == LETHE_ERROR_PROMPT_TOO_LONG && n == 1);
  CHECK(lethe_session_tokenize(session, NULL, 0, 0, NULL, 0, &n, NULL) == LETHE_OK && n == 0);
  CHECK(lethe_session_feed_text(session, "hello", 5, 0, NULL, NULL) == LETHE_OK);
  CHECK(lethe_session_feed_turn(session, &message, 1, NULL, NULL) == LETHE_OK);
  lethe_generate_params_init(&generate);
  generate.max_tokens = 1;
  CHECK(lethe_session_generate(session, &generate, NULL, NULL, NULL) == LETHE_OK);
  /* Nothing but these was fed, and outputs of failed calls are empty. */
  CHECK(other == NULL && other_model == NULL);
  return close_both();
}

int abi_struct_sizes(const char* model_path) {
  lethe_error error;
  lethe_session_params params;
  lethe_memory plan, memory;
  lethe_model_info info;
  lethe_sampling sampling;
  lethe_generate_params generate;
  lethe_trace_params trace;
  lethe_stats stats;
  lethe_session* other = NULL;
  uint64_t generated;
  const int32_t ids[3] = {4, 5, 6};
  if (!open_both(model_path)) return failures + 1;
  lethe_session_params_init(&params);
  params.ram_bytes = 16u << 20;
  params.threads = 1;

  /* Too small and too large sizes, everywhere. */
  for (int i = 0; i < 3; ++i) {
    const size_t extra[] = {0, sizeof(size_t) - 1, 8};
#define BAD(type) (i < 2 ? extra[i] : sizeof(type) + extra[i])
    params.struct_size = BAD(lethe_session_params);
    plan.struct_size = sizeof plan;
    CHECK(lethe_session_plan(model, &params, &plan, E) == LETHE_ERROR_INVALID_ARGUMENT);
    CHECK(strstr(error.message, "struct_size") != NULL);
    CHECK(lethe_session_create(model, &params, &other, E) == LETHE_ERROR_INVALID_ARGUMENT);
    params.struct_size = sizeof params;
    plan.struct_size = BAD(lethe_memory);
    CHECK(lethe_session_plan(model, &params, &plan, E) == LETHE_ERROR_INVALID_ARGUMENT);
    CHECK(lethe_session_memory(session, &plan, E) == LETHE_ERROR_INVALID_ARGUMENT);
    info.struct_size = BAD(lethe_model_info);
    CHECK(lethe_model_get_info(model, &info, E) == LETHE_ERROR_INVALID_ARGUMENT);
    stats.struct_size = BAD(lethe_stats);
    CHECK(lethe_session_get_stats(session, &stats, E) == LETHE_ERROR_INVALID_ARGUMENT);
    lethe_sampling_init(&sampling);
    sampling.struct_size = BAD(lethe_sampling);
    CHECK(lethe_session_set_sampling(session, &sampling, E) == LETHE_ERROR_INVALID_ARGUMENT);
    lethe_generate_params_init(&generate);
    generate.struct_size = BAD(lethe_generate_params);
    CHECK(lethe_session_generate(session, &generate, NULL, NULL, E) == LETHE_ERROR_INVALID_ARGUMENT);
    lethe_trace_params_init(&trace);
    trace.struct_size = BAD(lethe_trace_params);
    CHECK(lethe_session_trace_start(session, "x", &trace, E) == LETHE_ERROR_INVALID_ARGUMENT);
  }
  CHECK(other == NULL);

  /* An older program's smaller params: the fields it does not have are defaults, whatever lies there. */
  lethe_session_params_init(&params);
  params.ram_bytes = 16u << 20;
  params.struct_size = offsetof(lethe_session_params, sinks);
  memset((char*)&params + params.struct_size, 0xFF, sizeof params - params.struct_size);
  plan.struct_size = sizeof plan;
  CHECK(lethe_session_plan(model, &params, &plan, E) == LETHE_OK);
  CHECK(plan.prefill_chunk <= 512 && plan.threads >= 1 && plan.threads <= 64);

  /* What is written never exceeds the caller's struct. */
  memset(&memory, 0x5A, sizeof memory);
  memory.struct_size = offsetof(lethe_memory, peak_bytes);
  CHECK(lethe_session_memory(session, &memory, E) == LETHE_OK);
  CHECK(memory.cap_bytes == 16u << 20 && memory.total_bytes > 0);
  CHECK(memory.struct_size == offsetof(lethe_memory, peak_bytes));
  CHECK(memory.peak_bytes == 0x5A5A5A5A5A5A5A5Aull && memory.threads == 0x5A5A5A5Au);
  memset(&stats, 0x5A, sizeof stats);
  stats.struct_size = offsetof(lethe_stats, decode_tokens);
  CHECK(lethe_session_feed(session, ids, 3, E) == LETHE_OK);
  CHECK(lethe_session_get_stats(session, &stats, E) == LETHE_OK);
  CHECK(stats.position == 3 && stats.cached_tokens == 3 && stats.prefill_tokens == 3);
  CHECK(stats.decode_tokens == 0x5A5A5A5A5A5A5A5Aull);
  memset(&info, 0x5A, sizeof info);
  info.struct_size = offsetof(lethe_model_info, embed_dim);
  CHECK(lethe_model_get_info(model, &info, E) == LETHE_OK);
  CHECK(info.layers == 2 && info.embed_dim == 0x5A5A5A5Au);

  /* Smaller sampling and generate params. */
  lethe_sampling_init(&sampling);
  sampling.temperature = 0.0f;
  sampling.struct_size = offsetof(lethe_sampling, top_k);
  memset((char*)&sampling + sampling.struct_size, 0xFF, sizeof sampling - sampling.struct_size);
  CHECK(lethe_session_set_sampling(session, &sampling, E) == LETHE_OK);
  lethe_generate_params_init(&generate);
  generate.max_tokens = 2;
  generate.struct_size = offsetof(lethe_generate_params, stop);
  memset((char*)&generate + generate.struct_size, 0xFF, sizeof generate - generate.struct_size);
  CHECK(lethe_session_generate(session, &generate, NULL, &generated, E) == LETHE_OK);
  CHECK(generated <= 2);
  return close_both();
}

/* ---- A whole run ------------------------------------------------------------------------------------------------- */

struct collected {
  char text[512];
  size_t bytes;
  int32_t ids[64];
  size_t count;
  lethe_code inner; /* of a call from inside the callback */
};

static int32_t collect(void* user, const char* text, size_t bytes, int32_t id) {
  struct collected* out = user;
  if (out->bytes + bytes <= sizeof out->text) memcpy(out->text + out->bytes, text, bytes);
  out->bytes += bytes;
  if (id >= 0 && out->count < 64) out->ids[out->count++] = id;
  out->inner = lethe_session_reset(session, NULL);
  return 0;
}

int abi_whole_run(const char* model_path, const char* snapshot_path) {
  lethe_error error;
  lethe_session_params params;
  lethe_model_info info;
  lethe_memory plan, memory;
  lethe_sampling sampling;
  lethe_generate_params generate;
  lethe_stats stats;
  lethe_session *copy = NULL, *tiny = NULL;
  lethe_model* none = (lethe_model*)&error;
  struct collected first, second;
  const lethe_message turn[2] = {{"system", "hello"}, {"user", "the world"}};
  const char* bytes;
  const float *logits, *copy_logits;
  float scores[4];
  int32_t ids[64], reason = -1;
  uint64_t generated = 0, sum = 0;
  size_t count, fed, vocab;
  double total = 0;
  struct seen_logits seen = {0};
  if (!open_both(model_path)) return failures + 1;

  CHECK(lethe_model_open("/nonexistent.lethe", &none, E) == LETHE_ERROR_IO && none == NULL);
  CHECK(strstr(error.message, "/nonexistent.lethe") != NULL);
  CHECK(lethe_model_open("/proc/self/exe", &none, E) == LETHE_ERROR_NOT_A_MODEL && none == NULL);
  CHECK(lethe_model_verify(model, E) == LETHE_OK);
  info.struct_size = sizeof info;
  CHECK(lethe_model_get_info(model, &info, E) == LETHE_OK);
  CHECK(is(info.architecture, "llama"));
  CHECK(info.layers == 2 && info.embed_dim == 64 && info.heads == 4 && info.kv_heads == 2 && info.head_dim == 16);
  CHECK(info.ffn_dim == 96 && info.vocab == 300 && info.context_length == 512 && info.has_chat_template == 1);
  CHECK(info.kv_bytes_per_token == 2 * 2 * 16 * 2 * 2); /* layers, KV heads, head_dim, K and V, f16 */

  /* The plan is what the session takes. */
  lethe_session_params_init(&params);
  params.ram_bytes = 16u << 20;
  params.threads = 1;
  plan.struct_size = memory.struct_size = sizeof plan;
  CHECK(lethe_session_plan(model, &params, &plan, E) == LETHE_OK);
  CHECK(lethe_session_memory(session, &memory, E) == LETHE_OK);
  CHECK(memcmp(&plan, &memory, sizeof plan) == 0);
  for (int tag = 0; tag < 32; ++tag) sum += plan.tag_bytes[tag];
  CHECK(sum == plan.total_bytes && sum <= plan.cap_bytes && plan.minimum_ram_bytes <= plan.total_bytes);
  CHECK(plan.cache_tokens == 512);
  params.ram_bytes = plan.minimum_ram_bytes - 1;
  CHECK(lethe_session_create(model, &params, &tiny, E) == LETHE_ERROR_RAM_TOO_SMALL && tiny == NULL);
  CHECK(lethe_session_plan(model, &params, &memory, E) == LETHE_ERROR_RAM_TOO_SMALL);
  CHECK(memory.minimum_ram_bytes == plan.minimum_ram_bytes);
  params.ram_bytes = plan.minimum_ram_bytes;
  CHECK(lethe_session_create(model, &params, &tiny, E) == LETHE_OK && tiny != NULL);
  lethe_session_close(tiny);
  params.policy = "oldest";
  CHECK(lethe_session_plan(model, &params, &memory, E) == LETHE_ERROR_INVALID_ARGUMENT);
  CHECK(strstr(error.message, "oldest") != NULL);
  params.policy = NULL; /* the default */
  CHECK(lethe_session_plan(model, &params, &memory, E) == LETHE_OK);
  params.kv_type = 4;
  CHECK(lethe_session_plan(model, &params, &memory, E) == LETHE_ERROR_INVALID_ARGUMENT);
  params.kv_type = LETHE_KV_INT4;
  params.positions = 4;
  CHECK(lethe_session_plan(model, &params, &memory, E) == LETHE_ERROR_INVALID_ARGUMENT);

  /* Text, tokens, turns. */
  CHECK(lethe_session_tokenize(session, "hello the", 9, 0, ids, 64, &count, E) == LETHE_OK && count == 2);
  CHECK(lethe_model_token_bytes(model, ids[0], &bytes, &vocab, E) == LETHE_OK);
  CHECK(vocab == 5 && memcmp(bytes, "hello", 5) == 0);
  CHECK(lethe_model_token_bytes(model, 300, &bytes, &vocab, E) == LETHE_ERROR_INVALID_ARGUMENT);
  CHECK(lethe_model_token_bytes(model, -1, &bytes, &vocab, E) == LETHE_ERROR_INVALID_ARGUMENT);
  CHECK(lethe_session_tokenize(session, "<|im_end|>", 10, LETHE_TEXT_SPECIAL, ids, 64, &count, E) == LETHE_OK);
  CHECK(count == 1 && ids[0] == 2);
  CHECK(lethe_session_tokenize(session, "a\xff", 2, 0, ids, 64, &count, E) == LETHE_ERROR_INVALID_UTF8);
  CHECK(lethe_session_logits(session, &logits, &vocab, E) == LETHE_ERROR_BAD_STATE);
  CHECK(lethe_session_tokenize_turn(session, turn, 2, ids, 64, &count, E) == LETHE_OK);
  CHECK(lethe_session_feed_turn(session, turn, 2, &fed, E) == LETHE_OK && fed == count && fed > 10);
  CHECK(lethe_session_logits(session, &logits, &vocab, E) == LETHE_OK && vocab == 300);
  for (size_t i = 0; i < vocab; ++i) total += exp((double)logits[i]);
  total = (double)logits[5] - log(total); /* of token 5, by hand */

  CHECK(lethe_session_fork(session, &copy, E) == LETHE_OK && copy != NULL);
  ids[0] = 5;
  CHECK(lethe_session_score(copy, ids, 1, 0, scores, E) == LETHE_OK);
  CHECK(fabs((double)scores[0] - total) < 1e-4);
  /* Token by token, and all at once: the same logits. */
  CHECK(lethe_session_reset(copy, E) == LETHE_OK);
  CHECK(lethe_session_feed_logits(copy, ids, 8, 9, see_logits, &seen, E) == LETHE_ERROR_INVALID_ARGUMENT);
  CHECK(lethe_session_feed_logits(copy, ids, 8, 3, see_logits, &seen, E) == LETHE_OK);
  CHECK(seen.count == 5 && seen.first == 3 && seen.last == 7);
  CHECK(lethe_session_reset(copy, E) == LETHE_OK);
  total = 0;
  for (size_t i = 0; i < 8; ++i) {
    CHECK(lethe_session_feed(copy, ids + i, 1, E) == LETHE_OK);
    CHECK(lethe_session_logits(copy, &logits, &vocab, E) == LETHE_OK);
    if (i >= 3) total += fabs((double)logits[i]);
  }
  CHECK(fabs(total - seen.sum) < 1e-4);
  lethe_session_close(copy);

  /* Generation: the same from the saved conversation as from the running one. */
  lethe_sampling_init(&sampling);
  sampling.seed = 11;
  CHECK(lethe_session_set_sampling(session, &sampling, E) == LETHE_OK);
  sampling.top_p = 0.0f;
  CHECK(lethe_session_set_sampling(session, &sampling, E) == LETHE_ERROR_INVALID_ARGUMENT);
  CHECK(lethe_session_save(session, snapshot_path, E) == LETHE_OK);
  memset(&first, 0, sizeof first);
  memset(&second, 0, sizeof second);
  lethe_generate_params_init(&generate);
  generate.max_tokens = 40;
  generate.ignore_eos = 1;
  generate.on_piece = collect;
  generate.user = &first;
  CHECK(lethe_session_generate(session, &generate, &reason, &generated, E) == LETHE_OK);
  CHECK(reason == LETHE_STOP_MAX_TOKENS && generated == 40 && first.count == 40 && first.bytes > 0);
  CHECK(first.inner == LETHE_ERROR_BAD_STATE); /* the session is busy while its callback runs */
  CHECK(lethe_session_restore(session, snapshot_path, E) == LETHE_OK);
  generate.user = &second;
  CHECK(lethe_session_generate(session, &generate, &reason, &generated, E) == LETHE_OK);
  first.inner = second.inner;
  CHECK(memcmp(&first, &second, sizeof first) == 0);
  stats.struct_size = sizeof stats;
  CHECK(lethe_session_get_stats(session, &stats, E) == LETHE_OK);
  CHECK(stats.position == fed + 40 && stats.decode_tokens == 40 && stats.evictions == 0);

  lethe_session_cancel(session);
  CHECK(lethe_session_generate(session, &generate, &reason, &generated, E) == LETHE_ERROR_CANCELLED);
  CHECK(reason == LETHE_STOP_ERROR && generated == 0);
  CHECK(lethe_session_reset(session, E) == LETHE_OK);
  CHECK(lethe_session_generate(session, &generate, &reason, &generated, E) == LETHE_ERROR_BAD_STATE);
  CHECK(lethe_session_logits(session, &copy_logits, &vocab, E) == LETHE_ERROR_BAD_STATE);
  CHECK(lethe_session_restore(session, model_path, E) == LETHE_ERROR_CORRUPT_SNAPSHOT);
  return close_both();
}
