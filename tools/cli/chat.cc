// lethe chat: an endless conversation, at a terminal or through a pipe.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "runtime/os/process.h"
#include "tools/cli/commands.h"
#include "tools/cli/failure.h"
#include "tools/cli/input.h"
#include "tools/cli/interrupt.h"
#include "tools/cli/options.h"
#include "tools/cli/process_share.h"
#include "tools/cli/system_prompt.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"

namespace lethe::cli {
namespace {

constexpr size_t kMaxLineBytes = 16 << 10;
constexpr uint32_t kTemplateText = 1 << 10;  // what the template adds to a turn
constexpr const char* kHelp =
    "/help          this text\n"
    "/memory        what the conversation takes\n"
    "/ram SIZE      another cap: lowering it forgets, at once\n"
    "/reset         forget everything\n"
    "/save FILE     save the conversation\n"
    "/restore FILE  go on from a saved conversation\n"
    "/quit          leave (so does the end of input)\n"
    "Ctrl-C stops a reply.\n";

struct ChatOptions {
  std::string model;
  SessionOptions session;
  SamplingOptions sampling;
  ReplyOptions reply{.max_tokens = 1024, .stop = {}};
  std::optional<std::string> system;
  bool pin_system = false;
  TraceOption trace;
};

class Chat {
 public:
  Chat(const ChatOptions& options, api::Session session)
      : options_(options), session_(std::move(session)), interactive_(is_terminal(stdin) && is_terminal(stdout)) {}

  // Until /quit or the end of input. At a terminal an error is told and the conversation goes on; in a pipe it ends
  // the program.
  void talk() {
    const InterruptGuard at_prompt(nullptr);
    std::string line;
    line.reserve(kMaxLineBytes);
    if (interactive_) puts("/help lists the commands.");
    while (true) {
      if (interactive_) print_prompt();
      const LineEnd end = read_line(stdin, kMaxLineBytes, line);
      if (end == LineEnd::kEnd) break;
      try {
        if (end == LineEnd::kInterrupted) {
          if (interactive_) puts("\n(/quit leaves)");
        } else if (end == LineEnd::kTooLong) {
          fail(LETHE_ERROR_PROMPT_TOO_LONG, "the line has more than %zu bytes and was dropped", kMaxLineBytes);
        } else if (!line.empty() && line[0] == '/') {
          if (!command(line)) return;
        } else if (!line.empty()) {
          reply(line);
        }
      } catch (const Failure& failure) {
        if (!interactive_) throw;
        print_error(failure.code, failure.message.c_str());
      }
    }
    if (interactive_) putchar('\n');
  }

  void end_trace() { options_.trace.stop(session_); }

 private:
  void print_prompt() {
    const lethe_memory memory = session_.memory();
    const bool colour = wants_colour(stdout);
    printf("%s[%s of %s, %s of %s tokens]%s > ", colour ? "\033[2m" : "",
           human_bytes(os::process_memory().private_bytes).c_str(), human_bytes(memory.cap_bytes).c_str(),
           with_separators(session_.stats().cached_tokens).c_str(), with_separators(memory.cache_tokens).c_str(),
           colour ? "\033[0m" : "");
    fflush(stdout);
  }

  // Returns false to leave.
  bool command(const std::string& line) {
    const size_t space = line.find(' ');
    const std::string name = line.substr(0, space);
    const std::string argument = space == std::string::npos ? "" : line.substr(space + 1);
    const auto file = [&] {
      if (argument.empty()) fail(LETHE_ERROR_INVALID_ARGUMENT, "%s needs a file: %s FILE", name.c_str(), name.c_str());
      return argument.c_str();
    };
    if (name == "/quit") return false;
    if (name == "/help") {
      fputs(kHelp, stdout);
    } else if (name == "/memory") {
      print_memory(session_.memory());
    } else if (name == "/ram") {
      const std::optional<uint64_t> bytes = parse_size(argument);
      if (!bytes) fail(LETHE_ERROR_INVALID_ARGUMENT, "/ram needs a size, such as 48MiB, not '%s'", argument.c_str());
      check(session_.set_ram(*bytes));
    } else if (name == "/reset") {
      check(session_.reset());
    } else if (name == "/save") {
      check(session_.save(file()));
    } else if (name == "/restore") {
      check(session_.restore(file()));
    } else {
      fail(LETHE_ERROR_INVALID_ARGUMENT, "there is no command %s; /help lists them", name.c_str());
    }
    fflush(stdout);
    return true;
  }

