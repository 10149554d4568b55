// Arena: carves typed arrays out of one block, or only measures how many bytes they would take.
//
// The same layout function runs twice: over Arena::measuring() when a plan is made, over the real block when it is
// carried out. So an estimate and its use cannot differ.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace lethe {

class Arena {
 public:
  // Only counts: take() returns spans over null. Never dereference them.
  static Arena measuring() { return Arena(nullptr, UINT64_MAX); }
  // Over `block` (64-byte aligned, zeroed, not owned).
  Arena(uint8_t* block, uint64_t capacity) : base_(block), capacity_(capacity) {}

  // `count` elements of T (trivially destructible), 64-byte aligned, zeroed memory not constructed. When the block is
  // exhausted: an empty span over null, and ok() is false from then on.
  template <typename T>
  std::span<T> take(uint64_t count) {
    static_assert(alignof(T) <= 64 && std::is_trivially_destructible_v<T>);
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(count, sizeof(T), &bytes) || bytes > UINT64_MAX - 63) return fail<T>();
    bytes = (bytes + 63) / 64 * 64;
    if (!ok_ || bytes > capacity_ - used_) return fail<T>();
    uint8_t* at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += bytes;
    return std::span<T>(reinterpret_cast<T*>(at), base_ == nullptr ? 0 : count);
  }

  bool ok() const { return ok_; }
  uint64_t used() const { return used_; }  // bytes, multiple of 64

 private:
  template <typename T>
  std::span<T> fail() {
    ok_ = false;
    return {};
  }

  uint8_t* base_;
  uint64_t capacity_;
  uint64_t used_ = 0;
  bool ok_ = true;
};

}  // namespace lethe
