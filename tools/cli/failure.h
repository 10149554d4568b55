// How the tool gives up: an exception with a code and a sentence, printed once in main.cc.
#pragma once

#include <string>

#include "lethe/lethe.hpp"
#include "runtime/base/status.h"

namespace lethe::cli {

struct Failure {
  lethe_code code;
  std::string message;
};

[[noreturn]] __attribute__((format(printf, 2, 3))) void fail(lethe_code code, const char* format, ...);

// Throws a Failure when the call failed.
void check(const api::Error& error);
void check(const Status& status);
template <typename T>
T check(api::Result<T> result) {
  check(result.error());
  return std::move(result).value();
}

// Flushes what was printed; throws disk_full or io when it cannot be written.
void flush_output();

// 2 for bad arguments, 1 for all other failures.
int exit_status(lethe_code code);

// "lethe: error CODE: sentence" on stderr.
void print_error(lethe_code code, const char* message);

}  // namespace lethe::cli
