// Lethe for C++17: RAII over the C ABI (lethe.h), nothing more. Header-only; throws nothing itself and builds with
// -fno-exceptions. Contracts, units and thread safety are those of the C functions that are named beside each method.
//
//   #include <cstdio>
//   #include <lethe/lethe.hpp>
//
//   int main() {
//     namespace api = lethe::api;
//     auto model = api::Model::open("model.lethe");
//     if (!model.ok()) return std::fprintf(stderr, "%s\n", model.error().message()), 1;
//     auto session = api::Session::create(model.value(), api::session_params(64u << 20));  // 64 MiB, whatever comes
//     if (!session.ok()) return std::fprintf(stderr, "%s\n", session.error().message()), 1;
//
//     const auto print = [](std::string_view text, int32_t) { std::fwrite(text.data(), 1, text.size(), stdout); };
//     for (const char* question : {"Who was Lethe?", "And what did its water do?"}) {
//       api::Error error = session.value().chat(question, print);
//       if (!error.ok()) return std::fprintf(stderr, "%s\n", error.message()), 1;
//       std::puts("");
//     }
//     return 0;
//   }
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

#include "lethe/lethe.h"

namespace lethe::api {

// What a call reports: LETHE_OK, or a code and one sentence. Nothing to free.
class [[nodiscard]] Error {
 public:
  Error() = default;

  bool ok() const { return raw_.code == LETHE_OK; }
  lethe_code code() const { return raw_.code; }
  const char* name() const { return lethe_code_name(raw_.code); }
  const char* message() const { return raw_.message; }

  // Calls a function of the C ABI whose last parameter is a lethe_error*.
  template <typename Function, typename... Args>
  static Error of(Function function, Args... args) {
    Error error;
    error.raw_.code = function(args..., &error.raw_);
    return error;
  }

 private:
  lethe_error raw_{};
};

// A value, or the reason why there is none. value() requires ok().
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(Error error) : error_(error) {}

  bool ok() const { return value_.has_value(); }
  const Error& error() const { return error_; }
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T&& value() && { return *std::move(value_); }

 private:
  Error error_;
  std::optional<T> value_;
};

// The C structs with their defaults.
inline lethe_session_params session_params(uint64_t ram_bytes) {
  lethe_session_params params;
  lethe_session_params_init(&params);
  params.ram_bytes = ram_bytes;
  return params;
}
inline lethe_sampling sampling() {
  lethe_sampling sampling;
  lethe_sampling_init(&sampling);
  return sampling;
}
inline lethe_generate_params generate_params() {
  lethe_generate_params params;
  lethe_generate_params_init(&params);
  return params;
}
inline lethe_trace_params trace_params() {
  lethe_trace_params params;
  lethe_trace_params_init(&params);
  return params;
}

// An open model. Move-only; must outlive its sessions. Any number of threads may use it.
class Model {
 public:
  static Result<Model> open(const char* path) {  // lethe_model_open
    Model model;
    Error error = Error::of(lethe_model_open, path, &model.handle_);
    if (!error.ok()) return error;
    return model;
  }

