// Ctrl-C stops the work in progress, not the program.
#pragma once

#include <csignal>

#include "lethe/lethe.hpp"

namespace lethe::cli {

// While it lives, SIGINT cancels what `session` is doing (null: it interrupts reads and interrupted() tells of it).
// Guards nest like scopes.
class InterruptGuard {
 public:
  explicit InterruptGuard(lethe_session* session);
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  ~InterruptGuard();

 private:
  struct sigaction previous_action_;
  lethe_session* previous_session_;
};

// Whether SIGINT came since the latest guard was made.
bool interrupted();

}  // namespace lethe::cli
