#include "tools/trace/trace_file.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "schema/trace_generated.h"

namespace lethe::trace {
namespace {

namespace fb = fbs::trace;

constexpr uint32_t kVersion = 1;
constexpr uint32_t kMaxRecordBytes = 16 << 20;
constexpr uint32_t kMaxLists = 1 << 20;
constexpr uint32_t kMaxTags = 32;
constexpr uint64_t kMaxPosition = uint64_t{1} << 31;

using Bytes = flatbuffers::Vector<uint8_t>;

std::string text_of(const flatbuffers::String* text) { return text == nullptr ? std::string() : text->str(); }

// Copied as bytes: the verifier does not look at the alignment of elements of 8 bytes.
template <typename T>
std::vector<T> vector_of(const flatbuffers::Vector<T>* values) {
  std::vector<T> out(values == nullptr ? 0 : values->size());
  if (!out.empty()) std::memcpy(out.data(), values->Data(), out.size() * sizeof(T));
  return out;
}

// Positions that the runs stand for; 0 when they are damaged or there are none.
uint64_t positions_of(std::span<const uint8_t> runs) {
  uint64_t total = 0;
  for (size_t at = 0; at < runs.size();) {
    uint64_t length = runs[at++] & 15;
    for (uint32_t shift = 0; length == 0 || shift != 0; shift += 7) {
      if (at == runs.size() || shift > 28) return 0;
      const uint8_t byte = runs[at++];
      length |= uint64_t{byte & 127u} << shift;
      if (byte < 128) break;
    }
    total += length;
    if (length == 0 || total > kMaxPosition) return 0;
  }
  return total;
}

// Adds the records of a file, one by one, to a trace.
class Builder {
 public:
  explicit Builder(Trace& trace) : trace_(trace) {}

  bool started() const { return lists_ != 0; }

  // Null, or what is wrong with the record.
  const char* add(const fb::Record& record) {
    if (const fb::Start* start = record.body_as_Start()) return add(*start);
    if (!started()) return "the first record is no Start";
    if (const fb::Sample* sample = record.body_as_Sample()) return add(*sample);
    if (const fb::Tokens* tokens = record.body_as_Tokens()) return add(*tokens);
    if (const fb::Held* held = record.body_as_Held()) return add(*held);
    trace_.ended = trace_.ended || record.body_as_End() != nullptr;
    return nullptr;  // of a later writer: skipped
  }

 private:
  const char* add(const fb::Start& start) {
    if (started()) return "a second Start";
    const uint64_t lists = uint64_t{start.layers()} * start.kv_heads();
    if (lists == 0 || lists > kMaxLists) return "an impossible number of layers and heads";
    if (start.tags() == nullptr || start.tags()->size() == 0 || start.tags()->size() > kMaxTags) return "no tags";
    for (const flatbuffers::String* tag : *start.tags()) trace_.tags.push_back(text_of(tag));
    lists_ = static_cast<uint32_t>(lists);
    trace_.library = text_of(start.lethe());
    trace_.architecture = text_of(start.architecture());
    trace_.policy = text_of(start.policy());
    trace_.kv_type = text_of(start.kv_type());
    trace_.unix_ms = start.unix_ms();
    trace_.model = start.model();
    trace_.weights_bytes = start.weights_bytes();
    trace_.layers = start.layers();
    trace_.kv_heads = start.kv_heads();
    trace_.vocab = start.vocab();
    trace_.cache_tokens = start.cache_tokens();
    trace_.prefill_chunk = start.prefill_chunk();
    trace_.threads = start.threads();
    trace_.interval_ms = start.interval_ms();
    return nullptr;
  }

  const char* add(const fb::Sample& sample) {
    Sample out{.ns = sample.ns(),
               .position = sample.position(),
               .cap_bytes = sample.cap_bytes(),
               .tag_bytes = vector_of(sample.tag_bytes()),
               .anonymous_bytes = sample.anonymous_bytes(),
               .swapped_bytes = sample.swapped_bytes(),
               .file_bytes = sample.file_bytes(),
               .pss_bytes = sample.pss_bytes(),
               .minor_faults = sample.minor_faults(),
               .major_faults = sample.major_faults(),
               .lengths = vector_of(sample.lengths()),
               .prefill_tokens = sample.prefill_tokens(),
               .prefill_ns = sample.prefill_ns(),
               .decode_tokens = sample.decode_tokens(),
               .decode_ns = sample.decode_ns(),
               .evictions = sample.evictions(),
               .evicted_tokens = sample.evicted_tokens(),
               .eviction_ns = sample.eviction_ns(),
               .last_began_ns = sample.last_began_ns(),
               .last_took_ns = sample.last_took_ns(),
               .last_tokens = sample.last_tokens(),
               .last_lists = sample.last_lists()};
    if (out.tag_bytes.size() != trace_.tags.size()) return "not one number for every tag";
    if (out.lengths.size() == 1) out.lengths.resize(lists_, out.lengths[0]);
    if (out.lengths.size() != lists_) return "not one length for every list";
    if (out.position > kMaxPosition) return "an impossible position";
    if (!trace_.samples.empty() && out.ns < trace_.samples.back().ns) return "a sample before the one in front of it";
    trace_.samples.push_back(std::move(out));
    return nullptr;
  }

