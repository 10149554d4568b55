// Converts rows of a source's weights into panels of runtime/model/quant_format.h.
#pragma once

#include <array>
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
  void add(const ConversionError& other);
};

// Whether `source` is stored as `target` with the same quants; its scales then at most are rounded to halves.
bool is_same_format(GgmlType source, WeightFormat target);

// One tensor's rows to panels; holds the floats of up to 16 rows. Rows are quantised on several threads, which changes
// neither the panel nor the error.
class PanelConverter {
 public:
  // `importance` of the inputs [cols], for kQ4M; empty: all alike. It and `source` must outlive the converter.
  PanelConverter(const SourceTensor& source, WeightFormat target, std::span<const float> importance = {});

  // Fills one panel (panel_bytes(target, cols)) from up to 16 rows of the source, given as row numbers; rows beyond
  // them are zero. Errors: kCorruptModel (not finite; names the tensor), kUnsupported (too large for a half).
  Status convert_panel(std::span<const uint64_t> rows, uint8_t* panel);
  // A whole vector as plain floats (tensor_bytes(kF32Vector, 1, cols)).
  Status convert_vector(uint8_t* out);

  const ConversionError& error() const { return error_; }

 private:
  // One row on its way.
  struct Row {
    std::vector<float> weights;
    ConversionError error;
    Status status;
  };
  Status convert_row(uint64_t row, size_t r, Row* out, uint8_t* panel) const;
  Status copy_groups(uint64_t row, size_t r, Row* out, uint8_t* panel) const;
  Status read_row(uint64_t row, Row* out) const;  // to weights, checked to be finite
  Status store_row(size_t r, Row* from, uint8_t* panel) const;
  Status too_large() const;
  const uint8_t* row_data(uint64_t row) const;

  const SourceTensor& source_;
  WeightFormat target_;
  size_t cols_;
  std::span<const float> importance_;
  std::array<Row, kPanelRows> rows_;
  ConversionError error_;
};

}  // namespace lethe
