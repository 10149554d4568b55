#include "tools/cli/system_prompt.h"

#include <algorithm>
#include <vector>

#include "tools/cli/failure.h"

namespace lethe::cli {
namespace {

constexpr size_t kTemplateText = 4096;  // longest text that a chat template is taken to put around the messages

size_t most_tokens(const std::string& system) { return system.size() + kTemplateText; }

std::vector<int32_t> first_turn(api::Session& session, const std::string& system, const char* user) {
  const lethe_message messages[] = {{"system", system.c_str()}, {"user", user}};
  std::vector<int32_t> ids(most_tokens(system));
  size_t count = 0;
  check(session.tokenize_turn(messages, 2, ids.data(), ids.size(), &count));
  ids.resize(count);
  return ids;
}

}  // namespace

uint64_t pin_system_bytes(const std::string& system) { return 2 * sizeof(int32_t) * most_tokens(system); }

void pin_system(api::Session& session, const std::string& system) {
  // Where two users' texts begin to differ the system prompt has ended, whatever the template does with it.
  const std::vector<int32_t> one = first_turn(session, system, "a"), other = first_turn(session, system, "b");
  const auto differ = std::mismatch(one.begin(), one.end(), other.begin(), other.end()).first;
  if (differ != one.begin()) check(session.pin(0, static_cast<uint64_t>(differ - one.begin())));
}

}  // namespace lethe::cli
