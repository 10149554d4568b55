// lethe eval: quality, measured.
#include <CLI/CLI.hpp>

#include "tools/cli/commands.h"

namespace lethe::cli {

void add_eval(CLI::App& app, int& status) {
  CLI::App& command = *app.add_subcommand("eval", "Measure quality");
  command.require_subcommand(1);
  command.footer(
      "Examples:\n"
      "  lethe eval ppl model.lethe --text wiki.test.raw --context 512 --json\n"
      "  lethe eval stream model.lethe --text book.txt --policy keydiff --kv-fraction 0.25\n"
      "  lethe eval passkey model.lethe --length 2048 --policy keydiff --kv-fraction 0.25 --question-hidden");
  // Only once the command line names eval: there are many, and `run` counts every byte that the tool holds.
  command.preparse_callback([&command, &status](size_t) {
    add_eval_ppl(command, status);
    add_eval_stream(command, status);
    add_eval_soak(command, status);
    add_eval_tasks(command, status);
    add_eval_file(command, status);
    add_eval_sweep(command, status);
  });
}

}  // namespace lethe::cli
