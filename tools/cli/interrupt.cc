#include "tools/cli/interrupt.h"

#include <atomic>

namespace lethe::cli {
namespace {

std::atomic<lethe_session*> interrupted_session{nullptr};
std::atomic<bool> interrupt_seen{false};
static_assert(std::atomic<lethe_session*>::is_always_lock_free);  // or a signal handler could not read it

extern "C" void cancel_session(int) {
  interrupt_seen.store(true);
  // Only sets an atomic flag in the session.
  if (lethe_session* session = interrupted_session.load()) lethe_session_cancel(session);
}

}  // namespace

InterruptGuard::InterruptGuard(lethe_session* session) : previous_session_(interrupted_session.exchange(session)) {
  interrupt_seen.store(false);
  struct sigaction action{};
  action.sa_handler = cancel_session;
  sigaction(SIGINT, &action, &previous_action_);  // without SA_RESTART: a read must return
}

bool interrupted() { return interrupt_seen.load(); }

InterruptGuard::~InterruptGuard() {
  sigaction(SIGINT, &previous_action_, nullptr);
  interrupted_session.store(previous_session_);
}

}  // namespace lethe::cli
