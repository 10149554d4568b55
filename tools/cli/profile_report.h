// What becomes of a trace: shared by `profile report` and `profile memory`.
#pragma once

#include <string>
#include <vector>

#include "tools/trace/report.h"

namespace lethe::cli {

// The format that the name of `out` asks for. Throws invalid_argument for another ending, or for several traces in one
// that takes a single one.
trace::ReportFormat check_report(const std::string& out, size_t traces);

// Throws io, or invalid_argument with the file's name when it is no trace.
trace::NamedTrace open_trace(const std::string& path);

void write_report(const std::string& out, trace::ReportFormat format, const std::vector<trace::NamedTrace>& traces);

}  // namespace lethe::cli
