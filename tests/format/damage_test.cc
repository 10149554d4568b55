// Damaged model files: cut off anywhere, flipped anywhere. Every one must be refused or load as the same model.
#include <doctest/doctest.h>

#include "runtime/base/hash.h"
#include "tests/support/model_bytes.h"
#include "tests/support/tiny_model.h"

using namespace lethe;
using namespace lethe::test;

namespace {

const std::string& tiny_file() {
  static const std::string file = [] {
    TinyOptions options;
    options.type = GgmlType::kQ4_1;
    return read_file(tiny_model_path(options));
  }();
  return file;
}

uint64_t header_end(const std::string& file) {
  Frame frame;
  std::memcpy(&frame, file.data(), sizeof frame);
  return frame.header_offset + frame.header_bytes;
}

void set_frame(std::string* file, uint64_t header_bytes) {
  Frame frame;
  std::memcpy(&frame, file->data(), sizeof frame);
  frame.file_bytes = file->size();
  frame.header_bytes = header_bytes;
  if (header_bytes <= file->size() - sizeof frame) {
    frame.header_checksum = hash64(file->data() + sizeof frame, header_bytes);
  }
  std::memcpy(file->data(), &frame, sizeof frame);
}

ErrorCode open_code(const std::string& bytes) {
  const std::string path = temporary_path(".lethe");
  write_file(path, bytes);
  Result<Model*> model = Model::open(path.c_str());
  if (!model.ok()) return model.status().code();
  Model::close(model.value());
  return ErrorCode::kOk;
}

bool is_refusal(ErrorCode code) {
  return code == ErrorCode::kNotAModel || code == ErrorCode::kCorruptModel || code == ErrorCode::kUnsupported;
}

}  // namespace

TEST_CASE("the undamaged file loads") {
  CHECK(parse_model(tiny_file()).status.ok());
  CHECK(open_code(tiny_file()) == ErrorCode::kOk);
}

TEST_CASE("a missing file and an empty one are input errors") {
  CHECK(Model::open("/nonexistent/model.lethe").status().code() == ErrorCode::kIo);
  CHECK(open_code("") == ErrorCode::kIo);
}

TEST_CASE("a file cut off anywhere is refused") {
  const std::string& file = tiny_file();
  std::vector<size_t> lengths;
  for (size_t length = 1; length <= header_end(file) + 64; ++length) lengths.push_back(length);
  for (const SegmentEntry& segment : read_header(file).segments) {
    for (const uint64_t edge : {segment.offset, segment.offset + segment.bytes}) {
      lengths.insert(lengths.end(), {edge - 1, edge, edge + 1});
    }
  }
  size_t accepted = 0;
  for (const size_t length : lengths) {
    if (length >= file.size()) continue;
    std::string cut = file.substr(0, length);
    accepted += !is_refusal(parse_model(cut).status.code());
    if (length < sizeof(Frame)) continue;
    // The frame is made to agree, so that the checks behind it are reached.
    set_frame(&cut, header_end(file) - sizeof(Frame));
    accepted += !is_refusal(parse_model(cut).status.code());
    set_frame(&cut, cut.size() - sizeof(Frame));
    accepted += !is_refusal(parse_model(cut).status.code());
  }
  CHECK(accepted == 0);
  CHECK(open_code(file.substr(0, file.size() - 1)) == ErrorCode::kCorruptModel);
  CHECK(open_code(file.substr(0, 100)) == ErrorCode::kCorruptModel);
  CHECK(open_code(file.substr(0, 20)) == ErrorCode::kNotAModel);
}

TEST_CASE("any flip in the frame or the header is refused") {
  std::string file = tiny_file();
  size_t accepted = 0;
  for (size_t at = 0; at < header_end(tiny_file()); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      file[at] = static_cast<char>(file[at] ^ 1 << bit);
      accepted += !is_refusal(parse_model(std::string_view(file).substr(0, file.size())).status.code());
      file[at] = tiny_file()[at];
    }
    if (at == 64) file.resize(header_end(file) + kSegmentAlignment);  // the checksum decides alone: copy less
  }
  CHECK(accepted == 0);
}

TEST_CASE("flips in a header whose checksum agrees are refused or harmless") {
  std::string file = tiny_file();
  const uint64_t end = header_end(file);
  size_t loaded = 0;
  size_t refused = 0;
  for (size_t at = sizeof(Frame); at < end; ++at) {
    for (const int mask : {0x01, 0x80, 0xff}) {
      file[at] = static_cast<char>(file[at] ^ mask);
      set_frame(&file, end - sizeof(Frame));
      const ParsedModel model = parse_model(file);
      if (model.status.ok()) {
        ++loaded;  // a text, an id or a constant: what loads must still be inside the file
        for (const Tensor& t : model.contents.tensors) {
          const uint8_t* begin = model.file[0].bytes;
          CHECK(t.data >= begin);
          CHECK(t.bytes <= file.size() - static_cast<size_t>(t.data - begin));
        }
      } else {
        ++refused;
        CHECK(is_refusal(model.status.code()));
        CHECK(model.status.message()[0] != '\0');
      }
      file[at] = tiny_file()[at];
    }
  }
  CHECK(loaded > 0);
  CHECK(refused > 1000);
}

TEST_CASE("flips in the tokenizer are refused by its checksum, and never misread without it") {
  std::string file = tiny_file();
  const SegmentEntry segment = read_header(file).segments[0];
  size_t misread = 0;
  for (uint64_t at = segment.offset; at < segment.offset + segment.bytes; ++at) {
    file[at] = static_cast<char>(file[at] ^ 0xff);
    const ErrorCode code = parse_model(file).status.code();
    misread += code != ErrorCode::kOk && !is_refusal(code);
    if (at % 97 == 0) CHECK(is_refusal(open_code(file)));
    file[at] = tiny_file()[at];
  }
  CHECK(misread == 0);
}

TEST_CASE("a flip in the weights is found by the segment's checksum") {
  for (const uint32_t segment : {1u, 2u, 3u}) {
    std::string file = tiny_file();
    const SegmentEntry entry = read_header(file).segments[segment];
    file[entry.offset + entry.bytes - 1] = static_cast<char>(file[entry.offset + entry.bytes - 1] ^ 4);
    const std::string path = temporary_path(".lethe");
    write_file(path, file);
    Result<Model*> model = Model::open(path.c_str());
    REQUIRE(model.ok());
    for (uint32_t i = 0; i < model.value()->segment_count(); ++i) {
      CHECK(model.value()->verify_segment(i).code() == (i == segment ? ErrorCode::kCorruptModel : ErrorCode::kOk));
    }
    Model::close(model.value());
  }
}
