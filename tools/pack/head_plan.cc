#include "tools/pack/head_plan.h"

#include <nlohmann/json.hpp>

namespace lethe {

std::string head_plan_json(const HeadPlan& plan) {
  nlohmann::ordered_json json{
      {"layers", plan.layers}, {"kv_heads", plan.kv_heads}, {"windows", nlohmann::ordered_json::array()}};
  for (const PlannedWindow& window : plan.windows) {
    json["windows"].push_back(
        {{"layer", window.layer}, {"kv_head", window.kv_head}, {"sinks", window.sinks}, {"window", window.window}});
  }
  return json.dump(1) + "\n";
}

}  // namespace lethe