  const char* add(const fb::Tokens& tokens) {
    const size_t count = tokens.ids() == nullptr ? 0 : tokens.ids()->size();
    const size_t sizes = tokens.sizes() == nullptr ? 0 : tokens.sizes()->size();
    const Bytes* text = tokens.text();
    const size_t bytes = sizes == 0 ? 0 : std::accumulate(tokens.sizes()->begin(), tokens.sizes()->end(), size_t{0});
    if (count != sizes || bytes != (text == nullptr ? 0 : text->size())) return "tokens and text that do not agree";
    keep_tokens_before(tokens.first());
    for (size_t i = 0; i < count; ++i) {
      trace_.ids.push_back(tokens.ids()->Get(static_cast<uint32_t>(i)));
      trace_.sizes.push_back(tokens.sizes()->Get(static_cast<uint32_t>(i)));
    }
    if (bytes != 0) trace_.text.append(reinterpret_cast<const char*>(text->data()), bytes);
    return nullptr;
  }

  // A conversation that was reset, or replaced by another, goes on elsewhere.
  void keep_tokens_before(uint64_t position) {
    const uint64_t end = trace_.first_token + trace_.ids.size();
    size_t keep = 0;
    if (position < trace_.first_token || position > end) {
      trace_.first_token = position;
    } else {
      keep = position - trace_.first_token;
    }
    trace_.text.resize(trace_.text.size() -
                       std::accumulate(trace_.sizes.begin() + keep, trace_.sizes.end(), size_t{0}));
    trace_.ids.resize(keep);
    trace_.sizes.resize(keep);
  }

  const char* add(const fb::Held& held) {
    const std::vector<uint8_t> runs = vector_of(held.runs());
    const uint64_t positions = positions_of(runs);
    if (positions == 0 && !runs.empty()) return "impossible runs of positions";
    if (held.first() == 0) {
      if (!trace_.held.empty() && held.ns() < trace_.held.back().ns) return "a picture before the one in front of it";
      trace_.held.push_back({held.ns(), {}});
      held_positions_ = 0;
    }
    if (trace_.held.empty() || held.first() != held_positions_ || held_positions_ + positions > kMaxPosition) {
      return "runs of positions that do not follow those in front of them";
    }
    held_positions_ += positions;
    std::vector<uint8_t>& all = trace_.held.back().runs;
    all.insert(all.end(), runs.begin(), runs.end());
    return nullptr;
  }

  Trace& trace_;
  uint32_t lists_ = 0;
  uint64_t held_positions_ = 0;  // of the last picture
};

}  // namespace

uint64_t Sample::ledger_bytes() const { return std::accumulate(tag_bytes.begin(), tag_bytes.end(), uint64_t{0}); }

const Sample& Trace::peak() const {
  return *std::max_element(samples.begin(), samples.end(),
                           [](const Sample& a, const Sample& b) { return a.private_bytes() < b.private_bytes(); });
}

Status read_trace(std::span<const uint8_t> file, Trace* out) {
  *out = {};
  Builder builder(*out);
  std::vector<uint64_t> record;  // aligned, as FlatBuffers wants it
  for (size_t at = 0; at < file.size();) {
    const size_t left = file.size() - at;
    flatbuffers::uoffset_t body = 0;
    if (left >= sizeof body) std::memcpy(&body, file.data() + at, sizeof body);
    const size_t bytes = sizeof body + body;
    const auto refuse = [&](const char* what) {
      return Status::error(ErrorCode::kInvalidArgument, "%s at byte %zu: %s",
                           builder.started() ? "damaged" : "no trace", at, what);
    };
    if (left >= sizeof body && body > kMaxRecordBytes) return refuse("a record of an impossible size");
    if (left < sizeof body || left < bytes) {
      if (!builder.started()) return refuse("not one whole record");
      out->lost_bytes = left;
      break;
    }
    record.assign((bytes + 7) / 8, 0);
    std::memcpy(record.data(), file.data() + at, bytes);
    const auto* data = reinterpret_cast<const uint8_t*>(record.data());
    flatbuffers::Verifier verifier(data, bytes);
    // A buffer without the identifier is too short to ask for it.
    if (bytes < 12 || !fb::VerifySizePrefixedRecordBuffer(verifier)) return refuse("no record of a trace");
    const fb::Record& read = *fb::GetSizePrefixedRecord(data);
    if (const fb::Start* start = read.body_as_Start(); start != nullptr && start->version() > kVersion) {
      return Status::error(ErrorCode::kUnsupported, "a trace of version %u: this program reads up to %u",
                           start->version(), kVersion);
    }
    if (const char* wrong = builder.add(read)) return refuse(wrong);
    at += bytes;
  }
  if (out->samples.empty()) return Status::error(ErrorCode::kInvalidArgument, "no trace: there is no sample in it");
  return {};
}

}  // namespace lethe::trace
