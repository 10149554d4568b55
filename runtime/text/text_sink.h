// Where text goes, piece by piece.
#pragma once

#include <string_view>

namespace lethe {

struct TextSink {
  void (*write)(void* context, std::string_view text);
  void* context;

  // Empty pieces are not passed on.
  void operator()(std::string_view text) const {
    if (!text.empty()) write(context, text);
  }
};

}  // namespace lethe
