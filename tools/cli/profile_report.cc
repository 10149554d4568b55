// lethe profile report: a trace, or two side by side, made legible on any machine.
#include "tools/cli/profile_report.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "runtime/os/file.h"
#include "tools/cli/commands.h"
#include "tools/cli/failure.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/options.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"

namespace lethe::cli {

trace::ReportFormat check_report(const std::string& out, size_t traces) {
  const auto format = trace::format_of(out);
  if (!format) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--out is '%s': it ends in .html, .json (for Perfetto) or .csv", out.c_str());
  }
  if (traces > 1 && *format != trace::ReportFormat::kHtml) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--out is '%s': two traces are compared in an .html report", out.c_str());
  }
  return *format;
}

trace::NamedTrace open_trace(const std::string& path) {
  const Result<os::FileMap> map = os::FileMap::open(path.c_str());
  check(map.status());
  trace::NamedTrace out{std::filesystem::path(path).filename().string(), {}};
  const Status status = trace::read_trace({map.value().data(), map.value().size()}, &out.trace);
  if (!status.ok()) fail(static_cast<lethe_code>(status.code()), "%s: %s", path.c_str(), status.message());
  return out;
}

void write_report(const std::string& out, trace::ReportFormat format, const std::vector<trace::NamedTrace>& traces) {
  const std::string text = format == trace::ReportFormat::kHtml       ? trace::html_report(traces)
                           : format == trace::ReportFormat::kPerfetto ? trace::perfetto_report(traces[0].trace)
                                                                      : trace::csv_report(traces[0].trace);
  os::AtomicFile file;
  check(file.open(out.c_str()));
  check(file.append(text.data(), text.size()));
  check(file.commit());
}

namespace {

struct ReportOptions {
  std::vector<std::string> traces;
  std::string out;
  bool json = false;
};

void write_result(const std::vector<trace::NamedTrace>& traces, const std::string& out) {
  JsonWriter json;
  json.begin_object().member("out", out).key("traces").begin_array();
  for (const auto& [name, trace] : traces) {
    const trace::Sample& last = trace.samples.back();
    json.begin_object()
        .member("name", name)
        .member("policy", trace.policy)
        .member("samples", trace.samples.size())
        .member("position", last.position)
        .member("cap_bytes", last.cap_bytes)
        .member("private_peak_bytes", trace.peak().private_bytes())
        .member("evictions", last.evictions)
        .member("ended", trace.ended)
        .member("lost_bytes", trace.lost_bytes);
    json.key("ledger").begin_object();
    for (size_t tag = 0; tag < trace.tags.size(); ++tag) json.member(trace.tags[tag], last.tag_bytes[tag]);
    json.end_object().end_object();
  }
  json.end_array().end_object().finish();
}

void print_result(const std::vector<trace::NamedTrace>& traces, const std::string& out) {
  Table table({"trace", "tokens", "samples", "private, peak", "cap", "evictions", "minutes"});
  for (const auto& [name, trace] : traces) {
    const trace::Sample& last = trace.samples.back();
    char minutes[32];
    snprintf(minutes, sizeof minutes, "%.1f", static_cast<double>(last.ns) / 60e9);
    table.row({name, with_separators(last.position), with_separators(trace.samples.size()),
               human_bytes(trace.peak().private_bytes()), human_bytes(last.cap_bytes), with_separators(last.evictions),
               minutes});
  }
  table.print();
  for (const auto& [name, trace] : traces) {
    if (!trace.ended) printf("%s was not stopped: its last moments are missing\n", name.c_str());
  }
  printf("written to %s\n", out.c_str());
}

int report(const ReportOptions& options) {
  const trace::ReportFormat format = check_report(options.out, options.traces.size());
  std::vector<trace::NamedTrace> traces;
  for (const std::string& path : options.traces) traces.push_back(open_trace(path));
  write_report(options.out, format, traces);
  if (options.json) {
    write_result(traces, options.out);
  } else {
    print_result(traces, options.out);
  }
  return 0;
}

}  // namespace

void add_profile_report(CLI::App& profile, int& status) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App& command = *profile.add_subcommand("report", "A memory trace as a page, for Perfetto, or as a table");
  command.add_option("TRACE", options->traces, "trace file; two are compared")->required()->expected(1, 2);
  command.add_option("--out,-o", options->out, "report to write: .html, .json (Perfetto, chrome://tracing) or .csv")
      ->required();
  add_json(command, options->json);
  command.footer(
      "Examples:\n"
      "  lethe profile report chat.trace --out report.html\n"
      "  lethe profile report before.trace after.trace -o compared.html\n"
      "  lethe profile report chat.trace -o chat.json     # open it at ui.perfetto.dev\n"
      "An app writes a trace with lethe_session_trace_start; `lethe run` and `lethe chat` with --trace FILE. A trace\n"
      "whose app was killed is read up to there.");
  command.callback([options, &status] { status = report(*options); });
}

}  // namespace lethe::cli
