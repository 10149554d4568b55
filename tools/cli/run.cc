// lethe run: one prompt, one answer.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "runtime/os/process.h"
#include "tools/cli/commands.h"
#include "tools/cli/failure.h"
#include "tools/cli/input.h"
#include "tools/cli/interrupt.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/options.h"
#include "tools/cli/process_share.h"
#include "tools/cli/system_prompt.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"

namespace lethe::cli {
namespace {

// Longest text that a chat template is taken to put around the messages, bytes.
constexpr size_t kTemplateText = 4096;

struct RunOptions {
  std::string model;
  SessionOptions session;
  SamplingOptions sampling;
  ReplyOptions reply{.max_tokens = 256, .stop = {}};
  std::optional<std::string> prompt, prompt_file, system, save, restore;
  TraceOption trace;
  bool raw = false, json = false, pin_system = false;
};

// The text to feed; empty only when a restored conversation is to go on as it is.
std::string read_prompt(const RunOptions& options) {
  if (options.prompt && options.prompt_file) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "both PROMPT and --prompt-file are given: give one");
  }
  if (!options.prompt && !options.prompt_file) {
    if (options.restore) return {};
    fail(LETHE_ERROR_INVALID_ARGUMENT, "no prompt: give PROMPT, --prompt-file FILE, or - to read standard input");
  }
  std::string text = options.prompt_file      ? read_text(*options.prompt_file)
                     : *options.prompt == "-" ? read_text("-")
                                              : *options.prompt;
  check_text("the prompt", text);
  return text;
}

// The prompt on its way into a session: plain text, or a turn of the chat template.
class Prompt {
 public:
  Prompt(const RunOptions& options, std::string text, bool templated)
      : text_(std::move(text)), templated_(templated), flags_(LETHE_TEXT_SPECIAL) {
    if (!options.restore) flags_ |= LETHE_TEXT_BOS;
    if (options.system) messages_.push_back({"system", options.system->c_str()});
    messages_.push_back({"user", text_.c_str()});
  }
  Prompt(const Prompt&) = delete;
  Prompt& operator=(const Prompt&) = delete;

  bool empty() const { return text_.empty(); }

  std::vector<int32_t> ids(api::Session& session) const {
    const auto tokenize = [&](int32_t* ids, size_t capacity, size_t* count) {
      return templated_ ? session.tokenize_turn(messages_.data(), messages_.size(), ids, capacity, count)
                        : session.tokenize(text_, flags_, ids, capacity, count);
    };
    size_t count = 0;
    if (const api::Error error = tokenize(nullptr, 0, &count); error.code() != LETHE_ERROR_PROMPT_TOO_LONG) {
      check(error);
    }
    std::vector<int32_t> ids(count);
    check(tokenize(ids.data(), ids.size(), &count));
    return ids;
  }

  api::Error feed(api::Session& session) const {
    return templated_ ? session.feed_turn(messages_.data(), messages_.size()) : session.feed_text(text_, flags_);
  }

 private:
  std::string text_;
  bool templated_;
  uint32_t flags_;
  std::vector<lethe_message> messages_;
};

// What a reply leaves behind, whether it ended or failed.
struct Outcome {
  api::Error error;
  api::Reply reply;
  double first_token_ms = 0;
  PrivatePeak peak;
};

const char* stop_reason(const Outcome& outcome) {
  if (!outcome.error.ok()) return outcome.error.code() == LETHE_ERROR_CANCELLED ? "cancelled" : "error";
  switch (outcome.reply.stop_reason) {
    case LETHE_STOP_END: return "end";
    case LETHE_STOP_TEXT: return "stop_text";
    default: return "max_tokens";  // the callback never stops by itself
  }
}

