// Which KV heads of a model need no cache of everything: the plan that `lethe profile heads` proposes.
//
//   {"layers": 30, "kv_heads": 3, "windows": [{"layer": 12, "kv_head": 0, "sinks": 4, "window": 64}, ...]}
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/model/model.h"

namespace lethe {

// The query heads of one KV head see the first `sinks` tokens and the last `window`, their own included.
struct PlannedWindow {
  uint32_t layer, kv_head;
  uint32_t sinks, window;
};

struct HeadPlan {
  uint32_t layers = 0, kv_heads = 0;   // of the model that it is for
  std::vector<PlannedWindow> windows;  // ascending by layer, then KV head; the other KV heads see everything
};

std::string head_plan_json(const HeadPlan& plan);

// Reads such a file for a model of this architecture into what a model file holds [layers * kv_heads]. Errors name the
// file: kIo; kCorruptModel for what is no head plan, or not one that the model can have.
Status read_head_plan(const std::string& path, const ModelConfig& config, std::vector<HeadWindow>* out);

}  // namespace lethe
