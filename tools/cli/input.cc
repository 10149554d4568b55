#include "tools/cli/input.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "runtime/base/hash.h"
#include "runtime/base/utf8.h"
#include "runtime/os/file.h"
#include "tools/cli/failure.h"

namespace lethe::cli {

std::string read_text(const std::string& path) {
  struct Close {
    void operator()(FILE* file) const {
      if (file != stdin) fclose(file);
    }
  };
  const std::unique_ptr<FILE, Close> file(path == "-" ? stdin : fopen(path.c_str(), "rb"));
  const char* name = path == "-" ? "standard input" : path.c_str();
  if (!file) fail(LETHE_ERROR_IO, "%s cannot be opened: %s", name, strerror(errno));
  std::string text;
  // The exact size where it is known: growing would take up to three times as much for a moment.
  struct stat status{};
  if (fstat(fileno(file.get()), &status) == 0 && S_ISREG(status.st_mode)) {
    text.reserve(static_cast<size_t>(status.st_size));
  }
  char block[4096];
  for (size_t got = 0; (got = fread(block, 1, sizeof block, file.get())) > 0;) text.append(block, got);
  if (ferror(file.get()) != 0) fail(LETHE_ERROR_IO, "%s cannot be read: %s", name, strerror(errno));
  return text;
}

void write_whole(const std::string& path, const std::string& text) {
  os::AtomicFile file;
  check(file.open(path.c_str()));
  check(file.append(text.data(), text.size()));
  check(file.commit());
}

void check_text(const char* what, const std::string& text) {
  if (text.empty()) fail(LETHE_ERROR_INVALID_ARGUMENT, "%s is empty", what);
  if (const size_t at = utf8::find_invalid(text); at != text.size()) {
    fail(LETHE_ERROR_INVALID_UTF8, "%s is not UTF-8: byte 0x%02x at offset %zu of %zu", what,
         static_cast<unsigned>(static_cast<unsigned char>(text[at])), at, text.size());
  }
  if (const size_t at = text.find('\0'); at != std::string::npos) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "%s has a NUL byte at offset %zu of %zu", what, at, text.size());
  }
}

LineEnd read_line(FILE* in, size_t max_bytes, std::string& line) {
  line.clear();
  bool too_long = false;
  while (true) {
    errno = 0;
    const int c = getc(in);
    if (c == EOF && ferror(in) != 0 && errno == EINTR) {
      clearerr(in);
      return LineEnd::kInterrupted;
    }
    if (c == EOF && line.empty() && !too_long) return LineEnd::kEnd;
    if (c == EOF || c == '\n') return too_long ? LineEnd::kTooLong : LineEnd::kLine;
    if (line.size() < max_bytes) {
      line.push_back(static_cast<char>(c));
    } else {
      too_long = true;
    }
  }
}

std::string name_and_checksum(const std::string& path, const void* data, size_t bytes) {
  char sum[24];
  snprintf(sum, sizeof sum, " %016llx", static_cast<unsigned long long>(hash64(data, bytes)));
  return std::filesystem::path(path).filename().string() + sum;
}

}  // namespace lethe::cli
