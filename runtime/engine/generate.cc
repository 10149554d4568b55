// Sampling token by token, with text that is whole characters and stop strings that never show.
#include <algorithm>

#include "runtime/engine/session.h"
#include "runtime/os/process.h"

namespace lethe {
namespace {

// Text that is ready, gathered for one callback.
struct Piece {
  const GenerateOptions* options;
  int32_t id;         // given with the first text of a token, then -1
  bool stop = false;  // the callback wants no more

  void emit(const char* text, size_t bytes) {
    if (options->on_piece == nullptr || stop) return;
    stop = options->on_piece(options->user, text, bytes, id) != 0;
    id = -1;
  }
};

}  // namespace

Status Session::generate(const GenerateOptions& options, StopReason* reason, uint64_t* generated) {
  *generated = 0;
  *reason = StopReason::kMaxTokens;
  LETHE_RETURN_IF_ERROR(check_usable());
  if (!has_logits_) return Status::error(ErrorCode::kBadState, "nothing to continue: feed a prompt first");
  LETHE_RETURN_IF_ERROR(stops_.open(options.stops));
  decoder_ = StreamDecoder();

  // A token that was given out is always fed: cancellation acts between tokens, and room is made before sampling.
  const std::atomic<bool> never{false};
  Status status;
  Piece piece{&options, -1};
  const TextSink to_callback{
      [](void* p, std::string_view text) { static_cast<Piece*>(p)->emit(text.data(), text.size()); }, &piece};
  struct StopFilter {
    StopMatcher* stops;
    const TextSink* sink;
  } filter{&stops_, &to_callback};
  const TextSink to_stops{[](void* f, std::string_view text) {
                            const auto& to = *static_cast<StopFilter*>(f);
                            to.stops->feed(text, *to.sink);
                          },
                          &filter};

  while (options.max_tokens == 0 || *generated < options.max_tokens) {
    if (cancelled_.load(std::memory_order_relaxed)) {
      status = Status::error(ErrorCode::kCancelled, "cancelled after %llu tokens",
                             static_cast<unsigned long long>(*generated));
      break;
    }
    const uint64_t begin_ns = os::monotonic_ns();
    status = check_fits(1);
    if (status.ok()) status = manager_.make_room(1, static_cast<uint32_t>(position_));
    if (!status.ok()) break;
    const Result<int32_t> sampled = sampler_.sample(backend_.logits(0));
    if (!sampled.ok()) {
      status = sampled.status();
      failed_ = true;  // logits that are not numbers: the weights or the cache are damaged
      break;
    }
    const int32_t id = sampled.value();
    if (!options.ignore_end && is_end(id)) {
      *reason = StopReason::kEnd;
      break;
    }
    const uint64_t sampled_ns = os::monotonic_ns();

    // The text goes out before the token is fed: it need not wait for the next step.
    piece.id = id;
    const bool control = model_->tokenizer().kind_of(static_cast<uint32_t>(id)) == TokenKind::kControl;
    if (!control) decoder_.push(tokenizer_.token_text(id), to_stops);
    if (piece.id == id) piece.emit("", 0);  // no text yet, but a token

    const uint64_t step_ns = os::monotonic_ns();
    status = step({.ids = {&id, 1}, .rows = {}, .tokens = 1}, never);
    if (!status.ok()) break;
    compute_logits(0);
    ++*generated;
    ++decode_tokens_;
    decode_ns_ += sampled_ns - begin_ns + os::monotonic_ns() - step_ns;

    if (stops_.hit()) {
      *reason = StopReason::kText;
      break;
    }
    if (piece.stop) {
      *reason = StopReason::kCallback;
      break;
    }
  }
  piece.id = -1;
  decoder_.flush(to_stops);
  stops_.flush(to_callback);
  return finish(status);
}

}  // namespace lethe
