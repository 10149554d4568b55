// The `lethe` executable: parses the command line, runs one subcommand, prints the error.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <new>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "tools/cli/commands.h"
#include "tools/cli/failure.h"

namespace lethe::cli {
namespace {

int run_command_line(int argc, char** argv) {
  CLI::App app(
      "Lethe runs language models in a fixed amount of memory: one number in bytes caps everything private that the\n"
      "process holds, for any length of conversation.",
      "lethe");
  app.set_version_flag("--version", std::string("lethe ") + lethe_version());
  app.require_subcommand(1);
  app.footer(
      "Examples:\n"
      "  lethe plan model.lethe --ram 64MiB          will it fit?\n"
      "  lethe run  model.lethe --ram 64MiB \"Why is the sky blue?\"\n"
      "  lethe chat model.lethe --ram 64MiB\n"
      "Exit status: 0 done, 1 the work failed, 2 bad arguments.");
  int status = 0;
  add_run(app, status);
  add_chat(app, status);
  add_plan(app, status);
  add_inspect(app, status);
  add_pack(app, status);
  add_bench(app, status);
  add_eval(app, status);
  add_evolve(app, status);
  add_profile(app, status);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked);
  } catch (const CLI::ParseError& wrong) {
    const CLI::App* command = &app;
    std::string name = "lethe";
    while (!command->get_subcommands().empty()) {
      command = command->get_subcommands().front();
      name += " " + command->get_name();
    }
    if (command->get_require_subcommand_min() != 0 && command->remaining_size() != 0) {
      print_error(LETHE_ERROR_INVALID_ARGUMENT, ("there is no subcommand " + command->remaining().front()).c_str());
    } else {
      print_error(LETHE_ERROR_INVALID_ARGUMENT, wrong.what());
    }
    fprintf(stderr, "Its options: %s --help\n", name.c_str());
    return 2;
  }
  return status;
}

}  // namespace
}  // namespace lethe::cli

int main(int argc, char** argv) {
#if defined(__GLIBC__)
  // What is freed goes back to the system at once: the cap counts pages, not what the program still uses of them.
  mallopt(M_MMAP_THRESHOLD, 64 << 10);
  mallopt(M_TRIM_THRESHOLD, 64 << 10);
#endif
  int status = 1;
  try {
    status = lethe::cli::run_command_line(argc, argv);
    lethe::cli::flush_output();
  } catch (const lethe::cli::Failure& failure) {
    status = lethe::cli::exit_status(failure.code);
    lethe::cli::print_error(failure.code, failure.message.c_str());
  } catch (const std::bad_alloc&) {
    lethe::cli::print_error(LETHE_ERROR_OUT_OF_MEMORY, "the system refused memory to the tool");
  }
  return status;
}
