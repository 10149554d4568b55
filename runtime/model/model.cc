#include "runtime/model/model.h"

#include <atomic>
#include <cinttypes>
#include <new>

#include "runtime/base/hash.h"
#include "runtime/model/frame.h"
#include "runtime/model/reader.h"
#include "runtime/model/roles.h"
#include "runtime/os/pages.h"

namespace lethe {

struct Model::State {
  os::FileMap map;
  ModelReader reader;
  ModelContents contents;
  uint64_t block_bytes = 0;
  std::atomic<uint32_t> users{0};
};

Result<Model*> Model::open(const char* path) {
  Result<os::FileMap> map = os::FileMap::open(path);
  if (!map.ok()) return map.status();
  ModelReader reader;
  if (Status status = reader.open({map.value().data(), static_cast<size_t>(map.value().size())}); !status.ok()) {
    return status;
  }

  // One block: the state (first, it is what close() finds), the model, the tables.
  struct Block {
    std::span<uint8_t> state, model;
    ModelReader::Tables tables;
  };
  const auto lay_out = [&reader](Arena& arena) {
    return Block{arena.take<uint8_t>(sizeof(State)), arena.take<uint8_t>(sizeof(Model)), reader.take_tables(arena)};
  };
  Arena measuring = Arena::measuring();
  lay_out(measuring);
  const uint64_t page = os::page_size();
  const uint64_t bytes = (measuring.used() + page - 1) / page * page;
  Result<uint8_t*> pages = os::map_pages(bytes);
  if (!pages.ok()) return pages.status();
  Arena arena(pages.value(), bytes);
  const Block block = lay_out(arena);

  State* state = new (block.state.data()) State{std::move(map).value(), reader, {}, bytes, 0};
  Model* model = new (block.model.data()) Model(state);
  Status status = reader.read(block.tables, &state->contents);
  // A broken tokenizer would quietly change every text; its segment has just been read anyway.
  if (status.ok()) status = model->verify_segment(reader.tokenizer_segment());
  if (!status.ok()) {
    close(model);
    return status;
  }
  return model;
}

void Model::close(Model* model) {
  if (model == nullptr) return;
  State* state = model->state_;
  const uint64_t bytes = state->block_bytes;
  state->~State();
  os::unmap_pages(reinterpret_cast<uint8_t*>(state), bytes);
}

const ModelConfig& Model::config() const { return state_->contents.config; }
const TokenizerData& Model::tokenizer() const { return state_->contents.tokenizer; }
const Provenance& Model::provenance() const { return state_->contents.provenance; }
std::span<const uint8_t> Model::namm() const { return state_->contents.namm; }
std::span<const HeadWindow> Model::head_plan() const { return state_->contents.head_plan; }
std::span<const Tensor> Model::tensors() const { return state_->contents.tensors; }

const Tensor* Model::find(Role role, uint32_t layer) const {
  const int32_t slot = role_slot(role, layer, config().layers);
  return slot < 0 ? nullptr : state_->contents.by_slot[slot];
}

uint64_t Model::file_bytes() const { return state_->map.size(); }
uint64_t Model::private_bytes() const { return state_->block_bytes; }
uint64_t Model::identity() const { return state_->reader.identity(); }
uint32_t Model::segment_count() const { return state_->reader.segment_count(); }

void Model::retain() const { state_->users.fetch_add(1); }
void Model::release() const { state_->users.fetch_sub(1); }
uint32_t Model::users() const { return state_->users.load(); }

Status Model::verify_segment(uint32_t index) const {
  const ModelReader& reader = state_->reader;
  if (index >= reader.segment_count()) {
    return Status::error(ErrorCode::kInvalidArgument, "segment %u of %u", index, reader.segment_count());
  }
  const std::span<const uint8_t> bytes = reader.segment(index);
  const uint64_t found = hash64(bytes.data(), bytes.size());
  if (found == reader.segment_checksum(index)) return {};
  return Status::error(ErrorCode::kCorruptModel, "segment %u: checksum is %016" PRIx64 ", the header says %016" PRIx64,
                       index, found, reader.segment_checksum(index));
}

}  // namespace lethe
