#include "runtime/trace/trace_writer.h"

#include <algorithm>
#include <cstring>

#include "runtime/cache/list_reader.h"
#include "runtime/os/process.h"
#include "schema/trace_generated.h"

namespace lethe {
namespace {

using namespace fbs::trace;  // NOLINT(google-build-using-namespace)

constexpr uint32_t kVersion = 1;
constexpr uint32_t kTokens = 256;       // of a Tokens record
constexpr uint32_t kTextBytes = 2048;   // likewise
constexpr uint32_t kPieceBytes = 255;   // of one token
constexpr uint32_t kRunBytes = 2048;    // of a Held record
constexpr uint32_t kSweep = 512;        // positions that are counted together
constexpr uint32_t kMaxRunBytes = 6;    // of one run
constexpr uint32_t kFrameBytes = 1024;  // of a record: size, identifier, tables and their fields, FlatBuffers' own work
// PSS costs a walk over all pages: at most one part in 500 of the time goes there.
constexpr uint64_t kPssIntervalNs = 5'000'000'000;
constexpr uint64_t kPssShare = 500;

uint8_t held_level(uint32_t count, uint32_t lists) {
  return static_cast<uint8_t>(count == 0 ? 0 : count == lists ? 15 : 1 + 14 * uint64_t{count} / lists);
}

}  // namespace

// One record on its way into the file. FlatBuffers takes its memory from the trace's buffer: once, because no record
// outgrows it.
class TraceWriter::Record : private flatbuffers::Allocator {
 public:
  explicit Record(std::span<uint8_t> buffer) : buffer_(buffer), builder_(buffer.size(), this) {}

  flatbuffers::FlatBufferBuilder& builder() { return builder_; }
  template <typename Table>
  const Record& finish(Body type, flatbuffers::Offset<Table> body) {
    FinishSizePrefixedRecordBuffer(builder_, CreateRecord(builder_, type, body.Union()));
    return *this;
  }
  std::span<const uint8_t> bytes() const { return {builder_.GetBufferPointer(), builder_.GetSize()}; }

 private:
  uint8_t* allocate(size_t) override { return buffer_.data(); }
  void deallocate(uint8_t*, size_t) override {}

