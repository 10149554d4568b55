// Text that comes from the command line, a file or standard input, or goes to a file.
#pragma once

#include <cstdio>
#include <optional>
#include <span>
#include <string>

namespace lethe::cli {

// A whole file, or standard input for "-". Throws io.
std::string read_text(const std::string& path);

// Writes a file that appears complete or not at all. Throws io, disk_full.
void write_whole(const std::string& path, const std::string& text);

// Throws when `text` cannot be a prompt: empty, a NUL byte, or not UTF-8 (with the byte offset). `what`: "the prompt".
void check_text(const char* what, const std::string& text);

// "book.txt 0123456789abcdef": what a result says of a file that it was made with.
std::string name_and_checksum(const std::string& path, const void* data, size_t bytes);

enum class LineEnd { kLine, kTooLong, kInterrupted, kEnd };
// Reads one line into `line` without its newline; what is too long is read to its end and dropped. kEnd: no more input.
LineEnd read_line(FILE* in, size_t max_bytes, std::string& line);

}  // namespace lethe::cli