  void reply(const std::string& text) {
    check_text("the line", text);
    std::vector<lethe_message> messages;
    if (options_.system && session_.stats().position == 0) messages.push_back({"system", options_.system->c_str()});
    messages.push_back({"user", text.c_str()});
    std::vector<const char*> stop_texts;
    const lethe_generate_params params = options_.reply.params(stop_texts);

    if (options_.pin_system && session_.stats().position == 0) pin_system(session_, *options_.system);
    const InterruptGuard guard(session_.handle());
    api::Error error = session_.feed_turn(messages.data(), messages.size());
    api::Reply ended;
    if (error.ok()) {
      error = session_.generate(
          [](std::string_view piece, int32_t) {
            fwrite(piece.data(), 1, piece.size(), stdout);
            flush_output();
          },
          params, &ended);
    }
    putchar('\n');
    fflush(stdout);
    if (interactive_ && error.code() == LETHE_ERROR_CANCELLED) return;
    check(error);
    if (interactive_ && ended.stop_reason == LETHE_STOP_MAX_TOKENS) {
      printf("(the reply reached its limit of %s tokens: --max-tokens)\n",
             with_separators(options_.reply.max_tokens).c_str());
    }
  }

  const ChatOptions& options_;
  api::Session session_;
  bool interactive_;
};

int chat(const ChatOptions& options) {
  const lethe_sampling sampling = options.sampling.sampling();
  if (options.system) check_text("the system prompt", *options.system);
  if (options.pin_system && !options.system) fail(LETHE_ERROR_INVALID_ARGUMENT, "--pin-system needs --system TEXT");
  const uint64_t pin_bytes = options.pin_system ? pin_system_bytes(*options.system) : 0;
  lethe_session_params params = options.session.params(host_bytes(kMaxLineBytes + pin_bytes));
  const uint64_t turn_bytes = kMaxLineBytes + kTemplateText + (options.system ? options.system->size() : 0);
  params.turn_bytes = static_cast<uint32_t>(std::min<uint64_t>(turn_bytes, UINT32_MAX));
  const api::Model model = check(api::Model::open(options.model.c_str()));
  if (check(model.info()).has_chat_template == 0) {
    fail(LETHE_ERROR_TEMPLATE, "the model has no chat template: use 'lethe run MODEL --ram SIZE PROMPT'");
  }
  api::Session session = check(api::Session::create(model, params));
  check(session.set_sampling(sampling));
  options.trace.start(session);
  Chat chat(options, std::move(session));
  chat.talk();
  chat.end_trace();
  return 0;
}

}  // namespace

void add_chat(CLI::App& app, int& status) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App& command = *app.add_subcommand("chat", "Converse, without end, in a fixed amount of memory");
  add_model(command, options->model);
  command.add_option("--system", options->system, "system prompt");
  command.add_flag("--pin-system", options->pin_system, "never forget the system prompt");
  options->session.add_to(command);
  options->sampling.add_to(command);
  options->reply.add_to(command);
  options->trace.add_to(command, "write a memory trace, with the text, for 'lethe profile report'");
  command.footer(
      "Examples:\n"
      "  lethe chat model.lethe --ram 64MiB\n"
      "  lethe chat model.lethe --ram 64MiB --system \"You answer in one sentence.\" --pin-system\n"
      "  printf 'Hello.\\nWho are you?\\n' | lethe chat model.lethe --ram 64MiB --greedy\n"
      "Every line is a turn. /help lists the commands; Ctrl-C stops a reply.");
  command.callback([options, &status] { status = chat(*options); });
}

}  // namespace lethe::cli
