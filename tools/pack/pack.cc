#include "tools/pack/pack.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "runtime/base/hash.h"
#include "runtime/cache/namm/file.h"
#include "runtime/model/roles.h"
#include "runtime/os/file.h"
#include "tools/pack/convert.h"
#include "tools/pack/head_plan.h"
#include "tools/pack/header.h"
#include "tools/pack/model_source.h"

namespace lethe {
namespace {

constexpr const char* kPacker = "lethe 0.1.0";

constexpr uint32_t kTokenizerSegment = 0;
constexpr uint32_t kEmbeddingSegment = 1;
constexpr uint32_t kFirstLayerSegment = 2;

WeightFormat choose_format(PackType type, GgmlType source, Role role) {
  if (role_is_vector(role)) return WeightFormat::kF32Vector;
  switch (type) {
    case PackType::kF32: return WeightFormat::kF32;
    case PackType::kF16: return WeightFormat::kF16;
    case PackType::kQ8: return WeightFormat::kQ8;
    case PackType::kQ4:
      if (role == Role::kTokenEmbedding || role == Role::kPositionEmbedding || role == Role::kOutput)
        return WeightFormat::kQ8;
      return source == GgmlType::kQ4_0 ? WeightFormat::kQ4 : WeightFormat::kQ4M;
    case PackType::kKeep: break;
  }
  switch (source) {
    case GgmlType::kF16: return WeightFormat::kF16;
    case GgmlType::kF32:
    case GgmlType::kBF16: return WeightFormat::kF32;
    default: return format_of_blocks(source);
  }
}

// A tensor with rows and columns exchanged, in `bytes`.
SourceTensor transpose(const SourceWeights& weights, const Shape& shape, std::vector<uint8_t>* bytes) {
  const SourceTensor& from = weights.tensor;
  const size_t size = ggml_block(from.type).bytes;
  bytes->resize(size_t{shape.rows} * shape.cols * size);
  uint8_t* to = bytes->data();
  for (size_t row = 0; row < shape.rows; ++row) {
    const uint8_t* at = from.data.data() + (weights.first_column + row) * size;
    for (size_t k = 0; k < shape.cols; ++k, to += size, at += from.cols * size) std::memcpy(to, at, size);
  }
  return {from.name, from.type, shape.rows, shape.cols, *bytes};
}

class Packer {
 public:
  Packer(const PackOptions& options, PackReport* report) : options_(options), report_(*report) {}

  Status run() {
    LETHE_RETURN_IF_ERROR(read_source());
    LETHE_RETURN_IF_ERROR(plan());
    LETHE_RETURN_IF_ERROR(file_.open(options_.output.c_str()));
    LETHE_RETURN_IF_ERROR(pad_to(header_end()));  // room for frame and header, written last
    LETHE_RETURN_IF_ERROR(write_segments());
    return finish();
  }

 private:
  Status read_source() {
    std::error_code ignored;  // an output that does not exist yet is not the input
    if (std::filesystem::equivalent(options_.input, options_.output, ignored)) {
      return Status::error(ErrorCode::kInvalidArgument, "the output %.150s is the input itself",
                           options_.output.c_str());
    }
    LETHE_RETURN_IF_ERROR(read_model_source(options_.input, options_.rope_scaling, &source_));
    header_.config = source_.config;
    report_.bytes_in = source_.bytes;
    report_.source_checksum = source_.checksum;
    std::span<const uint8_t> namm = options_.namm;
    if (namm.empty() && options_.namm_for) namm = options_.namm_for(header_.config);
    if (!namm.empty()) {
      header_.namm.assign(namm.begin(), namm.end());
      LETHE_RETURN_IF_ERROR(namm::read_file(namm).status());
    }
    if (!options_.head_plan.empty()) {
      LETHE_RETURN_IF_ERROR(read_head_plan(options_.head_plan, header_.config, &header_.head_plan));
    }
    return {};
  }

