#include "tools/cli/failure.h"

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace lethe::cli {

void fail(lethe_code code, const char* format, ...) {
  char message[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  throw Failure{code, message};
}

void check(const api::Error& error) {
  if (!error.ok()) throw Failure{error.code(), error.message()};
}

void check(const Status& status) {
  if (!status.ok()) throw Failure{static_cast<lethe_code>(status.code()), status.message()};
}

void flush_output() {
  errno = 0;
  if (fflush(stdout) == 0 && ferror(stdout) == 0) return;
  fail(errno == ENOSPC ? LETHE_ERROR_DISK_FULL : LETHE_ERROR_IO, "the output could not be written%s%s",
       errno == 0 ? "" : ": ", errno == 0 ? "" : strerror(errno));
}

int exit_status(lethe_code code) { return code == LETHE_ERROR_INVALID_ARGUMENT ? 2 : 1; }

void print_error(lethe_code code, const char* message) {
  fprintf(stderr, "lethe: error %s: %s\n", lethe_code_name(code), message);
}

}  // namespace lethe::cli
