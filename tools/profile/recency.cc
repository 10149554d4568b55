#include "tools/profile/recency.h"

#include <algorithm>
#include <cmath>

#include "runtime/backend/cpu/kernels.h"

namespace lethe::profile {
namespace {

constexpr uint64_t kSessionBytes = uint64_t{64} << 30;  // a cap that does not bind: the plan takes what it needs
constexpr uint32_t kWindowsBefore = 4;                  // that a query must see to count

// What attention over some of the ranks leaves behind, of all rows of a tile.
struct Masses {
  float *max, *sum;

  // Of the attention in `all`; nothing was seen where the sum is 0.
  double share(size_t row, const Masses& all) const {
    return sum[row] == 0 ? 0
                         : static_cast<double>(sum[row]) / static_cast<double>(all.sum[row]) *
                               std::exp(static_cast<double>(max[row]) - static_cast<double>(all.max[row]));
  }
};

}  // namespace

Status RecencyMeter::open(const RecencyOptions& options) {
  if (options.window == 0 || options.sinks > options.window ||
      options.tokens <= uint64_t{kWindowsBefore} * options.window) {
    return Status::error(
        ErrorCode::kInvalidArgument,
        "a window of %u, %u first tokens and sequences of %u: a window has at least 1 token and as many "
        "as count as first, and sequences are longer than %u windows",
        options.window, options.sinks, options.tokens, kWindowsBefore);
  }
  options_ = options;
  SessionOptions session;
  session.ram_bytes = kSessionBytes;
  session.policy = &kFullPolicy;
  session.positions = PositionMode::kAbsolute;
  session.max_tokens = options.tokens;
  session.head_plan = false;
  session.threads = options.threads;
  Result<Session*> created = Session::create(*model_, session);
  if (!created.ok()) return created.status();
  session_ = created.value();
  const ModelConfig& config = model_->config();
  const size_t group = config.heads / config.kv_heads, rows = cpu::kQueryTile * group;
  const size_t floats = cpu::attend_scratch_floats(group, config.head_dim) + rows * (config.head_dim + 6);
  scratch_.assign(options.threads, std::vector<Line>(floats / std::size(Line().floats) + 1));
  clear();
  session_->observe_attention(
      {[](void* user, uint32_t layer, uint32_t kv_head, uint32_t thread, const cpu::AttendArgs& args) {
         static_cast<RecencyMeter*>(user)->see(layer, kv_head, thread, args);
       },
       this});
  return {};
}

Status RecencyMeter::tokenize(std::string_view text, std::vector<int32_t>* ids) const {
  uint64_t count = 0;
  ids->resize(text.size() + 2);  // no token is shorter than a byte, but BOS and a leading space
  LETHE_RETURN_IF_ERROR(session_->tokenize(text, kTextBos, *ids, &count));
  ids->resize(count);
  return {};
}

Status RecencyMeter::read(std::span<const int32_t> ids) {
  session_->reset();
  LETHE_RETURN_IF_ERROR(session_->feed(ids));
  queries_ += ids.size() - std::min<size_t>(ids.size(), size_t{kWindowsBefore} * options_.window);
  return {};
}

// Tile by tile, attention is paid three times: to all, to the window and to the first tokens. The weight of a range of
// ranks is what its softmax adds up to, so nothing is kept of the single scores.
void RecencyMeter::see(uint32_t layer, uint32_t kv_head, uint32_t thread, const cpu::AttendArgs& whole) {
  const cpu::Kernels kernels = cpu::simd_kernels();
  const uint32_t group = whole.group, head_dim = model_->config().head_dim;
  const size_t rows = size_t{cpu::kQueryTile} * group;
  const uint32_t first_counted = kWindowsBefore * options_.window;
  float* at = scratch_[thread].data()->floats;
  cpu::AttendArgs args = whole;
  args.scratch = at;
  args.acc = at += cpu::attend_scratch_floats(group, head_dim);
  at += rows * head_dim;
  const auto masses = [&] {
    const Masses out{at, at + rows};
    at += 2 * rows;
    return out;
  };
  const Masses all = masses(), near = masses(), first = masses();
  const auto attend = [&](const Masses& out, Sight sight, uint32_t rank_end) {
    args.sight = sight;
    args.rank_end = rank_end;
    args.max = out.max;
    args.sum = out.sum;
    kernels.attend(args);
  };
  Recency* const sums = &sums_[(uint64_t{layer} * model_->config().kv_heads + kv_head) * group];
  for (uint32_t begin = 0; begin < whole.query_end; begin += cpu::kQueryTile) {
    args.query_begin = begin;
    args.query_end = std::min(begin + cpu::kQueryTile, whole.query_end);
    const uint32_t seen = whole.first_rank_of_step + args.query_end;
    if (seen <= first_counted) continue;
    const uint32_t window = whole.sight.window;
    attend(all, whole.sight, seen);
    attend(near, {.window = window == 0 ? options_.window : std::min(window, options_.window)}, seen);
    attend(first, whole.sight, options_.sinks);
    for (uint32_t t = begin; t < args.query_end; ++t) {
      if (whole.first_rank_of_step + t < first_counted) continue;
      for (uint32_t head = 0; head < group; ++head) {
        const size_t row = size_t{t - begin} * group + head;
        const double share = near.share(row, all);
        sums[head].near += share;
        sums[head].near_or_first += share + first.share(row, all);
      }
    }
  }
}

std::vector<Recency> RecencyMeter::ratios() const {
  std::vector<Recency> ratios = sums_;
  const double count = static_cast<double>(std::max<uint64_t>(queries_, 1));
  for (Recency& ratio : ratios) {
    ratio.near /= count;
    ratio.near_or_first /= count;
  }
  return ratios;
}

void RecencyMeter::clear() {
  const ModelConfig& config = model_->config();
  sums_.assign(uint64_t{config.layers} * config.heads, {});
  queries_ = 0;
}

}  // namespace lethe::profile
