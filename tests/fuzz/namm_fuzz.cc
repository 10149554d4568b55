// Reading a NAMM file. An input stands for all of it but the checksum, which is made here. What is accepted must fill a
// scorer.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "runtime/base/hash.h"
#include "runtime/cache/namm/file.h"
#include "runtime/cache/namm/scorer.h"

using namespace lethe;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kChecksumAt = namm::kFileHeaderBytes - sizeof(uint64_t);
  std::vector<uint64_t> aligned((size + 2 * sizeof(uint64_t) - 1) / sizeof(uint64_t));
  auto* const bytes = reinterpret_cast<uint8_t*>(aligned.data());
  const size_t head = std::min(size, kChecksumAt);
  std::memcpy(bytes, data, head);
  size_t total = head;
  if (size >= kChecksumAt) {
    Hash64 hash;
    hash.update(data, size);
    const uint64_t checksum = hash.digest();
    std::memcpy(bytes + kChecksumAt, &checksum, sizeof checksum);
    std::memcpy(bytes + namm::kFileHeaderBytes, data + kChecksumAt, size - kChecksumAt);
    total = size + sizeof checksum;
  }
  const Result<namm::Parameters> parameters = namm::read_file({bytes, total});
  if (!parameters.ok()) return 0;
  if (namm::file_bytes(parameters.value().shape) != total) std::abort();
  Arena measured = Arena::measuring();
  namm::Scorer scorer;
  scorer.carve(measured, parameters.value().shape);
  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  std::vector<Line> memory(measured.used() / sizeof(Line));
  Arena arena(memory[0].bytes, measured.used());
  scorer.carve(arena, parameters.value().shape);
  if (!arena.ok()) std::abort();
  scorer.fill(parameters.value());
  return 0;
}
