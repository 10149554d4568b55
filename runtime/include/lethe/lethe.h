/* Lethe: a memory-bounded inference runtime. The C ABI, the only stable surface.
 *
 * Errors   Every function that can fail returns a pinned code (LETHE_OK is 0) and, when `error` is not NULL, writes the
 *          code and one sentence with the numbers there. The library never aborts, throws or prints.
 * Memory   A session's cap bounds everything private that it and its model take. All of it is obtained when the session
 *          is created; feeding and generating allocate nothing. The exception is a turn through the chat template
 *          (lethe_session_feed_turn, lethe_session_tokenize_turn): while it renders, the template engine takes memory
 *          from the heap, within what the plan sets aside for it (a hostile template in a model file can exceed that).
 * Threads  A model may be used from any number of threads. A session belongs to one thread at a time; only
 *          lethe_session_cancel may be called while another thread works with it. Other calls then, and calls from the
 *          session's own callback, give LETHE_ERROR_BAD_STATE. Close a session only when no call is in it.
 * Structs  Set struct_size to sizeof of the struct; the *_init functions do, as your program was compiled. Languages
 *          without this header pass the size to *_init_sized. Fields are only appended; a newer library accepts the
 *          smaller struct of an older program.
 * Strings  UTF-8. What a callback or a getter gives is valid until the callback returns, or as its comment says.
 */
#ifndef LETHE_LETHE_H_
#define LETHE_LETHE_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define LETHE_API __attribute__((visibility("default")))
#else
#define LETHE_API
#endif

#define LETHE_VERSION_MAJOR 0
#define LETHE_VERSION_MINOR 1
#define LETHE_VERSION_PATCH 0

/* Pinned numbers; a code is never renumbered, new ones are appended. */
enum {
  LETHE_OK = 0,
  LETHE_ERROR_INVALID_ARGUMENT = 1, /* an option or pointer is impossible */
  LETHE_ERROR_INVALID_UTF8 = 2,     /* the sentence gives the byte offset */
  LETHE_ERROR_PROMPT_TOO_LONG = 3,
  LETHE_ERROR_BAD_STATE = 4, /* e.g. the session failed earlier: call lethe_session_reset */
  LETHE_ERROR_CANCELLED = 5,
  LETHE_ERROR_TEMPLATE = 6,       /* the chat template is missing, damaged or refused the messages */
  LETHE_ERROR_RAM_TOO_SMALL = 20, /* the sentence gives the smallest cap that works */
  LETHE_ERROR_OUT_OF_MEMORY = 21, /* the system refused memory within the cap */
  LETHE_ERROR_KV_FULL = 22,       /* policy "full": the cache is full */
  LETHE_ERROR_IO = 23,
  LETHE_ERROR_DISK_FULL = 24,
  LETHE_ERROR_THREAD = 25,
  LETHE_ERROR_NOT_A_MODEL = 40,
  LETHE_ERROR_CORRUPT_MODEL = 41,
  LETHE_ERROR_UNSUPPORTED = 42,
  LETHE_ERROR_CORRUPT_SNAPSHOT = 43,
  LETHE_ERROR_WRONG_MODEL = 44,
  LETHE_ERROR_INTERNAL = 60
};
typedef int32_t lethe_code;

typedef struct lethe_error {
  lethe_code code;
  char message[252]; /* NUL-terminated */
} lethe_error;

typedef struct lethe_model lethe_model;
typedef struct lethe_session lethe_session;

LETHE_API const char* lethe_version(void);              /* "0.1.0" */
LETHE_API const char* lethe_code_name(lethe_code code); /* "ram_too_small"; "unknown" for other numbers */

/* ---- Models ---------------------------------------------------------------------------------------------------- */

/* Maps a .lethe file read-only and verifies its structure (not the weights: lethe_model_verify reads those). */
LETHE_API lethe_code lethe_model_open(const char* path, lethe_model** out, lethe_error* error);
/* Every session of the model must be closed first: LETHE_ERROR_BAD_STATE otherwise, and the model stays open. */
LETHE_API lethe_code lethe_model_close(lethe_model* model, lethe_error* error); /* NULL is fine */
/* Reads the whole file and compares the checksum of every segment. */
LETHE_API lethe_code lethe_model_verify(const lethe_model* model, lethe_error* error);

