// The page: what the template needs, as JSON in its middle (tools/trace/report/report.js reads it).
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "tools/trace/report.h"
#include "tools/trace/report_template.h"

namespace lethe::trace {
namespace {

using Json = nlohmann::ordered_json;

// What one trace may take of the page.
constexpr size_t kSamples = 1200;
constexpr size_t kListPictures = 100;
constexpr size_t kListNumbers = 60'000;   // of all pictures together
constexpr size_t kHeldBytes = 256 << 10;  // likewise
constexpr size_t kTextBytes = 256 << 10;  // with a byte for each token's size

std::string base64(std::span<const uint8_t> bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    for (size_t j = 0; j < 3; ++j) bits = bits << 8 | (j < count ? bytes[i + j] : 0u);
    for (size_t j = 0; j < 4; ++j) out += j <= count ? kDigits[bits >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}
std::string base64(std::string_view text) {
  return base64(std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
}

// Indices of at most `most` samples: first and last, and of even stretches between them the one with the most private
// memory, so that no peak is lost.
std::vector<size_t> chosen_samples(const Trace& trace, size_t most) {
  const size_t count = trace.samples.size();
  std::vector<size_t> chosen;
  if (count <= most) {
    chosen.resize(count);
    std::iota(chosen.begin(), chosen.end(), size_t{0});
    return chosen;
  }
  chosen.push_back(0);
  const size_t parts = most - 2, between = count - 2;
  for (size_t part = 0; part < parts; ++part) {
    size_t best = 1 + part * between / parts;
    for (size_t i = best; i < 1 + (part + 1) * between / parts; ++i) {
      if (trace.samples[i].private_bytes() > trace.samples[best].private_bytes()) best = i;
    }
    chosen.push_back(best);
  }
  chosen.push_back(count - 1);
  return chosen;
}

// A series that never changes is one number.
template <typename Of>
Json series(const Trace& trace, const std::vector<size_t>& chosen, Of of) {
  Json values = Json::array();
  for (const size_t i : chosen) values.push_back(of(trace.samples[i]));
  const bool constant = std::all_of(values.begin(), values.end(), [&](const Json& v) { return v == values[0]; });
  return constant ? values[0] : values;
}

// Of every chosen sample, what happened since the one before it.
template <typename Of>
Json steps(const Trace& trace, const std::vector<size_t>& chosen, Of of) {
  Json values = Json::array();
  for (size_t i = 0; i < chosen.size(); ++i) {
    const auto value = of(trace.samples[chosen[i == 0 ? 0 : i - 1]], trace.samples[chosen[i]]);
    values.push_back(value ? Json(std::round(*value * 100) / 100) : Json());
  }
  return values;
}

double ms(uint64_t ns) { return std::round(static_cast<double>(ns) * 1e-4) / 100; }

Json samples_json(const Trace& trace) {
  const std::vector<size_t> chosen = chosen_samples(trace, kSamples);
  const auto of = [&](auto get) { return series(trace, chosen, get); };
  Json tags = Json::array();
  for (size_t tag = 0; tag < trace.tags.size(); ++tag) {
    tags.push_back(of([tag](const Sample& s) { return s.tag_bytes[tag]; }));
  }
  return {{"count", chosen.size()},
          {"ms", of([](const Sample& s) { return ms(s.ns); })},
          {"position", of([](const Sample& s) { return s.position; })},
          {"cap", of([](const Sample& s) { return s.cap_bytes; })},
          {"tags", tags},
          {"anonymous", of([](const Sample& s) { return s.anonymous_bytes; })},
          {"swapped", of([](const Sample& s) { return s.swapped_bytes; })},
          {"file", of([](const Sample& s) { return s.file_bytes; })},
          {"pss", of([](const Sample& s) { return s.pss_bytes; })},
          {"minor", of([](const Sample& s) { return s.minor_faults; })},
          {"major", of([](const Sample& s) { return s.major_faults; })},
          {"evictions", of([](const Sample& s) { return s.evictions; })},
          {"shortest", of([](const Sample& s) { return *std::min_element(s.lengths.begin(), s.lengths.end()); })},
          {"longest", of([](const Sample& s) { return *std::max_element(s.lengths.begin(), s.lengths.end()); })},
          {"decode", steps(trace, chosen, decode_rate)},
          {"prefill", steps(trace, chosen, prefill_rate)}};
}

Json lists_json(const Trace& trace) {
  const size_t lists = uint64_t{trace.layers} * trace.kv_heads;
  Json pictures = Json::array();
  for (const size_t i : chosen_samples(trace, std::clamp<size_t>(kListNumbers / lists, 3, kListPictures))) {
    const Sample& sample = trace.samples[i];
    const bool equal = std::equal(sample.lengths.begin() + 1, sample.lengths.end(), sample.lengths.begin());
    pictures.push_back({{"ms", ms(sample.ns)}, {"lengths", equal ? Json(sample.lengths[0]) : Json(sample.lengths)}});
  }
  return pictures;
}

// The last picture, and before it as many as there is room for.
Json held_json(const Trace& trace) {
  size_t bytes = 0;
  for (const Held& held : trace.held) bytes += held.runs.size();
  const size_t every = bytes / kHeldBytes + 1;
  Json pictures = Json::array();
  for (size_t i = 0; i < trace.held.size(); ++i) {
    if ((trace.held.size() - 1 - i) % every != 0) continue;
    pictures.push_back({{"ms", ms(trace.held[i].ns)}, {"runs", base64(trace.held[i].runs)}});
  }
  return pictures;
}

Json text_json(const Trace& trace) {
  size_t first = trace.sizes.size(), bytes = 0, text = 0;
  while (first > 0 && bytes + trace.sizes[first - 1] + 1 <= kTextBytes) {
    --first;
    bytes += trace.sizes[first] + 1u;
    text += trace.sizes[first];
  }
  return {{"first", trace.first_token + first},
          {"left_out", first},
          {"sizes", base64(std::span(trace.sizes).subspan(first))},
          {"bytes", base64(std::string_view(trace.text).substr(trace.text.size() - text))}};
}

Json totals_json(const Trace& trace) {
  const Sample &first = trace.samples.front(), &last = trace.samples.back(), &peak = trace.peak();
  uint64_t ledger_peak = 0, swapped_peak = 0;
  for (const Sample& sample : trace.samples) {
    ledger_peak = std::max(ledger_peak, sample.ledger_bytes());
    swapped_peak = std::max(swapped_peak, sample.swapped_bytes);
  }
  const auto or_null = [](std::optional<double> value) { return value ? Json(*value) : Json(); };
  return {{"ms", ms(last.ns)},
          {"samples", trace.samples.size()},
          {"position", last.position},
          {"cap", last.cap_bytes},
          {"ledger_peak", ledger_peak},
          {"private_peak", peak.private_bytes()},
          {"swapped_peak", swapped_peak},
          {"peak_ms", ms(peak.ns)},
          {"peak_position", peak.position},
          {"peak_tags", peak.tag_bytes},
          {"peak_ledger", peak.ledger_bytes()},
          {"file", last.file_bytes},
          {"evictions", last.evictions},
          {"evicted_tokens", last.evicted_tokens},
          {"eviction_ms", ms(last.eviction_ns)},
          {"minor", last.minor_faults - first.minor_faults},
          {"major", last.major_faults - first.major_faults},
          {"decode", or_null(decode_rate(first, last))},
          {"prefill", or_null(prefill_rate(first, last))}};
}

Json run_json(const NamedTrace& named) {
  const Trace& trace = named.trace;
  return {{"name", named.name},
          {"library", trace.library},
          {"unix_ms", trace.unix_ms},
          {"architecture", trace.architecture},
          {"weights", trace.weights_bytes},
          {"policy", trace.policy},
          {"kv_type", trace.kv_type},
          {"layers", trace.layers},
          {"kv_heads", trace.kv_heads},
          {"cache_tokens", trace.cache_tokens},
          {"prefill_chunk", trace.prefill_chunk},
          {"threads", trace.threads},
          {"interval_ms", trace.interval_ms},
          {"ended", trace.ended},
          {"tag_names", trace.tags},
          {"totals", totals_json(trace)},
          {"samples", samples_json(trace)},
          {"lists", lists_json(trace)},
          {"held", held_json(trace)},
          {"text", text_json(trace)}};
}

}  // namespace

std::string html_report(std::span<const NamedTrace> traces) {
  Json runs = Json::array();
  for (const NamedTrace& trace : traces) runs.push_back(run_json(trace));
  std::string data = runs.dump(-1, ' ', true, Json::error_handler_t::replace);
  // Nothing in the data ends the script element that holds it.
  for (size_t at = 0; (at = data.find('<', at)) != std::string::npos;) data.replace(at, 1, "\\u003c");
  std::string page = kReportTemplate;
  constexpr std::string_view kPlace = "[/*data*/]";
  return page.replace(page.find(kPlace), kPlace.size(), data);
}

}  // namespace lethe::trace
