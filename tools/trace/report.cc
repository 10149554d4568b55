#include "tools/trace/report.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

namespace lethe::trace {
namespace {

using Json = nlohmann::ordered_json;

std::string number(uint64_t value) { return std::to_string(value); }
std::string number(double value) {
  char text[32];
  snprintf(text, sizeof text, "%.3f", value);
  return text;
}
std::string number(std::optional<double> value) { return value ? number(*value) : ""; }

std::optional<double> rate(uint64_t tokens_from, uint64_t tokens_to, uint64_t ns_from, uint64_t ns_to) {
  if (tokens_to <= tokens_from || ns_to <= ns_from) return {};  // also after a reset
  return static_cast<double>(tokens_to - tokens_from) * 1e9 / static_cast<double>(ns_to - ns_from);
}

double mean_length(const Sample& sample) {
  const uint64_t sum = std::accumulate(sample.lengths.begin(), sample.lengths.end(), uint64_t{0});
  return static_cast<double>(sum) / static_cast<double>(sample.lengths.size());
}

double microseconds(uint64_t ns) { return static_cast<double>(ns) * 1e-3; }

}  // namespace

std::optional<ReportFormat> format_of(const std::string& path) {
  if (path.ends_with(".html")) return ReportFormat::kHtml;
  if (path.ends_with(".json")) return ReportFormat::kPerfetto;
  if (path.ends_with(".csv")) return ReportFormat::kCsv;
  return {};
}

std::optional<double> decode_rate(const Sample& from, const Sample& to) {
  return rate(from.decode_tokens, to.decode_tokens, from.decode_ns, to.decode_ns);
}

// The time of a call is counted when it is over, so a rate is known once in a call.
std::optional<double> prefill_rate(const Sample& from, const Sample& to) {
  return rate(from.prefill_tokens, to.prefill_tokens, from.prefill_ns, to.prefill_ns);
}

std::string csv_report(const Trace& trace) {
  std::string out = "ms,position,cap_bytes";
  for (const std::string& tag : trace.tags) out += "," + tag + "_bytes";
  out +=
      ",ledger_bytes,anonymous_bytes,swapped_bytes,file_bytes,pss_bytes,minor_faults,major_faults,shortest_list,"
      "mean_list,longest_list,evictions,evicted_tokens,eviction_ms,decode_tokens_per_s\n";
  const Sample* before = &trace.samples.front();
  for (const Sample& sample : trace.samples) {
    out +=
        number(static_cast<double>(sample.ns) * 1e-6) + "," + number(sample.position) + "," + number(sample.cap_bytes);
    for (const uint64_t bytes : sample.tag_bytes) out += "," + number(bytes);
    const auto [shortest, longest] = std::minmax_element(sample.lengths.begin(), sample.lengths.end());
    for (const std::string& cell :
         {number(sample.ledger_bytes()), number(sample.anonymous_bytes), number(sample.swapped_bytes),
          number(sample.file_bytes), sample.pss_bytes == 0 ? std::string() : number(sample.pss_bytes),
          number(sample.minor_faults), number(sample.major_faults), number(uint64_t{*shortest}),
          number(mean_length(sample)), number(uint64_t{*longest}), number(sample.evictions),
          number(sample.evicted_tokens), number(static_cast<double>(sample.eviction_ns) * 1e-6),
          number(decode_rate(*before, sample))}) {
      out += "," + cell;
    }
    out += "\n";
    before = &sample;
  }
  return out;
}

std::string perfetto_report(const Trace& trace) {
  Json events = Json::array();
  const auto name_of = [&](const char* what, int tid, const std::string& name) {
    events.push_back({{"ph", "M"}, {"pid", 1}, {"tid", tid}, {"name", what}, {"args", {{"name", name}}}});
  };
  name_of("process_name", 0, "lethe " + trace.architecture + ", " + trace.policy);
  name_of("thread_name", 1, "evictions");
  const auto counter = [&](const Sample& sample, const char* name, Json args) {
    events.push_back({{"ph", "C"}, {"pid", 1}, {"ts", microseconds(sample.ns)}, {"name", name}, {"args", args}});
  };
  const Sample* before = &trace.samples.front();
  for (const Sample& sample : trace.samples) {
    Json tags = Json::object();
    for (size_t tag = 0; tag < trace.tags.size(); ++tag) tags[trace.tags[tag]] = sample.tag_bytes[tag];
    counter(sample, "ledger (bytes)", tags);
    counter(sample, "cap (bytes)", {{"cap", sample.cap_bytes}});
    counter(sample, "private (bytes)", {{"anonymous", sample.anonymous_bytes}, {"swapped", sample.swapped_bytes}});
    counter(sample, "files (bytes)", {{"resident", sample.file_bytes}});
    if (sample.pss_bytes != 0) counter(sample, "PSS (bytes)", {{"pss", sample.pss_bytes}});
    counter(sample, "faults", {{"minor", sample.minor_faults}, {"major", sample.major_faults}});
    counter(sample, "position (tokens)", {{"position", sample.position}});
    counter(sample, "cache (tokens of a list)", {{"mean", mean_length(sample)}});
    if (const auto rate = decode_rate(*before, sample)) counter(sample, "decode (tokens/s)", {{"decode", *rate}});
    if (const auto rate = prefill_rate(*before, sample)) counter(sample, "prefill (tokens/s)", {{"prefill", *rate}});
    if (sample.evictions != before->evictions && sample.last_began_ns != 0) {
      events.push_back({{"ph", "X"},
                        {"pid", 1},
                        {"tid", 1},
                        {"ts", microseconds(sample.last_began_ns)},
                        {"dur", microseconds(sample.last_took_ns)},
                        {"name", "eviction"},
                        {"args", {{"lists", sample.last_lists}, {"tokens", sample.last_tokens}}}});
    }
    before = &sample;
  }
  // Tags and names are the file's own: bytes that are not UTF-8 become U+FFFD.
  return Json{{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}}.dump(-1, ' ', false,
                                                                                  Json::error_handler_t::replace) +
         "\n";
}

}  // namespace lethe::trace
