// Model files in memory: parsing them without a file, and rebuilding their headers with other values.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/memory/arena.h"
#include "runtime/model/reader.h"
#include "schema/model_generated.h"
#include "tools/pack/header.h"

namespace lethe::test {

struct alignas(64) AlignedLine {
  uint8_t bytes[64];
};

// A copy of a file's bytes at a 64-byte boundary, and the tables of its model.
struct ParsedModel {
  std::vector<AlignedLine> file, tables;
  ModelContents contents = {};
  Status status;  // as Model::open would give, except for the checksum of the tokenizer's segment
};

inline ParsedModel parse_model(std::string_view bytes) {
  ParsedModel out;
  out.file.resize(bytes.size() / 64 + 1);
  std::memcpy(out.file.data(), bytes.data(), bytes.size());
  ModelReader reader;
  out.status = reader.open({out.file[0].bytes, bytes.size()});
  if (!out.status.ok()) return out;
  Arena measuring = Arena::measuring();
  reader.take_tables(measuring);
  out.tables.resize(measuring.used() / 64 + 1);
  Arena arena(out.tables[0].bytes, measuring.used());
  out.status = reader.read(reader.take_tables(arena), &out.contents);
  return out;
}

// What the header of a valid file says.
inline HeaderEntry read_header(std::string_view file) {
  const fbs::Header& header = *fbs::GetHeader(file.data() + sizeof(Frame));
  const fbs::Architecture& a = *header.architecture();
  const fbs::Tokenizer& t = *header.tokenizer();
  HeaderEntry out;
  out.version = header.version();
  a.name()->string_view().copy(out.config.name, sizeof out.config.name - 1);
  out.config.layers = a.layers();
  out.config.embed_dim = a.embed_dim();
  out.config.heads = a.heads();
  out.config.kv_heads = a.kv_heads();
  out.config.head_dim = a.head_dim();
  out.config.ffn_dim = a.ffn_dim();
  out.config.vocab = a.vocab();
  out.config.context_length = a.context_length();
  out.config.norm_eps = a.norm_eps();
  out.config.rope_base = a.rope_base();
  out.config.rotary_dim = a.rotary_dim();
  out.tokenizer.segment = t.segment();
  out.tokenizer.token_offsets = t.token_offsets();
  out.tokenizer.token_bytes = t.token_bytes();
  out.tokenizer.token_bytes_size = t.token_bytes_size();
  out.tokenizer.token_kinds = t.token_kinds();
  out.tokenizer.byte_tokens = t.byte_tokens();
  out.tokenizer.merges = t.merges();
  out.tokenizer.merge_slots = t.merge_slots();
  out.tokenizer.specials = t.specials();
  out.tokenizer.special_count = t.special_count();
  for (const auto* pattern : *t.split_patterns()) out.tokenizer.split_patterns.push_back(pattern->str());
  out.tokenizer.bos_id = t.bos_id();
  out.tokenizer.eos_id = t.eos_id();
  out.tokenizer.add_bos = t.add_bos();
  out.tokenizer.end_ids.assign(t.end_ids()->begin(), t.end_ids()->end());
  if (t.chat_template() != nullptr) out.tokenizer.chat_template = t.chat_template()->str();
  for (const fbs::Tensor* tensor : *header.tensors()) {
    out.tensors.push_back({static_cast<Role>(tensor->role()), tensor->layer(),
                           static_cast<WeightFormat>(tensor->format()), tensor->rows(), tensor->cols(),
                           tensor->segment(), tensor->offset()});
  }
  for (const fbs::Segment* segment : *header.segments()) {
    out.segments.push_back({segment->offset(), segment->bytes(), segment->checksum()});
  }
  out.source = header.provenance()->source()->str();
  out.packer = header.provenance()->packer()->str();
  out.options = header.provenance()->options()->str();
  out.source_checksum = header.provenance()->source_checksum();
  return out;
}

// `file` with another header (and a frame that fits it); the segments stay where they are. The header must end before
// byte 16,384.
inline std::string replace_header(std::string file, const std::vector<uint8_t>& header) {
  std::memset(file.data(), 0, kSegmentAlignment);
  const Frame frame = build_frame(header, file.size());
  std::memcpy(file.data(), &frame, sizeof frame);
  std::copy(header.begin(), header.end(), file.begin() + sizeof frame);
  return file;
}

}  // namespace lethe::test
