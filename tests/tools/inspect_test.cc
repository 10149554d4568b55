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
  const Finished tensors = run_cli({"inspect", tiny_model(), "--tensors"});
  CHECK(std::count(tensors.out.begin(), tensors.out.end(), '\n') == 1 + 2 + 9 * tiny.layers);
}

TEST_CASE("--verify finds a flipped bit that opening does not read") {
  std::string bytes = read_file(tiny_model());
  bytes[bytes.size() - 100] ^= 1;
  const std::string file = temporary_path(".lethe");
  write_file(file, bytes);
  CHECK(run_cli({"inspect", file}).status == 0);
  check_refused(run_cli({"inspect", file, "--verify"}), 1, "corrupt_model", "segment");
}

TEST_CASE("--diff measures how far two files are apart") {
  TinyOptions options;
  const GgufSource source = tiny_gguf(options);
  const auto pack = [](GgufSource from) {
    const std::string gguf = temporary_path(".gguf"), out = temporary_path(".lethe");
    write_file(gguf, from.bytes());
    REQUIRE(run_cli({"pack", gguf, "-o", out}).status == 0);
    return out;
  };
  const std::string a = pack(source);
  GgufSource changed = source;  // one weight of one tensor, by 3
  std::string& data = changed.tensor("blk.1.ffn_up.weight").data;
  float weight;
  memcpy(&weight, data.data() + 4 * 100, 4);
  weight += 3;
  memcpy(data.data() + 4 * 100, &weight, 4);
  const std::string b = pack(changed);

  const Json same = run_json({"inspect", a, "--diff", a, "--json"});
  CHECK(same["equal"] == 2 + 9 * options.layers);
  const Json json = run_json({"inspect", a, "--diff", b, "--json"});
  CHECK(json["equal"] == 1 + 9 * options.layers);
  CHECK(json["unmatched"].empty());
  for (const Json& tensor : json["tensors"]) {
    const bool is_changed = tensor["role"] == "ffn.up" && tensor["layer"] == 1;
    CHECK(tensor["max_abs"].get<double>() == doctest::Approx(is_changed ? 3 : 0));
    const double values = options.ffn_dim * options.embed_dim;
    if (is_changed) CHECK(tensor["rms"].get<double>() == doctest::Approx(3 / std::sqrt(values)));
  }
  const Finished table = run_cli({"inspect", a, "--diff", b});
  CHECK(table.out.find("ffn.up") != std::string::npos);
  CHECK(table.out.find("attention.q") == std::string::npos);  // equal tensors are only counted

  TinyOptions untied = options, wider = options;
  untied.tied = false;
  wider.ffn_dim = 128;
  const Json other = run_json({"inspect", a, "--diff", pack(tiny_gguf(untied)), "--json"});
  REQUIRE(other["unmatched"].size() == 1);
  CHECK(other["unmatched"][0] == "output of layer 0 is only in the other file");
  check_refused(run_cli({"inspect", a, "--diff", pack(tiny_gguf(wider))}), 2, "invalid_argument", "not the same model");
  check_refused(run_cli({"inspect", a, "--diff", b, "--verify"}), 2, "invalid_argument", "give one");
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
