// Traces from strangers: an error that says what is wrong, or a trace.
#include <cstring>

#include "schema/trace_generated.h"
#include "tests/trace/trace_support.h"

namespace lethe::test {
namespace {

namespace fb = fbs::trace;

template <typename Table>
std::string record(flatbuffers::FlatBufferBuilder& b, fb::Body type, flatbuffers::Offset<Table> body) {
  fb::FinishSizePrefixedRecordBuffer(b, fb::CreateRecord(b, type, body.Union()));
  std::string out(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize());
  b.Clear();
  return out;
}

std::string start(uint32_t version = 1, uint32_t layers = 2, uint32_t tags = 1) {
  flatbuffers::FlatBufferBuilder b;
  const auto names = b.CreateVectorOfStrings(std::vector<std::string>(tags, "host"));
  fb::StartBuilder builder(b);
  builder.add_version(version);
  builder.add_layers(layers);
  builder.add_kv_heads(3);
  builder.add_tags(names);
  return record(b, fb::Body::Start, builder.Finish());
}
std::string sample(uint64_t ns, const std::vector<uint64_t>& tags, const std::vector<uint32_t>& lengths,
                   uint64_t position = 5) {
  flatbuffers::FlatBufferBuilder b;
  const auto tags_at = b.CreateVector(tags);
  const auto lengths_at = b.CreateVector(lengths);
  fb::SampleBuilder builder(b);
  builder.add_ns(ns);
  builder.add_position(position);
  builder.add_tag_bytes(tags_at);
  builder.add_lengths(lengths_at);
  return record(b, fb::Body::Sample, builder.Finish());
}
std::string sample() { return sample(1, {7}, {4}); }
std::string tokens(uint32_t first, const std::vector<int32_t>& ids, const std::vector<uint8_t>& sizes,
                   const std::string& text) {
  flatbuffers::FlatBufferBuilder b;
  const auto ids_at = b.CreateVector(ids);
  const auto sizes_at = b.CreateVector(sizes);
  const auto text_at = b.CreateVector(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  return record(b, fb::Body::Tokens, fb::CreateTokens(b, first, ids_at, sizes_at, text_at));
}
std::string held(uint32_t first, const std::vector<uint8_t>& runs) {
  flatbuffers::FlatBufferBuilder b;
  const auto runs_at = b.CreateVector(runs);
  return record(b, fb::Body::Held, fb::CreateHeld(b, 1, first, runs_at));
}

void refused(const std::string& bytes, const char* part, ErrorCode code = ErrorCode::kInvalidArgument) {
  const Status status = try_trace(bytes);
  CAPTURE(part);
  CAPTURE(status.message());
  CHECK(status.code() == code);
  CHECK(std::string(status.message()).find(part) != std::string::npos);
}

TEST_CASE("trace file: what is no trace says so") {
  refused("", "no sample");
  refused("abc", "not one whole record");
  refused(std::string(1000, ' '), "impossible size");
  refused("<!doctype html><html>", "no trace at byte 0");
  refused(std::string(200, '\0'), "no record of a trace");
  refused(start(), "no sample");
  refused(sample(), "the first record is no Start");
  refused(start(2) + sample(), "version 2", ErrorCode::kUnsupported);
}

TEST_CASE("trace file: records that contradict each other are refused, with the byte") {
  const std::string good = start() + sample();
  CHECK(try_trace(good).ok());
  CHECK(try_trace(start() + sample(1, {7}, {1, 2, 3, 4, 5, 6})).ok());
  refused(start(1, 0) + sample(), "layers and heads");
  refused(start(1, 1u << 31) + sample(), "layers and heads");
  refused(start(1, 2, 0) + sample(), "no tags");
  refused(start(1, 2, 33) + sample(), "no tags");
  refused(good + start(), "a second Start");
  refused(start() + sample(1, {7, 8}, {4}), "every tag");
  refused(start() + sample(1, {7}, {4, 5}), "every list");
  refused(start() + sample(1, {7}, {4}, uint64_t{1} << 40), "position");
  refused(good + sample(0, {7}, {4}), "before the one in front");
  refused(good + tokens(0, {1, 2}, {1}, "a"), "do not agree");
  refused(good + tokens(0, {1, 2}, {1, 2}, "ab"), "do not agree");
  refused(good + held(0, {0x10}), "impossible runs");
  refused(good + held(0, {0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}), "impossible runs");
  refused(good + held(0, {0x10, 0x00}), "impossible runs");
  refused(good + held(7, {0xf3}), "do not follow");
  refused(good + held(0, {0xf3}) + held(4, {0xf3}), "do not follow");
  std::string damaged = good + sample();
  damaged[good.size() + 9] ^= 0x40;
  refused(damaged, ("damaged at byte " + std::to_string(good.size())).c_str());
}

TEST_CASE("trace file: pictures in parts, gaps and records of later versions") {
  const trace::Trace parts = read_trace_bytes(start() + sample() + held(0, {0xf3}) + held(3, {0x00, 0x90, 0x01}));
  REQUIRE(parts.held.size() == 1);
  CHECK(levels_of(parts.held[0]).size() == 3 + 144);
  const trace::Trace gap =
      read_trace_bytes(start() + sample() + tokens(100, {1, 2, 3}, {1, 1, 1}, "abc") + tokens(102, {9}, {2}, "xy") +
                       tokens(2'000'000'000, {5}, {1}, "z") + tokens(0, {}, {}, ""));
  CHECK(gap.first_token == 0);
  CHECK(gap.ids.empty());
  const trace::Trace back =
      read_trace_bytes(start() + sample() + tokens(100, {1, 2, 3}, {1, 1, 1}, "abc") + tokens(102, {9}, {2}, "xy"));
  CHECK(back.first_token == 100);
  CHECK(back.ids == Ids{1, 2, 9});
  CHECK(back.text == "abxy");
  flatbuffers::FlatBufferBuilder b;
  const std::string unknown = record(b, fb::Body(77), fb::CreateEnd(b, 1));
  CHECK(read_trace_bytes(start() + unknown + sample()).samples.size() == 1);
}

TEST_CASE("trace file: numbers of 8 bytes may lie at any multiple of 4") {
  // The vector of tags again at the end, behind 4 or 8 more bytes, and its offset changed: one of the two is odd.
  for (const size_t extra : {4u, 8u}) {
    std::string bytes = sample();
    const auto* vector = fb::GetSizePrefixedRecord(bytes.data())->body_as_Sample()->tag_bytes();
    const auto at = static_cast<size_t>(reinterpret_cast<const char*>(vector) - bytes.data());
    const std::string tags = bytes.substr(at, 4 + 8);
    size_t field = 8;  // the one offset that leads there
    for (uint32_t offset = 0;; field += 4) {
      REQUIRE(field < at);
      std::memcpy(&offset, bytes.data() + field, sizeof offset);
      if (field + offset == at) break;
    }
    bytes.append(extra, '\0');
    const auto offset = static_cast<uint32_t>(bytes.size() - field);
    std::memcpy(bytes.data() + field, &offset, sizeof offset);
    bytes += tags;
    const auto size = static_cast<uint32_t>(bytes.size() - 4);
    std::memcpy(bytes.data(), &size, sizeof size);
    CHECK(read_trace_bytes(start() + bytes).samples[0].tag_bytes[0] == 7);
  }
}

TEST_CASE("trace file: any byte may be any other") {
  const std::string good = start() + sample() + tokens(0, {1, 2}, {1, 1}, "ab") + held(0, {0xf3}) + sample();
  for (size_t at = 0; at < good.size(); ++at) {
    for (const int flip : {1, 0x80, 0xff}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ flip);
      const Status status = try_trace(bad);
      CHECK((status.ok() || status.code() == ErrorCode::kInvalidArgument || status.code() == ErrorCode::kUnsupported));
    }
  }
}

}  // namespace
}  // namespace lethe::test