  std::span<uint8_t> buffer_;
  flatbuffers::FlatBufferBuilder builder_;
};

// ---- Life --------------------------------------------------------------------------------------------------------

void TraceWriter::carve(Arena& arena, uint64_t lists) {
  const uint64_t largest = std::max<uint64_t>(lists * sizeof(uint32_t), kTokens * 5 + kTextBytes);
  record_ = arena.take<uint8_t>((kFrameBytes + largest + 63) / 64 * 64);
  ids_ = arena.take<int32_t>(kTokens);
  sizes_ = arena.take<uint8_t>(kTokens);
  text_ = arena.take<uint8_t>(kTextBytes);
  runs_ = arena.take<uint8_t>(kRunBytes);
  counts_ = arena.take<uint32_t>(kSweep);
  cursors_ = arena.take<Cursor>(lists);
}

Status TraceWriter::start(const char* path, const TraceSubject& subject, const TraceFigures& figures,
                          const TraceOptions& options) {
  if (is_running()) return Status::error(ErrorCode::kBadState, "a trace of this session runs already: stop it first");
  if (!failure_.ok()) {
    return Status::error(ErrorCode::kBadState, "the last trace ended in an error: stop it to learn which");
  }
  LETHE_RETURN_IF_ERROR(file_.open(path));
  subject_ = subject;
  options_ = options;
  id_count_ = text_size_ = 0;
  evictions_ = pss_due_ns_ = 0;
  began_ns_ = os::monotonic_ns();
  write_start();
  sample(began_ns_, figures);
  if (is_running()) return {};
  const Status failure = failure_;
  failure_ = {};
  return failure;
}

Status TraceWriter::stop(const TraceFigures& figures) {
  if (!is_running() && failure_.ok()) return Status::error(ErrorCode::kBadState, "no trace of this session runs");
  const uint64_t now = os::monotonic_ns();
  if (is_running()) sample(now, figures);
  Record end(record_);
  append(end.finish(Body::End, CreateEnd(end.builder(), now - began_ns_)));
  file_.close();
  const Status failure = failure_;
  failure_ = {};
  return failure;
}

void TraceWriter::after_step(std::span<const int32_t> ids, uint32_t tokens, const TraceFigures& figures) {
  for (uint32_t i = 0; options_.tokens && i < tokens; ++i) {
    keep_token(figures.position - tokens + i, ids.empty() ? -1 : ids[i]);
  }
  const uint64_t now = os::monotonic_ns();
  if (now - sampled_ns_ >= uint64_t{options_.interval_ms} * 1'000'000) sample(now, figures);
}

// ---- Records -----------------------------------------------------------------------------------------------------

void TraceWriter::append(const Record& record) {
  if (!is_running()) return;
  failure_ = file_.append(record.bytes().data(), record.bytes().size());
  if (!failure_.ok()) file_.close();
}

void TraceWriter::write_start() {
  Record record(record_);
  flatbuffers::FlatBufferBuilder& b = record.builder();
  const Model& model = *subject_.model;
  flatbuffers::Offset<flatbuffers::String> names[kMemoryTagCount];
  for (int tag = 0; tag < kMemoryTagCount; ++tag) names[tag] = b.CreateString(memory_tag_name(MemoryTag(tag)));
  const auto tags = b.CreateVector(names, kMemoryTagCount);
  const auto library = b.CreateString(options_.library);
  const auto architecture = b.CreateString(model.config().name);
  const auto policy = b.CreateString(subject_.policy);
  const auto kv_type = b.CreateString(kv_type_name(subject_.kv->layout().type));
  StartBuilder start(b);
  start.add_version(kVersion);
  start.add_lethe(library);
  start.add_unix_ms(os::unix_ms());
  start.add_architecture(architecture);
  start.add_model(model.identity());
  start.add_weights_bytes(model.file_bytes());
  start.add_policy(policy);
  start.add_kv_type(kv_type);
  start.add_layers(subject_.kv->layers());
  start.add_kv_heads(subject_.kv->kv_heads());
  start.add_vocab(model.config().vocab);
  start.add_cache_tokens(subject_.cache_tokens);
  start.add_prefill_chunk(subject_.prefill_chunk);
  start.add_threads(subject_.threads);
  start.add_interval_ms(options_.interval_ms);
  start.add_has_tokens(options_.tokens);
  start.add_tags(tags);
  append(record.finish(Body::Start, start.Finish()));
}

void TraceWriter::keep_token(uint64_t position, int32_t id) {
  std::string_view piece;
  if (id >= 0) piece = subject_.model->tokenizer().token(static_cast<uint32_t>(id)).substr(0, kPieceBytes);
  if (id_count_ == kTokens || text_size_ + piece.size() > kTextBytes || position != first_id_ + id_count_) {
    write_tokens();
  }
  if (id_count_ == 0) first_id_ = position;
  std::copy(piece.begin(), piece.end(), text_.begin() + text_size_);
  text_size_ += static_cast<uint32_t>(piece.size());
  sizes_[id_count_] = static_cast<uint8_t>(piece.size());
  ids_[id_count_++] = id;
}

void TraceWriter::write_tokens() {
  if (id_count_ == 0) return;
  Record record(record_);
  flatbuffers::FlatBufferBuilder& b = record.builder();
  const auto ids = b.CreateVector(ids_.data(), id_count_);
  const auto sizes = b.CreateVector(sizes_.data(), id_count_);
  const auto text = b.CreateVector(text_.data(), text_size_);
  append(record.finish(Body::Tokens, CreateTokens(b, static_cast<uint32_t>(first_id_), ids, sizes, text)));
  id_count_ = text_size_ = 0;
}

void TraceWriter::sample(uint64_t now, const TraceFigures& figures) {
  sampled_ns_ = now;
  write_tokens();
  write_sample(now, figures);
  if (figures.cache.evictions != evictions_) write_held(now, figures.position);
  evictions_ = figures.cache.evictions;
}

void TraceWriter::write_sample(uint64_t now, const TraceFigures& figures) {
  Record record(record_);
  flatbuffers::FlatBufferBuilder& b = record.builder();
  const KvPool& kv = *subject_.kv;
  uint64_t tag_bytes[kMemoryTagCount];
  for (int tag = 0; tag < kMemoryTagCount; ++tag) tag_bytes[tag] = subject_.ledger->used(MemoryTag(tag));
  bool equal = true;
  for (uint32_t i = 0; i < kv.list_count(); ++i) {
    equal = equal && list(i).length == list(0).length;
  }
  uint32_t* lengths = nullptr;
  const uint32_t length_count = equal ? 1 : kv.list_count();
  const auto lengths_at = b.CreateUninitializedVector<uint32_t>(length_count, &lengths);
  for (uint32_t i = 0; i < length_count; ++i) lengths[i] = list(i).length;
  const auto tags_at = b.CreateVector(tag_bytes, kMemoryTagCount);
  const os::ProcessMemory memory = os::process_memory();
  const os::PageFaults faults = os::process_page_faults();
  uint64_t pss_bytes = 0;
  if (now >= pss_due_ns_) {
    pss_bytes = os::process_pss_bytes();
    pss_due_ns_ = now + std::max(kPssIntervalNs, kPssShare * (os::monotonic_ns() - now));
  }
  const EvictionReport& last = figures.cache.last;
  SampleBuilder sample(b);
  sample.add_ns(now - began_ns_);
  sample.add_position(figures.position);
  sample.add_cap_bytes(subject_.ledger->cap());
  sample.add_tag_bytes(tags_at);
  sample.add_anonymous_bytes(memory.private_bytes - memory.swapped_bytes);
  sample.add_swapped_bytes(memory.swapped_bytes);
  sample.add_file_bytes(memory.file_bytes);
  sample.add_pss_bytes(pss_bytes);
  sample.add_minor_faults(faults.minor);
  sample.add_major_faults(faults.major);
  sample.add_lengths(lengths_at);
  sample.add_prefill_tokens(figures.prefill_tokens);
  sample.add_prefill_ns(figures.prefill_ns);
  sample.add_decode_tokens(figures.decode_tokens);
  sample.add_decode_ns(figures.decode_ns);
  sample.add_evictions(figures.cache.evictions);
  sample.add_evicted_tokens(figures.cache.evicted_tokens);
  sample.add_eviction_ns(figures.cache.eviction_ns);
  if (last.began_ns > began_ns_) sample.add_last_began_ns(last.began_ns - began_ns_);
  sample.add_last_took_ns(last.ns);
  sample.add_last_lists(last.lists);
  sample.add_last_tokens(last.tokens);
  append(record.finish(Body::Sample, sample.Finish()));
}

// ---- What is still held ------------------------------------------------------------------------------------------

// What lies behind a window is dropped without a loss, so such layers say nothing about what was forgotten.
bool TraceWriter::counts_list(uint32_t index) const {
  const ModelConfig& config = subject_.model->config();
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    if (config.window_of(layer) == 0) return config.window_of(index / config.kv_heads) == 0;
  }
  return true;
}