typedef struct lethe_model_info {
  size_t struct_size;
  const char* architecture; /* of the source; lives as long as the model */
  uint32_t layers, embed_dim, heads, kv_heads, head_dim, ffn_dim, vocab;
  uint32_t context_length;     /* trained length, tokens */
  uint64_t file_bytes;         /* mapped read-only */
  uint64_t private_bytes;      /* of the model's own tables */
  uint64_t kv_bytes_per_token; /* of an f16 cache */
  int32_t has_chat_template;
} lethe_model_info;
LETHE_API lethe_code lethe_model_get_info(const lethe_model* model, lethe_model_info* info, lethe_error* error);

/* ---- Sessions --------------------------------------------------------------------------------------------------- */

/* Types of cached keys and values. INT8: 8 bits, one scale for each. INT8K4V: keys of 8 bits, values of 4. INT4: both
 * of 4 bits. Numbers of 4 bits are of a Hadamard transform of the key or value. */
enum { LETHE_KV_F16 = 0, LETHE_KV_INT8 = 1, LETHE_KV_INT8K4V = 2, LETHE_KV_INT4 = 3 };
/* How distances of cached tokens are counted. ABSOLUTE: in the conversation. ROLLING: in the cache. CLAMPED: in the
 * conversation, but none beyond the trained length: older tokens stand at its beginning. AUTO: rolling for the
 * window, clamped for policies that keep scattered tokens, absolute for those that keep all. */
enum {
  LETHE_POSITIONS_AUTO = 0,
  LETHE_POSITIONS_ABSOLUTE = 1,
  LETHE_POSITIONS_ROLLING = 2,
  LETHE_POSITIONS_CLAMPED = 3
};

/* How the lists of the cache (one per layer and KV head) share it when it is full. AUTO: as the policy has it. LIST:
 * all keep the same number of tokens. PYRAMID: so do the lists of a layer, early layers more than late ones. LAYER: the
 * lists of a layer compete by score, each keeps a fifth of an even share at least. GLOBAL: all lists compete so. */
enum {
  LETHE_BUDGET_AUTO = 0,
  LETHE_BUDGET_LIST = 1,
  LETHE_BUDGET_PYRAMID = 2,
  LETHE_BUDGET_LAYER = 3,
  LETHE_BUDGET_GLOBAL = 4
};
/* How scores are smoothed over neighbouring tokens. */
enum { LETHE_POOL_AUTO = 0, LETHE_POOL_NONE = 1, LETHE_POOL_MEAN = 2, LETHE_POOL_MAX = 3 };

/* What becomes of forgotten tokens. COMPENSATION: one more token for every list stands for all that it forgot, with
 * their mean key and value. MERGE: a forgotten token's value is blended into that of the remaining token with the most
 * similar key. KV heads with a window hand nothing over. */
enum { LETHE_HAND_OVER_NONE = 0, LETHE_HAND_OVER_COMPENSATION = 1, LETHE_HAND_OVER_MERGE = 2 };

