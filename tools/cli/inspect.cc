// lethe inspect: what is in a model file.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "runtime/base/utf8.h"
#include "runtime/cache/namm/file.h"
#include "runtime/model/model.h"
#include "tools/cli/commands.h"
#include "tools/cli/failure.h"
#include "tools/cli/input.h"
#include "tools/cli/inspect_diff.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/options.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"

namespace lethe::cli {
namespace {

struct InspectOptions {
  std::string model;
  std::optional<std::string> tokenize, tokenize_lines, diff;
  bool verify = false, tensors = false, json = false;
};

struct CloseModel {
  void operator()(Model* model) const { Model::close(model); }
};
using OpenModel = std::unique_ptr<Model, CloseModel>;

struct FormatTotal {
  uint64_t tensors = 0, values = 0, bytes = 0;
};

std::array<FormatTotal, kWeightFormatCount> totals_by_format(const Model& model) {
  std::array<FormatTotal, kWeightFormatCount> totals{};
  for (const Tensor& tensor : model.tensors()) {
    FormatTotal& total = totals[static_cast<size_t>(tensor.format)];
    ++total.tensors;
    total.values += uint64_t{tensor.rows} * tensor.cols;
    total.bytes += tensor.bytes;
  }
  return totals;
}

void verify(const Model& model) {
  Progress progress("verifying segments", model.segment_count());
  for (uint32_t segment = 0; segment < model.segment_count(); ++segment) {
    check(model.verify_segment(segment));
    progress.update(segment + 1);
  }
}

// The NAMM that the model carries, if it does.
std::optional<namm::Parameters> namm_of(const Model& model) {
  if (model.namm().empty()) return {};
  const Result<namm::Parameters> parameters = namm::read_file(model.namm());
  check(parameters.status());
  return parameters.value();
}

void write_json(JsonWriter& json, const namm::Parameters& namm) {
  const namm::Shape& shape = namm.shape;
  json.key("namm").begin_object();
  json.member("network", namm::network_name(shape.network))
      .member("hidden", shape.hidden)
      .member("weights", shape.weight_count())
      .member("interval", namm.interval)
      .member("rectangular", namm.rectangular);
  json.key("inputs").begin_array();
  for (const namm::Input input : shape.list()) json.value(namm::info_of(input).name);
  json.end_array().end_object();
}

// Members of KV heads that see less than their layers.
void write_head_plan(JsonWriter& json, const Model& model) {
  const uint32_t kv_heads = model.config().kv_heads;
  json.key("head_plan").begin_array();
  for (uint32_t i = 0; i < model.head_plan().size(); ++i) {
    const HeadWindow& head = model.head_plan()[i];
    if (head.window == 0) continue;
    json.begin_object()
        .member("layer", i / kv_heads)
        .member("kv_head", i % kv_heads)
        .member("sinks", head.sinks)
        .member("window", head.window)
        .end_object();
  }
  json.end_array();
}

void write_json(const Model& model, const lethe_model_info& info, bool verified) {
  const ModelConfig& config = model.config();
  const TokenizerData& tokenizer = model.tokenizer();
  const Provenance& provenance = model.provenance();
  JsonWriter json;
  json.begin_object();
  json.member("file_bytes", info.file_bytes)
      .member("private_bytes", info.private_bytes)
      .member("kv_bytes_per_token", info.kv_bytes_per_token)
      .member("segments", model.segment_count())
      .member("verified", verified);
  json.key("architecture").begin_object();
  json.member("name", static_cast<const char*>(config.name))
      .member("layers", config.layers)
      .member("embed_dim", config.embed_dim)
      .member("heads", config.heads)
      .member("kv_heads", config.kv_heads)
      .member("head_dim", config.head_dim)
      .member("ffn_dim", config.ffn_dim)
      .member("vocab", config.vocab)
      .member("context_length", config.context_length)
      .member("norm", norm_name(config.norm))
      .member("norm_eps", static_cast<double>(config.norm_eps))
      .member("activation", activation_name(config.activation))
      .member("rotary_dim", config.rotary_dim)
      .member("rope_base", static_cast<double>(config.rope_base))
      .member("rope_local_base", static_cast<double>(config.rope_local_base))
      .member("rope_scaling", static_cast<const char*>(config.rope_scaling))
      .member("window", config.window)
      .member("attention_scale", static_cast<double>(config.score_scale()))
      .member("attention_softcap", static_cast<double>(config.attention_softcap))
      .member("logit_softcap", static_cast<double>(config.logit_softcap))
      .member("embedding_scale", static_cast<double>(config.embedding_scale));
  json.key("local_layers").begin_array();
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    if (config.is_local(layer)) json.value(layer);
  }
  json.end_array().end_object();
  json.key("formats").begin_object();
  const auto totals = totals_by_format(model);
  for (size_t format = 0; format < totals.size(); ++format) {
    if (totals[format].tensors == 0) continue;
    json.key(weight_format_name(static_cast<WeightFormat>(format))).begin_object();
    json.member("tensors", totals[format].tensors)
        .member("values", totals[format].values)
        .member("bytes", totals[format].bytes)
        .end_object();
  }
  json.end_object();
  json.key("tensors").begin_array();
  for (const Tensor& tensor : model.tensors()) {
    json.begin_object()
        .member("role", role_name(tensor.role))
        .member("layer", tensor.layer)
        .member("format", weight_format_name(tensor.format))
        .member("rows", tensor.rows)
        .member("cols", tensor.cols)
        .member("bytes", tensor.bytes)
        .end_object();
  }
  json.end_array();
  json.key("tokenizer").begin_object();
  json.member("vocab", config.vocab)
      .member("specials", tokenizer.specials.size())
      .member("bos_id", tokenizer.bos_id)
      .member("eos_id", tokenizer.eos_id)
      .member("add_bos", tokenizer.add_bos);
  json.key("end_ids").begin_array();
  for (const int32_t id : tokenizer.end_ids) json.value(id);
  json.end_array().member("chat_template", tokenizer.chat_template).end_object();
  if (const auto namm = namm_of(model)) write_json(json, *namm);
  if (!model.head_plan().empty()) write_head_plan(json, model);
  json.key("provenance").begin_object();
  json.member("source", provenance.source)
      .member("source_checksum", provenance.source_checksum)
      .member("packer", provenance.packer)
      .member("options", provenance.options)
      .end_object();
  json.end_object().finish();
}

// "RoPE base 1e+06 over 256 of 256 dimensions (local layers 10000)".
void print_positions(const ModelConfig& config) {
  printf("trained for   %s tokens, ", with_separators(config.context_length).c_str());
  if (config.rotary_dim == 0) {
    printf("no RoPE\n");
    return;
  }
  printf("RoPE base %g over %u of %u dimensions", static_cast<double>(config.rope_base), config.rotary_dim,
         config.head_dim);
  if (config.rope_scaling[0] != '\0') printf(", %s", config.rope_scaling);
  if (config.rope_local_base != 0) printf(", local layers %g", static_cast<double>(config.rope_local_base));
  printf("\n");
}

void print_windows(const ModelConfig& config) {
  if (config.window == 0) return;
  uint32_t local = 0;
  for (uint32_t layer = 0; layer < config.layers; ++layer) local += config.is_local(layer) ? 1 : 0;
  printf("windows       %u of %u layers see %s tokens\n", local, config.layers, with_separators(config.window).c_str());
}

// "30 of 90 KV heads see the first 4 and the last 64 tokens", a line for every kind of window.
void print_head_plan(const Model& model) {
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> heads;  // by sinks and window
  for (const HeadWindow& head : model.head_plan()) {
    if (head.window != 0) ++heads[{head.sinks, head.window}];
  }
  for (const auto& [sight, count] : heads) {
    printf("head plan     %u of %zu KV heads see the first %u and the last %s tokens\n", count,
           model.head_plan().size(), sight.first, with_separators(sight.second).c_str());
  }
}

void print_namm(const Model& model) {
  const auto namm = namm_of(model);
  if (!namm) return;
  std::string inputs;
  for (const namm::Input input : namm->shape.list()) {
    inputs += (inputs.empty() ? "" : ", ") + std::string(namm::info_of(input).name);
  }
  printf("memory policy namm: %s of %u, %s weights, inputs %s, every %u tokens, %s\n",
         namm::network_name(namm->shape.network), namm->shape.hidden,
         with_separators(namm->shape.weight_count()).c_str(), inputs.c_str(), namm->interval,
         namm->rectangular ? "rectangular" : "ragged");
}

void print_tensors(const Model& model) {
  Table table({"tensor", "layer", "format", "rows", "columns", "bytes"});
  for (const Tensor& tensor : model.tensors()) {
    table.row({role_name(tensor.role), std::to_string(tensor.layer), weight_format_name(tensor.format),
               with_separators(tensor.rows), with_separators(tensor.cols), with_separators(tensor.bytes)});
  }
  table.print();
}

void print(const Model& model, const lethe_model_info& info, bool verified) {
  const ModelConfig& config = model.config();
  const TokenizerData& tokenizer = model.tokenizer();
  const Provenance& provenance = model.provenance();
  const auto text = [](std::string_view of) { return std::pair(static_cast<int>(of.size()), of.data()); };
  const auto [source_size, source] = text(provenance.source);
  const auto [packer_size, packer] = text(provenance.packer);
  const auto [options_size, options] = text(provenance.options);
  printf("architecture  %s: %u layers, width %u, %u heads (%u KV) of %u, FFN %u, %s, %s\n", config.name, config.layers,
         config.embed_dim, config.heads, config.kv_heads, config.head_dim, config.ffn_dim, norm_name(config.norm),
         activation_name(config.activation));
  print_positions(config);
  print_windows(config);
  print_head_plan(model);
  print_namm(model);
  printf("vocabulary    %s tokens, %zu special, %s chat template, %s BOS\n", with_separators(config.vocab).c_str(),
         tokenizer.specials.size(), tokenizer.chat_template.empty() ? "no" : "with", tokenizer.add_bos ? "with" : "no");
  printf("memory        %s in the file (mapped), %s private, %s of f16 cache a token\n",
         human_bytes(info.file_bytes).c_str(), human_bytes(info.private_bytes).c_str(),
         human_bytes(info.kv_bytes_per_token).c_str());
  printf("packed        from %.*s (XXH64 %016llx) by %.*s, %.*s\n", source_size, source,
         static_cast<unsigned long long>(provenance.source_checksum), packer_size, packer, options_size, options);
  printf("checksums     %s\n\n", verified ? "verified" : "not read (--verify does)");
  Table table({"format", "tensors", "values", "bytes", "bits a value"});
  const auto totals = totals_by_format(model);
  for (size_t format = 0; format < totals.size(); ++format) {
    const FormatTotal& total = totals[format];
    if (total.tensors == 0) continue;
    char bits[16];
    snprintf(bits, sizeof bits, "%.2f", static_cast<double>(total.bytes) * 8 / static_cast<double>(total.values));
    table.row({weight_format_name(static_cast<WeightFormat>(format)), with_separators(total.tensors),
               with_separators(total.values), with_separators(total.bytes), bits});
  }
  table.print();
}

// Tokenises texts with the smallest session that the model allows.
class TextTokenizer {
 public:
  explicit TextTokenizer(const char* path) : model_(check(api::Model::open(path))), session_(open(model_)) {}

