// What a learned eviction policy may know of a token: the inputs of its network are a list, and the width of the
// network, the frozen moments and the state of a slot all follow from it.
//
// The published NAMM (Cetin et al. 2025, "An Evolved Universal Transformer Memory", arXiv 2410.13166) has the age and
// the attention spectrum, in this order.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace lethe::namm {

inline constexpr uint32_t kHop = 16;               // queries between two frames of the spectrum
inline constexpr uint32_t kFrame = 2 * kHop;       // queries of a frame
inline constexpr uint32_t kBins = kFrame / 2 + 1;  // frequencies of a frame
inline constexpr uint32_t kAgePairs = 4;           // sines and cosines of the age

// Pinned: these numbers are in model files. Never renumber; append only.
enum class Input : uint8_t {
  kAge = 0,           // sines, then cosines, of the positions between a token and the newest one
  kSpectrum = 1,      // magnitudes of the spectrum of the attention it gets, averaged over frames
  kRawAttention = 2,  // the attention of the last queries, the newest first
  kAttentionSum = 3,  // the attention of all queries since it came
  kRecency = 4,       // positions between a token and the newest one
  kDiversity = 5,     // mean distance between its (key, value) and those of the other tokens
  kKeyNorm = 6,       // length of its key
  kKeyCosine = 7,     // cosine of its key to the mean unit key of the list: KeyDiff's anchor (arXiv 2504.15364)
  kValueNorm = 8,     // sum of the magnitudes of its value (VATP, arXiv 2406.12335)
  kLogAttention = 9,  // log2(kLeastAttention + kAttentionSum): attention is spread over magnitudes
  kLogRecency = 10,   // log2(1 + kRecency)
};
inline constexpr uint32_t kInputKinds = 11;
inline constexpr float kLeastAttention = 1e-4f;  // below it sums of attention are alike in kLogAttention

// What a slot must remember for an input.
enum StatePart : uint32_t { kRing = 1, kAverages = 2, kSum = 4 };

struct InputInfo {
  std::string_view name;
  uint32_t width;        // numbers that it gives
  bool is_standardised;  // by a frozen mean and variance of every number
  uint32_t state_parts;
};

inline constexpr std::array<InputInfo, kInputKinds> kInputs = {{
    {"age", 2 * kAgePairs, false, 0},
    {"spectrum", kBins, true, kRing | kAverages},
    {"raw-attention", kFrame, true, kRing},
    {"attention-sum", 1, true, kSum},
    {"recency", 1, true, 0},
    {"diversity", 1, true, 0},
    {"key-norm", 1, true, 0},
    {"key-cosine", 1, true, 0},
    {"value-norm", 1, true, 0},
    {"log-attention", 1, true, kSum},
    {"log-recency", 1, true, 0},
}};
constexpr const InputInfo& info_of(Input input) { return kInputs[static_cast<uint32_t>(input)]; }

}  // namespace lethe::namm
