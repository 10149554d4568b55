#include "runtime/recurrent/recurrent_states.h"

#include <algorithm>
#include <type_traits>

#include "runtime/base/hash.h"

namespace lethe {

Status check_recurrent_heads(const RecurrentHeads& heads) {
  const auto check = [](const char* name, uint32_t value, uint32_t least, uint32_t most) -> Status {
    if (value >= least && value <= most) return {};
    return Status::error(ErrorCode::kInvalidArgument, "%s of recurrent heads is %u: %u to %u", name, value, least,
                         most);
  };
  LETHE_RETURN_IF_ERROR(check("kind", static_cast<uint32_t>(heads.kind), 0, 2));
  LETHE_RETURN_IF_ERROR(check("state type", static_cast<uint32_t>(heads.state_type), 0, 1));
  LETHE_RETURN_IF_ERROR(check("number", heads.count, 1, kMaxRecurrentHeads));
  LETHE_RETURN_IF_ERROR(check("key_dim", heads.key_dim, 1, kMaxRecurrentDim));
  LETHE_RETURN_IF_ERROR(check("value_dim", heads.value_dim, 1, kMaxRecurrentDim));
  if (heads.conv_channels == 0) return check("conv_taps without channels", heads.conv_taps, 0, 0);
  LETHE_RETURN_IF_ERROR(check("conv_channels", heads.conv_channels, 1, kMaxConvChannels));
  return check("conv_taps", heads.conv_taps, 2, kMaxConvTaps);
}

Status RecurrentStates::carve(Arena& arena, std::span<const RecurrentHeads> layers, uint32_t checkpoints) {
  layers_ = arena.take<RecurrentHeads>(layers.size());
  offsets_ = arena.take<uint64_t>(layers.size());
  kept_tokens_ = arena.take<uint64_t>(checkpoints);
  bytes_ = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    LETHE_RETURN_IF_ERROR(check_recurrent_heads(layers[i]));
    if (!layers_.empty()) layers_[i] = layers[i];
    if (!offsets_.empty()) offsets_[i] = bytes_;
    bytes_ += recurrent_layout(layers[i]).bytes;  // below 2^43 a layer
  }
  live_ = arena.take<uint8_t>(bytes_);
  uint64_t kept_bytes = 0;
  if (__builtin_mul_overflow(bytes_, uint64_t{checkpoints}, &kept_bytes)) kept_bytes = UINT64_MAX;
  kept_ = arena.take<uint8_t>(kept_bytes);
  if (!arena.ok()) {
    return Status::error(ErrorCode::kInternal, "recurrent states of %llu bytes do not fit their arena",
                         static_cast<unsigned long long>(bytes_));
  }
  reset();
  return {};
}

RecurrentView RecurrentStates::view(uint32_t layer) const {
  return {layers_[layer], recurrent_layout(layers_[layer]), live_.data() + offsets_[layer]};
}

void RecurrentStates::reset() {
  std::fill(live_.begin(), live_.end(), uint8_t{0});
  next_ = count_ = 0;
}

// Of the age-th latest checkpoint, the latest being 0.
uint32_t RecurrentStates::slot(uint32_t age) const {
  const auto slots = static_cast<uint32_t>(kept_tokens_.size());
  return (next_ + slots - 1 - age) % slots;
}

void RecurrentStates::keep(uint64_t tokens) {
  if (kept_tokens_.empty()) return;
  for (; count_ > 0 && kept_tokens_[slot(0)] >= tokens; --count_) next_ = slot(0);
  kept_tokens_[next_] = tokens;
  std::copy(live_.begin(), live_.end(), checkpoint(next_).begin());
  next_ = (next_ + 1) % static_cast<uint32_t>(kept_tokens_.size());
  count_ = std::min(count_ + 1, static_cast<uint32_t>(kept_tokens_.size()));
}

uint64_t RecurrentStates::rewind(uint64_t tokens) {
  for (; count_ > 0 && kept_tokens_[slot(0)] > tokens; --count_) next_ = slot(0);
  if (count_ == 0) {
    reset();
    return 0;
  }
  const std::span<const uint8_t> from = checkpoint(slot(0));
  std::copy(from.begin(), from.end(), live_.begin());
  return kept_tokens_[slot(0)];
}

Status RecurrentStates::copy_from(const RecurrentStates& other) {
  if (!std::equal(layers_.begin(), layers_.end(), other.layers_.begin(), other.layers_.end()) ||
      kept_tokens_.size() != other.kept_tokens_.size()) {
    return Status::error(ErrorCode::kInternal, "recurrent states of %u layers copied from other ones of %u", layers(),
                         other.layers());
  }
  std::copy(other.live_.begin(), other.live_.end(), live_.begin());
  std::copy(other.kept_.begin(), other.kept_.end(), kept_.begin());
  std::copy(other.kept_tokens_.begin(), other.kept_tokens_.end(), kept_tokens_.begin());
  next_ = other.next_;
  count_ = other.count_;
  return {};
}

uint64_t RecurrentStates::signature() const {
  static_assert(std::has_unique_object_representations_v<RecurrentHeads>);
  return hash64(layers_.data(), layers_.size_bytes());
}

Status RecurrentStates::load(std::span<const uint8_t> saved) {
  if (saved.size() != live_.size()) {
    return Status::error(ErrorCode::kCorruptSnapshot, "recurrent states of %zu bytes, this session has %zu",
                         saved.size(), live_.size());
  }
  reset();
  std::copy(saved.begin(), saved.end(), live_.begin());
  return {};
}

}  // namespace lethe
