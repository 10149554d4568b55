// fuzz_seeds FOLDER: writes the seeds of the fuzz targets to FOLDER/model, FOLDER/gguf, FOLDER/safetensors,
// FOLDER/namm, FOLDER/snapshot and FOLDER/trace.
#include <cstdio>

#include "tests/support/model_bytes.h"
#include "tests/support/snapshot_bytes.h"
#include "tests/support/tiny_model.h"
#include "tests/support/tiny_namm.h"
#include "tests/support/tiny_safetensors.h"

using namespace lethe;
using namespace lethe::test;

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
    return 2;
  }
  const std::string folder = argv[1];
  for (const GgmlType type :
       {GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ5_0, GgmlType::kQ5_1, GgmlType::kQ8_0, GgmlType::kF16}) {
    TinyOptions options = snapshot_model();
    options.type = type;
    options.tied = type != GgmlType::kQ4_0;
    const std::string name = ggml_type_name(type);
    write_file(folder + "/gguf/tiny-" + name, tiny_gguf(options).bytes());

    const std::string file = read_file(tiny_model_path(options));
    const std::vector<uint8_t> header = build_header(read_header(file));
    const auto length = static_cast<uint32_t>(header.size());
    std::string seed(reinterpret_cast<const char*>(&length), sizeof length);
    seed.append(header.begin(), header.end());
    seed += file.substr(kSegmentAlignment, read_header(file).segments[0].bytes);
    write_file(folder + "/model/tiny-" + name, seed);
  }
  write_file(folder + "/safetensors/tiny", tiny_safetensors());
  for (const namm::Network network : {namm::Network::kBam, namm::Network::kMlp, namm::Network::kLinear}) {
    const uint32_t hidden = network == namm::Network::kLinear ? 0 : 3;
    const std::vector<uint8_t> file = make_namm(64, {network, hidden, {namm::Input::kKeyNorm}, 1});
    const size_t checksum_at = namm::kFileHeaderBytes - sizeof(uint64_t);
    std::string seed(file.begin(), file.begin() + checksum_at);
    seed.append(file.begin() + namm::kFileHeaderBytes, file.end());
    write_file(folder + "/namm/" + namm::network_name(network), seed);
  }
  Session* session = snapshot_session();
  for (const int tokens : {3, 40, 100}) {  // half a block, two blocks, after an eviction
    session->reset();
    const std::vector<int32_t> ids(tokens, 1);
    const std::string path = temporary_path(".snapshot");
    if (!session->feed(ids).ok() || !session->save(path.c_str()).ok()) return 1;
    const std::string file = read_file(path);
    write_file(folder + "/snapshot/tokens-" + std::to_string(tokens),
               file.substr(kSnapshotPrefix, file.size() - kSnapshotPrefix - sizeof(uint64_t)));
  }
  for (const bool tokens : {false, true}) {
    session->reset();
    const std::vector<int32_t> ids(100, 1);
    const std::string path = folder + "/trace/" + (tokens ? "tokens" : "figures");
    if (!session->start_trace(path.c_str(), {.interval_ms = 0, .tokens = tokens, .library = ""}).ok()) return 1;
    if (!session->feed(ids).ok() || !session->stop_trace().ok()) return 1;
  }
  Session::close(session);
  return 0;
}