typedef struct lethe_session_params {
  size_t struct_size;
  uint64_t ram_bytes;  /* the cap; required */
  uint64_t host_bytes; /* of the caller's own, to be counted inside the cap; 0 by default */
  const char* policy;  /* what the cache forgets: NULL (default): "namm" (learned) if there are parameters for it, else
                          "h2o"; or "window" (the first tokens and the most recent stay), "keydiff", "tova", "snapkv",
                          "pyramidkv", "pyramidinfer", "scissorhands", "fastgen", "expected-attention", "lagkv", "l2",
                          "random" (a control), or "full": nothing, and a full cache is an error */
  uint32_t sinks;      /* first tokens that are never forgotten; default 4 */
  int32_t kv_type;     /* LETHE_KV_*; default f16 */
  int32_t positions;   /* LETHE_POSITIONS_* */
  uint32_t max_tokens; /* capacity of the cache; default 0: what the cap allows, at most the trained length */
  uint32_t prefill_chunk; /* tokens per prefill step, at most 2048; 0 (default): what suits the cap */
  uint32_t threads;       /* 0 (default): the fast cores; at most 64 */
  uint32_t logit_rows;    /* rows of logits that lethe_session_score computes at once; default 1, at most 64 */
  uint32_t turn_bytes;    /* longest text of lethe_session_feed_turn through the chat template; default 16 KiB. Takes
                             eleven times as much of the cap, for the template engine */
  int32_t recent_percent; /* of what stays in an eviction, the newest tokens; default -1: as the policy has it */
  uint64_t policy_seed;   /* for policies that draw; default 0 */
  int32_t budget;         /* LETHE_BUDGET_* */
  int32_t pool;           /* LETHE_POOL_* */
  uint32_t pool_width;    /* tokens, odd, at most 255; with LETHE_POOL_MEAN and LETHE_POOL_MAX */
  int32_t value_norm;     /* nonzero: scores are multiplied by the norm of the token's value. For policies whose scores
                             are not negative: the others refuse */
  int32_t hand_over;      /* LETHE_HAND_OVER_*; default none */
  const void* namm; /* of policy "namm": a NAMM file in memory, aligned to 4 bytes, that outlives the session; NULL
                       (default): the one in the model file */
  size_t namm_bytes;
  int32_t ignore_head_plan; /* nonzero: KV heads to which the model's head plan gives a window see everything all the
                               same; default 0 */
} lethe_session_params;
LETHE_API void lethe_session_params_init_sized(lethe_session_params* params, size_t struct_size);
static inline void lethe_session_params_init(lethe_session_params* params) {
  lethe_session_params_init_sized(params, sizeof *params);
}

enum {
  LETHE_MEMORY_HOST = 0,
  LETHE_MEMORY_MODEL,
  LETHE_MEMORY_SESSION,
  LETHE_MEMORY_TOKENIZER,
  LETHE_MEMORY_ACTIVATIONS,
  LETHE_MEMORY_LOGITS,
  LETHE_MEMORY_KV_POOL,
  LETHE_MEMORY_KV_INDEX,
  LETHE_MEMORY_SAMPLER,
  LETHE_MEMORY_THREADS,
  LETHE_MEMORY_TRACE,
  LETHE_MEMORY_TAGS /* how many there are in this version; at most 32 ever */
};
LETHE_API const char* lethe_memory_tag_name(int32_t tag); /* "kv_pool", ... */

/* The memory of a session: as planned (lethe_session_plan) or as it is (lethe_session_memory). Equal to the byte. */
typedef struct lethe_memory {
  size_t struct_size;
  uint64_t cap_bytes;
  uint64_t total_bytes;          /* sum of tag_bytes */
  uint64_t peak_bytes;           /* highest total so far; in a plan: total_bytes */
  uint64_t minimum_ram_bytes;    /* the smallest cap that would work with these params */
  uint64_t weights_mapped_bytes; /* beside the cap: clean file pages */
  uint64_t tag_bytes[32];        /* by LETHE_MEMORY_* */
  uint32_t cache_tokens;         /* capacity per KV head */
  uint32_t prefill_chunk;
  uint32_t threads;
  const char* policy; /* its name; lives as long as the library */
} lethe_memory;
/* What lethe_session_create would take. LETHE_ERROR_RAM_TOO_SMALL still fills minimum_ram_bytes. */
LETHE_API lethe_code lethe_session_plan(const lethe_model* model, const lethe_session_params* params,
                                        lethe_memory* memory, lethe_error* error);
LETHE_API lethe_code lethe_session_create(lethe_model* model, const lethe_session_params* params, lethe_session** out,
                                          lethe_error* error);
LETHE_API void lethe_session_close(lethe_session* session); /* NULL is fine */
LETHE_API lethe_code lethe_session_memory(const lethe_session* session, lethe_memory* memory, lethe_error* error);