  // Special tokens in the text become those tokens; what is not UTF-8 becomes U+FFFD. Valid until the next call.
  std::span<const int32_t> tokenize(std::string_view text) {
    if (utf8::find_invalid(text) != text.size()) {
      valid_.resize(3 * text.size());
      valid_.resize(utf8::replace_invalid(text, valid_));
      text = valid_;
    }
    size_t count = 0;
    api::Error error = session_.tokenize(text, LETHE_TEXT_SPECIAL, ids_.data(), ids_.size(), &count);
    if (error.code() == LETHE_ERROR_PROMPT_TOO_LONG) {
      ids_.resize(count);
      error = session_.tokenize(text, LETHE_TEXT_SPECIAL, ids_.data(), ids_.size(), &count);
    }
    check(error);
    return {ids_.data(), count};
  }

  std::string_view piece(int32_t id) const { return model_.token_bytes(id); }

 private:
  static api::Session open(const api::Model& model) {
    lethe_session_params params = api::session_params(0);
    params.max_tokens = 1;
    params.threads = 1;
    params.turn_bytes = 0;
    lethe_memory memory;
    if (const api::Error error = model.plan(params, &memory); error.code() != LETHE_ERROR_RAM_TOO_SMALL) check(error);
    params.ram_bytes = memory.minimum_ram_bytes;
    return check(api::Session::create(model, params));
  }

