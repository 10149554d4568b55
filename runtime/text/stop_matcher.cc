#include "runtime/text/stop_matcher.h"

#include <algorithm>
#include <cstring>

#include "runtime/base/utf8.h"

namespace lethe {

Status StopMatcher::open(std::span<const std::string_view> stops) {
  if (stops.size() > kMaxStops) {
    return Status::error(ErrorCode::kInvalidArgument, "%zu stop strings; at most %zu are possible", stops.size(),
                         kMaxStops);
  }
  for (size_t i = 0; i < stops.size(); ++i) {
    if (stops[i].empty() || stops[i].size() > kMaxStopBytes) {
      return Status::error(ErrorCode::kInvalidArgument, "stop string %zu has %zu bytes; 1 to %zu are possible", i,
                           stops[i].size(), kMaxStopBytes);
    }
    if (utf8::find_invalid(stops[i]) != stops[i].size()) {
      return Status::error(ErrorCode::kInvalidArgument, "stop string %zu is not UTF-8", i);
    }
  }
  for (size_t i = 0; i < stops.size(); ++i) {
    Stop& stop = stops_[i];
    stop.size = static_cast<uint8_t>(stops[i].size());
    std::memcpy(stop.text, stops[i].data(), stops[i].size());
    stop.border[0] = 0;
    for (uint8_t at = 1, length = 0; at < stop.size; ++at) {
      while (length > 0 && stop.text[at] != stop.text[length]) length = stop.border[length - 1];
      if (stop.text[at] == stop.text[length]) ++length;
      stop.border[at] = length;
    }
  }
  stop_count_ = static_cast<uint8_t>(stops.size());
  reset();
  return {};
}

void StopMatcher::reset() {
  for (uint8_t i = 0; i < stop_count_; ++i) stops_[i].matched = 0;
  hit_ = false;
}

std::string_view StopMatcher::held() const {
  std::string_view longest;
  for (uint8_t i = 0; i < stop_count_; ++i) {
    if (stops_[i].matched > longest.size()) longest = {stops_[i].text, stops_[i].matched};
  }
  return longest;
}

bool StopMatcher::feed(std::string_view text, const TextSink& sink) {
  if (hit_) return true;
  // The stream that is still ours: `before`, then `text`. Both lie where the loop below does not write.
  const std::string_view before = held();
  size_t fed = 0;
  size_t keep = before.size();  // bytes at the end of the stream that are not passed on
  while (fed < text.size() && !hit_) {
    const char byte = text[fed++];
    keep = 0;
    for (uint8_t i = 0; i < stop_count_; ++i) {
      Stop& stop = stops_[i];
      while (stop.matched > 0 && stop.text[stop.matched] != byte) stop.matched = stop.border[stop.matched - 1];
      if (stop.text[stop.matched] == byte) ++stop.matched;
      if (stop.matched == stop.size) {
        keep = hit_ ? std::max(keep, size_t{stop.size}) : stop.size;
        hit_ = true;
      } else if (!hit_) {
        keep = std::max(keep, size_t{stop.matched});
      }
    }
  }
  const size_t pass = before.size() + fed - keep;
  sink(before.substr(0, pass));
  if (pass > before.size()) sink(text.substr(0, pass - before.size()));
  return hit_;
}

void StopMatcher::flush(const TextSink& sink) {
  if (!hit_) sink(held());
  reset();
}

}  // namespace lethe
