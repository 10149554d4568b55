// The model reader on any header and any tokenizer tables. An input is a header as in the file, after its length as
// u32; the rest is what follows at byte 16,384. The frame with its checksum is made here, so that the fuzzer's changes
// get past it; zeros stand for the weights, which the reader never looks at.
#include <algorithm>
#include <cstdlib>

#include "tests/support/model_bytes.h"

using namespace lethe;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kFileBytes = 128 << 10;  // holds the segments of the seeds
  uint32_t header_bytes = 0;
  if (size < sizeof header_bytes || size > kFileBytes - 2 * kSegmentAlignment) return 0;
  std::memcpy(&header_bytes, data, sizeof header_bytes);
  data += sizeof header_bytes;
  size -= sizeof header_bytes;
  const size_t used = std::min<size_t>({header_bytes, size, kSegmentAlignment - sizeof(Frame)});
  const std::vector<uint8_t> header(data, data + used);

  std::string file(kFileBytes, '\0');
  file = test::replace_header(std::move(file), header);
  std::copy(data + used, data + size, file.begin() + kSegmentAlignment);

  const test::ParsedModel model = test::parse_model(file);
  if (!model.status.ok()) return 0;
  // All that the runtime will do with a model it accepted must stay inside the file.
  uint64_t sum = 0;
  for (const Tensor& tensor : model.contents.tensors) sum += tensor.data[0] + tensor.data[tensor.bytes - 1];
  const TokenizerData& tokenizer = model.contents.tokenizer;
  for (uint32_t id = 0; id < model.contents.config.vocab; ++id) {
    for (const char c : tokenizer.token(id)) sum += static_cast<uint8_t>(c);
  }
  for (const std::string_view pattern : tokenizer.split_patterns) sum += pattern.size();
  for (const uint32_t id : tokenizer.specials) sum += tokenizer.token(id).size();
  if (sum == UINT64_MAX) std::abort();  // keeps the sum alive
  return 0;
}
