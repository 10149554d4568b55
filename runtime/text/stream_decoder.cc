#include "runtime/text/stream_decoder.h"

#include <cstring>

#include "runtime/base/utf8.h"

namespace lethe {

void StreamDecoder::push(std::string_view bytes, const TextSink& sink) {
  // First the character that earlier bytes began, byte by byte until it is decided.
  while (pending_size_ > 0 && !bytes.empty()) {
    pending_[pending_size_] = bytes[0];
    const utf8::Front front = utf8::front({pending_, pending_size_ + size_t{1}});
    if (front.kind == utf8::Kind::kInvalid) {  // the new byte does not continue it and starts afresh
      sink(utf8::kReplacement);
      pending_size_ = 0;
      break;
    }
    bytes.remove_prefix(1);
    ++pending_size_;
    if (front.kind == utf8::Kind::kCharacter) {
      sink({pending_, pending_size_});
      pending_size_ = 0;
    }
  }
  while (!bytes.empty()) {
    const size_t valid = utf8::find_invalid(bytes);
    sink(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) return;
    const utf8::Front front = utf8::front(bytes);
    if (front.kind == utf8::Kind::kIncomplete) {
      std::memcpy(pending_, bytes.data(), bytes.size());
      pending_size_ = static_cast<uint8_t>(bytes.size());
      return;
    }
    sink(utf8::kReplacement);
    bytes.remove_prefix(front.size);
  }
}

void StreamDecoder::flush(const TextSink& sink) {
  if (pending_size_ > 0) sink(utf8::kReplacement);
  pending_size_ = 0;
}

}  // namespace lethe