  Model(Model&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Model& operator=(Model&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Model() { lethe_model_close(handle_, nullptr); }

  Result<lethe_model_info> info() const {  // lethe_model_get_info
    lethe_model_info info{};
    info.struct_size = sizeof info;
    Error error = Error::of(lethe_model_get_info, handle_, &info);
    if (!error.ok()) return error;
    return info;
  }
  Error verify() const { return Error::of(lethe_model_verify, handle_); }  // lethe_model_verify

  // lethe_session_plan. `memory` is also filled (minimum_ram_bytes) when the cap is too small.
  Error plan(const lethe_session_params& params, lethe_memory* memory) const {
    *memory = {};
    memory->struct_size = sizeof *memory;
    return Error::of(lethe_session_plan, handle_, &params, memory);
  }

  // Raw bytes of a token, maybe part of a character; empty for an id outside the vocabulary.
  std::string_view token_bytes(int32_t id) const {  // lethe_model_token_bytes
    const char* bytes = nullptr;
    size_t size = 0;
    if (lethe_model_token_bytes(handle_, id, &bytes, &size, nullptr) != LETHE_OK) return {};
    return {bytes, size};
  }

  lethe_model* handle() const { return handle_; }

 private:
  Model() = default;
  lethe_model* handle_ = nullptr;
};

// How a reply ended: LETHE_STOP_* and the number of tokens. Also set when generate() failed.
struct Reply {
  int32_t stop_reason = LETHE_STOP_END;
  uint64_t tokens = 0;
};

// A conversation. Move-only; belongs to one thread at a time (cancel() may come from any).
class Session {
 public:
  static Result<Session> create(const Model& model, const lethe_session_params& params) {  // lethe_session_create
    Session session;
    Error error = Error::of(lethe_session_create, model.handle(), &params, &session.handle_);
    if (!error.ok()) return error;
    return session;
  }

  Session(Session&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Session& operator=(Session&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Session() { lethe_session_close(handle_); }

  Error reset() { return Error::of(lethe_session_reset, handle_); }
  Error set_ram(uint64_t bytes) { return Error::of(lethe_session_set_ram, handle_, bytes); }
  Error pin(uint64_t begin, uint64_t end = LETHE_ALL_SO_FAR) {
    return Error::of(lethe_session_pin, handle_, begin, end);
  }
  void cancel() { lethe_session_cancel(handle_); }
  Error set_sampling(const lethe_sampling& sampling) {
    return Error::of(lethe_session_set_sampling, handle_, &sampling);
  }

  // Appends text or tokens to the conversation. `flags`: LETHE_TEXT_*; `fed` (may be null): tokens.
  Error feed(const int32_t* ids, size_t count) { return Error::of(lethe_session_feed, handle_, ids, count); }
  // rows [count][embed_dim]
  Error feed_embeddings(const float* rows, size_t count) {
    return Error::of(lethe_session_feed_embeddings, handle_, rows, count);
  }
  Error feed_text(std::string_view text, uint32_t flags = 0, size_t* fed = nullptr) {
    return Error::of(lethe_session_feed_text, handle_, text.data(), text.size(), flags, fed);
  }
  Error feed_turn(const lethe_message* messages, size_t count, size_t* fed = nullptr) {
    return Error::of(lethe_session_feed_turn, handle_, messages, count, fed);
  }

  // lethe_session_tokenize, lethe_session_tokenize_turn: `*count` is set also when it exceeds `capacity`.
  Error tokenize(std::string_view text, uint32_t flags, int32_t* ids, size_t capacity, size_t* count) {
    return Error::of(lethe_session_tokenize, handle_, text.data(), text.size(), flags, ids, capacity, count);
  }
  Error tokenize_turn(const lethe_message* messages, size_t message_count, int32_t* ids, size_t capacity,
                      size_t* count) {
    return Error::of(lethe_session_tokenize_turn, handle_, messages, message_count, ids, capacity, count);
  }

  // lethe_session_logits, lethe_session_feed_logits, lethe_session_score. `on_logits(size_t index, const float* logits,
  // size_t vocab)` must not throw.
  Error logits(const float** logits, size_t* vocab) { return Error::of(lethe_session_logits, handle_, logits, vocab); }
  template <typename OnLogits>
  Error feed_logits(const int32_t* ids, size_t count, size_t first, OnLogits&& on_logits) {
    using Callable = std::remove_reference_t<OnLogits>;
    const lethe_on_logits call = [](void* user, size_t index, const float* logits, size_t vocab) {
      (*static_cast<Callable*>(user))(index, logits, vocab);
    };
    return Error::of(lethe_session_feed_logits, handle_, ids, count, first, call,
                     const_cast<void*>(static_cast<const void*>(&on_logits)));
  }
  Error score(const int32_t* ids, size_t count, size_t first, float* log_probs) {
    return Error::of(lethe_session_score, handle_, ids, count, first, log_probs);
  }

  // lethe_session_generate. `on_piece(std::string_view text, int32_t id)` returns nothing, or false to stop. An
  // exception that it throws stops the reply and comes out of this call; the session stays usable.
  // `params.on_piece` and `params.user` are set here.
  template <typename OnPiece>
  Error generate(OnPiece&& on_piece, lethe_generate_params params = generate_params(), Reply* reply = nullptr) {
    using Callable = std::remove_reference_t<OnPiece>;
    struct Call {
      Callable* on_piece;
#if defined(__cpp_exceptions)
      std::exception_ptr thrown;
#endif
      bool go_on(std::string_view text, int32_t id) {
        if constexpr (std::is_void_v<decltype((*on_piece)(text, id))>) {
          (*on_piece)(text, id);
          return true;
        } else {
          return static_cast<bool>((*on_piece)(text, id));
        }
      }
    };
    Call call{};
    call.on_piece = &on_piece;
    params.user = &call;
    params.on_piece = [](void* user, const char* text, size_t bytes, int32_t id) -> int32_t {
      Call& to = *static_cast<Call*>(user);
#if defined(__cpp_exceptions)
      try {
        return to.go_on({text, bytes}, id) ? 0 : 1;
      } catch (...) {
        to.thrown = std::current_exception();
        return 1;
      }
#else
      return to.go_on({text, bytes}, id) ? 0 : 1;
#endif
    };
    Reply ended;
    Error error = Error::of(lethe_session_generate, handle_, &params, &ended.stop_reason, &ended.tokens);
    if (reply != nullptr) *reply = ended;
#if defined(__cpp_exceptions)
    if (call.thrown) std::rethrow_exception(call.thrown);
#endif
    return error;
  }

  // One turn of a conversation: feeds `text` as the user's message and generates the reply.
  template <typename OnPiece>
  Error chat(const char* text, OnPiece&& on_piece, const lethe_generate_params& params = generate_params(),
             Reply* reply = nullptr) {
    const lethe_message message{"user", text};
    Error error = feed_turn(&message, 1);
    if (!error.ok()) return error;
    return generate(on_piece, params, reply);
  }

  // Figures: lethe_session_memory, lethe_session_get_stats.
  lethe_memory memory() const {
    lethe_memory memory{};
    memory.struct_size = sizeof memory;
    lethe_session_memory(handle_, &memory, nullptr);
    return memory;
  }
  lethe_stats stats() const {
    lethe_stats stats{};
    stats.struct_size = sizeof stats;
    lethe_session_get_stats(handle_, &stats, nullptr);
    return stats;
  }

  Error start_trace(const char* path, const lethe_trace_params& params = trace_params()) {
    return Error::of(lethe_session_trace_start, handle_, path, &params);
  }
  Error stop_trace() { return Error::of(lethe_session_trace_stop, handle_); }

  Result<Session> fork() {  // lethe_session_fork
    Session copy;
    Error error = Error::of(lethe_session_fork, handle_, &copy.handle_);
    if (!error.ok()) return error;
    return copy;
  }
  Error save(const char* path) { return Error::of(lethe_session_save, handle_, path); }
  Error restore(const char* path) { return Error::of(lethe_session_restore, handle_, path); }

  lethe_session* handle() const { return handle_; }

 private:
  Session() = default;
  lethe_session* handle_ = nullptr;
};

}  // namespace lethe::api
