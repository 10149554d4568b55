// lethe eval ppl: perplexity by llama-perplexity's protocol, so that the figures compare. The file is tokenised once
// and cut into chunks of `context` tokens that do not overlap; each is read by an empty session, and the tokens of its
// second half are scored (context 512: tokens 257 to 511, 255 of them). A model that wants BOS gets it in place of the
// first token of every chunk.
#include <CLI/CLI.hpp>
#include <cmath>
#include <memory>
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

// Rows of logits at once: the output matrix is read once for all of them.
constexpr uint32_t kLogitRows = 32;

struct PplOptions {
  std::string model, text_file;
  uint32_t context = 512;
  int64_t chunks = -1;
  SessionOptions session{.ram = {.text = "512MiB"}, .policy = "full"};
  bool json = false;
};

std::vector<int32_t> tokenize(api::Session& session, const std::string& text) {
  size_t count = 0;
  if (const api::Error error = session.tokenize(text, LETHE_TEXT_BOS, nullptr, 0, &count);
      error.code() != LETHE_ERROR_PROMPT_TOO_LONG) {
    check(error);
  }
  std::vector<int32_t> ids(count);
  check(session.tokenize(text, LETHE_TEXT_BOS, ids.data(), ids.size(), &count));
  return ids;
}

// The token that every chunk begins with, if the model wants one.
std::optional<int32_t> bos(api::Session& session) {
  int32_t id = 0;
  size_t count = 0;
  check(session.tokenize("", LETHE_TEXT_BOS, &id, 1, &count));
  return count == 1 ? std::optional(id) : std::nullopt;
}

int ppl(const PplOptions& options) {
  if (options.context < 4) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--context is %u; its second half must hold a token to score, so 4 at least",
         options.context);
  }
  const std::string text = read_text(options.text_file);
  check_text("the text", text);
  // A byte is at most one token.
  lethe_session_params params = options.session.params(host_bytes(4 * text.size() + 8 * options.context));
  params.max_tokens = options.context;
  params.logit_rows = std::min(kLogitRows, options.context);
  const api::Model model = check(api::Model::open(options.model.c_str()));
  api::Session session = check(api::Session::create(model, params));

  std::vector<int32_t> ids = tokenize(session, text);
  const std::optional<int32_t> first_id = bos(session);
  const uint64_t available = ids.size() / options.context;
  const uint64_t chunks = options.chunks <= 0 ? available : std::min(available, static_cast<uint64_t>(options.chunks));
  if (chunks == 0) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "the text has %zu tokens, fewer than one chunk of --context %u", ids.size(),
         options.context);
  }

  const uint32_t first = options.context / 2 + 1;
  std::vector<float> log_probs(options.context - first);
  Mean likelihood;
  const uint64_t started = os::monotonic_ns();
  {
    Progress progress("perplexity", chunks);
    for (uint64_t chunk = 0; chunk < chunks; ++chunk) {
      int32_t* const tokens = ids.data() + chunk * options.context;
      if (first_id) tokens[0] = *first_id;
      check(session.reset());
      check(session.score(tokens, options.context, first, log_probs.data()));
      for (const float log_prob : log_probs) likelihood.add(-static_cast<double>(log_prob));
      char note[48];
      snprintf(note, sizeof note, "ppl %.4f", std::exp(likelihood.mean()));
      progress.update(chunk + 1, note);
    }
  }
  const double seconds = static_cast<double>(os::monotonic_ns() - started) * 1e-9;
  const double result = std::exp(likelihood.mean());
  const double error = likelihood.standard_error() * result;  // of exp(x): dx * exp(x)
  if (options.json) {
    JsonWriter json;
    json.begin_object()
        .member("ppl", result)
        .member("ppl_stderr", error)
        .member("nll", likelihood.mean())
        .member("scored_tokens", likelihood.count())
        .member("chunks", chunks)
        .member("tokens", ids.size())
        .member("seconds", seconds)
        .end_object()
        .finish();
  } else {
    printf("ppl %.4f +/- %.4f  (%s tokens scored, %s chunks of %u, %.1f s)\n", result, error,
           with_separators(likelihood.count()).c_str(), with_separators(chunks).c_str(), options.context, seconds);
  }
  return 0;
}

}  // namespace

void add_eval_ppl(CLI::App& eval, int& status) {
  auto options = std::make_shared<PplOptions>();
  CLI::App& command = *eval.add_subcommand("ppl", "Perplexity of a text, as llama-perplexity counts it");
  add_model(command, options->model);
  command.add_option("--text", options->text_file, "text file (- is standard input)")->required();
  command.add_option("--context", options->context, "tokens of a chunk; the second half is scored")
      ->capture_default_str();
  command.add_option("--chunks", options->chunks, "chunks to read (0 or -1: all)")->capture_default_str();
  options->session.add_to(command);
  add_json(command, options->json);
  command.footer(
      "Examples:\n"
      "  lethe eval ppl model.lethe --text wiki.test.raw --context 512 --chunks 64\n"
      "  lethe eval ppl model.lethe --text wiki.test.raw --kv int8 --json\n"
      "The cap is 512 MiB unless --ram says otherwise, and the policy is full.");
  command.callback([options, &status] { status = ppl(*options); });
}

}  // namespace lethe::cli
