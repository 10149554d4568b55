// lethe pack: figures, and nothing half-written.
#include <filesystem>

#include "tests/support/hf_fixture.h"
#include "tests/support/tiny_namm.h"
#include "tests/tools/cli.h"

namespace lethe::test {
namespace {

// A folder of its own, so that everything left behind shows.
struct Folder {
  std::filesystem::path path = temporary_path(".folder");
  Folder() { std::filesystem::create_directory(path); }
  ~Folder() { std::filesystem::remove_all(path); }
  size_t files() const { return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(path), {})); }
  std::string file(const char* name) const { return (path / name).string(); }
};

std::string gguf() {
  static const std::string path = [] {
    const std::string to = temporary_path(".gguf");
    write_file(to, tiny_gguf(TinyOptions()).bytes());
    return to;
  }();
  return path;
}

TEST_CASE("a packed file is whole, and packing again replaces it") {
  const Folder folder;
  const std::string out = folder.file("model.lethe");
  write_file(out, "something older");
  for (const char* type : {"keep", "q4", "q8", "f16", "f32"}) {
    CAPTURE(type);
    const Json json = run_json({"pack", gguf(), "-o", out, "--type", type, "--json"});
    CHECK(json["type"] == type);
    CHECK(json["bytes_in"] == read_file(gguf()).size());
    CHECK(json["bytes_out"] == read_file(out).size());
    CHECK(json["errors"].empty() == (std::string(type) == "keep" || std::string(type) == "f32"));
    CHECK(run_cli({"inspect", out, "--verify"}).status == 0);
    CHECK(folder.files() == 1);
  }
  const Finished table = run_cli({"pack", gguf(), "-o", out});
  CHECK(table.status == 0);
  CHECK(table.out.find("Every weight is stored exactly.") != std::string::npos);
}

TEST_CASE("a Hugging Face folder, and RoPE scaling") {
  const HfFolder model("qwen2");
  const std::string out = temporary_path(".lethe");
  const Json json = run_json({"pack", model.path, "-o", out, "--type", "f32", "--rope-scaling", "yarn:4", "--json"});
  CHECK(json["bytes_out"] == read_file(out).size());
  const Finished inspected = run_cli({"inspect", out, "--verify"});
  CHECK(inspected.status == 0);
  CHECK(inspected.out.find("yarn x4") != std::string::npos);
  check_refused(run_cli({"pack", model.path, "-o", out, "--rope-scaling", "yarn"}), 2, "invalid_argument",
                "TYPE:FACTOR");
  std::filesystem::remove(model.file("model-00003-of-00003.safetensors"));
  check_refused(run_cli({"pack", model.path, "-o", out}), 1, "io", "model-00003-of-00003.safetensors");
}

TEST_CASE("calibration changes q4, is written down, and leaves nothing else behind") {
  const Folder folder;
  const std::string plain = folder.file("plain.lethe"), out = folder.file("model.lethe"), text = folder.file("text");
  write_file(text, "hello the world and you, user; the hello of the world");
  run_json({"pack", gguf(), "-o", plain, "--type", "q4", "--json"});
  run_json({"pack", gguf(), "-o", out, "--type", "q4", "--calibrate", text, "--json"});
  CHECK(folder.files() == 3);
  CHECK(read_file(out) != read_file(plain));
  CHECK(run_cli({"inspect", out, "--verify"}).status == 0);
  CHECK(run_cli({"inspect", out}).out.find("--calibrate") != std::string::npos);
  check_refused(run_cli({"pack", gguf(), "-o", out, "--type", "q8", "--calibrate", text}), 2, "invalid_argument",
                "--type q4");
  check_refused(run_cli({"pack", gguf(), "-o", out, "--type", "q4", "--calibrate", folder.file("none")}), 1, "io",
                "none");
  CHECK(folder.files() == 3);
}

TEST_CASE("a NAMM file travels in the model, is shown, and is what policy namm takes") {
  const Folder folder;
  const std::string out = folder.file("model.lethe"), file = folder.file("evolved.namm");
  const std::span<const uint8_t> namm = tiny_namm();
  write_file(file, std::string(namm.begin(), namm.end()));
  run_json({"pack", gguf(), "-o", out, "--namm", file, "--json"});
  const Json inspected = run_json({"inspect", out, "--verify", "--json"});
  CHECK(inspected["namm"] == Json({{"network", "bam"},
                                   {"hidden", 32},
                                   {"weights", 4172},
                                   {"interval", 48},
                                   {"rectangular", false},
                                   {"inputs", {"age", "spectrum"}}}));
  CHECK(run_cli({"inspect", out}).out.find("inputs age, spectrum, every 48 tokens, ragged") != std::string::npos);
  const Args run = {"--ram",        "64MiB",    "--policy", "namm",  "--max-tokens", "150",
                    "--ignore-eos", "--greedy", "--raw",    "hello", "--json"};
  const Json by_model = run_json(Args{"run", out} + run);
  CHECK(by_model["evictions"]["count"] == 3);
  CHECK(run_json(Args{"run", tiny_model(), "--namm", file} + run)["ids"] == by_model["ids"]);
  // Where no policy is named: the learned one if it has parameters.
  const auto default_policy = [](const Args& model) {
    return run_json(Args{"plan"} + model + Args{"--ram", "64MiB", "--json"})["policy"].get<std::string>();
  };
  CHECK(default_policy({out}) == "namm");
  CHECK(default_policy({tiny_model(), "--namm", file}) == "namm");
  CHECK(default_policy({tiny_model()}) == "h2o");
  // The shipped one is for another model.
  run_json({"pack", gguf(), "-o", out, "--json"});
  CHECK(default_policy({out}) == "h2o");
  run_json({"pack", gguf(), "-o", out, "--namm", "none", "--json"});
  CHECK(default_policy({out}) == "h2o");
  check_refused(run_cli(Args{"run", tiny_model()} + run), 2, "invalid_argument", "NAMM file");
  check_refused(run_cli(Args{"run", tiny_model(), "--namm", folder.file("none")} + run), 1, "io", "none");
  check_refused(run_cli(Args{"run", tiny_model(), "--namm", gguf()} + run), 1, "not_a_model", "LETHNAMM");
  check_refused(run_cli({"pack", gguf(), "-o", out, "--namm", gguf()}), 1, "not_a_model", "LETHNAMM");
}

