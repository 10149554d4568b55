// Hugging Face folders: what is packed from them, and damaged, hostile and contradictory ones. Nothing may be left.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "runtime/model/model.h"
#include "tests/support/hf_fixture.h"

using namespace lethe;
using namespace lethe::test;

namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

Status pack(const std::string& input, const std::string& output, const RopeScaling& scaling = {},
            PackType type = PackType::kF32) {
  PackOptions options;
  options.input = input;
  options.output = output;
  options.type = type;
  options.rope_scaling = scaling;
  PackReport report;
  return pack_model(options, &report);
}

struct Opened {
  explicit Opened(const std::string& path) {
    Result<Model*> opened = Model::open(path.c_str());
    REQUIRE_MESSAGE(opened.ok(), opened.status().message());
    model = opened.value();
  }
  ~Opened() { Model::close(model); }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  Model* operator->() const { return model; }
  Model* model;
};

// Packs a fixture's folder after `change`, into an empty folder in which a failure must leave nothing.
Status pack_changed(const char* fixture, const std::function<void(HfFolder&)>& change, PackType type = PackType::kF32) {
  HfFolder folder(fixture);
  change(folder);
  const std::string out = temporary_path("-out");
  fs::create_directory(out);
  const Status status = pack(folder.path, out + "/model.lethe", {}, type);
  CHECK(fs::is_empty(out) == !status.ok());
  fs::remove_all(out);
  return status;
}

std::function<void(HfFolder&)> with_config(const std::string& key, const Json& value) {
  return [=](HfFolder& folder) {
    Json config = folder.json("config.json");
    config[key] = value;
    folder.write_json("config.json", config);
  };
}

uint64_t header_length(const std::string& bytes) {
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  return length;
}

// The header of a safetensors file, changed; the data stays.
std::function<void(HfFolder&)> with_header(const std::function<void(Json&)>& change,
                                           const std::string& name = "model.safetensors") {
  return [=](HfFolder& folder) {
    const std::string bytes = read_file(folder.file(name));
    Json header = Json::parse(bytes.substr(8, header_length(bytes)));
    change(header);
    const std::string text = header.dump();
    const uint64_t length = text.size();
    std::string out(reinterpret_cast<const char*>(&length), sizeof length);
    write_file(folder.file(name), out + text + bytes.substr(8 + header_length(bytes)));
  };
}

// Bytes of one tensor's data replaced.
std::function<void(HfFolder&)> with_weight(const std::string& tensor, size_t at, const std::string& value) {
  return [=](HfFolder& folder) {
    std::string bytes = read_file(folder.file("model.safetensors"));
    const Json header = Json::parse(bytes.substr(8, header_length(bytes)));
    const size_t begin = 8 + header_length(bytes) + header[tensor]["data_offsets"][0].get<size_t>();
    bytes.replace(begin + at, value.size(), value);
    write_file(folder.file("model.safetensors"), bytes);
  };
}

void check_refused(const Status& status, ErrorCode code, std::initializer_list<const char*> parts) {
  CHECK_MESSAGE(status.code() == code, std::string(status.message()));
  for (const char* part : parts) {
    CHECK_MESSAGE(std::string(status.message()).find(part) != std::string::npos,
                  "expected '" << std::string(part) << "' in '" << std::string(status.message()) << "'");
  }
}

const std::string kQ = "model.layers.1.self_attn.q_proj.weight";

}  // namespace

