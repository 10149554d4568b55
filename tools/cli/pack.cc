// lethe pack: from a GGUF file or a Hugging Face folder to a model file.
#include "tools/pack/pack.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "tools/cli/commands.h"
#include "tools/cli/failure.h"
#include "tools/cli/input.h"
#include "tools/cli/interrupt.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/options.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"
#include "tools/evolve/shipped.h"

namespace lethe::cli {
namespace {

constexpr const char* kNoNamm = "none";

struct PackCommandOptions {
  std::string input, output, type = "keep", rope_scaling, calibrate, head_plan;
  std::optional<std::string> namm;
  bool json = false;
};

PackType pack_type(const std::string& name) {
  for (const PackType type : {PackType::kKeep, PackType::kQ4, PackType::kQ8, PackType::kF16, PackType::kF32}) {
    if (name == pack_type_name(type)) return type;
  }
  fail(LETHE_ERROR_INVALID_ARGUMENT, "--type is '%s'; it can be keep, q4, q8, f16, f32", name.c_str());
}

void write_json(const PackReport& report, const PackCommandOptions& options) {
  JsonWriter json;
  json.begin_object()
      .member("output", options.output)
      .member("type", options.type)
      .member("bytes_in", report.bytes_in)
      .member("bytes_out", report.bytes_out)
      .member("source_checksum", report.source_checksum)
      .member("seconds", report.seconds);
  json.key("tensors").begin_object();
  for (int format = 0; format < kWeightFormatCount; ++format) {
    if (report.tensors[format] == 0) continue;
    json.member(weight_format_name(static_cast<WeightFormat>(format)), report.tensors[format]);
  }
  json.end_object().key("errors").begin_array();
  for (const PackedTensorError& error : report.errors) {
    json.begin_object()
        .member("name", error.name)
        .member("format", weight_format_name(error.format))
        .member("max_abs", error.max_abs)
        .member("rms", error.rms)
        .end_object();
  }
  json.end_array().end_object().finish();
}

void print(const PackReport& report, const PackCommandOptions& options) {
  printf("%s: %s from %s in %.1f s\n\n", options.output.c_str(), human_bytes(report.bytes_out).c_str(),
         human_bytes(report.bytes_in).c_str(), report.seconds);
  Table formats({"format", "tensors"});
  for (int format = 0; format < kWeightFormatCount; ++format) {
    if (report.tensors[format] == 0) continue;
    formats.row({weight_format_name(static_cast<WeightFormat>(format)), std::to_string(report.tensors[format])});
  }
  formats.print();
  if (report.errors.empty()) {
    puts("\nEvery weight is stored exactly.");
    return;
  }
  putchar('\n');
  const auto number = [](double value) {
    char text[32];
    snprintf(text, sizeof text, "%.3g", value);
    return std::string(text);
  };
  Table errors({"tensor", "format", "largest error", "rms error"});
  for (const PackedTensorError& error : report.errors) {
    errors.row({error.name, weight_format_name(error.format), number(error.max_abs), number(error.rms)});
  }
  errors.print();
}

// A function that shows the progress, and throws through the packer when the user interrupts: so that it removes its
// unfinished file.
std::function<void(uint64_t, uint64_t)> show_progress(const char* label) {
  return [label, progress = std::shared_ptr<Progress>()](uint64_t done, uint64_t total) mutable {
    if (interrupted()) fail(LETHE_ERROR_CANCELLED, "interrupted; nothing was written");
    if (!progress) progress = std::make_shared<Progress>(label, total);
    progress->update(done);
  };
}

// Runs the source as it is, from a temporary file, over the text.
Importance calibrate(PackOptions pack_options, const std::string& text_file) {
  const std::string text = read_text(text_file);
  check_text("the text", text);
  struct TemporaryFile {
    std::string path;
    ~TemporaryFile() { std::remove(path.c_str()); }
  } const source{pack_options.output + ".calibration"};
  pack_options.output = source.path;
  pack_options.type = PackType::kKeep;
  pack_options.progress = show_progress("reading");
  PackReport ignored;
  check(pack_model(pack_options, &ignored));
  Importance importance;
  check(importance.measure(source.path, text, show_progress("calibrating")));
  return importance;
}

int pack(const PackCommandOptions& options) {
  PackOptions pack_options;
  pack_options.input = options.input;
  pack_options.output = options.output;
  pack_options.type = pack_type(options.type);
  if (!options.rope_scaling.empty()) check(parse_rope_scaling(options.rope_scaling, &pack_options.rope_scaling));
  std::optional<NammFile> namm;
  if (options.namm && *options.namm != kNoNamm) namm.emplace(*options.namm);
  if (!options.namm) {
    pack_options.namm_for = evolve::shipped_namm;
  } else if (namm) {
    pack_options.namm = {namm->data(), namm->size()};
  }
  pack_options.head_plan = options.head_plan;
  if (!options.calibrate.empty() && pack_options.type != PackType::kQ4) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--calibrate goes with --type q4, not %s", options.type.c_str());
  }
  PackReport report;
  {
    const InterruptGuard guard(nullptr);
    Importance importance;
    if (!options.calibrate.empty()) {
      importance = calibrate(pack_options, options.calibrate);
      pack_options.importance = &importance;
    }
    pack_options.progress = show_progress("packing");
    check(pack_model(pack_options, &report));
  }
  if (options.json) {
    write_json(report, options);
  } else {
    print(report, options);
  }
  return 0;
}

}  // namespace

void add_pack(CLI::App& app, int& status) {
  auto options = std::make_shared<PackCommandOptions>();
  CLI::App& command = *app.add_subcommand("pack", "Make a model file from a GGUF file or a Hugging Face folder");
  command.add_option("IN", options->input, "GGUF file, or folder with config.json, safetensors and tokenizer")
      ->required();
  command.add_option("-o,--output", options->output, "model file to write; appears complete or not at all")->required();
  command.add_option("--type", options->type, "keep: every tensor as exact as it is; or q4, q8, f16, f32")
      ->capture_default_str();
  command
      .add_option("--rope-scaling", options->rope_scaling,
                  "stretch the context of a model trained without scaling: linear, ntk or yarn, and the factor")
      ->type_name("TYPE:FACTOR");
  command.add_option("--calibrate", options->calibrate,
                     "text that shows which weights matter, for q4: some thousand words of what the model is used for");
  command
      .add_option(
          "--namm", options->namm,
          "NAMM file that the model carries, the learned memory that sessions have by default (default: the one "
          "that was evolved for this model, if there is one); or none")
      ->type_name("FILE");
  command
      .add_option("--head-plan", options->head_plan,
                  "which KV heads need to see the first and last tokens only: a file of 'lethe profile heads --plan'")
      ->type_name("FILE");
  add_json(command, options->json);
  command.footer(
      "Examples:\n"
      "  lethe pack SmolLM2-135M-Instruct-Q4_1.gguf -o smollm2.lethe\n"
      "  lethe pack Qwen2.5-0.5B-Instruct/ -o qwen.lethe --type q8\n"
      "  lethe pack gemma-3-1b-it/ -o gemma.lethe --type q4\n"
      "  lethe pack Llama-2-7b/ -o llama-16k.lethe --type q4 --rope-scaling ntk:4\n"
      "  lethe pack model-f16.gguf -o model.lethe --type q4 --calibrate book.txt --json\n"
      "  lethe pack SmolLM2-135M-Instruct-Q4_1.gguf -o smollm2-30.lethe --head-plan heads.json");
  command.callback([options, &status] { status = pack(*options); });
}

}  // namespace lethe::cli
