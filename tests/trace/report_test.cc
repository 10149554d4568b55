// Reports hold what their trace holds, need nothing else, and stay small.
#include "tools/trace/report.h"

#include <nlohmann/json.hpp>
#include <numeric>

#include "tests/trace/trace_support.h"

namespace lethe::test {
namespace {

using Json = nlohmann::json;

// Data of a page.
Json data_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const size_t begin = page.find(open) + open.size();
  REQUIRE(begin > open.size());
  return Json::parse(page.substr(begin, page.find("</script>", begin) - begin));
}

// A million tokens, with a picture of scattered positions every hundred.
trace::Trace long_trace() {
  trace::Trace out{};
  out.architecture = "</script><b>";
  out.policy = "h2o";
  out.layers = 48;
  out.kv_heads = 8;
  out.tags = {"host", "kv_pool", "activations"};
  for (uint64_t i = 0; i < 20'000; ++i) {
    trace::Sample sample{};
    sample.ns = i * 50'000'000;
    sample.position = i * 50;
    sample.cap_bytes = 64 << 20;
    sample.tag_bytes = {1 << 20, (30 << 20) + i, 4 << 20};
    sample.anonymous_bytes = (34 << 20) + i % 1000 * 4096;
    sample.lengths.resize(384);
    for (uint32_t list = 0; list < 384; ++list)
      sample.lengths[list] = static_cast<uint32_t>((i * 7 + list * 31) % 2000);
    sample.decode_tokens = i * 50;
    sample.decode_ns = i * 40'000'000;
    sample.evictions = i / 2;
    out.samples.push_back(sample);
  }
  out.samples[12'345].anonymous_bytes = 60 << 20;
  for (uint64_t i = 0; i < 2000; ++i) {
    trace::Held held{i * 500'000'000, {}};
    for (uint64_t run = 0; run < 2000; ++run) held.runs.push_back(static_cast<uint8_t>(run * 16 + 1));
    out.held.push_back(held);
  }
  out.ids.assign(1'000'000, 7);
  out.sizes.assign(1'000'000, 5);
  for (int i = 0; i < 1'000'000; ++i) out.text += " word";
  return out;
}

TEST_CASE("report: a page needs nothing else and is under 2 MiB, also of two traces of a million tokens") {
  const std::string page = trace::html_report(std::vector<trace::NamedTrace>{{"a", long_trace()}, {"b", long_trace()}});
  CHECK(page.size() < 2u << 20);
  for (const char* outside : {"http:", "https:", "//www", "src=", "<link", "@import", "url(", "fetch(", "import("}) {
    CAPTURE(outside);
    CHECK(page.find(outside) == std::string::npos);
  }
  CHECK(page.find("/*style*/") == std::string::npos);
  CHECK(page.find("/*script*/") == std::string::npos);
  CHECK(page.find("[/*data*/]") == std::string::npos);
  const Json data = data_of(page);
  REQUIRE(data.size() == 2);
  CHECK(data[0]["architecture"] == "</script><b>");
  CHECK(data[0]["totals"]["private_peak"] == 60 << 20);
  CHECK(data[0]["totals"]["peak_tags"][1] == (30 << 20) + 12'345);
  const Json& shown = data[0]["samples"]["anonymous"];
  CHECK(std::find(shown.begin(), shown.end(), 60 << 20) != shown.end());
  CHECK(data[0]["text"]["first"].get<uint64_t>() == data[0]["text"]["left_out"].get<uint64_t>());
  CHECK(data[0]["held"].back()["ms"] == 999'500.0);
}

TEST_CASE("report: totals are the ledger's") {
  const OpenModel model(tiny_model_path(TinyOptions()));
  OpenSession session(model, window_options(128));
  const std::string path = temporary_path(".trace");
  REQUIRE(session->start_trace(path.c_str(), kEveryStep).ok());
  REQUIRE(session->feed(random_ids(2000, 259, 5)).ok());
  REQUIRE(session->stop_trace().ok());
  const trace::Trace read = read_trace_file(path);
  const Json run = data_of(trace::html_report(std::vector<trace::NamedTrace>{{"t", read}}))[0];
  const Json& tags = run["samples"]["tags"];
  for (int tag = 0; tag < kMemoryTagCount; ++tag) {
    CHECK(run["tag_names"][tag] == memory_tag_name(MemoryTag(tag)));
    CHECK(tags[tag] == session->ledger().used(MemoryTag(tag)));  // never changed: one number
  }
  CHECK(run["totals"]["ledger_peak"] == session->ledger().total());
  CHECK(run["totals"]["evictions"] == session->stats().cache.evictions);

  const Json events = Json::parse(trace::perfetto_report(read))["traceEvents"];
  size_t ledgers = 0, slices = 0;
  for (const Json& event : events) {
    if (event["name"] == "ledger (bytes)") {
      ++ledgers;
      uint64_t sum = 0;
      for (const auto& [tag, bytes] : event["args"].items()) sum += bytes.get<uint64_t>();
      CHECK(sum == session->ledger().total());
    }
    if (event["ph"] == "X") {
      ++slices;
      CHECK(event["dur"].get<double>() > 0);
      CHECK(event["args"]["tokens"].get<uint64_t>() > 0);
    }
  }
  CHECK(ledgers == read.samples.size());
  CHECK(slices == session->stats().cache.evictions);  // a sample after every step misses none

  const std::string csv = trace::csv_report(read);
  CHECK(static_cast<size_t>(std::count(csv.begin(), csv.end(), '\n')) == 1 + read.samples.size());
  const auto columns = [](const std::string& line) { return std::count(line.begin(), line.end(), ','); };
  const std::string head = csv.substr(0, csv.find('\n')), row = csv.substr(csv.rfind('\n', csv.size() - 2) + 1);
  CHECK(head.find("kv_pool_bytes") != std::string::npos);
  CHECK(columns(head) == columns(row));
}

TEST_CASE("report: formats go by the name") {
  CHECK(trace::format_of("a.html") == trace::ReportFormat::kHtml);
  CHECK(trace::format_of("a.json") == trace::ReportFormat::kPerfetto);
  CHECK(trace::format_of("a.csv") == trace::ReportFormat::kCsv);
  CHECK_FALSE(trace::format_of("a.pdf"));
}

}  // namespace
}  // namespace lethe::test
