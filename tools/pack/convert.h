// Converts rows of a source's weights into panels of runtime/model/quant_format.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "tools/pack/quant_group.h"
#include "tools/pack/source.h"

namespace lethe {

// |source - stored| over the real rows of a tensor.
struct ConversionError {
  double max_abs = 0;
  double sum_of_squares = 0;
  void add(float source, float stored);
};

// Whether `source` is stored as `target` with the same quants; its scales then at most are rounded to halves.
bool is_same_format(GgmlType source, WeightFormat target);

// One tensor's rows to panels; holds one row of floats.
class PanelConverter {
 public:
  PanelConverter(const SourceTensor& source, WeightFormat target);

  // Fills one panel (panel_bytes(target, cols)) from up to 16 rows of the source, given as row numbers; rows beyond
  // them are zero. Errors: kCorruptModel (not finite; names the tensor), kUnsupported (too large for a half).
  Status convert_panel(std::span<const uint64_t> rows, uint8_t* panel);
  // A whole vector as plain floats (tensor_bytes(kF32Vector, 1, cols)).
  Status convert_vector(uint8_t* out);

  const ConversionError& error() const { return error_; }

 private:
  Status copy_groups(uint64_t row, size_t r, uint8_t* panel);
  Status read_row(uint64_t row);  // to row_, checked to be finite
  Status store_row(size_t r, uint8_t* panel);
  Status too_large() const;
  const uint8_t* row_data(uint64_t row) const;

  const SourceTensor& source_;
  WeightFormat target_;
  std::vector<float> row_;
  ConversionError error_;
};

}  // namespace lethe
