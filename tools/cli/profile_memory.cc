// lethe profile memory: a conversation under a cap with a trace, and the report of it.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <vector>

#include "tools/cli/commands.h"
#include "tools/cli/failure.h"
#include "tools/cli/input.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/options.h"
#include "tools/cli/process_share.h"
#include "tools/cli/profile_report.h"
#include "tools/cli/speaker.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"

namespace lethe::cli {
namespace {

struct MemoryOptions {
  std::string model, text_file, out;
  uint64_t tokens = 20'000;
  uint32_t reply = 48;
  TraceOption trace;
  SessionOptions session;
  bool json = false;
};

// Returns the session's memory at the end.
lethe_memory converse(const MemoryOptions& options, const std::string& text) {
  const lethe_session_params params = options.session.params(host_bytes(0));
  const api::Model model = check(api::Model::open(options.model.c_str()));
  api::Session session = check(api::Session::create(model, params));
  check(session.set_sampling(api::sampling()));
  options.trace.start(session);
  Speaker speaker(text);
  Progress progress("talking", options.tokens);
  for (uint64_t position = 0; position < options.tokens; position = session.stats().position) {
    progress.update(position);
    take_turn(session, speaker, options.reply);
  }
  options.trace.stop(session);
  return session.memory();
}

int profile_memory(MemoryOptions& options) {
  const trace::ReportFormat format = check_report(options.out, 1);
  if (!options.trace.path) options.trace.path = options.out + ".trace";
  const std::string text = read_text(options.text_file);
  check_text("the text", text);
  const lethe_memory memory = converse(options, text);
  // The report is made when the session is closed: it is not inside the cap.
  std::vector<trace::NamedTrace> traces;
  traces.push_back(open_trace(*options.trace.path));
  write_report(options.out, format, traces);
  const trace::Trace& trace = traces[0].trace;
  const uint64_t private_peak = trace.peak().private_bytes();
  if (options.json) {
    JsonWriter json;
    json.begin_object().member("out", options.out).member("trace", *options.trace.path);
    json.key("memory").begin_object();
    write_memory(json, memory);
    json.member("private_peak_bytes", private_peak).end_object();
    json.member("tokens", trace.samples.back().position)
        .member("samples", trace.samples.size())
        .member("evictions", trace.samples.back().evictions)
        .end_object()
        .finish();
  } else {
    print_memory(memory);
    printf("private     %s at the peak (RssAnon + swap)\n", human_bytes(private_peak).c_str());
    printf("report      %s, trace %s\n", options.out.c_str(), options.trace.path->c_str());
  }
  if (kOwnsPrivateMemory && private_peak > memory.cap_bytes) {
    fail(LETHE_ERROR_INTERNAL, "the process held %s of private memory under a cap of %s",
         human_bytes(private_peak).c_str(), human_bytes(memory.cap_bytes).c_str());
  }
  return 0;
}

}  // namespace

void add_profile_memory(CLI::App& profile, int& status) {
  auto options = std::make_shared<MemoryOptions>();
  CLI::App& command = *profile.add_subcommand("memory", "A conversation under a cap, and where its memory went");
  add_model(command, options->model);
  command.add_option("--text", options->text_file, "text that the synthetic user talks from (- is standard input)")
      ->required();
  command.add_option("--tokens", options->tokens, "length of the conversation")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command.add_option("--reply", options->reply, "tokens of a reply at most")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command.add_option("--out,-o", options->out, "report to write: .html, .json (Perfetto) or .csv")->required();
  options->trace.add_to(command, "trace to write (default: the report's name and .trace)");
  command
      .add_option("--interval", options->trace.interval_ms, "least milliseconds between two samples (0: every step)")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  options->session.add_to(command);
  add_json(command, options->json);
  command.footer(
      "Examples:\n"
      "  lethe profile memory model.lethe --ram 32MiB --text book.txt --out report.html\n"
      "  lethe profile memory model.lethe --ram 32MiB --text book.txt --policy h2o --tokens 100000 --out h2o.html\n"
      "  lethe profile report window.html.trace h2o.html.trace -o compared.html\n"
      "The conversation is that of `lethe eval soak`. Above the cap the exit status is 1.");
  command.callback([options, &status] { status = profile_memory(*options); });
}

}  // namespace lethe::cli