  // Decides format and place of everything.
  Status plan() {
    header_.tokenizer = source_.tokenizer.entry;
    header_.tokenizer.segment = kTokenizerSegment;
    header_.source = source_.name;
    header_.source_checksum = report_.source_checksum;
    header_.packer = kPacker;
    header_.options = std::string("--type ") + pack_type_name(options_.type);
    if (options_.importance != nullptr) header_.options += " --calibrate";
    if (!header_.namm.empty()) header_.options += " --namm";
    if (!options_.head_plan.empty()) header_.options += " --head-plan";
    if (options_.rope_scaling.type != RopeScaling::Type::kNone) {
      header_.options += std::string(" --rope-scaling ") + rope_scaling_option(options_.rope_scaling);
    }
    header_.segments.resize(kFirstLayerSegment + header_.config.layers);
    header_.segments[kTokenizerSegment].bytes = source_.tokenizer.segment.size();
    for (const RoleInfo& info : all_roles()) {
      if (!info.per_layer) LETHE_RETURN_IF_ERROR(plan_tensor(info.role, 0, kEmbeddingSegment));
    }
    for (uint32_t layer = 0; layer < header_.config.layers; ++layer) {
      for (const RoleInfo& info : all_roles()) {
        if (info.per_layer) LETHE_RETURN_IF_ERROR(plan_tensor(info.role, layer, kFirstLayerSegment + layer));
      }
    }
    header_bytes_ = build_header(header_).size();
    if (header_bytes_ > kMaxHeaderBytes) {
      return Status::error(ErrorCode::kUnsupported, "a header of %llu bytes is too large",
                           static_cast<unsigned long long>(header_bytes_));
    }
    uint64_t end = header_end();
    for (SegmentEntry& segment : header_.segments) {
      segment.offset = (end + kSegmentAlignment - 1) / kSegmentAlignment * kSegmentAlignment;
      end = segment.offset + segment.bytes;
    }
    return {};
  }

  Status plan_tensor(Role role, uint32_t layer, uint32_t segment) {
    const int32_t slot = role_slot(role, layer, header_.config.layers);
    const SourceWeights& weights = source_.weights[static_cast<size_t>(slot)];
    if (!weights.present()) return {};
    const SourceTensor& source = weights.tensor;
    const Shape shape = role_shape(role, header_.config);
    const WeightFormat format = choose_format(options_.type, source.type, role);
    if (is_quantised(format) && shape.cols % kGroup != 0) {
      return Status::error(ErrorCode::kUnsupported,
                           "%.60s: tensor %.100s: %u inputs are not a multiple of 32 as %s needs", weights.file.c_str(),
                           source.name.c_str(), shape.cols, weight_format_name(format));
    }
    uint64_t& used = header_.segments[segment].bytes;
    header_.tensors.push_back({role, static_cast<uint16_t>(layer), format, shape.rows, shape.cols, segment, used});
    used += tensor_bytes(format, shape.rows, shape.cols);
    total_ += uint64_t{shape.rows} * shape.cols;
    ++report_.tensors[static_cast<size_t>(format)];
    return {};
  }

  uint64_t header_end() const { return sizeof(Frame) + header_bytes_; }

  Status pad_to(uint64_t offset) {
    static constexpr uint8_t kZeros[4096] = {};
    while (file_.position() < offset) {
      LETHE_RETURN_IF_ERROR(file_.append(kZeros, std::min<uint64_t>(sizeof kZeros, offset - file_.position())));
    }
    return {};
  }

  Status write_segments() {
    auto tensor = header_.tensors.begin();
    for (uint32_t i = 0; i < header_.segments.size(); ++i) {
      SegmentEntry& segment = header_.segments[i];
      LETHE_RETURN_IF_ERROR(pad_to(segment.offset));
      hash_ = Hash64();
      if (i == kTokenizerSegment) {
        LETHE_RETURN_IF_ERROR(write(source_.tokenizer.segment));
      }
      for (; tensor != header_.tensors.end() && tensor->segment == i; ++tensor) {
        LETHE_RETURN_IF_ERROR(write_tensor(*tensor));
      }
      segment.checksum = hash_.digest();
    }
    return {};
  }

  Status write_tensor(const TensorEntry& tensor) {
    const int32_t slot = role_slot(tensor.role, tensor.layer, header_.config.layers);
    const SourceWeights& weights = source_.weights[static_cast<size_t>(slot)];
    return in_file(
        tensor.format == WeightFormat::kF32Vector ? write_vector(tensor, weights) : write_matrix(tensor, weights),
        weights.file);
  }