  api::Model model_;
  api::Session session_;
  std::vector<int32_t> ids_ = std::vector<int32_t>(1024);
  std::string valid_;
};

void print_tokens(TextTokenizer& tokenizer, const std::string& text, bool as_json) {
  const std::span<const int32_t> ids = tokenizer.tokenize(text);
  if (as_json) {
    JsonWriter json;
    json.begin_object().key("ids").begin_array();
    for (const int32_t id : ids) json.value(id);
    json.end_array().key("pieces").begin_array();
    for (const int32_t id : ids) json.value(tokenizer.piece(id));
    json.end_array().end_object().finish();
    return;
  }
  for (const int32_t id : ids) {
    printf("%7d  ", id);
    JsonWriter().value(tokenizer.piece(id));  // quoted, so that spaces and newlines show
    putchar('\n');
  }
}

// One JSON array of ids for every line of the file.
void print_lines(TextTokenizer& tokenizer, const std::string& file) {
  const std::string text = read_text(file);
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    JsonWriter json;
    json.begin_array();
    for (const int32_t id : tokenizer.tokenize(line)) json.value(id);
    json.end_array();
    putchar('\n');
  }
}

OpenModel open_model(const std::string& path) {
  auto opened = Model::open(path.c_str());
  check(opened.status());
  return OpenModel(opened.value());
}

