#include "tools/cli/inspect_diff.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "runtime/backend/cpu/kernels.h"
#include "tools/cli/failure.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/terminal.h"

namespace lethe::cli {
namespace {

struct Difference {
  double max_abs = 0, squares = 0, other_squares = 0;
  double rms(uint64_t values) const { return std::sqrt(squares / static_cast<double>(values)); }
  // Of the difference to the weights themselves, in root mean squares; 0 when both are zero.
  double relative() const { return squares == 0 ? 0 : std::sqrt(squares / other_squares); }
};

// Reads the weights of a tensor row by row.
class Rows {
 public:
  explicit Rows(const Tensor& tensor) : tensor_(tensor), kernels_(cpu::simd_kernels()), row_(tensor.cols) {}

  const float* row(uint32_t index) {
    if (tensor_.format == WeightFormat::kF32Vector) return reinterpret_cast<const float*>(tensor_.data);
    kernels_.embed_row({tensor_.data, tensor_.format, tensor_.rows, tensor_.cols}, index, row_.data());
    return row_.data();
  }

 private:
  const Tensor& tensor_;
  cpu::Kernels kernels_;
  std::vector<float> row_;
};

Difference compare(const Tensor& a, const Tensor& b) {
  if (a.rows != b.rows || a.cols != b.cols) {
    fail(LETHE_ERROR_INVALID_ARGUMENT,
         "%s of layer %u is [%u, %u] in one file and [%u, %u] in the other: they are not the same model",
         role_name(a.role), a.layer, a.rows, a.cols, b.rows, b.cols);
  }
  Difference out;
  Rows of_a(a), of_b(b);
  for (uint32_t row = 0; row < a.rows; ++row) {
    const float *x = of_a.row(row), *y = of_b.row(row);
    for (uint32_t i = 0; i < a.cols; ++i) {
      const double difference = static_cast<double>(x[i]) - static_cast<double>(y[i]);
      out.max_abs = std::max(out.max_abs, std::abs(difference));
      out.squares += difference * difference;
      out.other_squares += static_cast<double>(y[i]) * static_cast<double>(y[i]);
    }
  }
  return out;
}

std::string short_number(double value) {
  char text[32];
  snprintf(text, sizeof text, "%.3g", value);
  return text;
}

}  // namespace

void inspect_diff(const Model& model, const Model& other, bool as_json) {
  struct Row {
    const Tensor *tensor, *counterpart;
    Difference difference;
    double rms;
  };
  std::vector<Row> rows;
  {
    Progress progress("comparing tensors", model.tensors().size());
    for (const Tensor& tensor : model.tensors()) {
      const Tensor* counterpart = other.find(tensor.role, tensor.layer);
      if (counterpart == nullptr) continue;
      const Difference difference = compare(tensor, *counterpart);
      rows.push_back({&tensor, counterpart, difference, difference.rms(uint64_t{tensor.rows} * tensor.cols)});
      progress.update(rows.size());
    }
  }
  const auto equal = static_cast<size_t>(
      std::count_if(rows.begin(), rows.end(), [](const Row& row) { return row.difference.max_abs == 0; }));
  std::vector<std::string> unmatched;
  const auto collect = [&](const Model& of, const Model& without, const char* where) {
    for (const Tensor& tensor : of.tensors()) {
      if (without.find(tensor.role, tensor.layer) != nullptr) continue;
      unmatched.push_back(std::string(role_name(tensor.role)) + " of layer " + std::to_string(tensor.layer) +
                          " is only in " + where);
    }
  };
  collect(model, other, "this file");
  collect(other, model, "the other file");

  if (as_json) {
    JsonWriter json;
    json.begin_object().member("equal", equal).key("tensors").begin_array();
    for (const Row& row : rows) {
      json.begin_object()
          .member("role", role_name(row.tensor->role))
          .member("layer", row.tensor->layer)
          .member("format", weight_format_name(row.tensor->format))
          .member("other_format", weight_format_name(row.counterpart->format))
          .member("max_abs", row.difference.max_abs)
          .member("rms", row.rms)
          .member("relative", row.difference.relative())
          .end_object();
    }
    json.end_array().key("unmatched").begin_array();
    for (const std::string& line : unmatched) json.value(line);
    json.end_array().end_object().finish();
    return;
  }
  Table table({"tensor", "layer", "this", "other", "largest", "rms", "relative"});
  for (const Row& row : rows) {
    if (row.difference.max_abs == 0) continue;
    table.row({role_name(row.tensor->role), std::to_string(row.tensor->layer), weight_format_name(row.tensor->format),
               weight_format_name(row.counterpart->format), short_number(row.difference.max_abs), short_number(row.rms),
               short_number(row.difference.relative())});
  }
  if (equal < rows.size()) table.print();
  printf("%zu of %zu tensors are equal in every weight\n", equal, rows.size());
  for (const std::string& line : unmatched) printf("%s\n", line.c_str());
}

}  // namespace lethe::cli
