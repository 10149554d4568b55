#include "runtime/text/nfc.h"

#include <algorithm>
#include <iterator>

#include "runtime/base/utf8.h"

namespace lethe::nfc {
namespace {

struct Decomposition {
  uint32_t code, first, second;
};
struct ClassRange {
  uint32_t first, last;
  uint8_t combining_class;
};
#include "runtime/text/nfc_tables.inc"

// Hangul syllables are computed (The Unicode Standard, section 3.12).
constexpr uint32_t kSBase = 0xac00, kLBase = 0x1100, kVBase = 0x1161, kTBase = 0x11a7;
constexpr uint32_t kLCount = 19, kVCount = 21, kTCount = 28, kSCount = kLCount * kVCount * kTCount;

constexpr uint32_t kFirstMark = 0x300;  // below, everything is a starter and composes with nothing before it

uint8_t combining_class(uint32_t code) {
  if (code < kFirstMark) return 0;
  const auto* range = std::lower_bound(std::begin(kClasses), std::end(kClasses), code,
                                       [](const ClassRange& r, uint32_t c) { return r.last < c; });
  return range != std::end(kClasses) && range->first <= code ? range->combining_class : uint8_t{0};
}

// 0: the two do not compose.
uint32_t compose(uint32_t first, uint32_t second) {
  if (first - kLBase < kLCount && second - kVBase < kVCount) {
    return kSBase + ((first - kLBase) * kVCount + (second - kVBase)) * kTCount;
  }
  if (first - kSBase < kSCount && (first - kSBase) % kTCount == 0 && second - kTBase - 1 < kTCount - 1) {
    return first + (second - kTBase);
  }
  const auto* found =
      std::lower_bound(std::begin(kCompositions), std::end(kCompositions), std::pair(first, second),
                       [](uint16_t index, const std::pair<uint32_t, uint32_t>& pair) {
                         return std::pair(kDecompositions[index].first, kDecompositions[index].second) < pair;
                       });
  if (found == std::end(kCompositions)) return 0;
  const Decomposition& entry = kDecompositions[*found];
  return entry.first == first && entry.second == second ? entry.code : 0;
}

// Whether a starter can be the second part of a composition.
bool composes_backwards(uint32_t code) {
  if (code < kFirstMark) return false;
  if (code - kVBase < kVCount || code - kTBase - 1 < kTCount - 1) return true;
  return std::binary_search(std::begin(kComposingStarters), std::end(kComposingStarters), code);
}

// The decomposed code points since the last place where nothing can compose.
class Run {
 public:
  Run(Sink sink, void* context) : sink_(sink), context_(context) {}

  Status add(uint32_t code) {
    if (code - kSBase < kSCount) {
      const uint32_t index = code - kSBase, t = index % kTCount;
      LETHE_RETURN_IF_ERROR(append(kLBase + index / (kVCount * kTCount)));
      LETHE_RETURN_IF_ERROR(append(kVBase + index / kTCount % kVCount));
      return t == 0 ? Status() : append(kTBase + t);
    }
    const auto* entry = code < 0xc0 ? std::end(kDecompositions)
                                    : std::lower_bound(
                                          std::begin(kDecompositions), std::end(kDecompositions), code,
                                          [](const Decomposition& d, uint32_t c) { return d.code < c; });
    if (entry == std::end(kDecompositions) || entry->code != code) return append(code);
    LETHE_RETURN_IF_ERROR(add(entry->first));
    return entry->second == 0 ? Status() : add(entry->second);
  }

  // Orders, composes and gives out what has gathered.
  Status flush() {
    for (size_t i = 1; i < size_; ++i) {  // stable, by insertion: starters, of class 0, stop it
      const Mark mark = marks_[i];
      size_t at = i;
      for (; mark.combining_class != 0 && at > 0 && mark.combining_class < marks_[at - 1].combining_class; --at) {
        marks_[at] = marks_[at - 1];
      }
      marks_[at] = mark;
    }
    size_t kept = 0, starter = size_;  // size_: none yet
    int last_class = -1;               // of what stands between the starter and the mark
    for (size_t i = 0; i < size_; ++i) {
      const Mark mark = marks_[i];
      if (starter != size_ && last_class < mark.combining_class) {
        if (const uint32_t code = compose(marks_[starter].code, mark.code); code != 0) {
          marks_[starter].code = code;
          continue;
        }
      }
      if (mark.combining_class == 0) starter = kept;
      last_class = mark.combining_class == 0 ? -1 : mark.combining_class;
      marks_[kept++] = mark;
    }
    size_ = 0;
    for (size_t i = 0; i < kept; ++i) {
      char character[4];
      const size_t bytes = utf8::encode(marks_[i].code, character);
      LETHE_RETURN_IF_ERROR(sink_(context_, {character, bytes}));
    }
    return {};
  }

 private:
  struct Mark {
    uint32_t code;
    uint8_t combining_class;
  };

  Status append(uint32_t code) {
    const uint8_t value = combining_class(code);
    if (value == 0 && !composes_backwards(code)) LETHE_RETURN_IF_ERROR(flush());
    if (size_ == kMaxRun) {
      return Status::error(ErrorCode::kUnsupported, "the text has more than %zu combining characters in a row",
                           kMaxRun);
    }
    marks_[size_++] = {code, value};
    return {};
  }

  Sink sink_;
  void* context_;
  Mark marks_[kMaxRun];
  size_t size_ = 0;
};

}  // namespace

Status normalise(std::string_view text, Sink sink, void* context) {
  Run run(sink, context);
  while (!text.empty()) {
    const utf8::Front front = utf8::front(text);
    LETHE_RETURN_IF_ERROR(run.add(front.code));
    text.remove_prefix(front.size);
  }
  return run.flush();
}

bool is_normal(std::string_view text) {
  const auto ascii = [](char byte) { return static_cast<uint8_t>(byte) < 0x80; };
  if (std::all_of(text.begin(), text.end(), ascii)) return true;
  const auto compare = [](void* context, std::string_view character) -> Status {
    auto& rest = *static_cast<std::string_view*>(context);
    if (!rest.starts_with(character)) return Status::error(ErrorCode::kInvalidArgument, "not NFC");
    rest.remove_prefix(character.size());
    return {};
  };
  std::string_view rest = text;
  return normalise(text, compare, &rest).ok() && rest.empty();
}

}  // namespace lethe::nfc
