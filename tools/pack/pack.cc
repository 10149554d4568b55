#include "tools/pack/pack.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <system_error>

#include "runtime/base/hash.h"
#include "runtime/model/roles.h"
#include "runtime/os/file.h"
#include "tools/pack/convert.h"
#include "tools/pack/gguf.h"
#include "tools/pack/header.h"
#include "tools/pack/llama.h"
#include "tools/pack/tokenizer.h"

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
      if (role == Role::kTokenEmbedding || role == Role::kOutput) return WeightFormat::kQ8;
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

// The source's tensor for every role of every layer, checked against the architecture. `by_slot` as role_slot says.
Status match_tensors(const GgufFile& file, const ModelConfig& config, std::vector<const SourceTensor*>* by_slot) {
  by_slot->assign(role_slot_count(config.layers), nullptr);
  for (const SourceTensor& tensor : file.tensors()) {
    const char* name = tensor.name.c_str();
    Role role;
    uint32_t layer = 0;
    const bool known = parse_llama_tensor_name(tensor.name, &role, &layer);
    const int32_t slot = known ? role_slot(role, layer, config.layers) : -1;
    if (slot < 0) {
      return Status::error(ErrorCode::kUnsupported, "tensor %.100s has no place in a llama model of %u layers", name,
                           config.layers);
    }
    const Shape shape = role_shape(role, config);
    if (tensor.rows != shape.rows || tensor.cols != shape.cols) {
      return Status::error(ErrorCode::kCorruptModel,
                           "tensor %.100s has %llu rows of %llu, the architecture needs %u rows of %u", name,
                           static_cast<unsigned long long>(tensor.rows), static_cast<unsigned long long>(tensor.cols),
                           shape.rows, shape.cols);
    }
    (*by_slot)[slot] = &tensor;
  }
  for (const RoleInfo& info : all_roles()) {
    for (uint32_t layer = 0; info.required && layer < (info.per_layer ? config.layers : 1); ++layer) {
      if ((*by_slot)[role_slot(info.role, layer, config.layers)] == nullptr) {
        return Status::error(ErrorCode::kCorruptModel, "GGUF: no tensor is the %s of layer %u", info.name, layer);
      }
    }
  }
  return {};
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
    Result<os::FileMap> map = os::FileMap::open(options_.input.c_str());
    if (!map.ok()) return map.status();
    map_ = std::move(map).value();
    LETHE_RETURN_IF_ERROR(source_.parse({map_.data(), static_cast<size_t>(map_.size())}));
    LETHE_RETURN_IF_ERROR(pack_gguf_tokenizer(source_, &tokenizer_));
    LETHE_RETURN_IF_ERROR(read_llama_config(source_, tokenizer_.vocab, &header_.config));
    LETHE_RETURN_IF_ERROR(match_tensors(source_, header_.config, &by_slot_));
    report_.bytes_in = map_.size();
    report_.source_checksum = hash64(map_.data(), map_.size());
    return {};
  }

  // Decides format and place of everything.
  Status plan() {
    header_.tokenizer = tokenizer_.entry;
    header_.tokenizer.segment = kTokenizerSegment;
    header_.source = std::filesystem::path(options_.input).filename().string();
    header_.source_checksum = report_.source_checksum;
    header_.packer = kPacker;
    header_.options = std::string("--type ") + pack_type_name(options_.type);
    header_.segments.resize(kFirstLayerSegment + header_.config.layers);
    header_.segments[kTokenizerSegment].bytes = tokenizer_.segment.size();
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
    const SourceTensor* source = by_slot_[role_slot(role, layer, header_.config.layers)];
    if (source == nullptr) return {};  // the one that may be absent
    const WeightFormat format = choose_format(options_.type, source->type, role);
    if (is_quantised(format) && source->cols % kGroup != 0) {
      return Status::error(ErrorCode::kUnsupported, "tensor %.100s: %llu inputs are not a multiple of 32 as %s needs",
                           source->name.c_str(), static_cast<unsigned long long>(source->cols),
                           weight_format_name(format));
    }
    uint64_t& used = header_.segments[segment].bytes;
    header_.tensors.push_back({role, static_cast<uint16_t>(layer), format, static_cast<uint32_t>(source->rows),
                               static_cast<uint32_t>(source->cols), segment, used});
    used += tensor_bytes(format, source->rows, source->cols);
    total_ += source->data.size();
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
        LETHE_RETURN_IF_ERROR(write(tokenizer_.segment));
      }
      for (; tensor != header_.tensors.end() && tensor->segment == i; ++tensor) {
        LETHE_RETURN_IF_ERROR(write_tensor(*tensor));
      }
      segment.checksum = hash_.digest();
    }
    return {};
  }

  Status write_tensor(const TensorEntry& tensor) {
    const SourceTensor& source = *by_slot_[role_slot(tensor.role, tensor.layer, header_.config.layers)];
    PanelConverter converter(source, tensor.format);
    if (tensor.format == WeightFormat::kF32Vector) {
      panel_.resize(tensor_bytes(tensor.format, 1, tensor.cols));
      LETHE_RETURN_IF_ERROR(converter.convert_vector(panel_.data()));
      LETHE_RETURN_IF_ERROR(write(panel_));
      report_progress(source.data.size());
      return {};
    }
    panel_.resize(panel_bytes(tensor.format, tensor.cols));
    const uint64_t row_bytes = source.data.size() / source.rows;
    std::vector<uint64_t> rows;
    for (uint64_t row = 0; row < tensor.rows; row += rows.size()) {
      rows.resize(std::min<uint64_t>(kPanelRows, tensor.rows - row));
      for (size_t r = 0; r < rows.size(); ++r) rows[r] = llama_source_row(tensor.role, header_.config, row + r);
      LETHE_RETURN_IF_ERROR(converter.convert_panel(rows, panel_.data()));
      LETHE_RETURN_IF_ERROR(write(panel_));
      report_progress(rows.size() * row_bytes);
    }
    if (converter.error().max_abs > 0) {
      const double weights = static_cast<double>(source.rows) * static_cast<double>(source.cols);
      report_.errors.push_back({source.name, tensor.format, converter.error().max_abs,
                                std::sqrt(converter.error().sum_of_squares / weights)});
    }
    return {};
  }

  Status write(const std::vector<uint8_t>& bytes) {
    hash_.update(bytes.data(), bytes.size());
    return file_.append(bytes.data(), bytes.size());
  }

  void report_progress(uint64_t bytes) {
    done_ += bytes;
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
  os::FileMap map_;
  GgufFile source_;
  PackedTokenizer tokenizer_;
  std::vector<const SourceTensor*> by_slot_;
  HeaderEntry header_;
  uint64_t header_bytes_ = 0;
  os::AtomicFile file_;
  Hash64 hash_;  // of the segment being written
  std::vector<uint8_t> panel_;
  uint64_t done_ = 0, total_ = 0;  // source bytes
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

Status pack_gguf(const PackOptions& options, PackReport* report) {
  const auto begin = std::chrono::steady_clock::now();
  *report = {};
  LETHE_RETURN_IF_ERROR(Packer(options, report).run());
  report->seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return {};
}

}  // namespace lethe
