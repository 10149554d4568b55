// What is for people only: progress on stderr, tables on stdout, and colour, all of it only where a terminal shows it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace lethe::cli {

bool is_terminal(FILE* stream);
bool wants_colour(FILE* stream);  // a terminal, and NO_COLOR is not set

// A line "label [=====     ]  52 %  1,024 of 2,048  note  12 s left" on stderr, redrawn at most ten times a second and
// removed at the end; only "label ..." when the total is not known (0). Nothing when stderr is not a terminal.
class Progress {
 public:
  explicit Progress(std::string label, uint64_t total = 0);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();

  void update(uint64_t done, std::string_view note = {});

 private:
  std::string label_;
  uint64_t total_;
  uint64_t started_ns_, drawn_ns_ = 0;
  bool shown_;
};

// Rows of cells in aligned columns; the first column is text, the others are figures and stand at the right.
class Table {
 public:
  explicit Table(std::vector<std::string> head) : rows_{std::move(head)} {}
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  void print() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace lethe::cli
