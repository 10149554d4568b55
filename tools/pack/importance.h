// Which weights matter: measured by running the model over a text.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/model/model.h"

namespace lethe {

// The mean square of every input of every linear map, which is what the error of the weights on that input is
// multiplied with. (llama.cpp calls it an importance matrix.)
class Importance {
 public:
  // Runs the model file over the first 8,192 tokens of `text`, in pieces of 512 that do not see each other. `progress`
  // gets tokens done and in all. Errors: kInvalidArgument (the text has no token), and those of the model and session.
  Status measure(const std::string& model, std::string_view text,
                 const std::function<void(uint64_t done, uint64_t total)>& progress);

  // [cols], with the mean 1 and none 0; empty when nothing is known of the weight.
  std::span<const float> of(Role role, uint32_t layer) const;

 private:
  std::map<std::pair<Role, uint32_t>, std::vector<float>> inputs_;
};

}  // namespace lethe