TEST_CASE("HF: a folder and the GGUF file that llama.cpp makes of it give the same model") {
  for (const std::string& name : gguf_fixtures()) {
    CAPTURE(name);
    const HfFolder folder(name);
    const std::string paths[2] = {temporary_path(".lethe"), temporary_path(".lethe")};
    const Status statuses[2] = {pack(folder.path, paths[0]), pack(gguf_fixture(name), paths[1])};
    for (const Status& status : statuses) REQUIRE_MESSAGE(status.ok(), std::string(status.message()));
    const Opened hf(paths[0]), gguf(paths[1]);
    REQUIRE(hf->tensors().size() == gguf->tensors().size());
    for (const Tensor& t : hf->tensors()) {
      CAPTURE(role_name(t.role));
      const Tensor* other = gguf->find(t.role, t.layer);
      REQUIRE(other != nullptr);
      REQUIRE(other->bytes == t.bytes);
      if (t.role != Role::kRopeFactors) {
        CHECK(std::memcmp(t.data, other->data, t.bytes) == 0);
        continue;
      }
      for (uint32_t i = 0; i < t.cols; ++i) {  // the converter computes Llama 3's in floats
        float ours, theirs;
        std::memcpy(&ours, t.data + 4 * i, 4);
        std::memcpy(&theirs, other->data + 4 * i, 4);
        CHECK(ours == doctest::Approx(theirs).epsilon(1e-5));
      }
    }
    const ModelConfig& a = hf->config();
    const ModelConfig& b = gguf->config();
    CHECK(a.window == b.window);
    CHECK(a.local_layers == b.local_layers);
    CHECK(a.norm == b.norm);
    CHECK(a.activation == b.activation);
    CHECK(a.norm_eps == b.norm_eps);
    CHECK(a.rope_base == b.rope_base);
    CHECK(a.rope_local_base == b.rope_local_base);
    CHECK(a.rope_magnitude == b.rope_magnitude);
    CHECK(a.rotary_dim == b.rotary_dim);
    CHECK(a.context_length == b.context_length);
    CHECK(a.score_scale() == doctest::Approx(b.score_scale()).epsilon(1e-6));
    CHECK(a.attention_softcap == b.attention_softcap);
    CHECK(a.logit_softcap == b.logit_softcap);
    CHECK(a.embedding_scale == b.embedding_scale);
  }
}

TEST_CASE("HF: where a model comes from is written down, and the same folder gives the same file") {
  const HfFolder folder("qwen2");
  const std::string first = temporary_path(".lethe"), second = temporary_path(".lethe");
  REQUIRE(pack(folder.path, first).ok());
  REQUIRE(pack(folder.path + "/", second).ok());
  CHECK(read_file(first) == read_file(second));
  {
    const Opened model(first);
    CHECK(std::string(model->config().name) == "qwen2");
    CHECK(model->provenance().source == fs::path(folder.path).filename().string());
    CHECK(model->provenance().options == "--type f32");
  }
  const uint64_t checksum = Opened(first)->provenance().source_checksum;
  folder.write_json("generation_config.json", Json{{"eos_token_id", 257}});
  REQUIRE(pack(folder.path, second).ok());
  CHECK(Opened(second)->provenance().source_checksum != checksum);
}

TEST_CASE("HF: missing files") {
  check_refused(pack_changed("qwen2", [](HfFolder& f) { fs::remove(f.file("model-00002-of-00003.safetensors")); }),
                ErrorCode::kIo, {"model-00002-of-00003.safetensors"});
  check_refused(pack_changed("llama", [](HfFolder& f) { fs::remove(f.file("model.safetensors")); }),
                ErrorCode::kNotAModel, {"neither model.safetensors nor"});
  check_refused(pack_changed("llama", [](HfFolder& f) { fs::remove(f.file("config.json")); }), ErrorCode::kIo,
                {"config.json"});
  check_refused(pack_changed("llama", [](HfFolder& f) { fs::remove(f.file("tokenizer.json")); }), ErrorCode::kIo,
                {"tokenizer"});
  check_refused(pack("/nowhere/at/all", temporary_path(".lethe")), ErrorCode::kIo, {"/nowhere/at/all"});
}