// Feeds the prompt and generates; `on_piece` as for api::Session::generate. Everything but a cancelled prompt throws
// when it fails before the first token.
template <typename OnPiece>
Outcome answer(api::Session& session, const Prompt& prompt, const lethe_generate_params& params, OnPiece&& on_piece) {
  Outcome outcome;
  const InterruptGuard guard(session.handle());
  const uint64_t started = os::monotonic_ns();
  if (!prompt.empty()) {
    const Progress reading("reading the prompt");
    outcome.error = prompt.feed(session);
    outcome.peak.sample();
    if (outcome.error.code() == LETHE_ERROR_CANCELLED) return outcome;
    check(outcome.error);
  }
  uint64_t pieces = 0;
  outcome.error = session.generate(
      [&](std::string_view text, int32_t id) {
        if (pieces == 0) outcome.first_token_ms = static_cast<double>(os::monotonic_ns() - started) * 1e-6;
        if (pieces++ % 64 == 0) outcome.peak.sample();
        return on_piece(text, id);
      },
      params, &outcome.reply);
  outcome.peak.sample();
  return outcome;
}

double per_second(uint64_t count, uint64_t ns) {
  return ns == 0 ? 0 : static_cast<double>(count) * 1e9 / static_cast<double>(ns);
}

// Everything of the JSON object after "text".
void write_figures(JsonWriter& json, const api::Session& session, const Outcome& outcome,
                   std::span<const int32_t> prompt_ids, std::span<const int32_t> ids) {
  const auto write_ids = [&](const char* name, std::span<const int32_t> list) {
    json.key(name).begin_array();
    for (const int32_t id : list) json.value(id);
    json.end_array();
  };
  write_ids("prompt_ids", prompt_ids);
  write_ids("ids", ids);
  json.member("stop_reason", stop_reason(outcome));
  json.key("memory").begin_object();
  write_memory(json, session.memory());
  json.member("private_peak_bytes", outcome.peak.bytes()).end_object();
  const lethe_stats stats = session.stats();
  json.key("timing").begin_object();
  json.member("prefill_tps", per_second(stats.prefill_tokens, stats.prefill_ns))
      .member("decode_tps", per_second(stats.decode_tokens, stats.decode_ns))
      .member("first_token_ms", outcome.first_token_ms)
      .member("prefill_tokens", stats.prefill_tokens)
      .member("decode_tokens", stats.decode_tokens)
      .end_object();
  json.key("evictions").begin_object();
  json.member("count", stats.evictions)
      .member("tokens", stats.evicted_tokens)
      .member("ms", static_cast<double>(stats.eviction_ns) * 1e-6)
      .end_object();
}

void run_json(api::Session& session, const RunOptions& options, const Prompt& prompt,
              const lethe_generate_params& params, Outcome& outcome) {
  const std::vector<int32_t> prompt_ids = prompt.empty() ? std::vector<int32_t>() : prompt.ids(session);
  std::vector<int32_t> ids;
  ids.reserve(options.reply.max_tokens);
  JsonWriter json;
  bool begun = false;
  const auto begin = [&] {
    if (!begun) json.begin_object().key("text").begin_string();
    begun = true;
  };
  outcome = answer(session, prompt, params, [&](std::string_view text, int32_t id) {
    begin();
    json.piece(text);
    if (id >= 0) ids.push_back(id);
    if (ferror(stdout) != 0) flush_output();
  });
  begin();
  json.end_string();
  write_figures(json, session, outcome, prompt_ids, ids);
  json.end_object().finish();
}

void run_text(api::Session& session, const Prompt& prompt, const lethe_generate_params& params, Outcome& outcome) {
  outcome = answer(session, prompt, params, [](std::string_view text, int32_t) {
    fwrite(text.data(), 1, text.size(), stdout);
    flush_output();
  });
  if (outcome.error.ok() || outcome.reply.tokens != 0) fputc('\n', stdout);
  fflush(stdout);
  if (!is_terminal(stderr)) return;
  const lethe_stats stats = session.stats();
  fprintf(stderr, "[%s; prompt %s tokens at %.1f/s, reply %s at %.1f/s; %s of %s]\n", stop_reason(outcome),
          with_separators(stats.prefill_tokens).c_str(), per_second(stats.prefill_tokens, stats.prefill_ns),
          with_separators(stats.decode_tokens).c_str(), per_second(stats.decode_tokens, stats.decode_ns),
          human_bytes(outcome.peak.bytes()).c_str(), human_bytes(session.memory().cap_bytes).c_str());
}

