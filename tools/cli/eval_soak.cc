// lethe eval soak: a conversation without end under a cap. A synthetic user talks from a text, the model replies, and
// the text that follows is scored; memory, likelihood and speed are told by tenths, so that a leak, a drift or a
// slow-down shows.
#include <CLI/CLI.hpp>
#include <algorithm>
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
#include "tools/cli/speaker.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"

namespace lethe::cli {
namespace {

constexpr size_t kTenths = 10;

struct SoakOptions {
  std::string model, text_file;
  uint64_t tokens = 1'000'000;
  uint32_t reply = 48;
  SessionOptions session;
  bool json = false;
};

struct Tenth {
  uint64_t tokens = 0, turns = 0, evictions = 0;
  double seconds = 0, cpu_seconds = 0;
  uint64_t private_least = UINT64_MAX, private_most = 0;  // sampled after every turn
  Mean nll;                                               // of the text
};

std::vector<Tenth> run_soak(api::Session& session, const std::string& text, const SoakOptions& options) {
  Speaker speaker(text);
  std::vector<Tenth> tenths(kTenths);
  Progress progress("soaking", options.tokens);
  lethe_stats stats = session.stats();
  while (stats.position < options.tokens) {
    Tenth& tenth = tenths[stats.position * kTenths / options.tokens];
    const uint64_t begin_ns = os::monotonic_ns();
    const double begin_cpu = cpu_seconds();
    for (const float log_prob : take_turn(session, speaker, options.reply)) {
      tenth.nll.add(-static_cast<double>(log_prob));
    }
    tenth.seconds += static_cast<double>(os::monotonic_ns() - begin_ns) * 1e-9;
    tenth.cpu_seconds += cpu_seconds() - begin_cpu;
    const lethe_stats after = session.stats();
    tenth.tokens += after.position - stats.position;
    tenth.evictions += after.evictions - stats.evictions;
    ++tenth.turns;
    stats = after;
    const uint64_t bytes = os::process_memory().private_bytes;
    tenth.private_least = std::min(tenth.private_least, bytes);
    tenth.private_most = std::max(tenth.private_most, bytes);
    progress.update(std::min(stats.position, options.tokens));
  }
  return tenths;
}

void write_result(const std::vector<Tenth>& tenths, const api::Session& session) {
  JsonWriter json;
  json.begin_object();
  json.key("memory").begin_object();
  write_memory(json, session.memory());
  json.end_object();
  json.key("tenths").begin_array();
  for (const Tenth& tenth : tenths) {
    json.begin_object()
        .member("tokens", tenth.tokens)
        .member("turns", tenth.turns)
        .member("evictions", tenth.evictions)
        .member("seconds", tenth.seconds)
        .member("cpu_seconds", tenth.cpu_seconds)
        .member("private_least_bytes", tenth.private_least)
        .member("private_most_bytes", tenth.private_most)
        .member("nll", tenth.nll.mean())
        .member("nll_stderr", tenth.nll.standard_error())
        .end_object();
  }
  json.end_array().end_object().finish();
}

void print_result(const std::vector<Tenth>& tenths, const api::Session& session) {
  const auto number = [](const char* format, double value) {
    char text[32];
    snprintf(text, sizeof text, format, value);
    return std::string(text);
  };
  Table table({"tenth", "tokens", "tokens/s", "per CPU-s", "nll", "+/-", "private, least", "most", "evictions"});
  for (const Tenth& tenth : tenths) {
    const auto tokens = static_cast<double>(tenth.tokens);
    table.row({std::to_string(&tenth - tenths.data() + 1), with_separators(tenth.tokens),
               number("%.1f", tokens / tenth.seconds), number("%.1f", tokens / tenth.cpu_seconds),
               number("%.4f", tenth.nll.mean()), number("%.4f", tenth.nll.standard_error()),
               human_bytes(tenth.private_least), human_bytes(tenth.private_most), with_separators(tenth.evictions)});
  }
  table.print();
  const lethe_memory memory = session.memory();
  printf("\ncap %s, cache of %s tokens, policy %s\n", human_bytes(memory.cap_bytes).c_str(),
         with_separators(memory.cache_tokens).c_str(), memory.policy);
}

int soak(const SoakOptions& options) {
  if (options.tokens < kTenths * kPieceBytes) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--tokens is %llu; a soak takes at least %zu",
         static_cast<unsigned long long>(options.tokens), kTenths * kPieceBytes);
  }
  const std::string text = read_text(options.text_file);
  check_text("the text", text);
  const lethe_session_params params = options.session.params(host_bytes(0));
  const api::Model model = check(api::Model::open(options.model.c_str()));
  api::Session session = check(api::Session::create(model, params));
  check(session.set_sampling(api::sampling()));
  const std::vector<Tenth> tenths = run_soak(session, text, options);
  if (options.json) {
    write_result(tenths, session);
  } else {
    print_result(tenths, session);
  }
  const auto most = std::max_element(tenths.begin(), tenths.end(),
                                     [](const Tenth& a, const Tenth& b) { return a.private_most < b.private_most; });
  if (kOwnsPrivateMemory && most->private_most > params.ram_bytes) {
    fail(LETHE_ERROR_INTERNAL, "the process held %s of private memory under a cap of %s",
         human_bytes(most->private_most).c_str(), human_bytes(params.ram_bytes).c_str());
  }
  return 0;
}

}  // namespace

void add_eval_soak(CLI::App& eval, int& status) {
  auto options = std::make_shared<SoakOptions>();
  CLI::App& command = *eval.add_subcommand("soak", "A conversation of any length: memory, likelihood, speed by tenths");
  add_model(command, options->model);
  command.add_option("--text", options->text_file, "text that the synthetic user talks from (- is standard input)")
      ->required();
  command.add_option("--tokens", options->tokens, "length of the conversation")->capture_default_str();
  command.add_option("--reply", options->reply, "tokens of a reply at most")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  options->session.add_to(command);
  add_json(command, options->json);
  command.footer(
      "Example:\n"
      "  lethe eval soak model.lethe --ram 48MiB --text book.txt --tokens 1000000\n"
      "A turn is a piece of the text through the chat template, a sampled reply, and the next piece of the text, "
      "which\n"
      "is scored. Private memory is read after every turn; above the cap the exit status is 1.");
  command.callback([options, &status] { status = soak(*options); });
}

}  // namespace lethe::cli
