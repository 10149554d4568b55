// Saved sessions and forks. A snapshot file is:
//   FileHeader, pinned ranges u32 [pin_count][2], list lengths u32 [layers * kv_heads], KvPool::all_absorbed(),
//   KvPool::all_list_state(), logits f32 [vocab] when there are any,
//   then for every list its blocks in order; at the end XXH64 of all before it.
// Host byte order: a snapshot belongs to the kind of machine that wrote it, and to one version of its layout.
#include <algorithm>
#include <cstring>

#include "runtime/base/hash.h"
#include "runtime/engine/session.h"
#include "runtime/os/file.h"

namespace lethe {

struct Session::SavedState {
  uint64_t position;
  uint32_t has_logits;
  uint32_t in_turn;
  Sampler::State sampler;
  uint32_t pin_count;
  uint32_t intervals;  // CacheManager::intervals
};

namespace {

constexpr char kMagic[8] = {'L', 'E', 'T', 'H', 'E', 'S', 'N', 'P'};
constexpr uint32_t kVersion = 3;

// What must be equal for a snapshot to mean the same in this session.
struct Identity {
  uint64_t model;
  uint32_t layers, kv_heads, head_dim, vocab;
  uint32_t kv_type, positions, sinks, block_bytes, hand_over, head_plan_ignored;
  char policy[32];
};

Identity identity_of(const Session& session, const KvPool& kv) {
  const ModelConfig& config = session.model().config();
  const SessionOptions& options = session.options();
  Identity identity{};
  identity.model = session.model().identity();
  identity.layers = config.layers;
  identity.kv_heads = config.kv_heads;
  identity.head_dim = config.head_dim;
  identity.vocab = config.vocab;
  identity.kv_type = static_cast<uint32_t>(options.kv_type);
  identity.positions = static_cast<uint32_t>(options.positions);
  identity.sinks = options.sinks;
  identity.block_bytes = kv.layout().block_bytes;
  identity.hand_over = static_cast<uint32_t>(options.hand_over);
  identity.head_plan_ignored = !options.head_plan && !session.model().head_plan().empty() ? 1 : 0;
  strncpy(identity.policy, options.policy->name, sizeof identity.policy - 1);
  return identity;
}

// Calls visit(block index) for every block of every list, in the order of a snapshot, until it fails.
template <typename Visit>
Status for_each_block(const KvPool& kv, Visit visit) {
  for (uint32_t layer = 0; layer < kv.layers(); ++layer) {
    for (uint32_t head = 0; head < kv.kv_heads(); ++head) {
      const KvList& list = kv.list(layer, head);
      uint32_t block = list.first_block;
      for (uint32_t i = 0; i < kv_blocks_of_tokens(list.length); ++i, block = kv.view().next[block]) {
        LETHE_RETURN_IF_ERROR(visit(block));
      }
    }
  }
  return {};
}

// Reads a mapped file front to back; never beyond its end.
class Reader {
 public:
  Reader(const uint8_t* data, uint64_t size) : data_(data), left_(size) {}
  const uint8_t* take(uint64_t bytes) {
    if (bytes > left_) return nullptr;
    const uint8_t* at = data_;
    data_ += bytes;
    left_ -= bytes;
    return at;
  }
  uint64_t left() const { return left_; }