TEST_CASE("HF: an index that does not fit its shards") {
  const auto index = [](const char* tensor, const char* file) {
    return [=](HfFolder& folder) {
      Json json = folder.json("model.safetensors.index.json");
      json["weight_map"][tensor] = file;
      folder.write_json("model.safetensors.index.json", json);
    };
  };
  check_refused(pack_changed("qwen2", index("model.norm.weight", "model-00001-of-00003.safetensors")),
                ErrorCode::kCorruptModel, {"model-00001-of-00003.safetensors: tensor model.norm.weight is missing"});
  for (const char* file : {"../model.safetensors", "/etc/passwd", "..", ""}) {
    check_refused(pack_changed("qwen2", index("model.norm.weight", file)), ErrorCode::kCorruptModel,
                  {"index.json", "model.norm.weight"});
  }
  check_refused(pack_changed("qwen2", [](HfFolder& f) { write_file(f.file("model.safetensors.index.json"), "[]"); }),
                ErrorCode::kCorruptModel, {"model.safetensors.index.json: not a JSON object"});
}

TEST_CASE("HF: tensors of another shape or type, twice, or without a place") {
  check_refused(pack_changed("llama", with_header([](Json& h) { h[kQ]["shape"] = {32, 64}; })),
                ErrorCode::kCorruptModel,
                {"model.safetensors", "layers.1.self_attn.q_proj.weight has 32 rows of 64", "needs 64 rows of 32"});
  check_refused(pack_changed("llama", with_header([](Json& h) { h[kQ]["dtype"] = "I16"; })), ErrorCode::kUnsupported,
                {"model.safetensors", "layers.1.self_attn.q_proj.weight has type I16"});
  check_refused(pack_changed("llama", with_header([](Json& h) { h[kQ]["dtype"] = "F32"; })), ErrorCode::kCorruptModel,
                {"model.safetensors", "q_proj.weight: 64 x 32 of F32 are not 4096 bytes"});
  check_refused(pack_changed("llama", with_header([](Json& h) { h["model.layers.1.attention.weight"] = h[kQ]; })),
                ErrorCode::kUnsupported, {"model.layers.1.attention.weight has no place"});
  check_refused(pack_changed("llama", with_header([](Json& h) {
                               h["model.language_model.norm.weight"] = h["model.norm.weight"];
                             })),
                ErrorCode::kCorruptModel, {"model.norm.weight", "same part"});
  check_refused(pack_changed("llama", with_header([](Json& h) { h.erase(kQ); })), ErrorCode::kCorruptModel,
                {"attention.q of layer 1 is missing"});
  check_refused(pack_changed("gemma2", with_header([](Json& h) {
                               for (const char* layer : {"0", "1", "2"}) {
                                 h.erase(std::string("model.layers.") + layer + ".post_feedforward_layernorm.weight");
                               }
                             })),
                ErrorCode::kCorruptModel, {"ffn.post_norm of layer 0 is missing"});
}

TEST_CASE("HF: weights that are not finite are found and named") {
  const std::string nan("\xc0\x7f", 2), infinity("\x80\x7f", 2);  // bf16
  for (const PackType type : {PackType::kKeep, PackType::kF16, PackType::kQ8, PackType::kQ4}) {
    check_refused(pack_changed("llama", with_weight(kQ, 100, nan), type), ErrorCode::kCorruptModel,
                  {"model.safetensors", kQ.c_str(), "not finite"});
  }
  check_refused(pack_changed("llama", with_weight("model.norm.weight", 0, infinity)), ErrorCode::kCorruptModel,
                {"model.safetensors", "model.norm.weight", "not finite"});
  const std::string half_nan("\x00\x7e", 2);
  check_refused(pack_changed("gpt2", with_weight("transformer.h.1.attn.c_attn.weight", 2 * 50, half_nan)),
                ErrorCode::kCorruptModel, {"model.safetensors", "h.1.attn.c_attn.weight (attention.k)", "not finite"});
}

