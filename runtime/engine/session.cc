#include "runtime/engine/session.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "runtime/cache/namm/policy.h"
#include "runtime/engine/decoder.h"
#include "runtime/os/pages.h"
#include "runtime/os/process.h"

namespace lethe {

// ---- Life --------------------------------------------------------------------------------------------------------

Status Session::lay_out(Arena& arena, const SessionShape& shape, uint64_t* tag_bytes) {
  const ModelConfig& config = model_->config();
  uint64_t counted = 0;
  const auto count = [&](MemoryTag tag) {
    tag_bytes[static_cast<int>(tag)] += arena.used() - counted;
    counted = arena.used();
  };

  arena.take<Session>(1);
  pending_ids_ = arena.take<int32_t>(shape.chunk);
  sights_ = arena.take<Sight>(has_windows(*model_, options_) ? uint64_t{config.layers} * config.kv_heads : 0);
  for (uint32_t i = 0; i < sights_.size(); ++i) {
    sights_[i] = sight_of(*model_, options_, i / config.kv_heads, i % config.kv_heads);
  }
  count(MemoryTag::kSession);
  trace_.carve(arena, uint64_t{model_->config().layers} * model_->config().kv_heads);
  count(MemoryTag::kTrace);

  turn_ = arena.take<char>(options_.turn_bytes);
  const Tokenizer::Scratch tokenizer_scratch = Tokenizer::layout(arena, model_->tokenizer(), kMaxPieceBytes);
  count(MemoryTag::kTokenizer);

  policy_ = options_.policy->is_learned ? namm::policy_of(plan_.namm, namm_) : *options_.policy;
  Retention retention = retention_of(options_);
  retention.rectangular = policy_.retention.rectangular && retention.budget == Budget::kList;
  const uint32_t longest = longest_list(retention.budget, shape.cache_tokens());
  program_ = build_program(*model_);
  const Result<cpu::BufferPlan> buffers = plan_activations(program_, shape.chunk);
  if (!buffers.ok()) return buffers.status();
  backend_.lay_out_activations(arena, *model_, program_, buffers.value(),
                               {.chunk = shape.chunk,
                                .logit_rows = options_.logit_rows,
                                .cache_tokens = longest,
                                .threads = options_.threads,
                                .positions = options_.positions,
                                .absorbs = options_.hand_over == HandOver::kCompensation,
                                .observer = policy_.observer,
                                .sights = sights_});
  count(MemoryTag::kActivations);
  backend_.lay_out_logits(arena);
  count(MemoryTag::kLogits);
  backend_.lay_out_threads(arena);
  count(MemoryTag::kThreads);

  if (policy_.is_learned) namm_.carve(arena, plan_.namm.shape);
  const uint64_t blocks = pool_blocks(*model_, options_, shape);
  attention_ = arena.take<LayerAttention>(policy_.observer.see_queries != nullptr ? config.layers : 0);
  const uint32_t group = config.heads / config.kv_heads;
  for (uint32_t layer = 0; layer < attention_.size(); ++layer) {
    const cpu::RopeTable rope = backend_.rope(layer);
    attention_[layer] = {group, config.score_scale(), rope.rotary_dim, rope.inv_freq};
  }
  LETHE_RETURN_IF_ERROR(kv_.carve(arena, {.layers = config.layers,
                                          .kv_heads = config.kv_heads,
                                          .head_dim = config.head_dim,
                                          .type = options_.kv_type,
                                          .block_count = static_cast<uint32_t>(std::min<uint64_t>(blocks, UINT32_MAX)),
                                          .state_bytes_per_slot = policy_.state_bytes_per_slot,
                                          .token_capacity = longest,
                                          .absorbs = options_.hand_over == HandOver::kCompensation,
                                          .state_rows = policy_.state_rows}));
  LETHE_RETURN_IF_ERROR(manager_.carve(arena, kv_, policy_,
                                       {.sinks = options_.sinks,
                                        .retention = retention,
                                        .hand_over = options_.hand_over,
                                        .seed = options_.policy_seed,
                                        .sights = sights_,
                                        .attention = attention_,
                                        .longest_step = shape.chunk}));
  count(MemoryTag::kKvIndex);
  if (policy_.list_state_floats != nullptr) {
    LETHE_RETURN_IF_ERROR(kv_.carve_list_state(arena, policy_.list_state_floats(group, config.head_dim)));
  }
  count(MemoryTag::kKvPool);
  const Sampler::Scratch sampler_scratch = Sampler::layout(arena, config.vocab);
  count(MemoryTag::kSampler);

  if (!arena.ok()) return Status::error(ErrorCode::kInternal, "the session's plan and its layout disagree");
  sampler_.open(sampler_scratch);
  if (tokenizer_scratch.piece.empty()) return {};  // measuring
  return tokenizer_.open(model_->tokenizer(), tokenizer_scratch);
}

Status Session::open(uint8_t* block) {
  for (int tag = 0; tag < kMemoryTagCount; ++tag) {
    LETHE_RETURN_IF_ERROR(ledger_.reserve(static_cast<MemoryTag>(tag), plan_.tag_bytes[tag]));
  }
  Arena arena(block, plan_.pool_offset);
  uint64_t tag_bytes[kMemoryTagCount] = {};
  LETHE_RETURN_IF_ERROR(lay_out(arena, plan_.shape, tag_bytes));
  if (policy_.is_learned) namm_.fill(plan_.namm);
  kv_.set_blocks(block + plan_.pool_offset);
  created_blocks_ = plan_.shape.blocks_per_list;
  return backend_.start();
}

Result<Session*> Session::create(const Model& model, const SessionOptions& options) {
  SessionPlan plan;
  if (Status status = plan_session(model, options, &plan); !status.ok()) return status;
  Result<uint8_t*> block = os::map_pages(plan.block_bytes);
  if (!block.ok()) return block.status();
  auto* session = new (block.value()) Session(model, options, plan);
  model.retain();
  if (Status status = session->open(block.value()); !status.ok()) {
    close(session);
    return status;
  }
  return session;
}

void Session::close(Session* session) {
  if (session == nullptr) return;
  session->backend_.stop();
  if (session->trace_.is_running()) static_cast<void>(session->stop_trace());  // nobody is left to tell
  session->model_->release();
  const uint64_t bytes = session->plan_.block_bytes;
  session->~Session();
  os::unmap_pages(reinterpret_cast<uint8_t*>(session), bytes);
}

void Session::reset() {
  kv_.clear();
  manager_.clear();
  sampler_.reset();
  position_ = 0;
  has_logits_ = in_turn_ = failed_ = false;
  cancelled_.store(false, std::memory_order_relaxed);
  prefill_tokens_ = prefill_ns_ = decode_tokens_ = decode_ns_ = 0;
}

Status Session::set_ram(uint64_t bytes) {
  LETHE_RETURN_IF_ERROR(check_usable());
  const uint64_t pool = round_up(kv_.blocks_bytes(), os::page_size()), fixed = plan_.total - pool;
  const auto pool_bytes = [&](uint32_t blocks_per_list) {
    const SessionShape shape{plan_.shape.chunk, blocks_per_list};
    return round_up(pool_blocks(*model_, options_, shape) * kv_.layout().block_bytes, os::page_size());
  };
  const Budget budget = retention_of(options_).budget;
  const uint32_t fewest = fewest_blocks(plan_.shape.chunk, manager_.reserved(), budget);
  if (fixed + pool_bytes(fewest) > bytes) {
    return Status::error(ErrorCode::kRamTooSmall,
                         "a cap of %llu bytes: this session works with %llu at least (%llu besides the cache, which "
                         "holds %llu first and pinned tokens and a step of %u)",
                         static_cast<unsigned long long>(bytes),
                         static_cast<unsigned long long>(fixed + pool_bytes(fewest)),
                         static_cast<unsigned long long>(fixed), static_cast<unsigned long long>(manager_.reserved()),
                         plan_.shape.chunk);
  }
  uint32_t fits = fewest, too_many = created_blocks_ + 1;
  while (fits + 1 < too_many) {
    const uint32_t middle = fits + (too_many - fits) / 2;
    (fixed + pool_bytes(middle) <= bytes ? fits : too_many) = middle;
  }
  const SessionShape shape{plan_.shape.chunk, fits};
  if (fits < plan_.shape.blocks_per_list) {
    LETHE_RETURN_IF_ERROR(manager_.shrink(shape.cache_tokens(), static_cast<uint32_t>(position_)));
  }
  // Reserved before it is used, released after it was given back.
  const uint64_t wanted = pool_bytes(fits);
  if (wanted > pool) {
    LETHE_RETURN_IF_ERROR(ledger_.set_cap(std::max(bytes, ledger_.cap())));
    LETHE_RETURN_IF_ERROR(ledger_.reserve(MemoryTag::kKvPool, wanted - pool));
  }
  LETHE_RETURN_IF_ERROR(kv_.resize(static_cast<uint32_t>(pool_blocks(*model_, options_, shape)),
                                   longest_list(budget, shape.cache_tokens())));
  if (wanted < pool) {
    os::discard_pages(kv_.block(0) + wanted, pool - wanted);
    ledger_.release(MemoryTag::kKvPool, pool - wanted);
  }
  LETHE_RETURN_IF_ERROR(ledger_.set_cap(bytes));
  plan_.shape = shape;
  plan_.total = fixed + wanted;
  plan_.tag_bytes[static_cast<int>(MemoryTag::kKvPool)] += wanted - pool;
  options_.ram_bytes = bytes;
  return {};
}

Status Session::pin(uint64_t begin, uint64_t end) {
  LETHE_RETURN_IF_ERROR(check_usable());
  if (end == kAllSoFar) end = position_;
  if (begin >= end || end > kMaxPosition) {
    return Status::error(ErrorCode::kInvalidArgument,
                         "tokens %llu to %llu: a range ends behind its beginning, and at %llu at most",
                         static_cast<unsigned long long>(begin), static_cast<unsigned long long>(end),
                         static_cast<unsigned long long>(kMaxPosition));
  }
  return manager_.pin({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
}

SessionStats Session::stats() const {
  return {.position = position_,
          .cached_tokens = kv_.longest(),
          .prefill_tokens = prefill_tokens_,
          .prefill_ns = prefill_ns_,
          .decode_tokens = decode_tokens_,
          .decode_ns = decode_ns_,
          .cache = manager_.stats()};
}

Status Session::start_trace(const char* path, const TraceOptions& options) {
  return trace_.start(path,
                      {.model = model_,
                       .ledger = &ledger_,
                       .kv = &kv_,
                       .policy = options_.policy->name,
                       .cache_tokens = plan_.shape.cache_tokens(),
                       .prefill_chunk = plan_.shape.chunk,
                       .threads = options_.threads},
                      trace_figures(), options);
}

TraceFigures Session::trace_figures() const {
  return {.position = position_,
          .prefill_tokens = prefill_tokens_,
          .prefill_ns = prefill_ns_,
          .decode_tokens = decode_tokens_,
          .decode_ns = decode_ns_,
          .cache = manager_.stats()};
}

// ---- Checks ------------------------------------------------------------------------------------------------------

Status Session::check_usable() const {
  if (!failed_) return {};
  return Status::error(ErrorCode::kBadState, "the session failed at token %llu: reset it before further use",
                       static_cast<unsigned long long>(position_));
}

Status Session::check_rows(std::span<const float> rows) const {
  const uint32_t width = model_->config().embed_dim;
  if (rows.empty() || rows.size() % width != 0) {
    return Status::error(ErrorCode::kInvalidArgument, "%zu floats are not one or more embeddings of %u", rows.size(),
                         width);
  }
  const auto bad = std::find_if_not(rows.begin(), rows.end(), [](float value) { return std::isfinite(value); });
  if (bad == rows.end()) return {};
  const auto at = static_cast<size_t>(bad - rows.begin());
  return Status::error(ErrorCode::kInvalidArgument, "embedding %zu: value %zu is not finite", at / width, at % width);
}

Status Session::check_ids(std::span<const int32_t> ids) const {
  const uint32_t vocab = model_->config().vocab;
  if (ids.empty()) return Status::error(ErrorCode::kInvalidArgument, "no tokens: the text is empty");
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || static_cast<uint32_t>(ids[i]) >= vocab) {
      return Status::error(ErrorCode::kInvalidArgument, "token %zu is %d: ids go from 0 to %u", i, ids[i], vocab - 1);
    }
  }
  return {};
}

// Refuses a sequence that policy `full` cannot take, before any of it is fed.
Status Session::check_fits(uint64_t tokens) const {
  // Learned positions end where the model's training did.
  const bool learned = model_->find(Role::kPositionEmbedding, 0) != nullptr;
  const uint64_t most = learned ? model_->config().context_length : kMaxPosition;
  if (position_ + tokens > most) {
    return Status::error(ErrorCode::kPromptTooLong,
                         "position %llu + %llu tokens: a conversation with this model has at most %llu",
                         static_cast<unsigned long long>(position_), static_cast<unsigned long long>(tokens),
                         static_cast<unsigned long long>(most));
  }
  if (manager_.endless()) return {};
  const uint64_t cached = kv_.longest(), capacity = kv_.token_capacity();
  if (cached + tokens <= capacity) return {};
  return Status::error(tokens > capacity ? ErrorCode::kPromptTooLong : ErrorCode::kKvFull,
                       "%llu tokens do not fit: the cache holds %llu, %llu are taken, and policy %s never evicts",
                       static_cast<unsigned long long>(tokens), static_cast<unsigned long long>(capacity),
                       static_cast<unsigned long long>(cached), options_.policy->name);
}

bool Session::is_end(int32_t id) const {
  const auto ends = model_->tokenizer().end_ids;
  return std::find(ends.begin(), ends.end(), id) != ends.end();
}

// ---- Feeding -----------------------------------------------------------------------------------------------------

Status Session::step(const cpu::StepInput& input, const std::atomic<bool>& cancelled) {
  const auto tokens = static_cast<uint32_t>(input.tokens);
  LETHE_RETURN_IF_ERROR(manager_.make_room(tokens, static_cast<uint32_t>(position_)));
  LETHE_RETURN_IF_ERROR(kv_.begin_append(tokens));
  const Status status = backend_.run_layers(input, static_cast<uint32_t>(position_), kv_, cancelled);
  if (!status.ok()) {
    kv_.rollback_append();
    return status;
  }
  kv_.commit_append();
  for (const int32_t id : input.ids) sampler_.accept(id);
  position_ += tokens;
  has_logits_ = false;
  if (trace_.is_running()) trace_.after_step(input.ids, tokens, trace_figures());
  return {};
}

uint32_t Session::step_tokens() const {
  return std::min(plan_.shape.chunk, manager_.longest_step(static_cast<uint32_t>(position_)));
}

template <typename AfterStep>
Status Session::feed_steps(const cpu::StepInput& input, AfterStep after) {
  for (size_t begin = 0, end = 0; begin < input.tokens; begin = end) {
    end = std::min<size_t>(begin + step_tokens(), input.tokens);
    LETHE_RETURN_IF_ERROR(step(input.part(begin, end - begin), cancelled_));
    prefill_tokens_ += end - begin;
    after(begin, end);
  }
  return {};
}

void Session::compute_logits(size_t row) {
  backend_.run_head(static_cast<uint32_t>(row), 1);
  has_logits_ = true;
}

Status Session::feed_all(const cpu::StepInput& input) {
  return feed_steps(input, [&](size_t begin, size_t end) {
    if (end == input.tokens) compute_logits(end - begin - 1);
  });
}

// Ends every call that may be cancelled. A request that came while it worked is taken with it, even when it came too
// late to shorten the work; and errors of ours mark the session.
Status Session::finish(Status status) {
  if (cancelled_.exchange(false, std::memory_order_relaxed) && status.ok()) {
    status =
        Status::error(ErrorCode::kCancelled, "cancelled at token %llu", static_cast<unsigned long long>(position_));
  }
  if (status.code() == ErrorCode::kInternal) failed_ = true;
  return status;
}

Status Session::finish_feed(uint64_t begin_ns, Status status) {
  prefill_ns_ += os::monotonic_ns() - begin_ns;
  return finish(status);
}

Status Session::feed(std::span<const int32_t> ids) {
  LETHE_RETURN_IF_ERROR(check_usable());
  LETHE_RETURN_IF_ERROR(check_ids(ids));
  LETHE_RETURN_IF_ERROR(check_fits(ids.size()));
  const uint64_t begin_ns = os::monotonic_ns();
  return finish_feed(begin_ns, feed_all({.ids = ids, .rows = {}, .tokens = ids.size()}));
}

Status Session::feed_embeddings(std::span<const float> rows) {
  LETHE_RETURN_IF_ERROR(check_usable());
  LETHE_RETURN_IF_ERROR(check_rows(rows));
  const size_t tokens = rows.size() / model_->config().embed_dim;
  LETHE_RETURN_IF_ERROR(check_fits(tokens));
  const uint64_t begin_ns = os::monotonic_ns();
  return finish_feed(begin_ns, feed_all({.ids = {}, .rows = rows, .tokens = tokens}));
}

EncodeOptions Session::encode_options(uint32_t flags) const {
  return {.parse_special = (flags & kTextSpecial) != 0,
          .add_bos = (flags & kTextBos) != 0 && model_->tokenizer().add_bos};
}

uint32_t Session::turn_flags(std::string_view text) const {
  // BOS stands at the very beginning only, and many templates write it themselves.
  const std::string_view bos = tokenizer_.token_text(model_->tokenizer().bos_id);
  const bool has_bos = position_ != 0 || (!bos.empty() && text.starts_with(bos));
  return kTextSpecial | (has_bos ? 0u : kTextBos);
}

Status Session::tokenize(std::string_view text, uint32_t flags, std::span<int32_t> ids, uint64_t* count) {
  return tokenizer_.encode(text, encode_options(flags), ids, count);
}

Status Session::feed_text(std::string_view text, uint32_t flags, uint64_t* fed) {
  if (fed != nullptr) *fed = 0;
  LETHE_RETURN_IF_ERROR(check_usable());
  const EncodeOptions encode = encode_options(flags);
  // Counted first, so that a text that cannot be encoded or does not fit changes nothing.
  uint64_t count = 0;
  const Status counted = tokenizer_.encode(
      text, encode,
      [](void* total, int32_t) -> Status {
        ++*static_cast<uint64_t*>(total);
        return {};
      },
      &count);
  if (!counted.ok()) return counted;
  if (count == 0) return Status::error(ErrorCode::kInvalidArgument, "no tokens: the text is empty");
  LETHE_RETURN_IF_ERROR(check_fits(count));

  // Tokens go into the cache chunk by chunk, so a text of any length needs one chunk of ids.
  struct Feeder {
    Session* session;
    size_t most, count;
    uint64_t fed;
    Status flush() {
      LETHE_RETURN_IF_ERROR(session->step({session->pending_ids_.first(count), {}, count}, session->cancelled_));
      session->prefill_tokens_ += count;
      fed += count;
      return {};
    }
    static Status take(void* context, int32_t id) {
      auto& feeder = *static_cast<Feeder*>(context);
      if (feeder.count == feeder.most) {
        LETHE_RETURN_IF_ERROR(feeder.flush());
        feeder.most = feeder.session->step_tokens();
        feeder.count = 0;
      }
      feeder.session->pending_ids_[feeder.count++] = id;
      return {};
    }
  } feeder{this, step_tokens(), 0, 0};

  const uint64_t begin_ns = os::monotonic_ns();
  Status status = tokenizer_.encode(text, encode, &Feeder::take, &feeder);
  if (status.ok()) status = feeder.flush();
  if (status.ok()) compute_logits(feeder.count - 1);
  if (fed != nullptr) *fed = feeder.fed;
  return finish_feed(begin_ns, status);
}

Result<std::string_view> Session::render_turn(std::span<const ChatMessage> messages) {
  const TokenizerData& data = model_->tokenizer();
  const ChatTemplate chat{.source = data.chat_template,
                          .bos_text = tokenizer_.token_text(data.bos_id),
                          .eos_text = tokenizer_.token_text(data.eos_id)};
  const auto too_long = [&](uint64_t bytes) {
    return Status::error(ErrorCode::kPromptTooLong, "the turn takes %llu bytes and turn_bytes is %zu",
                         static_cast<unsigned long long>(bytes), turn_.size());
  };
  // Before rendering: the template engine copies the texts, and its allowance is for turn_bytes.
  uint64_t bytes = 0;
  for (const ChatMessage& message : messages) bytes += message.role.size() + message.content.size();
  if (bytes > turn_.size()) return too_long(bytes);
  const Status rendered =
      in_turn_ ? next_turn(chat, messages, turn_, &bytes) : first_turn(chat, messages, turn_, &bytes);
  if (rendered.code() == ErrorCode::kPromptTooLong) return too_long(bytes);
  LETHE_RETURN_IF_ERROR(rendered);
  return std::string_view(turn_.data(), bytes);
}

Status Session::tokenize_turn(std::span<const ChatMessage> messages, std::span<int32_t> ids, uint64_t* count) {
  *count = 0;
  const Result<std::string_view> text = render_turn(messages);
  if (!text.ok()) return text.status();
  return tokenize(text.value(), turn_flags(text.value()), ids, count);
}

Status Session::feed_turn(std::span<const ChatMessage> messages, uint64_t* fed) {
  if (fed != nullptr) *fed = 0;
  LETHE_RETURN_IF_ERROR(check_usable());
  const Result<std::string_view> text = render_turn(messages);
  if (!text.ok()) return text.status();
  const uint64_t before = position_;
  const Status status = feed_text(text.value(), turn_flags(text.value()), fed);
  in_turn_ = in_turn_ || position_ > before;  // also when cancelled on the way: what was fed stays
  return status;
}

// ---- Logits ------------------------------------------------------------------------------------------------------

Result<std::span<const float>> Session::logits() const {
  if (Status status = check_usable(); !status.ok()) return status;
  if (!has_logits_) return Status::error(ErrorCode::kBadState, "no logits: feed a token first");
  return std::span<const float>(backend_.logits(0));
}

template <typename Visit>
Status Session::feed_visited(std::span<const int32_t> ids, size_t first, size_t last, Visit visit) {
  const uint64_t begin_ns = os::monotonic_ns();
  const cpu::StepInput input{.ids = ids, .rows = {}, .tokens = ids.size()};
  return finish_feed(begin_ns, feed_steps(input, [&](size_t begin, size_t end) {
                       for (size_t token = std::max(begin, first); token < std::min(end, last);) {
                         const size_t rows = std::min<size_t>(options_.logit_rows, std::min(end, last) - token);
                         backend_.run_head(static_cast<uint32_t>(token - begin), static_cast<uint32_t>(rows));
                         for (size_t i = 0; i < rows; ++i) visit(token + i, backend_.logits(static_cast<uint32_t>(i)));
                         token += rows;
                       }
                       if (end == ids.size()) compute_logits(end - begin - 1);
                     }));
}

Status Session::feed_logits(std::span<const int32_t> ids, uint64_t first, OnLogits on_logits) {
  LETHE_RETURN_IF_ERROR(check_usable());
  LETHE_RETURN_IF_ERROR(check_ids(ids));
  LETHE_RETURN_IF_ERROR(check_fits(ids.size()));
  if (first > ids.size()) {
    return Status::error(ErrorCode::kInvalidArgument, "first is %llu of %zu tokens",
                         static_cast<unsigned long long>(first), ids.size());
  }
  return feed_visited(ids, first, ids.size(), [&](size_t token, std::span<const float> row) {
    on_logits.call(on_logits.user, token, row.data(), row.size());
  });
}

Status Session::score(std::span<const int32_t> ids, uint64_t first, std::span<float> log_probs) {
  LETHE_RETURN_IF_ERROR(check_usable());
  LETHE_RETURN_IF_ERROR(check_ids(ids));
  LETHE_RETURN_IF_ERROR(check_fits(ids.size()));
  if (first > ids.size() || log_probs.size() < ids.size() - first) {
    return Status::error(ErrorCode::kInvalidArgument, "first is %llu of %zu tokens and %zu results fit",
                         static_cast<unsigned long long>(first), ids.size(), log_probs.size());
  }
  if (first == 0 && !has_logits_) {
    return Status::error(ErrorCode::kInvalidArgument, "the first token of a conversation has no probability");
  }
  // The probability of token i comes from the logits of the token before it; the last row has no successor here.
  const auto score_token = [&](uint64_t i, std::span<const float> row) {
    log_probs[i - first] = row[static_cast<size_t>(ids[i])] - backend_.kernels().log_sum_exp(row.data(), row.size());
  };
  if (first == 0) score_token(0, backend_.logits(0));
  return feed_visited(ids, first > 0 ? first - 1 : 0, ids.size() - 1,
                      [&](size_t token, std::span<const float> row) { score_token(token + 1, row); });
}

}  // namespace lethe