 private:
  const uint8_t* data_;
  uint64_t left_;
};

uint32_t read_u32(const uint8_t* at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

Session::SavedState Session::saved_state() const {
  SavedState state{};
  state.position = position_;
  state.has_logits = has_logits_ ? 1 : 0;
  state.in_turn = in_turn_ ? 1 : 0;
  state.sampler = sampler_.state();
  state.pin_count = static_cast<uint32_t>(manager_.pins().ranges().size());
  state.intervals = manager_.intervals();
  return state;
}

void Session::adopt(const SavedState& state, const Sampler& sampler, const Pins& pins) {
  position_ = state.position;
  has_logits_ = state.has_logits != 0;
  in_turn_ = state.in_turn != 0;
  sampler_ = sampler;
  manager_.set_pins(pins);
  manager_.set_intervals(state.intervals);
  failed_ = false;
}

Status Session::save(const char* path) {
  LETHE_RETURN_IF_ERROR(check_usable());
  os::AtomicFile file;
  LETHE_RETURN_IF_ERROR(file.open(path));
  Hash64 hash;
  const auto write = [&](const void* data, uint64_t bytes) {
    hash.update(data, bytes);
    return file.append(data, bytes);
  };
  kv_.wipe_stale_slots();
  const Identity identity = identity_of(*this, kv_);
  const SavedState state = saved_state();
  LETHE_RETURN_IF_ERROR(write(kMagic, sizeof kMagic));
  LETHE_RETURN_IF_ERROR(write(&kVersion, sizeof kVersion));
  LETHE_RETURN_IF_ERROR(write(&identity, sizeof identity));
  LETHE_RETURN_IF_ERROR(write(&state, sizeof state));
  LETHE_RETURN_IF_ERROR(write(manager_.pins().ranges().data(), manager_.pins().ranges().size_bytes()));
  for (uint32_t layer = 0; layer < kv_.layers(); ++layer) {
    for (uint32_t head = 0; head < kv_.kv_heads(); ++head) {
      LETHE_RETURN_IF_ERROR(write(&kv_.list(layer, head).length, sizeof(uint32_t)));
    }
  }
  LETHE_RETURN_IF_ERROR(write(kv_.all_absorbed().data(), kv_.all_absorbed().size_bytes()));
  LETHE_RETURN_IF_ERROR(write(kv_.all_list_state().data(), kv_.all_list_state().size_bytes()));
  if (has_logits_) LETHE_RETURN_IF_ERROR(write(backend_.logits(0).data(), backend_.logits(0).size_bytes()));
  LETHE_RETURN_IF_ERROR(
      for_each_block(kv_, [&](uint32_t block) { return write(kv_.block(block), kv_.layout().block_bytes); }));
  const uint64_t digest = hash.digest();
  LETHE_RETURN_IF_ERROR(file.append(&digest, sizeof digest));
  return file.commit();
}

Status Session::restore(const char* path) {
  Result<os::FileMap> map = os::FileMap::open(path);
  if (!map.ok()) return map.status();
  const uint8_t* data = map.value().data();
  const uint64_t size = map.value().size();
  const auto corrupt = [&](const char* what) {
    return Status::error(ErrorCode::kCorruptSnapshot, "%.140s is no saved session: %s (%llu bytes)", path, what,
                         static_cast<unsigned long long>(size));
  };

  // All is checked before anything of this session changes.
  if (size < sizeof(uint64_t)) return corrupt("too short");
  Reader reader(data, size - sizeof(uint64_t));
  const uint8_t* magic = reader.take(sizeof kMagic);
  if (magic == nullptr || memcmp(magic, kMagic, sizeof kMagic) != 0) return corrupt("wrong identifier");
  const uint8_t* version = reader.take(sizeof kVersion);
  if (version == nullptr || read_u32(version) != kVersion) return corrupt("unknown version");
  uint64_t digest;
  memcpy(&digest, data + size - sizeof digest, sizeof digest);
  if (hash64(data, size - sizeof digest) != digest) return corrupt("the checksum differs");

  const Identity own = identity_of(*this, kv_);
  const uint8_t* identity = reader.take(sizeof own);
  if (identity == nullptr) return corrupt("too short");
  if (memcmp(identity, &own, sizeof own) != 0) {
    return Status::error(
        ErrorCode::kWrongModel,
        "%.140s was saved with another model, KV type, position mode, policy, hand over, number of sinks or use "
        "of the head plan",
        path);
  }
  SavedState state;
  const uint8_t* state_bytes = reader.take(sizeof state);
  if (state_bytes == nullptr) return corrupt("too short");
  memcpy(&state, state_bytes, sizeof state);
  if (state.position > kMaxPosition) return corrupt("impossible position");
  if (state.pin_count > Pins::kMax) return corrupt("too many pinned ranges");
  const uint8_t* pin_bytes = reader.take(state.pin_count * sizeof(TokenRange));
  const uint8_t* lengths = reader.take(uint64_t{kv_.list_count()} * sizeof(uint32_t));
  const uint8_t* absorbed = reader.take(kv_.all_absorbed().size_bytes());
  const uint8_t* list_state = reader.take(kv_.all_list_state().size_bytes());
  if (pin_bytes == nullptr || lengths == nullptr || absorbed == nullptr || list_state == nullptr) {
    return corrupt("too short");
  }
  Pins pins;
  for (uint64_t i = 0; i < state.pin_count; ++i) {
    TokenRange range;
    memcpy(&range, pin_bytes + i * sizeof range, sizeof range);
    if (range.begin >= range.end || range.end > kMaxPosition) return corrupt("impossible pinned range");
    LETHE_RETURN_IF_ERROR(pins.add(range));
  }
  LETHE_RETURN_IF_ERROR(manager_.check_pins(pins));
  Sampler sampler = sampler_;  // keeps this session's options
  LETHE_RETURN_IF_ERROR(sampler.restore(state.sampler));
  const uint8_t* logits = nullptr;
  if (state.has_logits != 0) {
    logits = reader.take(backend_.logits(0).size_bytes());
    if (logits == nullptr) return corrupt("too short");
  }
  const KvLayout& layout = kv_.layout();
  uint64_t blocks = 0;
  for (uint32_t i = 0; i < kv_.list_count(); ++i) {
    // Attention's work space is planned for lists of the pool's capacity, so no single list may be longer.
    const uint32_t length = read_u32(lengths + i * sizeof(uint32_t));
    if (length > kv_.token_capacity()) {
      return Status::error(ErrorCode::kPromptTooLong, "%.140s holds a list of %u tokens, the cache of this session %u",
                           path, length, kv_.token_capacity());
    }
    blocks += kv_blocks_of_tokens(length);
  }
  if (blocks > kv_.block_count()) {
    return Status::error(ErrorCode::kPromptTooLong, "%.140s holds %llu KV blocks, the cache of this session %u", path,
                         static_cast<unsigned long long>(blocks), kv_.block_count());
  }
  if (reader.left() != blocks * layout.block_bytes) return corrupt("its length does not match its lists");
  const uint8_t* content = reader.take(blocks * layout.block_bytes);
  const uint8_t* block_at = content;
  for (uint32_t i = 0; i < kv_.list_count(); ++i) {
    uint64_t next_position = 0;  // positions strictly increase and lie before the session's position
    const uint32_t length = read_u32(lengths + i * sizeof(uint32_t));
    for (uint32_t rank = 0; rank < length; ++rank) {
      const uint8_t* block = block_at + uint64_t{rank / kBlockSlots} * layout.block_bytes;
      const uint32_t position = read_u32(block + layout.positions_offset + rank % kBlockSlots * sizeof(uint32_t));
      if (position < next_position || position >= state.position) return corrupt("positions out of order");
      next_position = uint64_t{position} + 1;
    }
    block_at += uint64_t{kv_blocks_of_tokens(length)} * layout.block_bytes;
  }

  reset();
  for (uint32_t i = 0; i < kv_.list_count(); ++i) {
    LETHE_RETURN_IF_ERROR(
        kv_.restore(i / kv_.kv_heads(), i % kv_.kv_heads(), read_u32(lengths + i * sizeof(uint32_t))));
  }
  LETHE_RETURN_IF_ERROR(for_each_block(kv_, [&](uint32_t block) -> Status {
    memcpy(kv_.block(block), content, layout.block_bytes);
    content += layout.block_bytes;
    return {};
  }));
  if (!kv_.all_absorbed().empty()) memcpy(kv_.all_absorbed().data(), absorbed, kv_.all_absorbed().size_bytes());
  if (!kv_.all_list_state().empty()) {
    memcpy(kv_.all_list_state().data(), list_state, kv_.all_list_state().size_bytes());
  }
  if (logits != nullptr) memcpy(backend_.logits(0).data(), logits, backend_.logits(0).size_bytes());
  adopt(state, sampler, pins);
  return {};
}

Result<Session*> Session::fork() {
  if (Status status = check_usable(); !status.ok()) return status;
  // Of the same shape, so that the copy forgets as this one does, though a cap that was raised might allow more.
  SessionOptions options = options_;
  options.prefill_chunk = plan_.shape.chunk;
  options.max_tokens = plan_.shape.cache_tokens();
  Result<Session*> created = create(*model_, options);
  if (!created.ok()) return created;
  Session* copy = created.value();
  Sampler sampler = copy->sampler_;
  Status status = sampler.configure(sampler_.options());
  if (status.ok()) status = sampler.restore(sampler_.state());
  for (uint32_t i = 0; i < kv_.list_count() && status.ok(); ++i) {
    const uint32_t layer = i / kv_.kv_heads(), head = i % kv_.kv_heads();
    status = copy->kv_.restore(layer, head, kv_.list(layer, head).length);
    if (!status.ok()) break;
    uint32_t to = copy->kv_.list(layer, head).first_block, from = kv_.list(layer, head).first_block;
    for (uint32_t n = kv_blocks_of_tokens(kv_.list(layer, head).length); n > 0; --n) {
      memcpy(copy->kv_.block(to), kv_.block(from), kv_.layout().block_bytes);
      to = copy->kv_.view().next[to];
      from = kv_.view().next[from];
    }
  }
  if (!status.ok()) {
    close(copy);
    return status;
  }
  std::ranges::copy(kv_.all_absorbed(), copy->kv_.all_absorbed().begin());
  std::ranges::copy(kv_.all_list_state(), copy->kv_.all_list_state().begin());
  std::copy_n(backend_.logits(0).data(), backend_.logits(0).size(), copy->backend_.logits(0).data());
  copy->adopt(saved_state(), sampler, manager_.pins());
  return copy;
}

}  // namespace lethe
