#include "runtime/cache/hand_over.h"

#include <algorithm>
#include <cmath>

#include "runtime/cache/list_reader.h"
#include "runtime/cache/store_row.h"

namespace lethe {
namespace {

constexpr float kTiny = 1e-6f;  // as MergingPress has it

bool is_kept(std::span<const uint64_t> keep, uint32_t rank) { return (keep[rank / 64] >> rank % 64 & 1) != 0; }

// mean += (x - mean) / count
void add_to_mean(float* mean, float x, float count) { *mean += (x - *mean) / count; }

void compensate(const KvPoolView& pool, const KvList& list, std::span<const uint64_t> keep, std::span<float> absorbed,
                std::span<float> work) {
  const uint32_t dim = pool.layout.head_dim;
  float* const keys = work.data();
  float* const value = keys + size_t{dim} * kBlockSlots;
  float& count = absorbed[0];
  float* const mean_key = &absorbed[1];
  float* const mean_value = mean_key + dim;
  for_each_block(pool, list, [&](const uint8_t* block, uint32_t rank, uint32_t used) {
    bool have_keys = false;
    for (uint32_t slot = 0; slot < used; ++slot) {
      if (is_kept(keep, rank + slot)) continue;
      if (!have_keys) read_keys(pool.layout, block, keys);
      have_keys = true;
      read_value(pool.layout, block, slot, value);
      ++count;
      for (uint32_t d = 0; d < dim; ++d) {
        add_to_mean(mean_key + d, keys[d * kBlockSlots + slot], count);
        add_to_mean(mean_value + d, value[d], count);
      }
    }
  });
}

// Up to a block of dropped tokens at a time looks for the survivors that are most like them.
class Merger {
 public:
  Merger(const KvPoolView& pool, const KvList& list, std::span<const uint64_t> keep, std::span<float> work)
      : pool_(pool), list_(list), keep_(keep), dim_(pool.layout.head_dim) {
    keys_ = work.data();
    victims_ = keys_ + size_t{dim_} * kBlockSlots;
    victim_values_ = victims_ + size_t{dim_} * kBlockSlots;
    value_ = victim_values_ + size_t{dim_} * kBlockSlots;
    norms_ = value_ + dim_;
    weights_ = norms_ + list.length;
  }

  void run() {
    std::fill_n(weights_, list_.length, 0.0f);
    for_each_block(pool_, list_, [&](const uint8_t* block, uint32_t rank, uint32_t used) {
      for (uint32_t slot = 0; slot < used; ++slot) {
        read_value(pool_.layout, block, slot, value_);
        norms_[rank + slot] = norm(value_);
      }
    });
    for_each_block(pool_, list_, [&](const uint8_t* block, uint32_t rank, uint32_t used) {
      bool have_keys = false;
      for (uint32_t slot = 0; slot < used; ++slot) {
        if (is_kept(keep_, rank + slot)) continue;
        if (!have_keys) read_unit_keys(block);
        have_keys = true;
        for (uint32_t d = 0; d < dim_; ++d) victims_[size_t{count_} * dim_ + d] = keys_[d * kBlockSlots + slot];
        read_value(pool_.layout, block, slot, victim_values_ + size_t{count_} * dim_);
        victim_norms_[count_] = norms_[rank + slot];
        if (++count_ == kBlockSlots) {
          merge_victims();
          have_keys = false;
        }
      }
    });
    merge_victims();
  }

 private:
  float norm(const float* x) const {
    float square = 0;
    for (uint32_t d = 0; d < dim_; ++d) square += x[d] * x[d];
    return std::sqrt(square);
  }

  // keys_ [head_dim][32]
  void read_unit_keys(const uint8_t* block) {
    float norms[kBlockSlots];
    read_keys(pool_.layout, block, keys_);
    square_norms(keys_, dim_, norms);
    for (float& n : norms) n = 1 / std::max(std::sqrt(n), kTiny);
    for (uint32_t i = 0; i < dim_ * kBlockSlots; ++i) keys_[i] *= norms[i % kBlockSlots];
  }

  void merge_victims() {
    float best[kBlockSlots];
    uint32_t best_rank[kBlockSlots] = {};
    std::fill_n(best, kBlockSlots, -2.0f);
    for_each_block(pool_, list_, [&](const uint8_t* block, uint32_t rank, uint32_t used) {
      read_unit_keys(block);
      for (uint32_t i = 0; i < count_; ++i) {
        float cosines[kBlockSlots] = {};
        for (uint32_t d = 0; d < dim_; ++d) {
          const float x = victims_[size_t{i} * dim_ + d];
          for (uint32_t slot = 0; slot < kBlockSlots; ++slot) cosines[slot] += x * keys_[d * kBlockSlots + slot];
        }
        for (uint32_t slot = 0; slot < used; ++slot) {
          if (cosines[slot] > best[i] && is_kept(keep_, rank + slot))
            best[i] = cosines[slot], best_rank[i] = rank + slot;
        }
      }
    });
    for_each_block(pool_, list_, [&](uint8_t* block, uint32_t rank, uint32_t used) {
      for (uint32_t i = 0; i < count_; ++i) {
        if (best[i] > 0 && best_rank[i] - rank < used) blend(block, rank, best_rank[i] - rank, i, best[i]);
      }
    });
    count_ = 0;
  }

  // value = (weight of what it holds * value + w * victim's value) / (both weights); at first it holds itself, once.
  void blend(uint8_t* block, uint32_t rank, uint32_t slot, uint32_t victim, float cosine) {
    const float norm_sum = victim_norms_[victim] + norms_[rank + slot] + kTiny;
    const float weight = cosine * victim_norms_[victim] / norm_sum, held = 1 + weights_[rank + slot];
    read_value(pool_.layout, block, slot, value_);
    for (uint32_t d = 0; d < dim_; ++d) {
      value_[d] = (held * value_[d] + weight * victim_values_[size_t{victim} * dim_ + d]) / (held + weight);
    }
    store_value(pool_.layout, block, slot, value_);
    weights_[rank + slot] += weight;
  }

  const KvPoolView& pool_;
  const KvList& list_;
  const std::span<const uint64_t> keep_;
  const uint32_t dim_;
  float* keys_;           // [head_dim][32] of a block, unit length
  float* victims_;        // [32][head_dim] keys, unit length
  float* victim_values_;  // [32][head_dim]
  float* value_;          // [head_dim]
  float* norms_;          // [list.length] of values, before anything is blended
  float* weights_;        // [list.length] that survivors took in
  float victim_norms_[kBlockSlots];
  uint32_t count_ = 0;  // victims
};

}  // namespace

size_t hand_over_work_floats(HandOver kind, uint32_t head_dim, uint32_t longest) {
  if (kind == HandOver::kCompensation) return size_t{head_dim} * (kBlockSlots + 1);
  return kind == HandOver::kMerge ? size_t{head_dim} * (3 * kBlockSlots + 1) + 2 * size_t{longest} : 0;
}

void hand_over(HandOver kind, const KvPoolView& pool, const KvList& list, std::span<const uint64_t> keep,
               std::span<float> absorbed, std::span<float> work) {
  if (kind == HandOver::kCompensation) compensate(pool, list, keep, absorbed, work);
  if (kind == HandOver::kMerge) Merger(pool, list, keep, work).run();
}

}  // namespace lethe
