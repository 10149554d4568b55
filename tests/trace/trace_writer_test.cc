// A trace says what the session, its ledger and the system say, and never harms the session.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <numeric>

#include "runtime/os/process.h"
#include "tests/trace/trace_support.h"

namespace lethe::test {
namespace {

const OpenModel& tiny() {
  static const OpenModel model(tiny_model_path(TinyOptions()));
  return model;
}

void ok(const Status& status) { REQUIRE_MESSAGE(status.ok(), status.message()); }

TEST_CASE("trace: every sample has the ledger's own numbers, before and after another cap") {
  OpenSession session(tiny(), window_options(128));
  const std::string path = temporary_path(".trace");
  ok(session->start_trace(path.c_str(), kEveryStep));
  const Ids ids = random_ids(40, 259, 1);
  ok(session->feed(ids));
  const Generated reply = generate(*session, 300, kPastEnd);
  ok(reply.status);
  std::vector<uint64_t> before, after;
  for (int tag = 0; tag < kMemoryTagCount; ++tag) before.push_back(session->ledger().used(MemoryTag(tag)));
  const uint64_t lower = session->ledger().total() - session->plan().tag_bytes[int(MemoryTag::kKvPool)] / 3;
  ok(session->set_ram(lower));
  ok(session->feed(ids));
  for (int tag = 0; tag < kMemoryTagCount; ++tag) after.push_back(session->ledger().used(MemoryTag(tag)));
  ok(session->stop_trace());
  CHECK(before != after);

  const trace::Trace read = read_trace_file(path);
  CHECK(read.ended);
  CHECK(read.lost_bytes == 0);
  REQUIRE(read.tags.size() == kMemoryTagCount);
  for (int tag = 0; tag < kMemoryTagCount; ++tag) CHECK(read.tags[tag] == memory_tag_name(MemoryTag(tag)));
  CHECK(read.layers == 2);
  CHECK(read.kv_heads == 2);
  CHECK(read.policy == "window");
  CHECK(read.kv_type == "f16");
  CHECK(read.cache_tokens == 128);
  // One at the start, one after each of 3 + 300 + 3 steps, one at the end.
  REQUIRE(read.samples.size() == 1 + 3 + 300 + 3 + 1);
  for (size_t i = 0; i < read.samples.size(); ++i) {
    CAPTURE(i);
    const trace::Sample& sample = read.samples[i];
    const bool lowered = i > 303;
    CHECK(sample.tag_bytes == (lowered ? after : before));
    CHECK(sample.cap_bytes == (lowered ? lower : uint64_t{256} << 20));
    CHECK(sample.private_bytes() > 0);
  }
  CHECK(read.samples.back().ledger_bytes() == session->ledger().total());
  const SessionStats stats = session->stats();
  const trace::Sample& last = read.samples.back();
  CHECK(last.position == stats.position);
  CHECK(last.prefill_tokens == stats.prefill_tokens);
  CHECK(last.prefill_ns == stats.prefill_ns);
  CHECK(last.decode_tokens == 300);
  CHECK(last.decode_ns == stats.decode_ns);
  CHECK(last.evictions == stats.cache.evictions);
  CHECK(last.evictions > 0);
  CHECK(last.evicted_tokens == stats.cache.evicted_tokens);
  CHECK(last.eviction_ns == stats.cache.eviction_ns);
  CHECK(last.last_took_ns == stats.cache.last.ns);
  CHECK(last.last_tokens == stats.cache.last.tokens);
  CHECK(last.last_began_ns > 0);
  CHECK(last.last_began_ns < last.ns);
  CHECK(last.lengths == std::vector<uint32_t>(4, stats.cached_tokens));
}

TEST_CASE("trace: the process's own numbers are the system's") {
  OpenSession session(tiny(), window_options(128));
  const std::string path = temporary_path(".trace");
  const os::PageFaults faults = os::process_page_faults();
  ok(session->start_trace(path.c_str(), kEveryStep));
  const os::ProcessMemory now = os::process_memory();
  ok(session->stop_trace());
  const trace::Sample first = read_trace_file(path).samples.front();
  // Nothing much happens between the two readings; sanitizers map some pages of their own.
  const auto near = [](uint64_t a, uint64_t b) { return (a > b ? a - b : b - a) < uint64_t{1} << 20; };
  CHECK(near(first.private_bytes(), now.private_bytes));
  CHECK(near(first.file_bytes, now.file_bytes));
  CHECK(first.pss_bytes > first.anonymous_bytes / 2);
  CHECK(first.pss_bytes < first.private_bytes() + first.file_bytes + (1 << 20));
  CHECK(first.minor_faults >= faults.minor);
  CHECK(first.minor_faults < faults.minor + 10'000);
}

TEST_CASE("trace: the tokens and their text are those of the conversation, also after a reset") {
  OpenSession session(tiny(), window_options(128));
  const std::string path = temporary_path(".trace");
  ok(session->feed(random_ids(7, 259, 9)));  // before the trace: not in it
  ok(session->start_trace(path.c_str(), kEveryStep));
  ok(session->feed(random_ids(30, 259, 2)));
  session->reset();
  Ids ids = random_ids(600, 259, 3);
  ok(session->feed(ids));
  const Generated reply = generate(*session, 50, kPastEnd);
  ok(reply.status);
  ids.insert(ids.end(), reply.ids.begin(), reply.ids.end());
  ok(session->stop_trace());
  const trace::Trace read = read_trace_file(path);
  CHECK(read.first_token == 0);
  CHECK(read.ids == ids);
  std::string text;
  for (const int32_t id : ids) text += tiny()->tokenizer().token(static_cast<uint32_t>(id));
  CHECK(read.text == text);
  CHECK(std::accumulate(read.sizes.begin(), read.sizes.end(), size_t{0}) == text.size());

  ok(session->start_trace(path.c_str(), {.interval_ms = 0, .tokens = false, .library = ""}));
  ok(session->feed(ids));
  ok(session->stop_trace());
  CHECK(read_trace_file(path).ids.empty());
  CHECK(read_file(path).find(text.substr(0, 8)) == std::string::npos);
}

TEST_CASE("trace: embeddings are tokens without an id") {
  OpenSession session(tiny(), window_options(128));
  const std::string path = temporary_path(".trace");
  ok(session->start_trace(path.c_str(), kEveryStep));
  ok(session->feed_embeddings(std::vector<float>(3 * 64, 0.1f)));
  ok(session->stop_trace());
  CHECK(read_trace_file(path).ids == Ids{-1, -1, -1});
}

TEST_CASE("trace: samples keep their distance, and none is needed for the tokens") {
  OpenSession session(tiny(), window_options(128));
  const std::string path = temporary_path(".trace");
  ok(session->start_trace(path.c_str(), {.interval_ms = 3'600'000, .tokens = true, .library = ""}));
  const Ids ids = random_ids(1000, 259, 4);
  ok(session->feed(ids));
  ok(session->stop_trace());
  const trace::Trace read = read_trace_file(path);
  CHECK(read.samples.size() == 2);  // the first and the last
  CHECK(read.ids == ids);
}

TEST_CASE("trace: the window's picture is its first tokens and its newest") {
  OpenSession session(tiny(), window_options(128));
  const std::string path = temporary_path(".trace");
  ok(session->start_trace(path.c_str(), kEveryStep));
  ok(session->feed(random_ids(700, 259, 5)));
  ok(session->stop_trace());
  const trace::Trace read = read_trace_file(path);
  REQUIRE(read.held.size() > 3);
  for (const trace::Held& held : read.held) {
    const std::vector<int> levels = levels_of(held);
    size_t at = 0;
    while (read.samples[at].ns != held.ns) ++at;
    const trace::Sample& sample = read.samples[at];
    REQUIRE(levels.size() == sample.position);
    for (size_t p = 0; p < levels.size(); ++p) {
      const bool stays = p < 4 || p + sample.lengths[0] >= sample.position + 4;
      CHECK(levels[p] == (stays ? 15 : 0));
    }
  }
}

TEST_CASE("trace: pictures count the lists that hold a position") {
  TinyOptions shape;
  shape.layers = 1;  // two lists: a level is a count
  const OpenModel model(tiny_model_path(shape));
  for (const char* policy : {"keydiff", "random", "h2o"}) {
    CAPTURE(policy);
    SessionOptions options = window_options(128);
    options.policy = find_policy(policy);
    options.positions = options.policy->default_positions;
    OpenSession session(model, options);
    const std::string path = temporary_path(".trace");
    ok(session->start_trace(path.c_str(), kEveryStep));
    ok(session->feed(random_ids(3000, 259, 6)));
    ok(session->stop_trace());
    const trace::Trace read = read_trace_file(path);
    REQUIRE(read.held.size() > 20);
    bool some_alone = false;
    for (const trace::Held& held : read.held) {
      uint64_t holders = 0;
      for (const int level : levels_of(held)) {
        REQUIRE((level == 0 || level == 8 || level == 15));
        holders += level == 15 ? 2 : level == 8 ? 1 : 0;
        some_alone = some_alone || level == 8;
      }
      size_t at = 0;
      while (read.samples[at].ns != held.ns) ++at;
      CHECK(holders == read.samples[at].lengths[0] + read.samples[at].lengths[1]);
    }
    CHECK(some_alone);
  }
}

TEST_CASE("trace: layers with a window say nothing about what was forgotten") {
  GgufSource source = tiny_gguf(TinyOptions());
  source.set_u32("llama.attention.sliding_window", 32);
  source.set_i32s("llama.attention.sliding_window_pattern", {1, 0});  // the first layer has the window
  const OpenModel model(pack_source(source));
  REQUIRE(model->config().window_of(0) == 32);
  REQUIRE(model->config().window_of(1) == 0);
  OpenSession session(model, window_options(256));
  const std::string path = temporary_path(".trace");
  ok(session->start_trace(path.c_str(), kEveryStep));
  ok(session->feed(random_ids(1000, 259, 6)));
  ok(session->stop_trace());
  const trace::Trace read = read_trace_file(path);
  REQUIRE(!read.held.empty());
  const std::vector<int> levels = levels_of(read.held.back());
  for (int sink = 0; sink < 4; ++sink) CHECK(levels[sink] == 15);  // the first layer has dropped them
  CHECK(levels[4] == 0);
  CHECK(read.samples.back().lengths[0] < read.samples.back().lengths[2]);
}

TEST_CASE("trace: a killed writer leaves all but the record under way") {
  const std::string path = temporary_path(".trace");
  OpenSession session(tiny(), window_options(128));
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    if (!session->start_trace(path.c_str(), kEveryStep).ok()) _exit(1);
    if (!session->feed(random_ids(500, 259, 7)).ok()) _exit(2);
    raise(SIGKILL);
    _exit(3);
  }
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  REQUIRE(WIFSIGNALED(status));
  REQUIRE(WTERMSIG(status) == SIGKILL);
  const std::string bytes = read_file(path);
  const trace::Trace read = read_trace_bytes(bytes);
  CHECK_FALSE(read.ended);
  CHECK(read.samples.back().position == 500);
  CHECK(read.ids == random_ids(500, 259, 7));
  CHECK(read.samples.back().evictions > 0);
  // Cut anywhere behind the first sample it is a trace all the same.
  for (size_t cut = bytes.size() - 3000; cut < bytes.size(); ++cut) {
    const trace::Trace prefix = read_trace_bytes(bytes.substr(0, cut));
    CHECK(prefix.samples.size() <= read.samples.size());
    CHECK(prefix.lost_bytes < 3000);
  }
}

TEST_CASE("trace: a closed session ends its trace") {
  const std::string path = temporary_path(".trace");
  {
    OpenSession session(tiny(), window_options(128));
    ok(session->start_trace(path.c_str(), kEveryStep));
    ok(session->feed(random_ids(5, 259, 8)));
  }
  CHECK(read_trace_file(path).ended);
}

TEST_CASE("trace: a full disk at the start is an error, and nothing was started") {
  OpenSession session(tiny(), window_options(128));
  CHECK(session->start_trace("/dev/full", kEveryStep).code() == ErrorCode::kDiskFull);
  CHECK(session->stop_trace().code() == ErrorCode::kBadState);
  CHECK(session->start_trace("/nowhere/at/all", kEveryStep).code() == ErrorCode::kIo);
  const std::string pipe = temporary_path(".pipe");
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(session->start_trace(pipe.c_str(), kEveryStep).code() == ErrorCode::kIo);
  const int reader = open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  CHECK(session->start_trace(pipe.c_str(), kEveryStep).code() == ErrorCode::kIo);
  close(reader);
  ok(session->feed(random_ids(5, 259, 8)));
  const std::string path = temporary_path(".trace");
  ok(session->start_trace(path.c_str(), kEveryStep));
  CHECK(session->start_trace(path.c_str(), kEveryStep).code() == ErrorCode::kBadState);
  ok(session->stop_trace());
}

TEST_CASE("trace: when the file cannot grow any more the session goes on, and stop tells") {
  const Ids ids = random_ids(400, 259, 8);
  OpenSession session(tiny(), window_options(128)), untraced(tiny(), window_options(128));
  const std::string path = temporary_path(".trace");
  ok(session->start_trace(path.c_str(), kEveryStep));
  rlimit before;
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{10'000, before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  const Status fed = session->feed(ids);
  const Generated reply = generate(*session, 100, kPastEnd);
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  ok(fed);
  ok(reply.status);
  ok(untraced->feed(ids));
  CHECK(generate(*untraced, 100, kPastEnd).ids == reply.ids);
  CHECK(session->start_trace(path.c_str(), kEveryStep).code() == ErrorCode::kBadState);  // not told yet
  const Status stopped = session->stop_trace();
  CHECK(stopped.code() == ErrorCode::kIo);
  CHECK(std::string(stopped.message()).find("cannot write " + path) == 0);
  const std::string bytes = read_file(path);
  CHECK(bytes.size() <= 10'000);
  const trace::Trace read = read_trace_bytes(bytes);
  CHECK_FALSE(read.ended);
  CHECK(read.lost_bytes == 0);  // the record that did not fit was taken back
  CHECK(session->stop_trace().code() == ErrorCode::kBadState);
  ok(session->start_trace(path.c_str(), kEveryStep));
  ok(session->stop_trace());
}

}  // namespace
}  // namespace lethe::test
