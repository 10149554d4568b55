// Runs the built `lethe` executable, whose path is in the environment variable LETHE_CLI.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/tiny_model.h"

namespace lethe::test {

using Json = nlohmann::json;
using Args = std::vector<std::string>;

struct Finished {
  int status;  // exit status; -signal when a signal ended it
  std::string out, err;
};

// A running `lethe`. Its output goes to files, so that nothing blocks.
class Cli {
 public:
  struct Options {
    std::string input;             // standard input
    std::string out_path;          // a device instead of a file: what it gets is not read back
    uint64_t most_file_bytes = 0;  // limit on the size of any file it writes; 0: none
  };

  explicit Cli(const Args& args) : Cli(args, Options{}) {}
  Cli(const Args& args, const Options& options)
      : keeps_out_(options.out_path.empty()),
        out_path_(options.out_path.empty() ? temporary_path(".out") : options.out_path),
        err_path_(temporary_path(".err")) {
    const char* executable = std::getenv("LETHE_CLI");
    REQUIRE_MESSAGE(executable != nullptr, "LETHE_CLI must be the path of the lethe executable");
    const std::string in_path = temporary_path(".in");
    write_file(in_path, options.input);
    std::vector<std::string> words{executable};
    words.insert(words.end(), args.begin(), args.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ != 0) return;
    const auto redirect = [](const std::string& path, int flags, int to) {
      const int fd = open(path.c_str(), flags, 0600);
      if (fd < 0 || dup2(fd, to) < 0) _exit(126);
    };
    redirect(in_path, O_RDONLY, 0);
    redirect(out_path_, O_WRONLY | O_CREAT | O_TRUNC, 1);
    redirect(err_path_, O_WRONLY | O_CREAT | O_TRUNC, 2);
    if (options.most_file_bytes != 0) {
      const rlimit limit{options.most_file_bytes, options.most_file_bytes};
      signal(SIGXFSZ, SIG_IGN);  // writes fail instead
      if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(125);
    }
    execv(argv[0], argv.data());
    _exit(127);
  }
  Cli(const Cli&) = delete;
  Cli& operator=(const Cli&) = delete;
  ~Cli() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  pid_t pid() const { return pid_; }
  std::string out_so_far() const { return read_file(out_path_); }
  void interrupt() const { kill(pid_, SIGINT); }

  // Whether it has ended; then finish() does not block.
  bool poll() {
    if (pid_ > 0 && waitpid(pid_, &wait_status_, WNOHANG) == pid_) pid_ = 0;
    return pid_ == 0;
  }

  // Waits for the end; 60 s is a failure.
  Finished finish() {
    for (int i = 0; !poll(); ++i) {
      REQUIRE_MESSAGE(i < 60000, "lethe did not end within 60 s");
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    const int status = WIFEXITED(wait_status_) ? WEXITSTATUS(wait_status_) : -WTERMSIG(wait_status_);
    return {status, keeps_out_ ? read_file(out_path_) : "", read_file(err_path_)};
  }

 private:
  bool keeps_out_;
  std::string out_path_, err_path_;
  pid_t pid_ = -1;
  int wait_status_ = 0;
};

inline Finished run_cli(const Args& args, const Cli::Options& options) { return Cli(args, options).finish(); }
inline Finished run_cli(const Args& args, const std::string& input = {}) {
  Cli::Options options;
  options.input = input;
  return run_cli(args, options);
}

// Runs, demands success and parses what it printed.
inline Json run_json(const Args& args, const std::string& input = {}) {
  const Finished finished = run_cli(args, input);
  CAPTURE(finished.err);
  REQUIRE(finished.status == 0);
  return Json::parse(finished.out);
}

inline Args operator+(Args args, const Args& more) {
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

// The error line that every failure prints: "lethe: error CODE: ..." with `part` in it, and nothing on stdout.
inline void check_refused(const Finished& finished, int status, const std::string& code, const std::string& part) {
  CAPTURE(finished.err);
  CHECK(finished.status == status);
  CHECK(finished.err.starts_with("lethe: error " + code + ": "));
  CHECK(finished.err.find(part) != std::string::npos);
  CHECK(finished.out == "");
}

// One tiny model for the whole process.
inline const std::string& tiny_model() {
  static const std::string path = tiny_model_path(TinyOptions());
  return path;
}

// RssAnon + VmSwap of another process, 0 when it has ended.
inline uint64_t private_bytes(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  uint64_t bytes = 0;
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssAnon:") || line.starts_with("VmSwap:")) {
      bytes += std::stoull(line.substr(line.find(':') + 1)) * 1024;
    }
  }
  return bytes;
}

}  // namespace lethe::test
