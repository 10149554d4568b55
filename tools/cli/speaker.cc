#include "tools/cli/speaker.h"

#include <algorithm>

#include "tools/cli/failure.h"

namespace lethe::cli {

std::string Speaker::next() {
  if (at_ >= text_.size()) at_ = 0;
  size_t end = std::min(at_ + kPieceBytes, text_.size());
  if (end < text_.size()) {
    const size_t space = text_.find_first_of(" \n", end);
    end = space == std::string::npos ? text_.size() : space;
  }
  const std::string piece = text_.substr(at_, end - at_);
  at_ = end;
  return piece.find_first_not_of(" \n") == std::string::npos ? next() : piece;
}

std::vector<float> take_turn(api::Session& session, Speaker& speaker, uint32_t reply) {
  const std::string said = speaker.next(), follows = speaker.next();
  lethe_generate_params params = api::generate_params();
  params.max_tokens = reply;
  check(session.chat(said.c_str(), [](std::string_view, int32_t) {}, params));
  std::vector<int32_t> ids(follows.size() + 1);
  size_t count = 0;
  check(session.tokenize(follows, 0, ids.data(), ids.size(), &count));
  std::vector<float> log_probs(count);
  check(session.score(ids.data(), count, 0, log_probs.data()));
  return log_probs;
}

}  // namespace lethe::cli
