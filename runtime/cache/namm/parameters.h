// The parameters of a NAMM: what its network reads and how large it is, and views into one flat array of floats.
//
// The array holds, in this order: the weights, in the order of the authors' flat vector; then the frozen mean and the
// frozen variance of every standardised input, in the order of the inputs. Matrices are [inputs][outputs].
//
//   BAM   D inputs, width H            MLP   D inputs, H hidden units    linear   D inputs, no hidden units
//     qkv         [D][3 H]  Q, K, V      hidden       [D][H]               score       [D]
//     qkv_bias    [3 H]                  hidden_bias  [H]                  score_bias  [1]
//     out         [H][2 D]  add, gate    score        [H]
//     out_bias    [2 D]                  score_bias   [1]
//     score       [D]
//     score_bias  [1]
//
// The published network is a BAM of width 32 over 25 inputs: 4,172 weights, 17 means and 17 variances.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "runtime/base/status.h"
#include "runtime/cache/namm/inputs.h"

namespace lethe::namm {

// Pinned: these numbers are in model files.
enum class Network : uint8_t { kBam = 0, kMlp = 1, kLinear = 2 };
inline constexpr std::array<const char*, 3> kNetworkNames = {"bam", "mlp", "linear"};
constexpr const char* network_name(Network network) { return kNetworkNames[static_cast<size_t>(network)]; }

inline constexpr uint32_t kMaxHidden = 256;
inline constexpr uint32_t kMaxWidth = 72;  // the width of all inputs together is less

struct Shape {
  Network network = Network::kBam;
  uint32_t hidden = 32;                                                     // 0 of a linear one
  std::array<Input, kInputKinds> inputs = {Input::kAge, Input::kSpectrum};  // no kind twice
  uint32_t input_count = 2;

  std::span<const Input> list() const { return std::span(inputs).first(input_count); }
  uint32_t width() const;        // numbers of all inputs together
  uint32_t moments() const;      // of them, those that are standardised
  uint32_t state_parts() const;  // StatePart of all inputs
  uint32_t weight_count() const;
  uint32_t parameter_count() const { return weight_count() + 2 * moments(); }
};

// kInvalidArgument when a shape has no input, one twice or an unknown one, or not a number of hidden units that its
// network can have.
Status check_shape(const Shape& shape);

inline constexpr uint32_t kInterval = 512;  // as the authors have it

// Views: the floats must outlive them.
struct Parameters {
  Shape shape;
  uint32_t interval = kInterval;     // tokens of the conversation between two decisions: a multiple of kHop
  bool rectangular = false;          // Retention::rectangular
  std::span<const float> weights;    // [weight_count]
  std::span<const float> means;      // [moments]
  std::span<const float> variances;  // [moments]
};

// kInvalidArgument when the shape or the interval is impossible, `flat` has not parameter_count() numbers, one of them
// is not finite or a variance is negative.
Result<Parameters> view_parameters(const Shape& shape, std::span<const float> flat, uint32_t interval = kInterval,
                                   bool rectangular = false);

struct BamWeights {
  std::span<const float> qkv, qkv_bias, out, out_bias, score, score_bias;
};
BamWeights bam_weights(const Parameters& parameters);

struct MlpWeights {
  std::span<const float> hidden, hidden_bias, score, score_bias;
};
MlpWeights mlp_weights(const Parameters& parameters);

struct LinearWeights {
  std::span<const float> score, score_bias;
};
LinearWeights linear_weights(const Parameters& parameters);

}  // namespace lethe::namm
