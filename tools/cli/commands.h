// The subcommands. Each add_* declares its options in `app`; when the command line names it, it runs inside
// CLI::App::parse, throws Failure or sets `status` to the process's exit status.
#pragma once

namespace CLI {
class App;
}

namespace lethe::cli {

void add_run(CLI::App& app, int& status);
void add_chat(CLI::App& app, int& status);
void add_plan(CLI::App& app, int& status);
void add_inspect(CLI::App& app, int& status);
void add_pack(CLI::App& app, int& status);
void add_bench(CLI::App& app, int& status);
void add_eval(CLI::App& app, int& status);
void add_evolve(CLI::App& app, int& status);
void add_profile(CLI::App& app, int& status);

// Of `bench`.
void add_bench_kernels(CLI::App& bench, int& status);

// Of `eval`.
void add_eval_ppl(CLI::App& eval, int& status);
void add_eval_stream(CLI::App& eval, int& status);
void add_eval_soak(CLI::App& eval, int& status);
void add_eval_file(CLI::App& eval, int& status);
void add_eval_sweep(CLI::App& eval, int& status);
void add_eval_tasks(CLI::App& eval, int& status);  // one subcommand for each generated task

// Of `profile`.
void add_profile_heads(CLI::App& profile, int& status);
void add_profile_memory(CLI::App& profile, int& status);
void add_profile_report(CLI::App& profile, int& status);

}  // namespace lethe::cli
