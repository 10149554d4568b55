#include "runtime/engine/session_plan.h"

#include <algorithm>
#include <cmath>

#include "runtime/cache/namm/file.h"
#include "runtime/engine/decoder.h"
#include "runtime/engine/session.h"
#include "runtime/memory/plan_verify.h"
#include "runtime/memory/planner.h"
#include "runtime/os/pages.h"

namespace lethe {
namespace {

constexpr uint32_t kSmallestChunk = 16;
constexpr uint32_t kLargestAutomaticChunk = 128;  // longer ones leave the second cache, and gain nothing
constexpr uint32_t kFewestBlocks = 2;             // per list
constexpr uint32_t kMaxSinks = 4096;
constexpr uint32_t kMaxCacheTokens = 1u << 26;
constexpr uint64_t kMaxHostBytes = uint64_t{1} << 48;  // so that sums stay far from 64 bits

// Not in the session's block: the C library's tables of a thread.
constexpr uint64_t kThreadTableBytes = 4 << 10;

double mib(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

Status check_options(const SessionOptions& options) {
  const auto refuse = [](const char* name, uint64_t value, uint64_t most) {
    return Status::error(ErrorCode::kInvalidArgument, "%s is %llu: at most %llu", name,
                         static_cast<unsigned long long>(value), static_cast<unsigned long long>(most));
  };
  if (options.prefill_chunk > kMaxChunk) return refuse("prefill_chunk", options.prefill_chunk, kMaxChunk);
  if (options.threads == 0 || options.threads > cpu::ThreadPool::kMaxThreads) {
    return refuse("threads", options.threads, cpu::ThreadPool::kMaxThreads);
  }
  if (options.logit_rows == 0 || options.logit_rows > kMaxLogitRows) {
    return refuse("logit_rows", options.logit_rows, kMaxLogitRows);
  }
  if (options.sinks > kMaxSinks) return refuse("sinks", options.sinks, kMaxSinks);
  if (options.turn_bytes > kMaxTurnBytes) return refuse("turn_bytes", options.turn_bytes, kMaxTurnBytes);
  if (options.max_tokens > kMaxCacheTokens) return refuse("max_tokens", options.max_tokens, kMaxCacheTokens);
  if (options.host_bytes > kMaxHostBytes) return refuse("host_bytes", options.host_bytes, kMaxHostBytes);
  return {};
}

// Calls visit(blocks) for every list with the most blocks that it can use, UINT32_MAX without a window.
template <typename Visit>
void for_each_most_blocks(const Model& model, const SessionOptions& options, uint32_t chunk, Visit visit) {
  for (uint32_t layer = 0; layer < model.config().layers; ++layer) {
    for (uint32_t kv_head = 0; kv_head < model.config().kv_heads; ++kv_head) {
      const Sight sight = sight_of(model, options, layer, kv_head);
      visit(sight.window == 0 ? UINT32_MAX : kv_window_blocks(sight, chunk));
    }
  }
}

Status read_namm(const Model& model, const SessionOptions& options, namm::Parameters* out) {
  const std::span<const uint8_t> file = options.namm.empty() ? model.namm() : options.namm;
  if (file.empty()) {
    return Status::error(ErrorCode::kInvalidArgument,
                         "policy %s needs parameters, and the model file has none: give the session a NAMM file, or "
                         "pack the model with one",
                         options.policy->name);
  }
  const Result<namm::Parameters> parameters = namm::read_file(file);
  if (parameters.ok()) *out = parameters.value();
  return parameters.status();
}

}  // namespace

Result<cpu::BufferPlan> plan_activations(const Program& program, uint32_t chunk) {
  const auto lifetimes = buffer_lifetimes(program);
  std::array<PlanBuffer, kBufferCount> buffers;
  for (uint32_t i = 0; i < kBufferCount; ++i) {
    const uint64_t bytes = lifetimes[i].used ? cpu::buffer_bytes(program, static_cast<BufferId>(i), chunk) : 0;
    buffers[i] = {bytes, lifetimes[i].first, lifetimes[i].last};
  }
  cpu::BufferPlan plan{};
  std::array<uint32_t, 2 * kBufferCount> scratch;
  const Result<uint64_t> total = plan_buffers(buffers, plan.offsets, scratch);
  if (!total.ok()) return total.status();
  plan.total = total.value();
  if (Status status = verify_plan(buffers, plan.offsets, plan.total); !status.ok()) return status;
  return plan;
}

Retention retention_of(const SessionOptions& options) {
  Retention retention = options.policy->retention;
  retention.recent_percent = options.recent_percent.value_or(retention.recent_percent);
  retention.budget = options.budget.value_or(retention.budget);
  retention.pooling = options.pooling.value_or(retention.pooling);
  retention.value_norm = options.value_norm.value_or(retention.value_norm);
  if (options.policy->score == nullptr || retention.recent_percent == 100) retention.budget = Budget::kList;
  return retention;
}

uint32_t fewest_blocks(uint32_t chunk, uint64_t reserved, Budget budget) {
  return std::max(kFewestBlocks, kv_blocks_of_tokens(chunk + reserved + budget_slack(budget)));
}

Sight sight_of(const Model& model, const SessionOptions& options, uint32_t layer, uint32_t kv_head) {
  const ModelConfig& config = model.config();
  if (options.head_plan && !model.head_plan().empty()) {
    const HeadWindow planned = model.head_plan()[uint64_t{layer} * config.kv_heads + kv_head];
    if (planned.window != 0) return {.sinks = planned.sinks, .window = planned.window};
  }
  return {.sinks = 0, .window = config.window_of(layer)};
}

bool has_windows(const Model& model, const SessionOptions& options) {
  return model.config().window != 0 || (options.head_plan && !model.head_plan().empty());
}

uint64_t pool_blocks(const Model& model, const SessionOptions& options, const SessionShape& shape) {
  uint64_t blocks = 0;
  for_each_most_blocks(model, options, shape.chunk,
                       [&](uint32_t most) { blocks += std::min(shape.blocks_per_list, most); });
  return blocks;
}

Status plan_session(const Model& model, const SessionOptions& options, SessionPlan* plan) {
  *plan = {};
  LETHE_RETURN_IF_ERROR(check_options(options));
  if (options.policy->is_learned) LETHE_RETURN_IF_ERROR(read_namm(model, options, &plan->namm));
  const ModelConfig& config = model.config();
  const uint64_t lists = uint64_t{config.layers} * config.kv_heads;
  const uint64_t page = os::page_size();
  const Budget budget = retention_of(options).budget;

  // Everything a shape takes, in `plan`.
  const auto measure = [&](SessionShape shape) -> Status {
    Arena arena = Arena::measuring();
    SessionPlan measured{};
    measured.shape = shape;
    measured.minimum_ram = plan->minimum_ram;
    measured.namm = plan->namm;
    Session session(model, options, measured);
    LETHE_RETURN_IF_ERROR(session.lay_out(arena, shape, measured.tag_bytes));
    const auto add = [&](MemoryTag tag, uint64_t bytes) { measured.tag_bytes[static_cast<int>(tag)] += bytes; };
    measured.pool_offset = round_up(arena.used(), page);
    const uint64_t pool_bytes = round_up(session.kv_.blocks_bytes(), page);
    measured.block_bytes = measured.pool_offset + pool_bytes;
    add(MemoryTag::kSession, measured.pool_offset - arena.used());
    add(MemoryTag::kKvPool, pool_bytes);
    add(MemoryTag::kHost, options.host_bytes);
    add(MemoryTag::kModel, model.private_bytes());
    add(MemoryTag::kTokenizer, chat_heap_bytes(model.tokenizer().chat_template.size(), options.turn_bytes));
    add(MemoryTag::kThreads, kThreadTableBytes * options.threads);
    for (const uint64_t bytes : measured.tag_bytes) measured.total += bytes;
    *plan = measured;
    return {};
  };
  const uint32_t smallest_chunk = options.prefill_chunk != 0 ? std::max(options.prefill_chunk, options.logit_rows)
                                                             : std::max(kSmallestChunk, options.logit_rows);
  const uint32_t wanted_blocks = kv_blocks_of_tokens(options.max_tokens);
  const uint32_t smallest_blocks = std::max(wanted_blocks, fewest_blocks(smallest_chunk, options.sinks, budget));
  LETHE_RETURN_IF_ERROR(measure({smallest_chunk, smallest_blocks}));
  plan->minimum_ram = plan->total;
  if (plan->total > options.ram_bytes) {
    return Status::error(ErrorCode::kRamTooSmall,
                         "needs %.2f MiB with a cache of %u tokens, the cap is %.2f MiB; the smallest cap that works "
                         "is %llu bytes (%.2f MiB)",
                         mib(plan->total), plan->shape.cache_tokens(), mib(options.ram_bytes),
                         static_cast<unsigned long long>(plan->total), mib(plan->total));
  }

  SessionShape shape = plan->shape;
  const uint64_t spare = options.ram_bytes - plan->total;
  const uint64_t smallest_total = plan->total;
  const uint32_t useful_blocks = wanted_blocks != 0 ? wanted_blocks : kv_blocks_of_tokens(config.context_length);
  const auto countable_blocks = static_cast<uint32_t>(kMaxBlocks / lists);
  const uint32_t most_blocks = std::max(smallest_blocks, std::min(useful_blocks, countable_blocks));
  if (options.prefill_chunk == 0) {
    for (uint32_t chunk = kLargestAutomaticChunk; chunk > smallest_chunk; chunk /= 2) {
      const uint32_t blocks = std::max(smallest_blocks, fewest_blocks(chunk, options.sinks, budget));
      // An evicting cache should not have to forget half of itself for one chunk.
      if (blocks > most_blocks || chunk * 2 > most_blocks * kBlockSlots) continue;
      LETHE_RETURN_IF_ERROR(measure({chunk, blocks}));
      if (plan->total <= smallest_total + spare / 4) {
        shape = plan->shape;
        break;
      }
    }
  }
  // The largest cache that fits, by bisection: the cost grows with the number of blocks, up to what windows can use.
  uint32_t longest = 0;
  for_each_most_blocks(model, options, shape.chunk,
                       [&](uint32_t most) { longest = std::max(longest, std::min(most, UINT32_MAX - 1)); });
  uint32_t fits = shape.blocks_per_list, too_many = std::max(fits, std::min(most_blocks, longest)) + 1;
  while (fits + 1 < too_many) {
    const uint32_t middle = fits + (too_many - fits) / 2;
    LETHE_RETURN_IF_ERROR(measure({shape.chunk, middle}));
    (plan->total <= options.ram_bytes ? fits : too_many) = middle;
  }
  return measure({shape.chunk, fits});
}

}  // namespace lethe
