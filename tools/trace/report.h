// A trace made legible: a page for people, counters and slices for Perfetto, rows for everything else.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "tools/trace/trace_file.h"

namespace lethe::trace {

enum class ReportFormat { kHtml, kPerfetto, kCsv };
// By the ending of a file's name: .html, .json, .csv.
std::optional<ReportFormat> format_of(const std::string& path);

struct NamedTrace {
  std::string name;  // of its file
  Trace trace;
};

// One page that needs nothing else, of one trace or of several side by side. Under 2 MiB for up to two, however long
// they are: of long ones samples and pictures are left out evenly, and of the text all but its end.
std::string html_report(std::span<const NamedTrace> traces);
// Chrome's trace event format: counters of memory, cache and speed; one slice for every eviction that was seen.
std::string perfetto_report(const Trace& trace);
// One row for every sample.
std::string csv_report(const Trace& trace);

// Tokens a second between two samples, as the session counts its time. Nothing when no token was done.
std::optional<double> decode_rate(const Sample& from, const Sample& to);
std::optional<double> prefill_rate(const Sample& from, const Sample& to);

}  // namespace lethe::trace
