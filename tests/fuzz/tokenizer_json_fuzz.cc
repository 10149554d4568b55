// Any bytes as tokenizer.json.
#include "tests/fuzz/tokenizer_check.h"
#include "tools/pack/tokenizer_files.h"

using namespace lethe;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  TokenizerSource source;
  if (!read_tokenizer_json({reinterpret_cast<const char*>(data), size}, 4096, &source).ok()) return 0;
  test::check_tokenizer(source, test::text_for(source));
  return 0;
}
