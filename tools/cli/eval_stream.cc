// lethe eval stream: how well a policy under a cap predicts a text that it reads once, from the first token to the
// last, with one cache; beside what the full cache says of the same text.
#include <CLI/CLI.hpp>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "tools/cli/commands.h"
#include "tools/cli/failure.h"
#include "tools/cli/input.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/kv_budget.h"
#include "tools/cli/mean.h"
#include "tools/cli/options.h"
#include "tools/cli/process_share.h"
#include "tools/cli/stream_run.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"

namespace lethe::cli {
namespace {

struct StreamOptions {
  std::string model, text_file;
  uint32_t tokens = 4096, score_from = 2048, step = 1;
  uint64_t skip = 0;
  std::optional<double> kv_fraction;
  bool compare = true;
  SessionOptions session;
  bool json = false;
};

int stream(StreamOptions& options) {
  if (options.score_from == 0 || options.score_from >= options.tokens) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--score-from is %u of --tokens %u: from 1 to one less", options.score_from,
         options.tokens);
  }
  check_budget(options.kv_fraction, options.session);
  const std::string text = read_text(options.text_file);
  check_text("the text", text);
  const api::Model model = check(api::Model::open(options.model.c_str()));
  const lethe_session_params params = options.session.params(host_bytes(0));
  const std::vector<int32_t> all = tokenize_text(model, text);
  if (all.size() < options.tokens || all.size() - options.tokens < options.skip) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "the text has %zu tokens, --tokens asks for %u after --skip %llu", all.size(),
         options.tokens, static_cast<unsigned long long>(options.skip));
  }
  const std::vector<int32_t> ids = stream_window(all, bos_token(model), options.skip, options.tokens);
  const StreamResult result = [&] {
    Progress progress("streaming", options.tokens - options.score_from);
    const StreamLength length{options.tokens, options.score_from, options.step};
    const auto reader = std::make_unique<StreamReader>(model, length, options.kv_fraction, params);
    run_stream(model, length, ids, {&reader, 1}, options.compare, params.threads,
               [&](uint64_t done) { progress.update(done); });
    return reader->result();
  }();
  if (options.json) {
    JsonWriter json;
    json.begin_object()
        .member("nll", result.nll.mean())
        .member("nll_stderr", result.nll.standard_error())
        .member("ppl", std::exp(result.nll.mean()))
        .member("scored_tokens", result.nll.count());
    json.key("nll_by_eighth").begin_array();
    for (const Mean& eighth : result.nll_by_eighth) json.value(eighth.mean());
    json.end_array();
    if (options.compare) {
      json.member("nll_over_full", result.over_full.mean());
      json.member("kl_to_full", result.kl.mean()).member("top1_agreement", result.agreement.mean());
    }
    json.member("policy", result.policy)
        .member("kv_bytes_peak", result.kv_bytes)
        .member("kv_share_of_full", result.kv_share)
        .member("cache_tokens", result.cache_tokens)
        .member("evictions", result.stats.evictions)
        .member("eviction_seconds", static_cast<double>(result.stats.eviction_ns) * 1e-9)
        .member("seconds", result.seconds)
        .end_object()
        .finish();
    return 0;
  }
  printf("nll %.4f +/- %.4f, ppl %.3f over %s tokens\n", result.nll.mean(), result.nll.standard_error(),
         std::exp(result.nll.mean()), with_separators(result.nll.count()).c_str());
  if (options.compare) {
    printf("against the full cache: nll %+.4f, KL %.4f nats, same best token %.2f %%\n", result.over_full.mean(),
           result.kl.mean(), 100 * result.agreement.mean());
  }
  printf("by eighths of the scored part:");
  for (const Mean& eighth : result.nll_by_eighth) printf(" %.3f", eighth.mean());
  printf("\ncache: policy %s, %s tokens, %s (%.1f %% of the full one), %s evictions\n", result.policy,
         with_separators(result.cache_tokens).c_str(), human_bytes(result.kv_bytes).c_str(), 100 * result.kv_share,
         with_separators(result.stats.evictions).c_str());
  return 0;
}

}  // namespace

void add_eval_stream(CLI::App& eval, int& status) {
  auto options = std::make_shared<StreamOptions>();
  CLI::App& command = *eval.add_subcommand("stream", "A policy under a cap against the full cache, over one long text");
  add_model(command, options->model);
  command.add_option("--text", options->text_file, "text file (- is standard input)")->required();
  command.add_option("--tokens", options->tokens, "tokens of the text that are read")->capture_default_str();
  command.add_option("--skip", options->skip, "tokens of the text that are left out before them")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command.add_option("--score-from", options->score_from, "first token that is scored")->capture_default_str();
  command.add_option("--step", options->step, "tokens of the scored part that arrive at once; 1 is as in decoding")
      ->capture_default_str()
      ->check(CLI::Range(1, 128));
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
      "The first part arrives in steps of 64 tokens, the scored part --step by --step.");
  command.callback([options, &status] { status = stream(*options); });
}

}  // namespace lethe::cli