int inspect(const InspectOptions& options) {
  const int wanted = int{options.tokenize.has_value()} + int{options.tokenize_lines.has_value()} +
                     int{options.diff.has_value()} + int{options.tensors} + int{options.verify};
  if (wanted > 1) {
    fail(LETHE_ERROR_INVALID_ARGUMENT,
         "--verify, --tensors, --diff, --tokenize and --tokenize-lines each print something else: give one");
  }
  if (options.tokenize || options.tokenize_lines) {
    TextTokenizer tokenizer(options.model.c_str());
    if (options.tokenize) {
      print_tokens(tokenizer, *options.tokenize, options.json);
    } else {
      print_lines(tokenizer, *options.tokenize_lines);
    }
    return 0;
  }
  const OpenModel model = open_model(options.model);
  if (options.diff) {
    inspect_diff(*model, *open_model(*options.diff), options.json);
    return 0;
  }
  const lethe_model_info info = check(check(api::Model::open(options.model.c_str())).info());
  if (options.verify) verify(*model);
  if (options.json) {
    write_json(*model, info, options.verify);
  } else if (options.tensors) {
    print_tensors(*model);
  } else {
    print(*model, info, options.verify);
  }
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, int& status) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App& command = *app.add_subcommand("inspect", "Look inside a model file");
  add_model(command, options->model);
  command.add_flag("--verify", options->verify, "read the whole file and compare its checksums");
  command.add_flag("--tensors", options->tensors, "print every tensor instead (--json always has them)");
  command.add_option("--diff", options->diff, "compare the weights with another model file's instead")
      ->type_name("MODEL");
  command.add_option("--tokenize", options->tokenize, "print the tokens of a text instead");
  command.add_option("--tokenize-lines", options->tokenize_lines,
                     "print a JSON array of ids for every line of a file instead");
  add_json(command, options->json);
  command.footer(
      "Examples:\n"
      "  lethe inspect model.lethe --verify\n"
      "  lethe inspect model.lethe --diff model.f32.lethe\n"
      "  lethe inspect model.lethe --tokenize \"Hello, world\"\n"
      "  lethe inspect model.lethe --tokenize-lines corpus.txt > ids.jsonl");
  command.callback([options, &status] { status = inspect(*options); });
}

}  // namespace lethe::cli
