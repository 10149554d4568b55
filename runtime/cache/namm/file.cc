#include "runtime/cache/namm/file.h"

#include <algorithm>
#include <cstring>

#include "runtime/base/hash.h"

namespace lethe::namm {
namespace {

constexpr char kMagic[8] = {'L', 'E', 'T', 'H', 'N', 'A', 'M', 'M'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kInputBytes = 16;

struct Header {
  char magic[8];
  uint32_t version, network, hidden, interval, rectangular, input_count;
  uint8_t inputs[kInputBytes];
  uint64_t zero, checksum;
};
static_assert(sizeof(Header) == kFileHeaderBytes && kInputKinds <= kInputBytes);

uint64_t checksum_of(const Header& header, std::span<const uint8_t> parameters) {
  Hash64 hash;
  hash.update(&header, offsetof(Header, checksum));
  hash.update(parameters.data(), parameters.size());
  return hash.digest();
}

}  // namespace

Result<Parameters> read_file(std::span<const uint8_t> file) {
  Header header;
  if (file.size() < sizeof header || std::memcmp(file.data(), kMagic, sizeof kMagic) != 0) {
    return Status::error(ErrorCode::kNotAModel, "%zu bytes are no NAMM file: it begins with LETHNAMM", file.size());
  }
  std::memcpy(&header, file.data(), sizeof header);
  if (header.version != kVersion) {
    return Status::error(ErrorCode::kNotAModel, "the NAMM file has version %u, this library reads %u", header.version,
                         kVersion);
  }
  const std::span<const uint8_t> data = file.subspan(sizeof header);
  if (data.size() % sizeof(float) != 0 || reinterpret_cast<uintptr_t>(data.data()) % alignof(float) != 0) {
    return Status::error(ErrorCode::kCorruptModel, "the NAMM file of %zu bytes does not hold whole, aligned numbers",
                         file.size());
  }
  if (checksum_of(header, data) != header.checksum) {
    return Status::error(ErrorCode::kCorruptModel, "the checksum of the NAMM file differs");
  }
  if (header.network > 0xff || header.input_count > kInputBytes || header.rectangular > 1 || header.zero != 0) {
    return Status::error(ErrorCode::kCorruptModel, "the NAMM file has network %u, %u inputs, retention %u",
                         header.network, header.input_count, header.rectangular);
  }
  Shape shape;
  shape.network = static_cast<Network>(header.network);
  shape.hidden = header.hidden;
  shape.input_count = header.input_count;
  shape.inputs = {};
  for (uint32_t i = 0; i < std::min(header.input_count, kInputKinds); ++i) {
    shape.inputs[i] = static_cast<Input>(header.inputs[i]);
  }
  const std::span<const float> flat(reinterpret_cast<const float*>(data.data()), data.size() / sizeof(float));
  Result<Parameters> parameters = view_parameters(shape, flat, header.interval, header.rectangular != 0);
  if (parameters.ok()) return parameters;
  return Status::error(ErrorCode::kCorruptModel, "NAMM file: %.200s", parameters.status().message());
}

void write_file(const Parameters& parameters, std::span<uint8_t> out) {
  const Shape& shape = parameters.shape;
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.network = static_cast<uint32_t>(shape.network);
  header.hidden = shape.hidden;
  header.interval = parameters.interval;
  header.rectangular = parameters.rectangular ? 1 : 0;
  header.input_count = shape.input_count;
  for (uint32_t i = 0; i < shape.input_count; ++i) header.inputs[i] = static_cast<uint8_t>(shape.inputs[i]);
  const std::span<uint8_t> data = out.subspan(sizeof header);
  size_t at = 0;
  for (const std::span<const float> part : {parameters.weights, parameters.means, parameters.variances}) {
    std::memcpy(data.data() + at, part.data(), part.size_bytes());
    at += part.size_bytes();
  }
  header.checksum = checksum_of(header, data);
  std::memcpy(out.data(), &header, sizeof header);
}

}  // namespace lethe::namm
