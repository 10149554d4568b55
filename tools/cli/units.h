// Sizes and numbers as people write and read them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lethe::cli {

// "64MiB", "48M", "1.5G", "1000000": K, M, G (and KiB, MiB, GiB) are powers of 1024; KB, MB, GB powers of 1000; B or
// nothing is bytes. Case does not matter. Nothing when the text is no size or exceeds 2^63.
std::optional<uint64_t> parse_size(std::string_view text);

std::string human_bytes(uint64_t bytes);       // "31.2 MiB"
std::string with_separators(uint64_t number);  // "1,204"

}  // namespace lethe::cli
