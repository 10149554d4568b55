// lethe eval stream: how well a policy under a cap predicts a text that it reads once, from the first token to the
// last, with one cache; beside what the full cache says of the same text.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/os/process.h"
#include "tools/cli/commands.h"
#include "tools/cli/failure.h"
#include "tools/cli/input.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/mean.h"
#include "tools/cli/options.h"
#include "tools/cli/process_share.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"

namespace lethe::cli {
namespace {

// The part before the scored tokens arrives in steps of this size, so that the cache is capped all along.
constexpr uint32_t kChunk = 64;

struct StreamOptions {
  std::string model, text_file;
  uint32_t tokens = 4096, score_from = 2048;
  std::optional<double> kv_fraction;
  bool compare = true;
  SessionOptions session;
  bool json = false;
};

uint64_t pool_bytes(const lethe_memory& memory) { return memory.tag_bytes[LETHE_MEMORY_KV_POOL]; }

lethe_memory plan(const api::Model& model, const lethe_session_params& params) {
  lethe_memory memory;
  check(model.plan(params, &memory));
  return memory;
}

// The longest cache whose blocks, policy state and all, take no more than `bytes`.
uint32_t tokens_within(const api::Model& model, lethe_session_params params, uint64_t bytes, uint32_t most) {
  constexpr uint32_t kBlock = 32;
  params.max_tokens = 1;  // the plan takes what one step needs
  const lethe_memory smallest = plan(model, params);
  if (pool_bytes(smallest) > bytes) {
    fail(LETHE_ERROR_INVALID_ARGUMENT,
         "--kv-fraction leaves %llu bytes for the cache: too few for a step of %u tokens, which takes %llu",
         static_cast<unsigned long long>(bytes), params.prefill_chunk,
         static_cast<unsigned long long>(pool_bytes(smallest)));
  }
  uint32_t fits = smallest.cache_tokens / kBlock, too_many = std::max(fits, most / kBlock) + 1;
  while (fits + 1 < too_many) {
    const uint32_t middle = fits + (too_many - fits) / 2;
    params.max_tokens = middle * kBlock;
    (pool_bytes(plan(model, params)) <= bytes ? fits : too_many) = middle;
  }
  return fits * kBlock;
}

std::vector<float> log_softmax(api::Session& session) {
  const float* logits = nullptr;
  size_t vocab = 0;
  check(session.logits(&logits, &vocab));
  const float most = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (size_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(logits[i] - most));
  const auto shift = static_cast<float>(most + std::log(sum));
  std::vector<float> out(vocab);
  for (size_t i = 0; i < vocab; ++i) out[i] = logits[i] - shift;
  return out;
}

size_t best(const std::vector<float>& row) {
  return static_cast<size_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

struct Scores {
  Mean nll, kl, agreement;
  std::vector<double> nll_by_eighth;  // of the scored part
};

Scores read_stream(const StreamOptions& options, const std::vector<int32_t>& ids, api::Session& session,
                   api::Session* full) {
  const uint32_t from = options.score_from;
  check(session.feed(ids.data(), from));
  if (full != nullptr) check(full->feed(ids.data(), from));
  Scores scores;
  std::vector<Mean> eighths(8);
  Progress progress("streaming", ids.size() - from);
  for (size_t at = from; at < ids.size(); ++at) {
    const std::vector<float> row = log_softmax(session);
    const double nll = -static_cast<double>(row[static_cast<size_t>(ids[at])]);
    scores.nll.add(nll);
    eighths[(at - from) * 8 / (ids.size() - from)].add(nll);
    if (full != nullptr) {
      const std::vector<float> reference = log_softmax(*full);
      double kl = 0;
      for (size_t i = 0; i < row.size(); ++i) {
        kl += std::exp(static_cast<double>(reference[i])) *
              (static_cast<double>(reference[i]) - static_cast<double>(row[i]));
      }
      scores.kl.add(kl);
      scores.agreement.add(best(row) == best(reference) ? 1 : 0);
      check(full->feed(&ids[at], 1));
    }
    check(session.feed(&ids[at], 1));
    char note[48];
    snprintf(note, sizeof note, "ppl %.4f", std::exp(scores.nll.mean()));
    progress.update(at + 1 - from, note);
  }
  for (const Mean& eighth : eighths) scores.nll_by_eighth.push_back(eighth.count() == 0 ? 0 : eighth.mean());
  return scores;
}

int stream(StreamOptions& options) {
  if (options.score_from == 0 || options.score_from >= options.tokens) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--score-from is %u of --tokens %u: from 1 to one less", options.score_from,
         options.tokens);
  }
  if (options.kv_fraction && (!(*options.kv_fraction > 0) || *options.kv_fraction > 1)) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--kv-fraction is %g: above 0, at most 1", *options.kv_fraction);
  }
  if (options.kv_fraction.has_value() == options.session.ram.text.has_value()) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "give either --kv-fraction or --ram");
  }
  if (!options.session.ram.text) options.session.ram.text = "64GiB";
  const std::string text = read_text(options.text_file);
  check_text("the text", text);
  const api::Model model = check(api::Model::open(options.model.c_str()));
  lethe_session_params params = options.session.params(host_bytes(0));
  if (params.prefill_chunk == 0) params.prefill_chunk = kChunk;
  lethe_session_params full_params = api::session_params(uint64_t{64} << 30);
  full_params.policy = "full";
  full_params.max_tokens = options.tokens;
  full_params.prefill_chunk = kChunk;
  full_params.threads = params.threads;
  const uint64_t full_bytes = pool_bytes(plan(model, full_params));
  if (options.kv_fraction) {
    const auto limit = static_cast<uint64_t>(*options.kv_fraction * static_cast<double>(full_bytes));
    params.max_tokens = tokens_within(model, params, limit, (options.tokens + 31) / 32 * 32);
  }
  api::Session session = check(api::Session::create(model, params));
  std::optional<api::Session> full;
  if (options.compare) full.emplace(check(api::Session::create(model, full_params)));

  size_t count = 0;
  std::vector<int32_t> ids(text.size() + 1);  // a byte is at most one token
  check(session.tokenize(text, LETHE_TEXT_BOS, ids.data(), ids.size(), &count));
  if (count < options.tokens) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "the text has %zu tokens, --tokens asks for %u", count, options.tokens);
  }
  ids.resize(options.tokens);
  const uint64_t started = os::monotonic_ns();
  const Scores scores = read_stream(options, ids, session, full ? &*full : nullptr);
  const double seconds = static_cast<double>(os::monotonic_ns() - started) * 1e-9;
  const lethe_memory memory = session.memory();
  const lethe_stats stats = session.stats();
  const double share = static_cast<double>(pool_bytes(memory)) / static_cast<double>(full_bytes);
  if (options.json) {
    JsonWriter json;
    json.begin_object()
        .member("nll", scores.nll.mean())
        .member("nll_stderr", scores.nll.standard_error())
        .member("ppl", std::exp(scores.nll.mean()))
        .member("scored_tokens", scores.nll.count());
    json.key("nll_by_eighth").begin_array();
    for (const double nll : scores.nll_by_eighth) json.value(nll);
    json.end_array();
    if (full) {
      json.member("kl_to_full", scores.kl.mean()).member("top1_agreement", scores.agreement.mean());
    }
    json.member("policy", params.policy)
        .member("kv_bytes_peak", pool_bytes(memory))
        .member("kv_share_of_full", share)
        .member("cache_tokens", memory.cache_tokens)
        .member("evictions", stats.evictions)
        .member("eviction_seconds", static_cast<double>(stats.eviction_ns) * 1e-9)
        .member("seconds", seconds)
        .end_object()
        .finish();
    return 0;
  }
  printf("nll %.4f +/- %.4f, ppl %.3f over %s tokens\n", scores.nll.mean(), scores.nll.standard_error(),
         std::exp(scores.nll.mean()), with_separators(scores.nll.count()).c_str());
  if (full)
    printf("KL to the full cache %.4f nats, same best token %.2f %%\n", scores.kl.mean(),
           100 * scores.agreement.mean());
  printf("cache: %s tokens, %s (%.1f %% of the full one), %s evictions\n", with_separators(memory.cache_tokens).c_str(),
         human_bytes(pool_bytes(memory)).c_str(), 100 * share, with_separators(stats.evictions).c_str());
  return 0;
}

}  // namespace

void add_eval_stream(CLI::App& eval, int& status) {
  auto options = std::make_shared<StreamOptions>();
  CLI::App& command = *eval.add_subcommand("stream", "A policy under a cap against the full cache, over one long text");
  add_model(command, options->model);
  command.add_option("--text", options->text_file, "text file (- is standard input)")->required();
  command.add_option("--tokens", options->tokens, "tokens of the text that are read")->capture_default_str();
  command.add_option("--score-from", options->score_from, "first token that is scored")->capture_default_str();
  command.add_option("--kv-fraction", options->kv_fraction,
                     "cap the cache's bytes, policy state included, at this share of the full f16 cache's");
  command.add_flag("!--no-compare", options->compare, "do not run the full cache beside it (no KL, half the time)");
  options->session.add_to(command);
  add_json(command, options->json);
  command.footer(
      "Examples:\n"
      "  lethe eval stream model.lethe --text book.txt --tokens 4096 --score-from 2048 --policy keydiff --kv-fraction "
      "0.25\n"
      "  lethe eval stream model.lethe --text book.txt --policy window --ram 16MiB --json\n"
      "The first part arrives in steps of 64 tokens, the scored part token by token.");
  command.callback([options, &status] { status = stream(*options); });
}

}  // namespace lethe::cli
