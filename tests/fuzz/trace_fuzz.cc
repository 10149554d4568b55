// Reading a memory trace, and what is made of it. What is accepted must become a report of every kind.
#include <cstdlib>

#include "tools/trace/report.h"

using namespace lethe;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<trace::NamedTrace> traces(1);
  traces[0].name = "trace";
  if (!trace::read_trace({data, size}, &traces[0].trace).ok()) return 0;
  if (trace::html_report(traces).size() > 2u << 20) std::abort();
  if (trace::perfetto_report(traces[0].trace).empty()) std::abort();
  if (trace::csv_report(traces[0].trace).empty()) std::abort();
  return 0;
}
