// Status and Result: how every function of the library reports failure. No exceptions, no aborts, no allocation.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <new>
#include <type_traits>
#include <utility>

namespace lethe {

// Pinned: these numbers are the C ABI's (include/lethe/lethe.h asserts the equality). Never renumber; append only.
enum class ErrorCode : int32_t {
  kOk = 0,
  // 1-9: the caller
  kInvalidArgument = 1,  // an option or pointer is impossible; the sentence names it
  kInvalidUtf8 = 2,      // text input is not UTF-8; the sentence gives the byte offset
  kPromptTooLong = 3,    // the prompt cannot fit the cache with this policy and cap
  kBadState = 4,         // the session failed before and was not reset, or is in use by another thread
  kCancelled = 5,        // lethe_session_cancel was called
  kTemplate = 6,         // the model's chat template is damaged or refused the messages
  // 20-29: resources
  kRamTooSmall = 20,  // the cap cannot hold the plan; the sentence gives the smallest that can
  kOutOfMemory = 21,  // the operating system refused memory within the cap
  kKvFull = 22,       // policy `full`: the cache is full
  kIo = 23,           // open, read, write, map or rename failed
  kDiskFull = 24,     // no space while writing; nothing was left behind
  kThread = 25,       // a thread could not be created
  // 40-49: files
  kNotAModel = 40,        // wrong identifier or version
  kCorruptModel = 41,     // an offset, size, shape or checksum of the model file is wrong
  kUnsupported = 42,      // a valid file that asks for something this version does not have
  kCorruptSnapshot = 43,  // a saved session is damaged
  kWrongModel = 44,       // a saved session belongs to another model or other options
  // 60-69: ours
  kInternal = 60,  // a bug in Lethe
};

// A code and one sentence with the numbers. Trivially copyable; the message lives inside (no heap).
class [[nodiscard]] Status {
 public:
  Status() : code_(ErrorCode::kOk) { message_[0] = '\0'; }

  __attribute__((format(printf, 2, 3))) static Status error(ErrorCode code, const char* format, ...) {
    Status status;
    status.code_ = code;
    va_list args;
    va_start(args, format);
    vsnprintf(status.message_, sizeof status.message_, format, args);
    va_end(args);
    return status;
  }

  bool ok() const { return code_ == ErrorCode::kOk; }
  ErrorCode code() const { return code_; }
  const char* message() const { return message_; }

  Status(const Status& other) : code_(other.code_) { copy_message(other); }
  Status& operator=(const Status& other) {
    code_ = other.code_;
    copy_message(other);
    return *this;
  }

 private:
  void copy_message(const Status& other) {
    if (ok()) {
      message_[0] = '\0';
    } else {
      __builtin_memcpy(message_, other.message_, sizeof message_);
    }
  }

  ErrorCode code_;
  char message_[252];  // only the part up to NUL means anything
};

// A value or a Status that is not ok. Move-only when T is.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : has_value_(true) { new (&value_) T(std::move(value)); }  // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(status), has_value_(false) {}              // NOLINT(google-explicit-constructor)
  Result(Result&& other) noexcept : status_(other.status_), has_value_(other.has_value_) {
    if (has_value_) new (&value_) T(std::move(other.value_));
  }
  Result(const Result&) = delete;
  Result& operator=(const Result&) = delete;
  Result& operator=(Result&&) = delete;
  ~Result() {
    if (has_value_) value_.~T();
  }

  bool ok() const { return has_value_; }
  const Status& status() const { return status_; }
  // Requires ok().
  T& value() & { return value_; }
  const T& value() const& { return value_; }
  T&& value() && { return std::move(value_); }

 private:
  Status status_;
  union {
    T value_;
  };
  bool has_value_;
};

}  // namespace lethe

// Returns from the enclosing function when `expr` (a Status) is not ok.
#define LETHE_RETURN_IF_ERROR(expr)                                                        \
  do {                                                                                     \
    if (::lethe::Status lethe_status_ = (expr); !lethe_status_.ok()) return lethe_status_; \
  } while (false)