TEST_CASE("a head plan travels in the model, is shown, and leaves more of the cap to the other heads") {
  const Folder folder;
  const std::string out = folder.file("model.lethe"), file = folder.file("heads.json");
  const auto plan = [&](const std::string& windows) {
    write_file(file, R"({"layers": 2, "kv_heads": 2, "windows": [)" + windows + "]}");
  };
  const std::string first = R"({"layer": 0, "kv_head": 1, "sinks": 4, "window": 24})";
  plan(first + R"(, {"layer": 1, "kv_head": 0, "sinks": 4, "window": 24})");
  run_json({"pack", gguf(), "-o", out, "--head-plan", file, "--json"});
  const Json inspected = run_json({"inspect", out, "--verify", "--json"});
  REQUIRE(inspected["head_plan"].size() == 2);
  CHECK(inspected["head_plan"][0] == Json::parse(first));
  const Finished shown = run_cli({"inspect", out});
  CHECK(shown.out.find("2 of 4 KV heads see the first 4 and the last 24 tokens") != std::string::npos);
  CHECK(shown.out.find("--head-plan") != std::string::npos);
  CHECK_FALSE(run_json({"inspect", tiny_model(), "--json"}).contains("head_plan"));

  const std::string text = folder.file("text");
  write_file(text, [] {
    std::string words;
    for (int i = 0; i < 100; ++i) words += "hello the world of number " + std::to_string(i) + ". ";
    return words;
  }());
  const auto stream = [&](const std::string& model, const std::string& fraction) {
    return run_json({"eval", "stream", model, "--text", text, "--tokens", "512", "--score-from", "400", "--policy",
                     "window", "--positions", "absolute", "--kv-fraction", fraction, "--json"});
  };
  const Json whole = stream(out, "1"), half = stream(out, "0.5"), plain = stream(tiny_model(), "0.5");
  CHECK(whole["cache_tokens"] == 512);
  CHECK(whole["kv_share_of_full"].get<double>() < 0.75);  // two of four lists are short
  CHECK(whole["kl_to_full"].get<double>() > 0);           // and the full cache beside it is that of all heads
  CHECK(half["cache_tokens"] > plain["cache_tokens"]);
  CHECK(half["kv_share_of_full"].get<double>() <= 0.5);

  const auto refused = [&](const std::string& windows, const char* part) {
    plan(windows);
    check_refused(run_cli({"pack", gguf(), "-o", out, "--head-plan", file}), 1, "corrupt_model", part);
  };
  refused(R"({"layer": 2, "kv_head": 0, "sinks": 4, "window": 24})", "layer 2, KV head 0");
  refused(R"({"layer": 0, "kv_head": 0, "sinks": 4, "window": 0})", "1 token at least");
  refused(R"({"layer": 0, "kv_head": 0, "window": 24})", "'sinks' is missing");
  refused(R"({"layer": 0, "kv_head": 0, "sinks": -4, "window": 24})", "'sinks' is missing or no whole number");
  refused("7", "'layer' is missing");
  refused(first + ", " + first, "layer 0, KV head 1 occurs twice");
  write_file(file, R"({"layers": 30, "kv_heads": 3, "windows": []})");
  check_refused(run_cli({"pack", gguf(), "-o", out, "--head-plan", file}), 1, "corrupt_model", "the model has 2 of 2");
  write_file(file, R"({"layers": 2, "kv_heads": 2})");
  check_refused(run_cli({"pack", gguf(), "-o", out, "--head-plan", file}), 1, "corrupt_model", "'windows' is missing");
  write_file(file, "[]");
  check_refused(run_cli({"pack", gguf(), "-o", out, "--head-plan", file}), 1, "corrupt_model", "heads.json");
  CHECK(run_json({"inspect", out, "--json"})["head_plan"].size() == 2);  // the older file stays
}

TEST_CASE("when it fails, nothing is left behind and an older file stays") {
  const Folder folder;
  const std::string out = folder.file("model.lethe");
  check_refused(run_cli({"pack", folder.file("none.gguf"), "-o", out}), 1, "io", "none.gguf");
  CHECK(folder.files() == 0);

  Cli::Options full;  // the disk ends after 100 kB
  full.most_file_bytes = 100'000;
  REQUIRE(read_file(tiny_model()).size() > full.most_file_bytes);
  const Finished finished = run_cli({"pack", gguf(), "-o", out}, full);
  CHECK(finished.status == 1);
  CHECK(finished.err.starts_with("lethe: error "));
  CHECK(folder.files() == 0);
  write_file(out, "something older");
  CHECK(run_cli({"pack", gguf(), "-o", out}, full).status == 1);
  CHECK(folder.files() == 1);
  CHECK(read_file(out) == "something older");
  check_refused(run_cli({"pack", gguf(), "-o", folder.file("no/folder/model.lethe")}), 1, "io", "no/folder");
  const std::string source = gguf();
  check_refused(run_cli({"pack", source, "-o", source}), 2, "invalid_argument", "");
}

}  // namespace
}  // namespace lethe::test
