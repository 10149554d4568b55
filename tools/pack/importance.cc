#include "tools/pack/importance.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <thread>

#include "runtime/engine/session.h"

namespace lethe {
namespace {

constexpr uint64_t kMostTokens = 8192;
constexpr uint32_t kPieceTokens = 512;
constexpr uint64_t kSessionBytes = 1ull << 30;
// Of the mean: inputs that the text did not need keep a say.
constexpr double kLeastShare = 1e-4;

struct Closer {
  void operator()(Model* model) const { Model::close(model); }
  void operator()(Session* session) const { Session::close(session); }
};

struct Squares {
  const Model* model;
  std::map<std::pair<Role, uint32_t>, std::vector<double>> sums;

  static void see(void* user, Role role, uint32_t layer, const float* in, uint32_t tokens) {
    auto& self = *static_cast<Squares*>(user);
    std::vector<double>& sums = self.sums[{role, layer}];
    sums.resize(self.model->find(role, layer)->cols);
    for (uint32_t t = 0; t < tokens; ++t, in += sums.size()) {
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += static_cast<double>(in[i]) * static_cast<double>(in[i]);
    }
  }
};

}  // namespace

Status Importance::measure(const std::string& model_path, std::string_view text,
                           const std::function<void(uint64_t done, uint64_t total)>& progress) {
  Result<Model*> opened = Model::open(model_path.c_str());
  if (!opened.ok()) return opened.status();
  const std::unique_ptr<Model, Closer> model(opened.value());
  SessionOptions options;
  options.ram_bytes = kSessionBytes;
  options.max_tokens = kPieceTokens;
  options.threads = std::max(1u, std::thread::hardware_concurrency());
  Result<Session*> created = Session::create(*model, options);
  if (!created.ok()) return created.status();
  const std::unique_ptr<Session, Closer> session(created.value());

  uint64_t count = 0;
  std::vector<int32_t> ids(text.size() + 2);  // no token is shorter than a byte, but BOS and a leading space
  LETHE_RETURN_IF_ERROR(session->tokenize(text, kTextBos, ids, &count));
  ids.resize(std::min(count, kMostTokens));
  if (ids.empty()) return Status::error(ErrorCode::kInvalidArgument, "the text to calibrate with has no token");

  Squares squares{model.get(), {}};
  session->observe_linears({Squares::see, &squares});
  for (size_t at = 0; at < ids.size(); at += kPieceTokens) {
    const size_t piece = std::min<size_t>(kPieceTokens, ids.size() - at);
    session->reset();
    LETHE_RETURN_IF_ERROR(session->feed(std::span(ids).subspan(at, piece)));
    if (progress) progress(at + piece, ids.size());
  }
  for (const auto& [weight, sums] : squares.sums) {
    double mean = 0;
    for (const double sum : sums) mean += sum / static_cast<double>(sums.size());
    if (!std::isfinite(mean) || mean <= 0) continue;
    std::vector<float>& inputs = inputs_[weight];
    for (const double sum : sums) inputs.push_back(static_cast<float>(std::max(sum / mean, kLeastShare)));
  }
  return {};
}

std::span<const float> Importance::of(Role role, uint32_t layer) const {
  const auto found = inputs_.find({role, layer});
  return found == inputs_.end() ? std::span<const float>() : std::span<const float>(found->second);
}

}  // namespace lethe
