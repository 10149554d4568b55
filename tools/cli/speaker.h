// A synthetic user, who talks from a text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "lethe/lethe.hpp"

namespace lethe::cli {

inline constexpr size_t kPieceBytes = 600;  // of the text: a turn, or what is scored

// Pieces of a text one after the other, from the beginning again at its end; whole words.
class Speaker {
 public:
  explicit Speaker(const std::string& text) : text_(text) {}
  std::string next();

 private:
  const std::string& text_;
  size_t at_ = 0;
};

// One turn: a piece of the text, a reply of at most `reply` tokens, and the next piece scored as what comes after it.
// Returns the logarithm of the probability of each of that piece's tokens. Throws when a call fails.
std::vector<float> take_turn(api::Session& session, Speaker& speaker, uint32_t reply);

}  // namespace lethe::cli