/* Forgets everything and clears a failure and a pending cancellation. The sampler's seed starts anew. */
LETHE_API lethe_code lethe_session_reset(lethe_session* session, lethe_error* error);

/* Makes the work that the session is doing, in whatever thread, return LETHE_ERROR_CANCELLED soon; the session stays
 * usable, with the tokens of the steps that were finished (all of them, when the request came too late to shorten the
 * work). Without work in progress: cancels the next feed, score or generate whose arguments are fine. May be called
 * from any thread, or a signal handler, at any moment between create and close. */
LETHE_API void lethe_session_cancel(lethe_session* session);

/* ---- Text and tokens -------------------------------------------------------------------------------------------- */

enum {
  LETHE_TEXT_SPECIAL = 1, /* special tokens written in the text (e.g. <|im_end|>) become those tokens */
  LETHE_TEXT_BOS = 2      /* begin with BOS if the model wants it */
};

/* Token ids of `text`. `*count` is the number of tokens, also when it exceeds `capacity`: then only the first
 * `capacity` are written and LETHE_ERROR_PROMPT_TOO_LONG is returned. `ids` may be NULL with capacity 0. */
LETHE_API lethe_code lethe_session_tokenize(lethe_session* session, const char* text, size_t bytes, uint32_t flags,
                                            int32_t* ids, size_t capacity, size_t* count, lethe_error* error);
/* Raw bytes of a token (maybe part of a character); lives as long as the model. */
LETHE_API lethe_code lethe_model_token_bytes(const lethe_model* model, int32_t id, const char** bytes, size_t* size,
                                             lethe_error* error);

/* Another cap for the rest of the conversation, as when the system warns that memory is short. Lowering it makes the
 * policy forget and gives pages back at once; raising it gives the cache room, up to what it was created with. A cap
 * that is too small (LETHE_ERROR_RAM_TOO_SMALL), or a cache of policy "full" that holds more (LETHE_ERROR_KV_FULL),
 * changes nothing. */
LETHE_API lethe_code lethe_session_set_ram(lethe_session* session, uint64_t ram_bytes, lethe_error* error);

/* The tokens at positions [begin, end) of the conversation are never forgotten from now on, such as a system prompt:
 * those that the cache still has, and those to come. (Layers with a window lose what no token to come can see.)
 * LETHE_ERROR_INVALID_ARGUMENT for an empty range, or more than 16 ranges apart from each other;
 * LETHE_ERROR_RAM_TOO_SMALL when the cache would have no room for a prefill step besides. On an error nothing changes.
 * lethe_session_reset lets go of them. */
#define LETHE_ALL_SO_FAR UINT64_MAX /* as `end`: all that was fed so far */
LETHE_API lethe_code lethe_session_pin(lethe_session* session, uint64_t begin, uint64_t end, lethe_error* error);

/* Appends tokens to the conversation and leaves the logits of the last one. n == 0 is an error. With policy "full" a
 * sequence that does not fit is refused before anything changes. A failure in the middle leaves the finished chunks. */
LETHE_API lethe_code lethe_session_feed(lethe_session* session, const int32_t* ids, size_t n, lethe_error* error);
/* As lethe_session_feed, with rows that stand in for the embeddings of tokens, as they enter the first layer (what a
 * vision or decision model gives).
 *   rows [n][embed_dim of lethe_model_info]   finite */
LETHE_API lethe_code lethe_session_feed_embeddings(lethe_session* session, const float* rows, size_t n,
                                                   lethe_error* error);
/* Tokenises and appends. `*fed` (may be NULL) is the number of tokens. Text that gives no token is an error, and so is
 * one with a stretch of over 4,096 bytes that the model's pre-tokenizer does not split (LETHE_ERROR_PROMPT_TOO_LONG);
 * then nothing is fed. */
LETHE_API lethe_code lethe_session_feed_text(lethe_session* session, const char* text, size_t bytes, uint32_t flags,
                                             size_t* fed, lethe_error* error);

