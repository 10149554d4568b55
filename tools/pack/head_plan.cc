#include "tools/pack/head_plan.h"

#include "runtime/model/roles.h"
#include "runtime/os/file.h"
#include "tools/pack/json_file.h"
#include "tools/pack/model_source.h"

namespace lethe {
namespace {

// A whole number of 32 bits. kCorruptModel with the name otherwise.
Status read_number(const nlohmann::json& object, const char* name, uint32_t* out) {
  const auto found = object.is_object() ? object.find(name) : object.end();
  if (!object.is_object() || found == object.end() || !found->is_number_unsigned() ||
      found->get<uint64_t>() > UINT32_MAX) {
    return Status::error(ErrorCode::kCorruptModel, "no head plan: '%s' is missing or no whole number", name);
  }
  *out = found->get<uint32_t>();
  return {};
}

Status read_windows(const nlohmann::json& json, const ModelConfig& config, std::vector<HeadWindow>* out) {
  uint32_t layers = 0, kv_heads = 0;
  LETHE_RETURN_IF_ERROR(read_number(json, "layers", &layers));
  LETHE_RETURN_IF_ERROR(read_number(json, "kv_heads", &kv_heads));
  if (layers != config.layers || kv_heads != config.kv_heads) {
    return Status::error(ErrorCode::kCorruptModel,
                         "a head plan for %u layers of %u KV heads; the model has %u of %u: profile this model", layers,
                         kv_heads, config.layers, config.kv_heads);
  }
  const auto windows = json.find("windows");
  if (windows == json.end() || !windows->is_array()) {
    return Status::error(ErrorCode::kCorruptModel, "no head plan: 'windows' is missing or no array");
  }
  out->assign(uint64_t{layers} * kv_heads, {});
  for (const nlohmann::json& entry : *windows) {
    PlannedWindow window{};
    LETHE_RETURN_IF_ERROR(read_number(entry, "layer", &window.layer));
    LETHE_RETURN_IF_ERROR(read_number(entry, "kv_head", &window.kv_head));
    LETHE_RETURN_IF_ERROR(read_number(entry, "sinks", &window.sinks));
    LETHE_RETURN_IF_ERROR(read_number(entry, "window", &window.window));
    if (window.layer >= layers || window.kv_head >= kv_heads || window.window == 0) {
      return Status::error(
          ErrorCode::kCorruptModel,
          "head plan: a window of %u for layer %u, KV head %u: of a model of %u layers and %u KV heads, "
          "and of 1 token at least",
          window.window, window.layer, window.kv_head, layers, kv_heads);
    }
    HeadWindow& head = (*out)[uint64_t{window.layer} * kv_heads + window.kv_head];
    if (head.window != 0) {
      return Status::error(ErrorCode::kCorruptModel, "head plan: layer %u, KV head %u occurs twice", window.layer,
                           window.kv_head);
    }
    head = {.sinks = window.sinks, .window = window.window};
  }
  return check_head_plan(config, *out);
}

}  // namespace

std::string head_plan_json(const HeadPlan& plan) {
  nlohmann::ordered_json json{
      {"layers", plan.layers}, {"kv_heads", plan.kv_heads}, {"windows", nlohmann::ordered_json::array()}};
  for (const PlannedWindow& window : plan.windows) {
    json["windows"].push_back(
        {{"layer", window.layer}, {"kv_head", window.kv_head}, {"sinks", window.sinks}, {"window", window.window}});
  }
  return json.dump(1) + "\n";
}

Status read_head_plan(const std::string& path, const ModelConfig& config, std::vector<HeadWindow>* out) {
  Result<os::FileMap> map = os::FileMap::open(path.c_str());
  if (!map.ok()) return map.status();
  nlohmann::json json;
  Status status = parse_json_object({map.value().data(), static_cast<size_t>(map.value().size())}, &json);
  if (status.ok()) status = read_windows(json, config, out);
  return in_file(status, path);
}

}  // namespace lethe