TEST_CASE("HF: a config that contradicts the tensors, or itself") {
  const auto corrupt = [](const char* fixture, const char* key, const Json& value,
                          std::initializer_list<const char*> parts) {
    check_refused(pack_changed(fixture, with_config(key, value)), ErrorCode::kCorruptModel, parts);
  };
  corrupt("llama", "intermediate_size", 96,
          {"model.safetensors", "mlp.down_proj.weight has 32 rows of 64", "needs 32 rows of 96"});
  corrupt("llama", "num_hidden_layers", 3, {"of layer 2 is missing"});
  corrupt("llama", "vocab_size", 300, {"model.safetensors", "272 rows of 32"});
  corrupt("llama", "vocab_size", 4294967295u, {"config.json: vocab_size is 4294967295"});
  corrupt("llama", "num_key_value_heads", 3, {"evenly"});
  corrupt("llama", "head_dim", 8, {"model.safetensors", "self_attn."});
  corrupt("llama", "hidden_size", "32", {"config.json: hidden_size is \"32\", not a dimension"});
  corrupt("llama", "hidden_size", -32, {"config.json: hidden_size is -32"});
  corrupt("llama", "hidden_size", 4294967296u * 2.0, {"hidden_size"});
  corrupt("llama", "num_hidden_layers", 4000000000u, {"layers is 4000000000"});
  corrupt("llama", "max_position_embeddings", nullptr, {"max_position_embeddings is missing"});
  corrupt("llama", "rms_norm_eps", 0, {"norm_eps"});
  corrupt("qwen3", "tie_word_embeddings", false, {"tie_word_embeddings is false", "lm_head.weight"});
  corrupt("qwen2", "layer_types", Json::array({"full_attention"}), {"1 layers are local or global, the model has 3"});
  corrupt("llama-yarn", "rope_scaling", Json{{"rope_type", "yarn"}, {"factor", 0}}, {"the factor is 0"});
  corrupt("llama-yarn", "rope_scaling", Json{{"type", "ntk"}, {"factor", 1e6}, {"alpha", 1e80}}, {"rope_base is inf"});
  corrupt("llama-yarn", "rope_scaling", Json{{"rope_type", "yarn"}, {"factor", "4"}},
          {"factor is \"4\", not a number"});
  corrupt("llama", "model_type", nullptr, {"config.json: model_type is missing"});
  check_refused(pack_changed("llama", with_config("num_hidden_layers", 1)), ErrorCode::kUnsupported,
                {"model.safetensors", "model.layers.1.", "no place in a model of 1 layers"});
}

TEST_CASE("HF: what this version does not have is named") {
  const auto unsupported = [](const char* fixture, const char* key, const Json& value,
                              std::initializer_list<const char*> parts) {
    check_refused(pack_changed(fixture, with_config(key, value)), ErrorCode::kUnsupported, parts);
  };
  unsupported("llama", "model_type", "mamba", {"config.json: architecture mamba; supported: llama, mistral"});
  unsupported("llama", "hidden_act", "mish", {"config.json", "mish"});
  unsupported("llama-yarn", "rope_scaling", Json{{"rope_type", "longrope"}, {"factor", 4}}, {"longrope"});
  unsupported("llama", "quantization_config", Json{{"quant_method", "gptq"}},
              {"config.json: quantization_config is object"});
  unsupported("gemma3_text", "use_bidirectional_attention", true, {"use_bidirectional_attention is true"});
  unsupported("gpt2", "scale_attn_by_inverse_layer_idx", true, {"scale_attn_by_inverse_layer_idx"});
  unsupported("qwen2", "layer_types", Json::array({"linear_attention", "full_attention", "full_attention"}),
              {"linear_attention"});
}

TEST_CASE("HF: files that are no JSON or no safetensors") {
  const std::string deep = "{\"quantization_config\": " + std::string(1'000'000, '[');
  for (const std::string& text : {std::string("{"), std::string("[1]"), std::string("{\"a\": 1} x"),
                                  std::string("\xff\xfe"), deep + std::string(1'000'000, ']') + "}"}) {
    check_refused(pack_changed("llama", [&](HfFolder& f) { write_file(f.file("config.json"), text); }),
                  ErrorCode::kCorruptModel, {"config.json: ", "JSON"});
  }
  check_refused(
      pack_changed("llama", [](HfFolder& f) { write_file(f.file("model.safetensors"), "PK\3\4 not it at all"); }),
      ErrorCode::kNotAModel, {"model.safetensors"});
}