typedef struct lethe_message {
  const char* role; /* "system", "user", "assistant", ... as the template knows them */
  const char* content;
} lethe_message;
/* Appends one turn through the model's chat template and the head of the assistant's reply. The first turn of a
 * session may begin with a system message; a later turn closes the previous reply first. Only the new text is fed.
 * As in the reference implementations, special tokens written in a message become those tokens: remove them from
 * text of strangers. */
LETHE_API lethe_code lethe_session_feed_turn(lethe_session* session, const lethe_message* messages, size_t count,
                                             size_t* fed, lethe_error* error);

/* Token ids that lethe_session_feed_turn would append now; nothing is fed. `ids`, `capacity` and `*id_count` as in
 * lethe_session_tokenize. */
LETHE_API lethe_code lethe_session_tokenize_turn(lethe_session* session, const lethe_message* messages, size_t count,
                                                 int32_t* ids, size_t capacity, size_t* id_count, lethe_error* error);

/* Logits [vocab] of the last token fed; valid until the next call that changes the session. */
LETHE_API lethe_code lethe_session_logits(lethe_session* session, const float** logits, size_t* vocab,
                                          lethe_error* error);

/* Logits [vocab] of token `index` of a call, valid until the callback returns. */
typedef void (*lethe_on_logits)(void* user, size_t index, const float* logits, size_t vocab);
/* As lethe_session_feed, and shows the logits of every token from the one with index `first` on, in order, in the
 * thread of the caller, as steps are finished. */
LETHE_API lethe_code lethe_session_feed_logits(lethe_session* session, const int32_t* ids, size_t n, size_t first,
                                               lethe_on_logits on_logits, void* user, lethe_error* error);

/* Appends `ids` and writes the natural logarithm of the probability that the model gave to ids[i] for every
 * i in [first, n), at log_probs[i - first]; first >= 1, or >= 0 when something was fed before. */
LETHE_API lethe_code lethe_session_score(lethe_session* session, const int32_t* ids, size_t n, size_t first,
                                         float* log_probs, lethe_error* error);

/* ---- Generation ------------------------------------------------------------------------------------------------- */

typedef struct lethe_sampling {
  size_t struct_size;
  float temperature;        /* 0: greedy. Default 0.8 */
  uint32_t top_k;           /* 0: off. Default 40 */
  float top_p;              /* 1: off. Default 0.95 */
  float min_p;              /* 0: off. Default 0 */
  float repetition_penalty; /* 1: off. Default 1 */
  uint32_t penalty_window;  /* last tokens that the penalty looks at, at most 256. Default 64 */
  uint64_t seed;            /* Default 0: same seed, same text */
} lethe_sampling;
LETHE_API void lethe_sampling_init_sized(lethe_sampling* sampling, size_t struct_size);
static inline void lethe_sampling_init(lethe_sampling* sampling) {
  lethe_sampling_init_sized(sampling, sizeof *sampling);
}
/* Until this is called a session is greedy. */
LETHE_API lethe_code lethe_session_set_sampling(lethe_session* session, const lethe_sampling* sampling,
                                                lethe_error* error);

/* A piece of text (whole characters only, maybe empty) and the token just sampled, or -1 for more text of the same
 * token and for held-back text at the end. Return 0 to go on, anything else to stop. */
typedef int32_t (*lethe_on_piece)(void* user, const char* text, size_t bytes, int32_t id);

typedef struct lethe_generate_params {
  size_t struct_size;
  uint64_t max_tokens;     /* 0 (default): until the model ends the reply */
  const char* const* stop; /* texts that end the reply; they are not given to the callback */
  size_t stop_count;       /* at most 8, each at most 64 bytes */
  int32_t ignore_eos;      /* go on after an end token (it is kept in the conversation) */
  lethe_on_piece on_piece; /* may be NULL */
  void* user;
} lethe_generate_params;
LETHE_API void lethe_generate_params_init_sized(lethe_generate_params* params, size_t struct_size);
static inline void lethe_generate_params_init(lethe_generate_params* params) {
  lethe_generate_params_init_sized(params, sizeof *params);
}

