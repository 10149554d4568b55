// Scores the tokens of a list by the parameters of a NAMM: reads the inputs, runs the network. docs/namm.md.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/cache/namm/features.h"
#include "runtime/cache/namm/network.h"
#include "runtime/memory/arena.h"

namespace lethe::namm {

// Parameters as they are computed with. Constant once filled, so that any number of threads may score. Owns nothing.
class Scorer {
 public:
  // Takes the arrays from `arena`, or measures them; the shape has been checked.
  void carve(Arena& arena, const Shape& shape);
  void fill(const Parameters& parameters);  // of the same shape; they are not needed afterwards

  const Shape& shape() const { return shape_; }

  // Floats of work space to score a list of `tokens` tokens.
  static size_t work_floats(const Shape& shape, size_t tokens, size_t head_dim) {
    return feature_floats(tokens, shape.width()) + feature_block_floats(head_dim);
  }

  // Whoever scores 0 or more is wanted. The newest token always is: its score is the largest number. Of a list that is
  // not empty; its state was written by observer_of(shape().state_parts()).
  //   work [work_floats], scores [list.length]
  void score(const KvPoolView& pool, const KvList& list, std::span<float> work, std::span<float> scores) const;

 private:
  Shape shape_;
  FoldedBam bam_;
  PaddedMlp mlp_;
  Linear linear_;
  std::span<float> means_, inverse_deviations_;  // [moments]
};

}  // namespace lethe::namm
