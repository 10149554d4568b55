// lethe eval: quality, measured.
#include <CLI/CLI.hpp>

#include "tools/cli/commands.h"

namespace lethe::cli {

void add_eval(CLI::App& app, int& status) {
  CLI::App& command = *app.add_subcommand("eval", "Measure quality");
  command.require_subcommand(1);
  command.footer("Example:\n  lethe eval ppl model.lethe --text wiki.test.raw --context 512 --json");
  add_eval_ppl(command, status);
  add_eval_stream(command, status);
}

}  // namespace lethe::cli
