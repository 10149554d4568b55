#include <map>
#include <set>

#include "runtime/backend/cpu/all_targets.h"
#include "tests/tools/cli.h"

namespace lethe::test {
namespace {

const Args kQuick = {"bench", "kernels", "--seconds", "0.0001", "--json"};

std::set<std::string> kernels_of(const Json& json) {
  std::set<std::string> names;
  for (const Json& line : json["kernels"]) names.insert(line["kernel"]);
  return names;
}

const Json& line_of(const Json& json, const std::string& kernel, const std::string& what) {
  for (const Json& line : json["kernels"]) {
    if (line["kernel"] == kernel && line["what"] == what) return line;
  }
  FAIL("no line '", kernel, " ", what, "' in ", json.dump());
  return json;
}

TEST_CASE("bench kernels measures every kernel on every target") {
  const Json json = run_json(kQuick + Args{tiny_model()});
  CHECK(json["threads"] == 1);
  CHECK(json["stream_gbps"] > 0.1);
  const std::set<std::string> all = {"embed_row",   "rms_norm",   "layer_norm",  "quantise", "linear",
                                     "rope",        "store_kv",   "attend",      "merge",    "weigh",
                                     "activate",    "add",        "scale",       "softcap",  "argmax",
                                     "log_sum_exp", "namm_score", "namm_observe"};
  CHECK(kernels_of(json) == all);
  std::set<std::string> targets;
  cpu::for_each_simd_target([&](int64_t target, const cpu::Kernels&) { targets.insert(target_name(target)); });
  std::map<std::string, std::set<std::string>> measured;
  for (const Json& line : json["kernels"]) {
    const auto label = line["kernel"].get<std::string>() + " " + line["what"].get<std::string>();
    CAPTURE(label);
    CHECK(measured[label].insert(line["target"]).second);  // once
    const double seconds = line["seconds_per_call"];
    CHECK(seconds > 1e-10);
    CHECK(line["gflops"].get<double>() * 1e9 * seconds == doctest::Approx(line["flops"].get<double>()));
    CHECK(line["gbps"].get<double>() * 1e9 * seconds == doctest::Approx(line["bytes"].get<double>()));
    CHECK(line["flops"].get<double>() + line["bytes"].get<double>() > 0);
    if (line["from_memory"] == true) CHECK(line["bytes"] > 0);
  }
  for (const auto& [label, on] : measured) CHECK(on == targets);
}

TEST_CASE("bench kernels counts the work of a model's shapes") {
  const TinyOptions tiny;
  const Json json = run_json(kQuick + Args{tiny_model(), "--target", "best"});
  // Tokens x outputs x inputs; f32 weights; twice as many operations as weights and token.
  const Json& decode = line_of(json, "linear", "f32 1x96x64");
  CHECK(decode["flops"] == 2 * tiny.ffn_dim * tiny.embed_dim);
  CHECK(decode["bytes"] == 4 * tiny.ffn_dim * tiny.embed_dim);
  CHECK(decode["from_memory"] == true);
  const Json& prefill = line_of(json, "linear", "f32 512x64x96");
  CHECK(prefill["flops"] == 512 * 2 * tiny.ffn_dim * tiny.embed_dim);
  CHECK(prefill["from_memory"] == false);
  // Scores and values: two products of head_dim for every query head, query and cached token.
  const uint32_t group = tiny.heads / tiny.kv_heads;
  CHECK(line_of(json, "attend", "f16 1x512")["flops"] == 4 * group * 512 * tiny.head_dim);
  for (const char* type : {"int8", "int8k4v", "int4"}) {
    CHECK(line_of(json, "attend", type + std::string(" 8x512"))["flops"] == 8 * 4 * group * 512 * tiny.head_dim);
  }
  CHECK(line_of(json, "rms_norm", "512x64")["bytes"] == 512 * tiny.embed_dim * 8);
}

TEST_CASE("bench kernels without a model has every weight type") {
  const Json json = run_json(kQuick + Args{"--filter", "linear", "--target", "best", "--threads", "2"});
  CHECK(json["threads"] == 2);
  CHECK(kernels_of(json) == std::set<std::string>{"linear"});
  for (const char* type : {"f32", "f16", "q8", "q6", "q5m", "q5", "q4m", "q4"}) {
    CHECK(line_of(json, "linear", type + std::string(" 1x1536x576"))["gflops"] > 0);
    CHECK(line_of(json, "linear", type + std::string(" 512x1536x576"))["gflops"] > 0);
  }
  const Finished table = run_cli({"bench", "kernels", "--seconds", "0.0001", "--filter", "argmax", "--target", "best"});
  CHECK(table.status == 0);
  CHECK(table.out.find("argmax 1x49152") != std::string::npos);
  CHECK(table.out.find("GB/s") != std::string::npos);
}

TEST_CASE("bench refuses what it cannot measure") {
  const auto refused = [](const Args& args, const char* part) {
    check_refused(run_cli(args), 2, "invalid_argument", part);
  };
  refused({"bench"}, "MODEL");
  refused({"bench", tiny_model(), "--repeat", "0"}, "--repeat 0");
  refused({"bench", tiny_model(), "--threads", "many"}, "'many'");
  refused({"bench", "kernels", "--target", "abacus"}, "all, best, ");
  refused({"bench", "kernels", "--filter", "no such line"}, "no such line");
  refused({"bench", "kernels", "--threads", "0"}, "--threads is 0");
  refused({"bench", "kernels", "--threads", "65"}, "1 to 64");
  refused({"bench", "kernels", "--seconds", "0"}, "--seconds");
  refused({"bench", "kernels", "--seconds", "nan"}, "--seconds");
  check_refused(run_cli({"bench", "kernels", temporary_path(".lethe")}), 1, "io", ".lethe");
}

}  // namespace
}  // namespace lethe::test
