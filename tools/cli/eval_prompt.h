// From the text of a sample to the tokens that a session is fed.
#pragma once

#include <cstdint>
#include <vector>

#include "lethe/lethe.hpp"
#include "tools/eval/task.h"

namespace lethe::cli {

struct RecallIds {
  std::vector<int32_t> cue, answer;
};

struct Prompt {
  std::vector<int32_t> ids;   // all that is fed before the reply
  size_t question_at;         // those before it are the context's
  std::vector<int32_t> gold;  // the right reply
  std::vector<RecallIds> recalls;

  size_t tokens() const;  // of the prompt and the recalls
};

// How a sample becomes a prompt.
struct PromptStyle {
  bool templated;     // as the user's turn of the chat template, the reply begun as the assistant's
  bool asked_before;  // the question stands in front of the context, too
};

// Tokenises with a session of its own that has next to no cache. One thread at a time.
class PromptMaker {
 public:
  // `text_bytes`: longest text of a prompt.
  PromptMaker(const api::Model& model, size_t text_bytes);

  bool has_template() const { return has_template_; }
  // Samples with recalls are never templated: they are sequences, not requests.
  Prompt make(const eval::Sample& sample, const PromptStyle& style);
  std::vector<int32_t> tokenize(std::string_view text, uint32_t flags);

 private:
  std::vector<int32_t> tokenize_turn(const std::string& text);

  bool has_template_;
  api::Session session_;
};

}  // namespace lethe::cli
