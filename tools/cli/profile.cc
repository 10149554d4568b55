// lethe profile: what a session does, from inside.
#include <CLI/CLI.hpp>

#include "tools/cli/commands.h"

namespace lethe::cli {

void add_profile(CLI::App& app, int& status) {
  CLI::App& command = *app.add_subcommand("profile", "See where the memory goes, and what heads look at");
  command.require_subcommand(1);
  command.footer(
      "Examples:\n"
      "  lethe profile heads model.lethe --text book.txt --task mqar\n"
      "  lethe profile memory model.lethe --ram 32MiB --text book.txt --out report.html\n"
      "  lethe profile report chat.trace --out report.html");
  // Only once the command line names profile, as in eval.cc.
  command.preparse_callback([&command, &status](size_t) {
    add_profile_memory(command, status);
    add_profile_heads(command, status);
    add_profile_report(command, status);
  });
}

}  // namespace lethe::cli