enum {
  LETHE_STOP_ERROR = -1, /* the call failed: see the code */
  LETHE_STOP_END = 0,
  LETHE_STOP_TEXT = 1,
  LETHE_STOP_MAX_TOKENS = 2,
  LETHE_STOP_CALLBACK = 3
};
/* Samples from the current logits, token by token, until a reason to stop. Tokens given to the callback are part of the
 * conversation; an end token is not. Each call is a reply of its own: a character that is unfinished at its end becomes
 * U+FFFD, and stop texts are not looked for across calls. `reason` and `generated` may be NULL; both are always set. */
LETHE_API lethe_code lethe_session_generate(lethe_session* session, const lethe_generate_params* params,
                                            int32_t* reason, uint64_t* generated, lethe_error* error);

typedef struct lethe_stats {
  size_t struct_size;
  uint64_t position;                               /* tokens of the conversation so far, forgotten ones included */
  uint32_t cached_tokens;                          /* longest list of any KV head: where they compete, up to twice
                                                      cache_tokens of lethe_memory */
  uint64_t prefill_tokens, prefill_ns;             /* by all that feeds, and by score */
  uint64_t decode_tokens, decode_ns;               /* by generate: sampling included, callbacks not */
  uint64_t evictions, evicted_tokens, eviction_ns; /* tokens: the mean over layers and KV heads */
  /* The last eviction: how many lists (one per layer and KV head) lost tokens, how many together, one at least and one
   * at most, and how long it took. */
  uint64_t last_lists, last_tokens, last_fewest, last_most, last_ns;
} lethe_stats;
LETHE_API lethe_code lethe_session_get_stats(const lethe_session* session, lethe_stats* stats, lethe_error* error);

/* ---- Traces ----------------------------------------------------------------------------------------------------- */

typedef struct lethe_trace_params {
  size_t struct_size;
  uint32_t interval_ms; /* least time between two samples; 0: one after every step. Default 100 */
  int32_t tokens; /* nonzero: the tokens and their text, too, so that a report can show what was forgotten. Default
                     0: figures only */
} lethe_trace_params;
LETHE_API void lethe_trace_params_init_sized(lethe_trace_params* params, size_t struct_size);
static inline void lethe_trace_params_init(lethe_trace_params* params) {
  lethe_trace_params_init_sized(params, sizeof *params);
}
/* Writes where the memory goes to a file while the session works: the ledger, what the system counts, the cache of
 * every layer and head, what was forgotten (schema/trace.fbs; `lethe profile report` makes it legible). The file can be
 * read at any moment, also after the app was killed. Samples are taken after steps; nothing is allocated. `params`
 * NULL: the defaults. LETHE_ERROR_IO, LETHE_ERROR_DISK_FULL: nothing was started; LETHE_ERROR_BAD_STATE: a trace runs
 * already. A write that fails later ends the trace and nothing else: lethe_session_trace_stop tells. */
LETHE_API lethe_code lethe_session_trace_start(lethe_session* session, const char* path,
                                               const lethe_trace_params* params, lethe_error* error);
/* Ends the trace, as lethe_session_close does. Returns the error that ended it before, if one did: then the file holds
 * what came before the error. LETHE_ERROR_BAD_STATE without a trace. */
LETHE_API lethe_code lethe_session_trace_stop(lethe_session* session, lethe_error* error);

/* ---- Copies ----------------------------------------------------------------------------------------------------- */

/* A second session with the same conversation, under its own cap (same params as the original's creation). */
LETHE_API lethe_code lethe_session_fork(lethe_session* session, lethe_session** out, lethe_error* error);
/* Writes the conversation to a file (whole or not at all) / replaces the session's conversation by a saved one. The
 * file must come from the same model, KV type, positions, policy and sinks (LETHE_ERROR_WRONG_MODEL) and fit this
 * session's cache (LETHE_ERROR_PROMPT_TOO_LONG); on any error the session keeps what it had. */
LETHE_API lethe_code lethe_session_save(lethe_session* session, const char* path, lethe_error* error);
LETHE_API lethe_code lethe_session_restore(lethe_session* session, const char* path, lethe_error* error);

#ifdef __cplusplus
}
#endif
#endif /* LETHE_LETHE_H_ */
