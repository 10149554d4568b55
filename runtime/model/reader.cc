#include "runtime/model/reader.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstring>

#include "runtime/base/hash.h"
#include "runtime/model/frame.h"
#include "runtime/model/roles.h"
#include "schema/model_generated.h"

namespace lethe {
namespace {

// Tables of the deepest and largest header this version accepts: header, architecture, tokenizer, provenance, head
// plan, tensors and segments.
constexpr uint32_t kMaxTables = 5 + role_slot_count(kMaxLayers) + kMaxSegments;
constexpr uint32_t kMaxDepth = 8;

std::string_view view(const flatbuffers::String* text) {
  return text == nullptr ? std::string_view() : std::string_view(text->c_str(), text->size());
}

// To a NUL-terminated field of the configuration.
template <size_t kSize>
Status copy_text(std::string_view text, const char* what, char (&out)[kSize]) {
  if (text.size() >= kSize) {
    return Status::error(ErrorCode::kCorruptModel, "architecture: a %s of %zu bytes is too long", what, text.size());
  }
  std::copy(text.begin(), text.end(), out);
  return {};
}

Status corrupt(const char* what) { return Status::error(ErrorCode::kCorruptModel, "header: %s", what); }

}  // namespace

Status ModelReader::read_frame() {
  Frame frame;
  if (file_.size() < sizeof frame) {
    return Status::error(ErrorCode::kNotAModel, "%zu bytes are too few for a model file", file_.size());
  }
  std::memcpy(&frame, file_.data(), sizeof frame);
  if (std::memcmp(frame.magic, kFrameMagic, sizeof frame.magic) != 0) {
    return Status::error(ErrorCode::kNotAModel, "the file does not begin with LETHEMDL");
  }
  if (frame.version != kFormatVersion) {
    return Status::error(ErrorCode::kNotAModel, "the file has format version %u, this library reads %u", frame.version,
                         kFormatVersion);
  }
  if (frame.file_bytes != file_.size()) {
    return Status::error(ErrorCode::kCorruptModel, "the file has %zu bytes, its frame says %" PRIu64, file_.size(),
                         frame.file_bytes);
  }
  if (frame.header_offset != sizeof frame || frame.header_bytes > kMaxHeaderBytes ||
      frame.header_bytes > file_.size() - sizeof frame) {
    return Status::error(ErrorCode::kCorruptModel,
                         "header of %" PRIu64 " bytes at %" PRIu64 " does not fit a file of %zu bytes",
                         frame.header_bytes, frame.header_offset, file_.size());
  }
  if (frame.zero != 0 || frame.reserved[0] != 0 || frame.reserved[1] != 0) {
    return Status::error(ErrorCode::kCorruptModel, "frame: reserved bytes are not zero");
  }
  header_bytes_ = file_.subspan(sizeof frame, static_cast<size_t>(frame.header_bytes));
  identity_ = hash64(header_bytes_.data(), header_bytes_.size());
  if (identity_ != frame.header_checksum) {
    return Status::error(ErrorCode::kCorruptModel, "header checksum is %016" PRIx64 ", the frame says %016" PRIx64,
                         identity_, frame.header_checksum);
  }
  return {};
}

Status ModelReader::check_segments() const {
  uint64_t end = sizeof(Frame) + header_bytes_.size();
  for (uint32_t i = 0; i < header_->segments()->size(); ++i) {
    const fbs::Segment* segment = header_->segments()->Get(i);
    const uint64_t offset = segment->offset();
    const uint64_t bytes = segment->bytes();
    if (offset % kSegmentAlignment != 0) {
      return Status::error(ErrorCode::kCorruptModel, "segment %u: offset %" PRIu64 " is not a multiple of %" PRIu64, i,
                           offset, kSegmentAlignment);
    }
    if (offset < end) {
      return Status::error(ErrorCode::kCorruptModel,
                           "segment %u: offset %" PRIu64 " overlaps what comes before it, up to %" PRIu64, i, offset,
                           end);
    }
    if (offset > file_.size() || bytes > file_.size() - offset) {
      return Status::error(ErrorCode::kCorruptModel,
                           "segment %u: %" PRIu64 " bytes at %" PRIu64 " lie outside the file of %zu bytes", i, bytes,
                           offset, file_.size());
    }
    end = offset + bytes;
  }
  return {};
}

Status ModelReader::read_config() {
  const fbs::Architecture& source = *header_->architecture();
  config_ = {};
  LETHE_RETURN_IF_ERROR(copy_text(view(source.name()), "name", config_.name));
  LETHE_RETURN_IF_ERROR(copy_text(view(source.rope_scaling()), "rope_scaling", config_.rope_scaling));
  config_.layers = source.layers();
  config_.embed_dim = source.embed_dim();
  config_.heads = source.heads();
  config_.kv_heads = source.kv_heads();
  config_.head_dim = source.head_dim();
  config_.ffn_dim = source.ffn_dim();
  config_.vocab = source.vocab();
  config_.context_length = source.context_length();
  config_.norm = static_cast<Norm>(source.norm());
  config_.activation = static_cast<Activation>(source.activation());
  config_.norm_eps = source.norm_eps();
  config_.rotary_dim = source.rotary_dim();
  config_.rope_base = source.rope_base();
  config_.rope_local_base = source.rope_local_base();
  config_.rope_magnitude = source.rope_magnitude();
  config_.attention_scale = source.attention_scale();
  config_.attention_softcap = source.attention_softcap();
  config_.logit_softcap = source.logit_softcap();
  config_.embedding_scale = source.embedding_scale();
  config_.window = source.window();
  if (source.norm() > fbs::Norm::MAX) {
    return Status::error(ErrorCode::kUnsupported, "architecture: norm %d is unknown", static_cast<int>(source.norm()));
  }
  if (source.activation() > fbs::Activation::MAX) {
    return Status::error(ErrorCode::kUnsupported, "architecture: activation %d is unknown",
                         static_cast<int>(source.activation()));
  }
  const auto* local = source.local_layers();
  if (local != nullptr && local->size() != config_.layers) {
    return Status::error(ErrorCode::kCorruptModel, "architecture: local_layers has %u entries for %u layers",
                         local->size(), config_.layers);
  }
  for (uint32_t layer = 0; layer < std::min(config_.layers, kMaxLayers); ++layer) {
    if (local == nullptr ? config_.window != 0 : local->Get(layer) != 0) config_.set_local(layer);
  }
  return check_config(config_);
}

Status ModelReader::open(std::span<const uint8_t> file) {
  file_ = file;
  if (reinterpret_cast<uintptr_t>(file.data()) % kDataAlignment != 0) {
    return Status::error(ErrorCode::kInvalidArgument, "the file must lie at a multiple of 64 bytes in memory");
  }
  LETHE_RETURN_IF_ERROR(read_frame());
  flatbuffers::Verifier verifier(header_bytes_.data(), header_bytes_.size(), kMaxDepth, kMaxTables);
  if (header_bytes_.size() < 8 || !fbs::VerifyHeaderBuffer(verifier)) return corrupt("not a valid FlatBuffer LETH");
  header_ = fbs::GetHeader(header_bytes_.data());
  if (header_->version() != kFormatVersion) {
    return Status::error(ErrorCode::kCorruptModel, "header: version is %u, the frame's is %u", header_->version(),
                         kFormatVersion);
  }
  if (header_->architecture() == nullptr) return corrupt("architecture is missing");
  if (header_->tokenizer() == nullptr) return corrupt("tokenizer is missing");
  if (header_->tensors() == nullptr) return corrupt("tensors are missing");
  if (header_->segments() == nullptr) return corrupt("segments are missing");
  LETHE_RETURN_IF_ERROR(check_segments());
  LETHE_RETURN_IF_ERROR(read_config());
  if (header_->tensors()->size() > role_slot_count(config_.layers)) {
    return Status::error(ErrorCode::kCorruptModel, "header: %u tensors are too many for %u layers",
                         header_->tensors()->size(), config_.layers);
  }
  if (tokenizer_segment() >= segment_count()) {
    return Status::error(ErrorCode::kCorruptModel, "tokenizer: segment %u of %u", tokenizer_segment(), segment_count());
  }
  const auto* patterns = header_->tokenizer()->split_patterns();
  if (patterns != nullptr && patterns->size() > kMaxSplitPatterns) {
    return Status::error(ErrorCode::kUnsupported, "tokenizer: %u split patterns, at most %u", patterns->size(),
                         kMaxSplitPatterns);
  }
  if (const fbs::HeadPlan* plan = header_->head_plan(); plan != nullptr) {
    const uint32_t lists = config_.layers * config_.kv_heads;
    const uint32_t windows = plan->windows() == nullptr ? 0 : plan->windows()->size();
    const uint32_t sinks = plan->sinks() == nullptr ? 0 : plan->sinks()->size();
    if (windows != lists || sinks != lists) {
      return Status::error(ErrorCode::kCorruptModel, "head plan: %u windows and %u sinks for %u KV heads", windows,
                           sinks, lists);
    }
  }
  if (const uint32_t specials = header_->tokenizer()->special_count(); specials > config_.vocab) {
    return Status::error(ErrorCode::kCorruptModel, "tokenizer: %u special tokens of %u", specials, config_.vocab);
  }
  return {};
}

ModelReader::Tables ModelReader::take_tables(Arena& arena) const {
  const auto* patterns = header_->tokenizer()->split_patterns();
  Tables tables;
  tables.tensors = arena.take<Tensor>(header_->tensors()->size());
  tables.by_slot = arena.take<const Tensor*>(role_slot_count(config_.layers));
  tables.split_patterns = arena.take<std::string_view>(patterns == nullptr ? 0 : patterns->size());
  tables.specials = arena.take<uint32_t>(header_->tokenizer()->special_count());
  tables.head_plan = arena.take<HeadWindow>(header_->head_plan() == nullptr ? 0 : config_.layers * config_.kv_heads);
  return tables;
}

Status ModelReader::read_tensors(const Tables& tables) const {
  std::fill(tables.by_slot.begin(), tables.by_slot.end(), nullptr);
  uint32_t last_segment = 0;
  uint64_t end = 0;  // of the tensor before, in last_segment
  for (uint32_t i = 0; i < tables.tensors.size(); ++i) {
    const fbs::Tensor& source = *header_->tensors()->Get(i);
    const Role role = static_cast<Role>(source.role());
    const WeightFormat format = static_cast<WeightFormat>(source.format());
    const uint32_t layer = source.layer();
    const uint32_t rows = source.rows();
    const uint32_t cols = source.cols();
    const char* name = role_name(role);

    const int32_t slot = role_slot(role, layer, config_.layers);
    if (slot < 0 && role_slot(role, 0, config_.layers) < 0) {
      return Status::error(ErrorCode::kUnsupported, "tensor %u: role %u is unknown", i, static_cast<unsigned>(role));
    }
    if (slot < 0) {
      return Status::error(ErrorCode::kCorruptModel, "tensor %u (%s): layer %u of %u", i, name, layer, config_.layers);
    }
    if (tables.by_slot[slot] != nullptr) {
      return Status::error(ErrorCode::kCorruptModel, "tensor %u: %s of layer %u occurs twice", i, name, layer);
    }
    if (static_cast<int>(source.format()) >= kWeightFormatCount) {
      return Status::error(ErrorCode::kUnsupported, "%s of layer %u: weight format %u is unknown", name, layer,
                           static_cast<unsigned>(source.format()));
    }
    if (role_is_vector(role) != (format == WeightFormat::kF32Vector)) {
      return Status::error(ErrorCode::kCorruptModel, "%s of layer %u cannot be stored as %s", name, layer,
                           weight_format_name(format));
    }
    const Shape shape = role_shape(role, config_);
    if (rows != shape.rows || cols != shape.cols) {
      return Status::error(ErrorCode::kCorruptModel, "%s of layer %u is [%u, %u], the architecture needs [%u, %u]",
                           name, layer, rows, cols, shape.rows, shape.cols);
    }
    if (is_quantised(format) && cols % kGroup != 0) {
      return Status::error(ErrorCode::kCorruptModel, "%s of layer %u: %u inputs are not a multiple of %zu as %s needs",
                           name, layer, cols, kGroup, weight_format_name(format));
    }
    if (source.segment() >= segment_count() || source.segment() == tokenizer_segment()) {
      return Status::error(ErrorCode::kCorruptModel, "%s of layer %u: segment %u of %u is not one of weights", name,
                           layer, source.segment(), segment_count());
    }
    // File order makes one pass enough to see that no two tensors overlap.
    if (i > 0 && source.segment() < last_segment) {
      return Status::error(ErrorCode::kCorruptModel, "%s of layer %u: segment %u comes after %u", name, layer,
                           source.segment(), last_segment);
    }
    if (source.segment() != last_segment) end = 0;
    const std::span<const uint8_t> bytes_of_segment = segment(source.segment());
    const uint64_t offset = source.offset();
    const uint64_t bytes = tensor_bytes(format, rows, cols);
    if (offset % kDataAlignment != 0 || offset < end) {
      return Status::error(ErrorCode::kCorruptModel,
                           "%s of layer %u: offset %" PRIu64
                           " is not aligned or overlaps the tensor before, up to %" PRIu64,
                           name, layer, offset, end);
    }
    if (offset > bytes_of_segment.size() || bytes > bytes_of_segment.size() - offset) {
      return Status::error(ErrorCode::kCorruptModel,
                           "%s of layer %u: %" PRIu64 " bytes at %" PRIu64 " lie outside segment %u of %zu bytes", name,
                           layer, bytes, offset, source.segment(), bytes_of_segment.size());
    }
    last_segment = source.segment();
    end = offset + bytes;
    tables.tensors[i] = {
        role, static_cast<uint16_t>(layer), format, rows, cols, bytes_of_segment.data() + static_cast<size_t>(offset),
        bytes};
    tables.by_slot[slot] = &tables.tensors[i];
  }
  if (const int32_t slot = role_slot(Role::kRopeFactors, 0, config_.layers); tables.by_slot[slot] != nullptr) {
    const Tensor& factors = *tables.by_slot[slot];
    for (uint32_t i = 0; i < factors.cols; ++i) {
      const float factor = reinterpret_cast<const float*>(factors.data)[i];
      if (!std::isfinite(factor) || factor <= 0) {
        return Status::error(ErrorCode::kCorruptModel, "rope_factors: number %u is %g, must be positive", i,
                             static_cast<double>(factor));
      }
    }
  }
  return check_roles(config_, [&](Role role, uint32_t layer) {
    return tables.by_slot[role_slot(role, layer, config_.layers)] != nullptr;
  });
}

Status ModelReader::read_head_plan(const Tables& tables) const {
  for (uint32_t i = 0; i < tables.head_plan.size(); ++i) {
    const fbs::HeadPlan& plan = *header_->head_plan();
    tables.head_plan[i] = {.sinks = plan.sinks()->Get(i), .window = plan.windows()->Get(i)};
  }
  return check_head_plan(config_, tables.head_plan);
}

Status ModelReader::read(const Tables& tables, ModelContents* contents) const {
  LETHE_RETURN_IF_ERROR(read_tensors(tables));
  LETHE_RETURN_IF_ERROR(read_head_plan(tables));
  const fbs::Tokenizer& tokenizer = *header_->tokenizer();
  for (uint32_t i = 0; i < tables.split_patterns.size(); ++i) {
    tables.split_patterns[i] = view(tokenizer.split_patterns()->Get(i));
  }
  LETHE_RETURN_IF_ERROR(
      read_tokenizer(tokenizer, segment(tokenizer_segment()), config_.vocab, tables.specials, &contents->tokenizer));
  contents->tokenizer.split_patterns = tables.split_patterns;
  contents->config = config_;
  contents->tensors = tables.tensors;
  contents->by_slot = tables.by_slot;
  contents->head_plan = tables.head_plan;
  contents->namm = {};
  if (const auto* namm = header_->namm(); namm != nullptr) contents->namm = {namm->data(), namm->size()};
  contents->provenance = {};
  if (const fbs::Provenance* source = header_->provenance(); source != nullptr) {
    contents->provenance = {view(source->source()), view(source->packer()), view(source->options()),
                            source->source_checksum()};
  }
  return {};
}

uint32_t ModelReader::segment_count() const { return header_->segments()->size(); }

std::span<const uint8_t> ModelReader::segment(uint32_t index) const {
  const fbs::Segment* segment = header_->segments()->Get(index);
  return file_.subspan(static_cast<size_t>(segment->offset()), static_cast<size_t>(segment->bytes()));
}

uint64_t ModelReader::segment_checksum(uint32_t index) const { return header_->segments()->Get(index)->checksum(); }

uint32_t ModelReader::tokenizer_segment() const { return header_->tokenizer()->segment(); }

}  // namespace lethe
