#include "tools/pack/header.h"

#include <cstring>

#include "runtime/base/hash.h"
#include "schema/model_generated.h"

namespace lethe {
namespace {

flatbuffers::Offset<fbs::Tokenizer> build_tokenizer(flatbuffers::FlatBufferBuilder& builder,
                                                    const TokenizerEntry& entry) {
  const auto patterns = builder.CreateVectorOfStrings(entry.split_patterns);
  const auto end_ids = builder.CreateVector(entry.end_ids);
  const auto chat_template = entry.chat_template.empty() ? flatbuffers::Offset<flatbuffers::String>()
                                                         : builder.CreateString(entry.chat_template);
  return fbs::CreateTokenizer(
      builder, static_cast<fbs::TokenizerKind>(entry.kind), entry.segment, entry.token_offsets, entry.token_bytes,
      entry.token_bytes_size, entry.token_kinds, entry.byte_tokens, entry.merges, entry.merge_slots, entry.specials,
      entry.special_count, patterns, entry.bos_id, entry.eos_id, entry.add_bos, end_ids, chat_template, entry.lookup,
      entry.lookup_slots, entry.ignore_merges, entry.scores, entry.has_scores, entry.neighbours, entry.neighbour_words,
      entry.unknown_id, entry.unknown_score, static_cast<fbs::SpacePrefix>(entry.space_prefix),
      entry.prefix_unless_space, static_cast<fbs::SpaceRule>(entry.space_rule), entry.charsmap_units,
      entry.charsmap_unit_count, entry.charsmap_texts, entry.charsmap_texts_size, entry.single_precision, entry.nfc);
}

}  // namespace

std::vector<uint8_t> build_header(const HeaderEntry& entry) {
  flatbuffers::FlatBufferBuilder builder(1 << 16);
  builder.ForceDefaults(true);  // a field is stored even when it equals its default: the size stays the same
  const ModelConfig& config = entry.config;
  const auto name = builder.CreateString(config.name);
  const auto rope_scaling = builder.CreateString(config.rope_scaling);
  std::vector<uint8_t> local(config.layers);
  for (uint32_t layer = 0; layer < config.layers; ++layer) local[layer] = config.is_local(layer);
  const auto local_layers = builder.CreateVector(local);
  const auto architecture = fbs::CreateArchitecture(
      builder, name, config.layers, config.embed_dim, config.heads, config.kv_heads, config.head_dim, config.ffn_dim,
      config.vocab, config.context_length, static_cast<fbs::Norm>(config.norm), config.norm_eps,
      static_cast<fbs::Activation>(config.activation), config.rope_base, config.rotary_dim, config.rope_local_base,
      config.rope_magnitude, rope_scaling, config.window, local_layers, config.attention_scale,
      config.attention_softcap, config.logit_softcap, config.embedding_scale);
  const auto tokenizer = build_tokenizer(builder, entry.tokenizer);
  std::vector<flatbuffers::Offset<fbs::Tensor>> tensors;
  for (const TensorEntry& tensor : entry.tensors) {
    tensors.push_back(fbs::CreateTensor(builder, static_cast<fbs::Role>(tensor.role), tensor.layer,
                                        static_cast<fbs::WeightFormat>(tensor.format), tensor.rows, tensor.cols,
                                        tensor.segment, tensor.offset));
  }
  std::vector<flatbuffers::Offset<fbs::Segment>> segments;
  for (const SegmentEntry& segment : entry.segments) {
    segments.push_back(fbs::CreateSegment(builder, segment.offset, segment.bytes, segment.checksum));
  }
  // One statement a field: the order in which a call's arguments are evaluated is not the same on all compilers, and
  // the file must be.
  const auto source = builder.CreateString(entry.source);
  const auto packer = builder.CreateString(entry.packer);
  const auto options = builder.CreateString(entry.options);
  const auto provenance = fbs::CreateProvenance(builder, source, entry.source_checksum, packer, options);
  const auto tensor_vector = builder.CreateVector(tensors);
  const auto segment_vector = builder.CreateVector(segments);
  flatbuffers::Offset<flatbuffers::Vector<uint8_t>> namm;
  if (!entry.namm.empty()) {
    builder.ForceVectorAlignment(entry.namm.size(), 1, 8);
    namm = builder.CreateVector(entry.namm);
  }
  flatbuffers::Offset<fbs::HeadPlan> head_plan;
  if (!entry.head_plan.empty()) {
    std::vector<uint32_t> windows, sinks;
    for (const HeadWindow& head : entry.head_plan) {
      windows.push_back(head.window);
      sinks.push_back(head.sinks);
    }
    const auto window_vector = builder.CreateVector(windows);
    const auto sink_vector = builder.CreateVector(sinks);
    head_plan = fbs::CreateHeadPlan(builder, window_vector, sink_vector);
  }
  fbs::FinishHeaderBuffer(builder, fbs::CreateHeader(builder, entry.version, architecture, tokenizer, tensor_vector,
                                                     segment_vector, provenance, namm, head_plan));
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

Frame build_frame(const std::vector<uint8_t>& header, uint64_t file_bytes) {
  Frame frame = {};
  std::memcpy(frame.magic, kFrameMagic, sizeof frame.magic);
  frame.version = kFormatVersion;
  frame.header_offset = sizeof frame;
  frame.header_bytes = header.size();
  frame.file_bytes = file_bytes;
  frame.header_checksum = hash64(header.data(), header.size());
  return frame;
}

}  // namespace lethe