TEST_CASE("HF: a safetensors file cut off anywhere is refused") {
  const HfFolder folder("llama");
  const std::string bytes = read_file(folder.file("model.safetensors"));
  const std::string output = temporary_path(".lethe");
  for (size_t length = 1; length < bytes.size(); length += length < 4000 ? 97 : 5003) {
    CAPTURE(length);
    write_file(folder.file("model.safetensors"), std::string_view(bytes).substr(0, length));
    const Status status = pack(folder.path, output);
    CHECK((status.code() == ErrorCode::kCorruptModel || status.code() == ErrorCode::kNotAModel));
    CHECK(std::string(status.message()).find("model.safetensors") != std::string::npos);
    CHECK_FALSE(fs::exists(output));
  }
}

TEST_CASE("HF: any flip in a safetensors header is refused or gives a model that loads") {
  const HfFolder folder("llama-biases");
  const std::string bytes = read_file(folder.file("model.safetensors"));
  const std::string output = temporary_path(".lethe");
  size_t packed = 0;
  for (size_t at = 0; at < 8 + header_length(bytes); at += 5) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ (at % 2 == 0 ? 0x01 : 0x80));
    write_file(folder.file("model.safetensors"), changed);
    const Status status = pack(folder.path, output);
    CHECK((status.ok() || status.code() == ErrorCode::kCorruptModel || status.code() == ErrorCode::kNotAModel ||
           status.code() == ErrorCode::kUnsupported));
    if (status.ok()) {
      ++packed;
      Opened(output)->tensors();
    }
  }
  CHECK(packed > 0);
}

TEST_CASE("RoPE scaling as an option of the packer") {
  RopeScaling scaling;
  for (const char* text :
       {"", "ntk", "ntk:", "ntk:4x", "ntk:0", "ntk:1", "ntk:-2", "ntk:nan", "llama3:8", "linear:1e9"}) {
    CAPTURE(text);
    CHECK(parse_rope_scaling(text, &scaling).code() == ErrorCode::kInvalidArgument);
  }
  REQUIRE(parse_rope_scaling("ntk:4", &scaling).ok());
  ModelConfig config = {};  // Llama 3 8B as NAMM stretches it, to a base of 3,609,793 in its configuration
  config.rotary_dim = 128;
  config.rope_base = 500000;
  std::vector<float> factors;
  REQUIRE(apply_rope_scaling(scaling, &config, &factors).ok());
  CHECK(config.rope_base == doctest::Approx(3609793).epsilon(1e-6));
  CHECK(factors.empty());
  CHECK(std::string(config.rope_scaling) == "ntk x4");

  const HfFolder llama("llama"), yarn("llama-yarn"), gpt2("gpt2");
  const std::string output = temporary_path(".lethe");
  REQUIRE(pack(llama.path, output, scaling).ok());
  {
    const Opened model(output);
    CHECK(model->config().rope_base == doctest::Approx(500 * std::pow(7, 16 / 14.0)).epsilon(1e-6));
    CHECK(model->config().context_length == 256);
    CHECK(model->provenance().options == "--type f32 --rope-scaling ntk:4");
    CHECK(model->find(Role::kRopeFactors, 0) == nullptr);
  }
  REQUIRE(parse_rope_scaling("linear:2.5", &scaling).ok());
  REQUIRE(pack(llama.path, output, scaling).ok());
  {
    const Opened model(output);
    CHECK(model->config().context_length == 160);
    float factor = 0;
    REQUIRE(model->find(Role::kRopeFactors, 0) != nullptr);
    std::memcpy(&factor, model->find(Role::kRopeFactors, 0)->data + 4 * 7, 4);
    CHECK(factor == 2.5f);
  }
  check_refused(pack(yarn.path, output, scaling), ErrorCode::kInvalidArgument, {"scaled already"});
  check_refused(pack(gguf_fixture("llama-llama3"), output, scaling), ErrorCode::kInvalidArgument, {"scaled already"});
  check_refused(pack(gpt2.path, output, scaling), ErrorCode::kInvalidArgument, {"without RoPE"});
}
