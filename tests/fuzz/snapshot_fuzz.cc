// Restoring a saved session. An input stands for all between the identity at the front and the checksum at the end,
// which are made here. What is accepted must be a working conversation.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "tests/support/snapshot_bytes.h"

using namespace lethe;
using namespace lethe::test;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Session* const session = snapshot_session();
  static const std::string prefix = [] {
    const int32_t ids[] = {1, 2, 0};
    const std::string path = temporary_path(".snapshot");
    if (!session->feed(ids).ok() || !session->save(path.c_str()).ok()) std::abort();
    const std::string valid = read_file(path);
    if (!session->restore(path.c_str()).ok()) std::abort();
    return valid.substr(0, kSnapshotPrefix);
  }();

  std::string bytes = prefix;
  bytes.append(reinterpret_cast<const char*>(data), size);
  bytes.append(sizeof(uint64_t), '\0');
  seal_snapshot(bytes);
  const int file = memfd_create("snapshot", 0);
  if (file < 0 || write(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) std::abort();
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  const Status restored = session->restore(path.c_str());
  close(file);
  if (restored.ok()) {
    const std::vector<int32_t> more(40, 1);
    (void)session->feed(more);  // damaged keys may give logits that are not finite: an error, but no crash
    StopReason reason;
    uint64_t generated;
    GenerateOptions options;
    options.max_tokens = 3;
    (void)session->generate(options, &reason, &generated);
  }
  session->reset();
  return 0;
}
