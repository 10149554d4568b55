// Keeping the system prompt of a conversation, whatever is forgotten.
#pragma once

#include <string>

#include "lethe/lethe.hpp"

namespace lethe::cli {

// Bytes that pin_system takes meanwhile.
uint64_t pin_system_bytes(const std::string& system);

// Before the first turn, which begins with `system`: pins the tokens of that turn that come before the user's text.
void pin_system(api::Session& session, const std::string& system);

}  // namespace lethe::cli
