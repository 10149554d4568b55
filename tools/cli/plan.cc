// lethe plan: what a session would take, before anything runs.
#include <CLI/CLI.hpp>
#include <memory>

#include "tools/cli/commands.h"
#include "tools/cli/failure.h"
#include "tools/cli/json_writer.h"
#include "tools/cli/options.h"
#include "tools/cli/process_share.h"

namespace lethe::cli {
namespace {

struct PlanOptions {
  std::string model;
  SessionOptions session;
  bool json = false;
};

int plan(const PlanOptions& options) {
  const lethe_session_params params = options.session.params(host_bytes(0));
  const api::Model model = check(api::Model::open(options.model.c_str()));
  lethe_memory memory;
  const api::Error error = model.plan(params, &memory);
  if (!error.ok() && error.code() != LETHE_ERROR_RAM_TOO_SMALL) check(error);
  if (options.json) {
    JsonWriter json;
    json.begin_object().member("fits", error.ok());
    if (error.ok()) {
      write_memory(json, memory);
    } else {
      json.member("cap_bytes", params.ram_bytes).member("minimum_ram_bytes", memory.minimum_ram_bytes);
    }
    json.end_object().finish();
  } else if (error.ok()) {
    print_memory(memory);
  }
  check(error);
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, int& status) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App& command = *app.add_subcommand("plan", "Show what a session would take: will it fit?");
  add_model(command, options->model);
  options->session.add_to(command);
  add_json(command, options->json);
  command.footer(
      "Examples:\n"
      "  lethe plan model.lethe --ram 64MiB\n"
      "  lethe plan model.lethe --ram 32MiB --kv int8 --json\n"
      "The exit status is 1 when the cap is too small; the message gives the smallest one that works.");
  command.callback([options, &status] { status = plan(*options); });
}

}  // namespace lethe::cli
