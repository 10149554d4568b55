#include "tools/eval/task.h"

#include "runtime/sample/random.h"
#include "tools/eval/task_table.h"

namespace lethe::eval {

std::span<const Task* const> tasks() {
  static constexpr const Task* kAll[] = {
      &kPasskey,        &kNumberString,   &kKvRetrieval,      &kLines,         &kHashHop,       &kMqar,
      &kNiahSingle1,    &kNiahSingle2,    &kNiahSingle3,      &kNiahMultikey1, &kNiahMultikey2, &kNiahMultikey3,
      &kNiahMultivalue, &kNiahMultiquery, &kVariableTracking, &kCommonWords,   &kFrequentWords};
  return kAll;
}

const Task* find_task(std::string_view name) {
  for (const Task* task : tasks()) {
    if (task->name == name) return task;
  }
  return nullptr;
}

uint64_t trial_seed(uint64_t seed, uint32_t trial) {
  Random random(seed);
  for (uint32_t i = 0; i < trial; ++i) random.next();
  return random.next();
}

std::optional<Sample> fit(const Task& task, Recipe recipe, const std::function<size_t(const Sample&)>& count_tokens,
                          size_t* smallest) {
  std::optional<Sample> best;
  const auto fits = [&](size_t size) {
    recipe.size = size;
    Sample sample = task.make(recipe);
    const size_t tokens = count_tokens(sample);
    if (size == 0 && smallest != nullptr) *smallest = tokens;
    if (tokens > recipe.length) return false;
    best = std::move(sample);
    return true;
  };
  if (!fits(0)) return std::nullopt;
  size_t enough = 0, too_many = 16;
  while (fits(too_many)) {
    enough = too_many;
    too_many *= 2;
  }
  while (enough + 1 < too_many) {
    const size_t middle = enough + (too_many - enough) / 2;
    (fits(middle) ? enough : too_many) = middle;
  }
  return best;
}

}  // namespace lethe::eval
