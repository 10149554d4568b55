#include "tools/cli/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "runtime/os/process.h"
#include "tools/cli/units.h"

namespace lethe::cli {

bool is_terminal(FILE* stream) { return isatty(fileno(stream)) != 0; }

bool wants_colour(FILE* stream) {
  const char* no_colour = getenv("NO_COLOR");
  return is_terminal(stream) && (no_colour == nullptr || no_colour[0] == '\0');
}

Progress::Progress(std::string label, uint64_t total)
    : label_(std::move(label)), total_(total), started_ns_(os::monotonic_ns()), shown_(is_terminal(stderr)) {
  if (shown_) update(0);
}

Progress::~Progress() {
  if (shown_) fputs("\r\033[K", stderr);
}

void Progress::update(uint64_t done, std::string_view note) {
  if (!shown_) return;
  const uint64_t now = os::monotonic_ns();
  if (drawn_ns_ != 0 && now - drawn_ns_ < 100'000'000) return;
  drawn_ns_ = now;
  if (total_ == 0) {
    fprintf(stderr, "\r\033[K%s ...", label_.c_str());
    return;
  }
  constexpr int kWidth = 30;
  const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total_));
  char bar[kWidth + 1] = {};
  for (int i = 0; i < kWidth; ++i) bar[i] = i < static_cast<int>(share * kWidth) ? '=' : ' ';
  fprintf(stderr, "\r\033[K%s [%s] %3.0f %%  %s of %s", label_.c_str(), bar, share * 100, with_separators(done).c_str(),
          with_separators(total_).c_str());
  if (!note.empty()) fprintf(stderr, "  %.*s", static_cast<int>(note.size()), note.data());
  if (share > 0.01) {
    const double left = static_cast<double>(now - started_ns_) * 1e-9 * (1 - share) / share;
    fprintf(stderr, "  %.0f s left", left);
  }
  fflush(stderr);
}

void Table::print() const {
  std::vector<size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      const int width = static_cast<int>(widths[i]);
      printf("%s%*s", i == 0 ? "" : "  ", i == 0 ? -width : width, row[i].c_str());
    }
    putchar('\n');
  }
}

}  // namespace lethe::cli