int run(const RunOptions& options) {
  if (options.raw && options.system) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--system needs the chat template, which --raw leaves out");
  }
  if (options.pin_system && (!options.system || options.restore)) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--pin-system needs --system TEXT at the beginning of a conversation");
  }
  if (options.json && options.reply.max_tokens == 0) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--json keeps the id of every token: give a limit with --max-tokens");
  }
  const lethe_sampling sampling = options.sampling.sampling();
  if (options.system) check_text("the system prompt", *options.system);
  std::string text = read_prompt(options);

  const uint64_t text_bytes = text.size() + (options.system ? options.system->size() : 0) + kTemplateText;
  uint64_t buffers = 0;
  if (options.json) buffers = 4 * (text_bytes + std::min(options.reply.max_tokens, uint64_t{1} << 40));
  if (options.pin_system) buffers += pin_system_bytes(*options.system);
  lethe_session_params params = options.session.params(host_bytes(buffers));

  const api::Model model = check(api::Model::open(options.model.c_str()));
  const bool templated = !options.raw && check(model.info()).has_chat_template != 0;
  if (options.system && !templated) {
    fail(LETHE_ERROR_TEMPLATE, "--system needs a chat template, and this model has none");
  }
  if (templated) {
    params.turn_bytes = static_cast<uint32_t>(std::clamp<uint64_t>(text_bytes, params.turn_bytes, UINT32_MAX));
  }
  api::Session session = check(api::Session::create(model, params));
  check(session.set_sampling(sampling));
  if (options.restore) check(session.restore(options.restore->c_str()));
  options.trace.start(session);

  if (options.pin_system) pin_system(session, *options.system);

  const Prompt prompt(options, std::move(text), templated);
  std::vector<const char*> stop_texts;
  const lethe_generate_params reply = options.reply.params(stop_texts);
  Outcome outcome;
  if (options.json) {
    run_json(session, options, prompt, reply, outcome);
  } else {
    run_text(session, prompt, reply, outcome);
  }
  check(outcome.error);
  options.trace.stop(session);
  if (options.save) check(session.save(options.save->c_str()));
  return 0;
}

}  // namespace

void add_run(CLI::App& app, int& status) {
  auto options = std::make_shared<RunOptions>();
  CLI::App& command = *app.add_subcommand("run", "Answer one prompt");
  add_model(command, options->model);
  command.add_option("PROMPT", options->prompt, "the prompt; - reads standard input");
  command.add_option("--prompt-file", options->prompt_file, "read the prompt from a file (- is standard input)");
  command.add_option("--system", options->system, "system prompt of the chat template");
  command.add_flag("--pin-system", options->pin_system, "never forget the system prompt");
  command.add_flag("--raw", options->raw, "feed the prompt as it is, without the chat template");
  options->session.add_to(command);
  options->sampling.add_to(command);
  options->reply.add_to(command);
  command.add_option("--save", options->save, "save the conversation to a file afterwards");
  command.add_option("--restore", options->restore, "go on from a saved conversation");
  options->trace.add_to(command, "write a memory trace, with the text, for 'lethe profile report'");
  add_json(command, options->json);
  command.footer(
      "Examples:\n"
      "  lethe run model.lethe --ram 64MiB \"Why is the sky blue?\"\n"
      "  lethe run model.lethe --ram 48M --prompt-file report.txt --max-tokens 100 --greedy --json\n"
      "  echo \"Once upon a time\" | lethe run model.lethe --ram 64MiB --raw -\n"
      "  lethe run model.lethe --ram 64MiB \"My name is Ada.\" --save ada.session\n"
      "  lethe run model.lethe --ram 64MiB \"What is my name?\" --restore ada.session\n"
      "Ctrl-C ends the answer; what there is is printed, and the exit status is 1.");
  command.callback([options, &status] { status = run(*options); });
}

}  // namespace lethe::cli
