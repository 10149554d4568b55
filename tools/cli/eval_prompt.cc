#include "tools/cli/eval_prompt.h"

#include <algorithm>

#include "tools/cli/failure.h"
#include "tools/cli/kv_budget.h"

namespace lethe::cli {
namespace {

api::Session tokenizing_session(const api::Model& model, size_t text_bytes) {
  lethe_session_params params = full_cache_params(1, 1);
  params.prefill_chunk = 1;
  params.turn_bytes = static_cast<uint32_t>(std::clamp<size_t>(text_bytes, params.turn_bytes, UINT32_MAX));
  return check(api::Session::create(model, params));
}

// The ids of a call that is tried without room first.
template <typename Call>
std::vector<int32_t> all_ids(Call&& call) {
  size_t count = 0;
  if (const api::Error error = call(nullptr, 0, &count); error.code() != LETHE_ERROR_PROMPT_TOO_LONG) check(error);
  std::vector<int32_t> ids(count);
  check(call(ids.data(), ids.size(), &count));
  return ids;
}

size_t common_prefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

size_t Prompt::tokens() const {
  size_t count = ids.size();
  for (const RecallIds& recall : recalls) count += recall.cue.size() + recall.answer.size();
  return count;
}

PromptMaker::PromptMaker(const api::Model& model, size_t text_bytes)
    : has_template_(check(model.info()).has_chat_template != 0), session_(tokenizing_session(model, text_bytes)) {}

std::vector<int32_t> PromptMaker::tokenize(std::string_view text, uint32_t flags) {
  return all_ids([&](int32_t* ids, size_t capacity, size_t* count) {
    return session_.tokenize(text, flags, ids, capacity, count);
  });
}

std::vector<int32_t> PromptMaker::tokenize_turn(const std::string& text) {
  const lethe_message message{"user", text.c_str()};
  return all_ids([&](int32_t* ids, size_t capacity, size_t* count) {
    return session_.tokenize_turn(&message, 1, ids, capacity, count);
  });
}

Prompt PromptMaker::make(const eval::Sample& sample, const PromptStyle& style) {
  const bool templated = style.templated && has_template_ && sample.recalls.empty();
  const auto ids_of = [&](const std::string& text) {
    return templated ? tokenize_turn(text) : tokenize(text, LETHE_TEXT_BOS);
  };
  std::string context = sample.context;
  if (style.asked_before && !sample.question.empty()) {
    context = sample.question.substr(sample.question.find_first_not_of('\n')) + "\n\n" + context;
  }
  Prompt prompt;
  prompt.ids = ids_of(context + sample.question);
  // Where the tokens of the context alone go another way; what the template puts after it belongs to the question.
  prompt.question_at = common_prefix(prompt.ids, ids_of(context));
  std::string start = sample.reply_start;
  if (templated && start.starts_with(' ')) start.erase(0, 1);  // the first word of a turn
  for (const int32_t id : tokenize(start, 0)) prompt.ids.push_back(id);
  prompt.gold = tokenize(sample.gold, 0);
  for (const eval::Recall& recall : sample.recalls) {
    prompt.recalls.push_back({tokenize(recall.cue, 0), tokenize(recall.answer, 0)});
  }
  return prompt;
}

}  // namespace lethe::cli
