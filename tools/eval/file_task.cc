// Reads the lines and fills the prompts; the table of tasks is in file_tasks.cc.
#include "tools/eval/file_task.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

namespace lethe::eval {
namespace {

using Json = nlohmann::json;
using Values = std::map<std::string, std::string>;  // of the places in a prompt

// Replaces every {name} of the prompt; false: there is no value of one. The question begins behind the value of
// {context} (of {input}, where the format has no other).
bool fill(std::string_view prompt, const Values& values, std::string_view long_value, FileSample& sample) {
  std::string* out = &sample.context;
  while (true) {
    const size_t open = prompt.find('{');
    out->append(prompt.substr(0, open));
    if (open == std::string_view::npos) return true;
    const size_t close = prompt.find('}', open);
    const std::string name(prompt.substr(open + 1, close - open - 1));
    const auto value = values.find(name);
    if (value == values.end()) return false;
    out->append(value->second);
    prompt.remove_prefix(close + 1);
    if (name == long_value) out = &sample.question;
  }
}

std::string text_of(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

// A list of strings or numbers, or one of them.
std::vector<std::string> list_of(const Json& value) {
  std::vector<std::string> out;
  if (value.is_array()) {
    for (const Json& item : value) out.push_back(text_of(item));
  } else if (!value.is_null()) {
    out.push_back(text_of(value));
  }
  return out;
}

// The first text that `func_N(M)` matches.
std::string function_call(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789";
  for (size_t at = text.find("func_"); at != std::string_view::npos; at = text.find("func_", at + 1)) {
    const size_t open = text.find_first_not_of(kDigits, at + 5);
    if (open == std::string_view::npos || open == at + 5 || text[open] != '(') continue;
    const size_t digits = open + (text[open + 1] == '-' ? 2 : 1);
    const size_t close = text.find_first_not_of(kDigits, digits);
    if (close == std::string_view::npos || close == digits || text[close] != ')') continue;
    return std::string(text.substr(at, close + 1 - at));
  }
  return {};
}

// "What is the largest number in the following list?" of "... The largest number of the list is:"
std::string math_question(const std::string& input) {
  const size_t begin = input.find("The "), end = input.rfind(" of");
  if (begin == std::string::npos || end == std::string::npos || end <= begin) return input;
  return "What is t" + input.substr(begin + 1, end - begin - 1) + " in the following list?";
}

bool infinitebench_sample(const FileTask& task, const Json& line, FileSample& sample) {
  const std::string input = line.at("input").get<std::string>();
  Values values = {{"context", line.at("context").get<std::string>()}, {"input", input}, {"question", input}};
  sample.answers = list_of(line.at("answer"));
  const std::vector<std::string> options = list_of(line.value("options", Json()));
  for (size_t i = 0; i < options.size() && i < 4; ++i) {
    const char letter = "ABCD"[i];
    values[std::string("OPTION_") + letter] = options[i];
    if (sample.answers.size() == 1 && sample.answers[0] == options[i]) sample.answers.emplace_back(1, letter);
  }
  const bool has_choice = std::string_view(task.prompt).find("{OPTION_") != std::string_view::npos;
  if (has_choice && sample.answers.size() != 2) return false;
  values["func_call"] = function_call(input);
  values["func"] = values["func_call"].substr(0, values["func_call"].find('('));
  values["prefix"] = math_question(input);
  return fill(task.prompt, values, "context", sample);
}

// False: the options or the answer among them are missing.
bool read_sample(const FileTask& task, const Json& line, FileSample& sample) {
  const std::string_view format = task.format;
  if (format == "infinitebench") return infinitebench_sample(task, line, sample);
  if (format == "scrolls") {
    sample.answers = list_of(line.contains("outputs") ? line["outputs"] : line.at("output"));
    return fill(task.prompt, {{"input", line.at("input").get<std::string>()}}, "input", sample);
  }
  sample.answers = list_of(line.at("answers"));
  sample.classes = list_of(line.value("all_classes", Json()));
  const Values values = {{"context", line.at("context").get<std::string>()},
                         {"input", line.at("input").get<std::string>()}};
  return fill(task.prompt, values, "context", sample);
}

}  // namespace

const FileTask* find_file_task(std::string_view format, std::string_view name) {
  for (const FileTask& task : file_tasks()) {
    if (task.format == format && task.name == name) return &task;
  }
  return nullptr;
}

Result<std::vector<FileSample>> load_samples(const FileTask& task, std::string_view jsonl) {
  std::vector<FileSample> samples;
  std::map<std::string, size_t> by_id;  // SCROLLS: further references of a sample are lines of their own
  size_t number = 0;
  while (!jsonl.empty()) {
    const size_t end = std::min(jsonl.find('\n'), jsonl.size());
    const std::string_view text = jsonl.substr(0, end);
    jsonl.remove_prefix(std::min(end + 1, jsonl.size()));
    ++number;
    if (text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    try {
      const Json line = Json::parse(text);
      FileSample sample;
      if (!read_sample(task, line, sample) || sample.answers.empty()) {
        return Status::error(ErrorCode::kInvalidArgument, "line %zu has no answer, or not the options it is one of",
                             number);
      }
      const std::string id = std::string_view(task.format) == "scrolls" ? text_of(line.value("id", Json(number))) : "";
      if (const auto known = by_id.find(id); !id.empty() && known != by_id.end()) {
        std::vector<std::string>& answers = samples[known->second].answers;
        answers.insert(answers.end(), sample.answers.begin(), sample.answers.end());
        continue;
      }
      by_id[id] = samples.size();
      samples.push_back(std::move(sample));
    } catch (const Json::exception& error) {
      return Status::error(ErrorCode::kInvalidArgument, "line %zu is no sample of %s: %.120s", number, task.format,
                           error.what());
    }
  }
  return samples;
}

}  // namespace lethe::eval