  Status write_vector(const TensorEntry& tensor, const SourceWeights& weights) {
    std::vector<float> source(tensor_bytes(tensor.format, 1, tensor.cols) / sizeof(float));
    PanelConverter converter(weights.tensor, tensor.format);
    LETHE_RETURN_IF_ERROR(converter.convert_vector(reinterpret_cast<uint8_t*>(source.data())));
    std::vector<float> ours(source.size());
    for (uint32_t i = 0; i < tensor.cols; ++i) {
      ours[i] = source[source_row(weights, header_.config, i)] + weights.add;
    }
    report_progress(tensor.cols);
    return write({reinterpret_cast<const uint8_t*>(ours.data()), ours.size() * sizeof(float)});
  }

  Status write_matrix(const TensorEntry& tensor, const SourceWeights& weights) {
    std::vector<uint8_t> bytes;
    const SourceTensor source =
        weights.transposed ? transpose(weights, {tensor.rows, tensor.cols}, &bytes) : weights.tensor;
    PanelConverter converter(
        source, tensor.format,
        options_.importance == nullptr ? std::span<const float>() : options_.importance->of(tensor.role, tensor.layer));
    panel_.resize(panel_bytes(tensor.format, tensor.cols));
    const uint64_t row_bytes = weights.tensor.data.size() / weights.tensor.rows;
    uint64_t unreleased = 0;  // source bytes read since pages were let go
    std::vector<uint64_t> rows;
    for (uint64_t row = 0; row < tensor.rows; row += rows.size()) {
      rows.resize(std::min<uint64_t>(kPanelRows, tensor.rows - row));
      for (size_t r = 0; r < rows.size(); ++r) rows[r] = source_row(weights, header_.config, row + r);
      LETHE_RETURN_IF_ERROR(converter.convert_panel(rows, panel_.data()));
      LETHE_RETURN_IF_ERROR(write(panel_));
      report_progress(rows.size() * tensor.cols);
      unreleased += rows.size() * row_bytes;
      if (unreleased >= kReadBytes || row + rows.size() == tensor.rows) {
        source_.release(weights.tensor.data);
        unreleased = 0;
      }
    }
    if (converter.error().max_abs > 0) {
      const double count = static_cast<double>(tensor.rows) * static_cast<double>(tensor.cols);
      report_.errors.push_back(
          {source.name, tensor.format, converter.error().max_abs, std::sqrt(converter.error().sum_of_squares / count)});
    }
    return {};
  }

  Status write(std::span<const uint8_t> bytes) {
    hash_.update(bytes.data(), bytes.size());
    return file_.append(bytes.data(), bytes.size());
  }

  void report_progress(uint64_t weights) {
    done_ += weights;
    if (options_.progress) options_.progress(done_, total_);
  }

  Status finish() {
    const std::vector<uint8_t> header = build_header(header_);
    if (header.size() != header_bytes_) {
      return Status::error(ErrorCode::kInternal, "the header has %zu bytes, %llu were planned", header.size(),
                           static_cast<unsigned long long>(header_bytes_));
    }
    const Frame frame = build_frame(header, file_.position());
    LETHE_RETURN_IF_ERROR(file_.write_at(0, &frame, sizeof frame));
    LETHE_RETURN_IF_ERROR(file_.write_at(sizeof frame, header.data(), header.size()));
    report_.bytes_out = file_.position();
    return file_.commit();
  }

  const PackOptions& options_;
  PackReport& report_;
  ModelSource source_;
  HeaderEntry header_;
  uint64_t header_bytes_ = 0;
  os::AtomicFile file_;
  Hash64 hash_;  // of the segment being written
  std::vector<uint8_t> panel_;
  uint64_t done_ = 0, total_ = 0;  // weights
};

}  // namespace

const char* pack_type_name(PackType type) {
  switch (type) {
    case PackType::kKeep: return "keep";
    case PackType::kQ4: return "q4";
    case PackType::kQ8: return "q8";
    case PackType::kF16: return "f16";
    case PackType::kF32: return "f32";
  }
  return "unknown";
}

Status pack_model(const PackOptions& options, PackReport* report) {
  const auto begin = std::chrono::steady_clock::now();
  *report = {};
  LETHE_RETURN_IF_ERROR(Packer(options, report).run());
  report->seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return {};
}

}  // namespace lethe