// Puts the cursors of all lists at their beginning; returns how many lists count.
uint32_t TraceWriter::begin_sweep() {
  uint32_t counted = 0;
  for (uint32_t i = 0; i < cursors_.size(); ++i) {
    cursors_[i] = {list(i).first_block, 0};
    if (counts_list(i)) ++counted;
  }
  return counted;
}

// The lists that hold each of the positions from `first` on; call with positions in order.  counts [n]
void TraceWriter::sweep(uint64_t first, std::span<uint32_t> counts) {
  const KvPoolView view = subject_.kv->view();
  std::fill(counts.begin(), counts.end(), 0);
  for (uint32_t i = 0; i < cursors_.size(); ++i) {
    if (!counts_list(i)) continue;
    Cursor& at = cursors_[i];
    const uint32_t length = list(i).length;
    while (at.rank < length) {
      const uint32_t* positions = block_positions(view.layout, subject_.kv->block(at.block));
      uint32_t slot = at.rank % kBlockSlots;
      const uint32_t begin = at.rank - slot, end = std::min(kBlockSlots, length - begin);
      while (slot < end && positions[slot] < first + counts.size()) ++counts[positions[slot++] - first];
      at.rank = begin + slot;
      if (slot < kBlockSlots) break;
      at.block = view.next[at.block];
    }
  }
}

void TraceWriter::write_held(uint64_t now, uint64_t position) {
  uint32_t size = 0;  // of runs_
  uint64_t record_first = 0, run_first = 0;
  uint8_t run_level = 0;
  const auto flush = [&](uint64_t next_first) {
    Record record(record_);
    const auto runs = record.builder().CreateVector(runs_.data(), size);
    append(record.finish(Body::Held,
                         CreateHeld(record.builder(), now - began_ns_, static_cast<uint32_t>(record_first), runs)));
    record_first = next_first;
    size = 0;
  };
  const auto end_run = [&](uint64_t end) {
    uint64_t length = end - run_first;
    if (length == 0) return;
    if (size + kMaxRunBytes > runs_.size()) flush(run_first);
    const bool is_short = length < 16;
    runs_[size++] = static_cast<uint8_t>(run_level << 4 | (is_short ? length : 0));
    while (!is_short) {
      const bool more = length > 127;
      runs_[size++] = static_cast<uint8_t>((length & 127) | (more ? 128 : 0));
      if (!more) break;
      length >>= 7;
    }
    run_first = end;
  };
  const uint32_t lists = begin_sweep();
  for (uint64_t first = 0; first < position; first += kSweep) {
    const std::span<uint32_t> counts = counts_.first(std::min<uint64_t>(kSweep, position - first));
    sweep(first, counts);
    for (size_t i = 0; i < counts.size(); ++i) {
      const uint8_t level = held_level(counts[i], lists);
      if (level == run_level) continue;
      end_run(first + i);
      run_level = level;
    }
  }
  end_run(position);
  flush(position);
}

}  // namespace lethe
