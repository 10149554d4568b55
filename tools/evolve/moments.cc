#include "tools/evolve/moments.h"

#include <algorithm>
#include <memory>

#include "runtime/cache/namm/policy.h"
#include "runtime/engine/session.h"

namespace lethe::evolve {
namespace {

constexpr uint64_t kNoCap = uint64_t{64} << 30;

struct Closer {
  void operator()(Model* model) const { Model::close(model); }
  void operator()(Session* session) const { Session::close(session); }
};

struct Sums {
  uint64_t tokens = 0;
  std::vector<double> sums, squares;  // [moments]
};

// Policies are pure functions without a place for results: these go to the thread that feeds the session.
thread_local Sums* collected = nullptr;

// Looks at the inputs of a list, and scores all tokens 0: they stay.
void collect(const ScoreArgs& args, std::span<float> scores) {
  const namm::Shape& shape = args.namm->shape();
  const uint32_t length = args.list.length, width = shape.width();
  const std::span<float> features = args.work.first(namm::feature_floats(length, width));
  namm::read_features(shape, nullptr, args.pool, args.list, {scores, args.work.subspan(features.size())},
                      features.data());
  uint32_t row = 0, moment = 0;
  for (const namm::Input input : shape.list()) {
    const namm::InputInfo& info = namm::info_of(input);
    for (uint32_t i = 0; i < info.width && info.is_standardised; ++i, ++moment) {
      for (uint32_t rank = 0; rank < length; ++rank) {
        const size_t at = (rank / kBlockSlots * width + row + i) * kBlockSlots + rank % kBlockSlots;
        const double x = static_cast<double>(features[at]);
        collected->sums[moment] += x;
        collected->squares[moment] += x * x;
      }
    }
    row += info.width;
  }
  collected->tokens += length;
  std::fill(scores.begin(), scores.end(), 0.0f);
}

}  // namespace

Result<FrozenMoments> collect_moments(const std::string& model_path, const namm::Shape& shape,
                                      std::span<const std::vector<int32_t>> prompts, uint32_t threads,
                                      const std::function<void(size_t done)>& on_prompt) {
  Result<Model*> opened = Model::open(model_path.c_str());
  if (!opened.ok()) return opened.status();
  const std::unique_ptr<Model, Closer> model(opened.value());

  namm::Scorer scorer;  // for its shape alone
  Arena arena = Arena::measuring();
  scorer.carve(arena, shape);
  namm::Parameters parameters;  // the policy takes no weights from them
  parameters.shape = shape;
  parameters.interval = kMomentInterval;
  Policy policy = namm::policy_of(parameters, scorer);
  policy.is_learned = false;
  policy.score = collect;
  size_t longest = 1;
  for (const std::vector<int32_t>& prompt : prompts) longest = std::max(longest, prompt.size());
  SessionOptions options;
  options.ram_bytes = kNoCap;
  options.policy = &policy;
  options.positions = policy.default_positions;
  options.max_tokens = static_cast<uint32_t>((longest + kBlockSlots - 1) / kBlockSlots * kBlockSlots);
  options.threads = threads;
  Result<Session*> created = Session::create(*model, options);
  if (!created.ok()) return created.status();
  const std::unique_ptr<Session, Closer> session(created.value());

  Sums sums{0, std::vector<double>(shape.moments()), std::vector<double>(shape.moments())};
  collected = &sums;
  for (size_t i = 0; i < prompts.size(); ++i) {
    session->reset();
    LETHE_RETURN_IF_ERROR(session->feed(prompts[i]));
    on_prompt(i + 1);
  }
  if (sums.tokens == 0) {
    return Status::error(ErrorCode::kInvalidArgument,
                         "the moments of the inputs are taken after every %u tokens, and no prompt is longer: the "
                         "longest has %zu",
                         kMomentInterval, longest);
  }
  FrozenMoments moments;
  for (uint32_t i = 0; i < shape.moments(); ++i) {
    const auto n = static_cast<double>(sums.tokens);
    const double mean = sums.sums[i] / n;
    moments.means.push_back(static_cast<float>(mean));
    moments.variances.push_back(static_cast<float>(std::max(0.0, sums.squares[i] / n - mean * mean)));
  }
  return moments;
}

}  // namespace lethe::evolve
