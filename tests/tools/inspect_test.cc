#include "tests/tools/cli.h"

namespace lethe::test {
namespace {

TEST_CASE("the summary is the model's") {
  const TinyOptions tiny;
  const Json json = run_json({"inspect", tiny_model(), "--verify", "--json"});
  CHECK(json["verified"] == true);
  CHECK(json["file_bytes"] == read_file(tiny_model()).size());
  CHECK(json["kv_bytes_per_token"] == 2 * 2 * tiny.layers * tiny.kv_heads * tiny.head_dim);
  const Json& architecture = json["architecture"];
  CHECK(architecture["name"] == "llama");
  CHECK(architecture["layers"] == tiny.layers);
  CHECK(architecture["embed_dim"] == tiny.embed_dim);
  CHECK(architecture["heads"] == tiny.heads);
  CHECK(architecture["kv_heads"] == tiny.kv_heads);
  CHECK(architecture["head_dim"] == tiny.head_dim);
  CHECK(architecture["ffn_dim"] == tiny.ffn_dim);
  CHECK(architecture["context_length"] == tiny.context_length);
  CHECK(json["tensors"].size() == 2 + 9 * tiny.layers);  // tied embedding, its norm, and nine a layer
  CHECK(json["formats"]["f32"]["tensors"] == 1 + 7 * tiny.layers);
  CHECK(json["formats"]["f32-vector"]["values"] == (1 + 2 * tiny.layers) * tiny.embed_dim);
  CHECK(json["tokenizer"]["bos_id"] == 1);
  CHECK(json["tokenizer"]["eos_id"] == 2);
  CHECK(json["tokenizer"]["chat_template"].get<std::string>().find("im_start") != std::string::npos);
  const Finished table = run_cli({"inspect", tiny_model()});
  CHECK(table.status == 0);
  CHECK(table.out.find("f32-vector") != std::string::npos);
}

TEST_CASE("--verify finds a flipped bit that opening does not read") {
  std::string bytes = read_file(tiny_model());
  bytes[bytes.size() - 100] ^= 1;
  const std::string file = temporary_path(".lethe");
  write_file(file, bytes);
  CHECK(run_cli({"inspect", file}).status == 0);
  check_refused(run_cli({"inspect", file, "--verify"}), 1, "corrupt_model", "segment");
}

TEST_CASE("--tokenize prints ids and pieces that spell the text") {
  const std::string text = "hello \"the\" \\ \t\n\x01 <|im_end|> caf\xc3\xa9";
  const Json json = run_json({"inspect", tiny_model(), "--tokenize", text, "--json"});
  REQUIRE(json["ids"].size() == json["pieces"].size());
  const std::string plain = "hello the<|im_end|>";
  const Json whole = run_json({"inspect", tiny_model(), "--tokenize", plain, "--json"});
  std::string spelled;
  for (const Json& piece : whole["pieces"]) spelled += piece.get<std::string>();
  CHECK(spelled == plain);
  CHECK(whole["ids"].back() == 2);  // the special token itself
  CHECK(std::count(json["ids"].begin(), json["ids"].end(), 2) == 1);
  CHECK(std::count(json["pieces"].begin(), json["pieces"].end(), "\"") == 2);
  CHECK(std::count(json["pieces"].begin(), json["pieces"].end(), "\x01") == 1);
  const Finished lines = run_cli({"inspect", tiny_model(), "--tokenize", "hello\n"});
  CHECK(lines.out.find("\"\\u000a\"") != std::string::npos);
}

TEST_CASE("--tokenize-lines gives one array a line") {
  const std::string file = temporary_path(".txt");
  write_file(file, "hello\n\n the\xff\n\xef\xbf\xbd\n\xff\nlast");
  const Finished finished = run_cli({"inspect", tiny_model(), "--tokenize-lines", file});
  CHECK(finished.status == 0);
  std::vector<Json> lines;
  std::istringstream in(finished.out);
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  REQUIRE(lines.size() == 6);
  CHECK(lines[0] == run_json({"inspect", tiny_model(), "--tokenize", "hello", "--json"})["ids"]);
  CHECK(lines[1].empty());
  CHECK(lines[2] == run_json({"inspect", tiny_model(), "--tokenize", " the\xef\xbf\xbd", "--json"})["ids"]);
  CHECK(lines[3] == lines[4]);  // what is not UTF-8 is U+FFFD
  CHECK(lines[5].size() > 0);
}

}  // namespace
}  // namespace lethe::test
