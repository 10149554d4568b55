#include <cstdlib>
#include <string>

#include "tests/kernels/support.h"

namespace lethe::cpu {

// Better targets have lower bits. LETHE_TEST_TARGET names the one that must be chosen where the CPU is known, as it is
// in an emulator (tests/CMakeLists.txt).
TEST_CASE("the best target of this CPU is chosen") {
  std::string tested;
  for_each_target([&](const Kernels& kernels) { tested += std::string(" ") + kernels.name; });
  const std::string chosen = simd_kernels().name;
  MESSAGE("targets tested:", tested, "; chosen: ", chosen);
  CHECK(tested.starts_with(" " + chosen));
  if (const char* expected = std::getenv("LETHE_TEST_TARGET")) CHECK(chosen == expected);
}

}  // namespace lethe::cpu
