// lethe run: figures, determinism, saved conversations, Ctrl-C.
#include "lethe/lethe.hpp"
#include "tests/tools/cli.h"

namespace lethe::test {
namespace {

const Args kRun = {"run", tiny_model(), "--ram", "16MiB"};
const Args kRaw = kRun + Args{"--raw", "--ignore-eos"};

TEST_CASE("the JSON object has the keys that scripts rely on") {
  const Json json = run_json(kRun + Args{"hello", "--max-tokens", "7", "--ignore-eos", "--json"});
  CHECK(json["text"].is_string());
  REQUIRE(json["prompt_ids"].is_array());
  CHECK(json["prompt_ids"][0] == 1);  // ChatML begins with <|im_start|>
  REQUIRE(json["ids"].is_array());
  CHECK(json["ids"].size() == 7);
  CHECK(json["stop_reason"] == "max_tokens");
  CHECK(json["memory"]["cap_bytes"] == 16u << 20);
  CHECK(json["memory"]["private_peak_bytes"].get<uint64_t>() > 0);
  CHECK(json["memory"]["weights_mapped_bytes"] == read_file(tiny_model()).size());
  for (const char* tag : {"host", "model", "session", "tokenizer", "activations", "logits", "kv_pool", "kv_index",
                          "sampler", "threads"}) {
    CAPTURE(tag);
    CHECK(json["memory"]["ledger"][tag].is_number_unsigned());
  }
  for (const char* key : {"prefill_tps", "decode_tps", "first_token_ms"}) {
    CAPTURE(key);
    REQUIRE(json["timing"][key].is_number());
    CHECK(json["timing"][key].get<double>() > 0);
  }
  CHECK(json["timing"]["prefill_tokens"] == json["prompt_ids"].size());
  for (const char* key : {"count", "tokens", "ms"}) CHECK(json["evictions"][key].is_number());
}

// The library itself, called in this process.
std::vector<int32_t> library_ids(const std::string& prompt, uint64_t tokens) {
  auto model = api::Model::open(tiny_model().c_str());
  REQUIRE(model.ok());
  auto session = api::Session::create(model.value(), api::session_params(16 << 20));
  REQUIRE(session.ok());
  lethe_sampling sampling = api::sampling();
  sampling.temperature = 0;
  REQUIRE(session.value().set_sampling(sampling).ok());
  REQUIRE(session.value().feed_text(prompt, LETHE_TEXT_SPECIAL | LETHE_TEXT_BOS).ok());
  lethe_generate_params params = api::generate_params();
  params.max_tokens = tokens;
  params.ignore_eos = 1;
  std::vector<int32_t> ids;
  const auto keep = [&](std::string_view, int32_t id) {
    if (id >= 0) ids.push_back(id);
  };
  REQUIRE(session.value().generate(keep, params).ok());
  return ids;
}

TEST_CASE("a greedy answer is the library's, however the prompt arrives") {
  const Args greedy = kRaw + Args{"--greedy", "--max-tokens", "20", "--json"};
  const Json json = run_json(greedy + Args{"hello the"});
  CHECK(json["ids"] == library_ids("hello the", 20));
  const std::string file = temporary_path(".txt");
  write_file(file, "hello the");
  CHECK(run_json(greedy + Args{"--prompt-file", file})["ids"] == json["ids"]);
  CHECK(run_json(greedy + Args{"--prompt-file", "-"}, "hello the")["ids"] == json["ids"]);
  CHECK(run_json(greedy + Args{"-"}, "hello the")["ids"] == json["ids"]);
  CHECK(run_json(kRaw + Args{"--temperature", "0", "--max-tokens", "20", "--json", "hello the"})["ids"] == json["ids"]);
}

TEST_CASE("text without --json is the text of the JSON and a newline") {
  const Args args = kRaw + Args{"hello", "--greedy", "--max-tokens", "40"};
  const Finished plain = run_cli(args);
  CHECK(plain.status == 0);
  CHECK(plain.err == "");
  CHECK(plain.out == run_json(args + Args{"--json"})["text"].get<std::string>() + "\n");
}

TEST_CASE("the seed decides the text") {
  const auto ids = [](const char* seed) {
    return run_json(kRaw + Args{"hello", "--temperature", "1.5", "--top-k", "0", "--max-tokens", "30", "--json",
                                "--seed", seed})["ids"];
  };
  CHECK(ids("7") == ids("7"));
  CHECK(ids("7") != ids("8"));
}

TEST_CASE("a stop text ends the reply and is not printed") {
  const Args args = kRaw + Args{"hello", "--greedy", "--max-tokens", "60", "--json"};
  const std::string text = run_json(args)["text"];
  REQUIRE(text.size() > 20);
  // A stretch of plain characters in the middle of the text.
  size_t at = text.size() / 3;
  while (at < text.size() && (text[at] < 32 || text[at] > 126)) ++at;
  REQUIRE(at < text.size());
  const std::string stop = text.substr(at, 1);
  const Json json = run_json(args + Args{"--stop", "no such text", "--stop", stop});
  CHECK(json["stop_reason"] == "stop_text");
  CHECK(json["text"] == text.substr(0, text.find(stop)));
}

TEST_CASE("a saved conversation goes on as if it had not been interrupted") {
  for (const Args& sampling : {Args{"--greedy"}, Args{"--temperature", "1.2", "--seed", "5"}}) {
    const Args base = kRaw + sampling + Args{"--json"};
    const Json whole = run_json(base + Args{"hello the", "--max-tokens", "50"});
    const std::string file = temporary_path(".session");
    Json ids = run_json(base + Args{"hello the", "--max-tokens", "20", "--save", file})["ids"];
    const Json rest = run_json(base + Args{"--max-tokens", "30", "--restore", file});
    CHECK(rest["prompt_ids"].empty());
    for (const Json& id : rest["ids"]) ids.push_back(id);
    CHECK(ids == whole["ids"]);
  }
}

TEST_CASE("a saved conversation of other options is refused") {
  const std::string file = temporary_path(".session");
  REQUIRE(run_cli(kRun + Args{"hello", "--max-tokens", "3", "--save", file}).status == 0);
  check_refused(run_cli(kRun + Args{"hello", "--kv", "int8", "--restore", file}), 1, "wrong_model", "");
  check_refused(run_cli(kRun + Args{"hello", "--policy", "full", "--restore", file}), 1, "wrong_model", "");
}

TEST_CASE("a full cache ends the answer with an error, and what there is is printed") {
  const Finished finished = run_cli(kRaw + Args{"hello", "--policy", "full", "--max-tokens", "2000", "--json"});
  CHECK(finished.status == 1);
  CHECK(finished.err.starts_with("lethe: error kv_full: "));
  const Json json = Json::parse(finished.out);
  CHECK(json["stop_reason"] == "error");
  CHECK(json["ids"].size() > 400);  // the trained length is 512
  CHECK(json["ids"].size() < 512);
}

TEST_CASE("a window never ends") {
  const Json json = run_json(kRaw + Args{"hello", "--max-tokens", "2000", "--json"});
  CHECK(json["ids"].size() == 2000);
  CHECK(json["evictions"]["count"].get<uint64_t>() > 0);
  CHECK(json["evictions"]["tokens"].get<uint64_t>() > 1400);
}

TEST_CASE("Ctrl-C ends the answer cleanly") {
  for (const bool as_json : {true, false}) {
    const Args args = {"run",          tiny_model(), "--ram",        "32MiB",  "--raw",
                       "--ignore-eos", "hello",      "--max-tokens", "2000000"};
    Cli cli(args + (as_json ? Args{"--json"} : Args{}));
    for (int i = 0; cli.out_so_far().empty(); ++i) {
      REQUIRE(i < 30000);
      REQUIRE(!cli.poll());
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    cli.interrupt();
    const Finished finished = cli.finish();
    CHECK(finished.status == 1);
    CHECK(finished.err.starts_with("lethe: error cancelled: "));
    if (!as_json) continue;
    const Json json = Json::parse(finished.out);
    CHECK(json["stop_reason"] == "cancelled");
    CHECK(json["ids"].size() > 0);
    CHECK(json["ids"].size() < 2000000);
  }
}

}  // namespace
}  // namespace lethe::test
