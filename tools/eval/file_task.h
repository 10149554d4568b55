// Benchmarks whose data the user brings, one JSON object a line: LongBench, InfiniteBench, ChouBun, SCROLLS.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lethe::eval {

// One line of a file.
struct FileSample {
  std::string context, question;     // the prompt, cut behind the long text
  std::vector<std::string> answers;  // references
  std::vector<std::string> classes;  // of classification
};

struct FileTask {
  const char* format;  // "longbench", ...
  const char* name;    // as the benchmark calls the data set
  const char* prompt;  // with {context}, {input} and what else the format has; InfiniteBench's for base models
  uint32_t reply_tokens;
  bool templated;   // LongBench feeds few-shot and code tasks without the chat template
  bool first_line;  // only the first line of a reply counts
  // Up to three parts of the score of one reply against all references, 0 ... 1 each. The score of a file is the
  // geometric mean of the parts' means (SCROLLS' ROUGE), or simply the mean where there is one part.
  using Parts = std::vector<double>;
  Parts (*score)(const FileSample& sample, std::string_view reply);
};

std::span<const FileTask> file_tasks();
// Null when there is none.
const FileTask* find_file_task(std::string_view format, std::string_view name);

// kInvalidArgument with the line's number: no JSON, or a member is missing or of another type.
Result<std::vector<FileSample>> load_samples(const FileTask& task, std::string_view jsonl);

}  // namespace lethe::eval
