// Saved sessions and forks: the conversation goes on as if nothing had happened, and no file, however damaged, does
// more than give an error.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

#include "runtime/base/hash.h"
#include "tests/engine/engine_support.h"

namespace lethe::test {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kVocab = 3 + 256 + 41;
constexpr size_t kPositionAt = 8 + 4 + 80;  // of the u64 `position` in a file: after identifier, version and identity
constexpr SamplerOptions kSampled{.temperature = 1.3f, .top_p = 0.95f, .repetition_penalty = 1.2f, .seed = 7};

struct Continuation {
  Ids ids;
  Logits logits;
  bool operator==(const Continuation&) const = default;
};

Continuation go_on(Session& session) {
  const Generated generated = generate(session, 50, kPastEnd);
  REQUIRE_MESSAGE(generated.status.ok(), generated.status.message());
  return {generated.ids, logits_of(session)};
}

// A conversation of 130 tokens in a window of 64: tokens have been forgotten, and will be.
void talk(Session& session, const SamplerOptions& sampling) {
  REQUIRE(session.set_sampling(sampling).ok());
  feed(session, random_ids(30, kVocab, 1));
  REQUIRE(generate(session, 100, kPastEnd).count == 100);
}

std::string save(Session& session) {
  const std::string path = temporary_path(".session");
  const Status status = session.save(path.c_str());
  REQUIRE_MESSAGE(status.ok(), status.message());
  return path;
}

std::string rehash(std::string file) {
  const uint64_t digest = hash64(file.data(), file.size() - 8);
  std::memcpy(file.data() + file.size() - 8, &digest, 8);
  return file;
}

TEST_CASE("snapshot: a restored session goes on with the same tokens and logits") {
  for (const GgmlType type : {GgmlType::kF32, GgmlType::kQ4_1}) {
    for (const KvType kv : kKvTypes) {
      for (const SamplerOptions& sampling : {SamplerOptions{}, kSampled}) {
        const std::string model_path = tiny_model_path(type);
        std::string saved;
        SessionOptions options = window_options(64);
        options.kv_type = kv;
        Continuation expected;
        SessionStats stats;
        {
          const OpenModel model(model_path);
          OpenSession session(model, options);
          talk(*session, sampling);
          saved = save(*session);
          stats = session->stats();
          CHECK(stats.cache.evictions > 0);
          expected = go_on(*session);
        }
        for (const uint32_t threads : {1u, 3u}) {
          const OpenModel model(model_path);
          options.threads = threads;
          options.prefill_chunk = 8 * threads;
          OpenSession session(model, options);
          REQUIRE(session->set_sampling(sampling).ok());
          feed(*session, random_ids(17, kVocab, 2));  // to be replaced
          const Status status = session->restore(saved.c_str());
          REQUIRE_MESSAGE(status.ok(), status.message());
          CHECK(session->stats().position == 130);
          CHECK(session->stats().cached_tokens == stats.cached_tokens);
          CHECK(read_file(save(*session)) == read_file(saved));
          CHECK(go_on(*session) == expected);
          CHECK(session->stats().cache.evictions > 0);
        }
      }
    }
  }
}

// The child's half of the next test: goes on from the file and writes the tokens.
void go_on_in_child(const char* model_path, const char* saved, const char* out_path) {
  const OpenModel model(model_path);
  OpenSession session(model, window_options(64));
  REQUIRE(session->set_sampling(kSampled).ok());
  const Status status = session->restore(saved);
  REQUIRE_MESSAGE(status.ok(), status.message());
  std::ofstream out(out_path);
  for (const int32_t id : go_on(*session).ids) out << id << ' ';
}

TEST_CASE("snapshot: another process goes on with the same tokens") {
  constexpr const char* kModel = "LETHE_SNAPSHOT_MODEL";
  constexpr const char* kSaved = "LETHE_SNAPSHOT_FILE";
  constexpr const char* kOut = "LETHE_SNAPSHOT_OUT";
  if (std::getenv(kModel) != nullptr) {  // this process is the child
    return go_on_in_child(std::getenv(kModel), std::getenv(kSaved), std::getenv(kOut));
  }
  const std::string model_path = tiny_model_path(GgmlType::kQ4_1);
  const OpenModel model(model_path);
  OpenSession session(model, window_options(64));
  talk(*session, kSampled);
  const std::string saved = save(*session);
  const std::string out = temporary_path(".ids");
  std::fflush(nullptr);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    setenv(kModel, model_path.c_str(), 1);
    setenv(kSaved, saved.c_str(), 1);
    setenv(kOut, out.c_str(), 1);
    if (std::freopen("/dev/null", "w", stdout) == nullptr) _exit(126);
    execl("/proc/self/exe", "engine_test", "--test-case=snapshot: another process*", static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  std::string expected;
  for (const int32_t id : go_on(*session).ids) expected += std::to_string(id) + ' ';
  CHECK(read_file(out) == expected);
}

// What Expected Attention remembers of every list of the tiny model, from a file without pins: how many queries, then
// their mean for two heads.
std::vector<std::vector<float>> list_states(const std::string& file) {
  const size_t head = kPositionAt + 8 + 8 + 32 + 8 + 4 * 256 + 8, lists = 4, floats = 1 + 2 * 16;
  std::vector<std::vector<float>> states(lists, std::vector<float>(floats));
  for (size_t list = 0; list < lists; ++list) {
    std::memcpy(states[list].data(), &file.at(head + 4 * lists + 4 * floats * list), 4 * floats);
  }
  return states;
}

TEST_CASE("snapshot: what a policy remembers of lists goes with the conversation and ends with it") {
  const OpenModel model(tiny_model_path(GgmlType::kF32));
  SessionOptions options = window_options(64);
  options.policy = &kExpectedAttentionPolicy;
  OpenSession session(model, options), other(model, options);
  talk(*session, kSampled);
  const std::string saved = save(*session), file = read_file(saved);
  for (const std::vector<float>& state : list_states(file)) {
    CHECK(state[0] == 130 - 4);
    CHECK(std::count(state.begin(), state.end(), 0.0f) == 0);
  }
  OpenSession copy(session->fork());
  CHECK(read_file(save(*copy)) == file);
  REQUIRE(other->set_sampling(kSampled).ok());
  feed(*other, random_ids(200, kVocab, 2));  // to be replaced
  REQUIRE(other->restore(saved.c_str()).ok());
  CHECK(read_file(save(*other)) == file);
  const Continuation expected = go_on(*session);
  CHECK(go_on(*copy) == expected);
  CHECK(go_on(*other) == expected);
  session->reset();
  talk(*session, kSampled);
  CHECK(read_file(save(*session)) == file);
}

TEST_CASE("snapshot: what a policy remembers of lists stays when the cap moves") {
  const OpenModel model(tiny_model_path(GgmlType::kF32));
  SessionOptions options = window_options(512);
  options.policy = &kExpectedAttentionPolicy;
  OpenSession session(model, options);
  feed(*session, random_ids(600, kVocab, 1));
  const auto states = list_states(read_file(save(*session)));
  const uint64_t total = session->plan().total, pool = session->ledger().used(MemoryTag::kKvPool);
  for (const uint64_t cap : {total - pool / 2, total}) {
    REQUIRE(session->set_ram(cap).ok());
    CHECK(list_states(read_file(save(*session))) == states);
    CHECK(session->ledger().used(MemoryTag::kKvPool) ==
          session->plan().tag_bytes[static_cast<int>(MemoryTag::kKvPool)]);
    CHECK(session->ledger().total() == session->plan().total);
    CHECK(session->ledger().total() <= cap);
  }
  CHECK(session->ledger().used(MemoryTag::kKvPool) == pool);
}

TEST_CASE("snapshot: also before any token, without logits, and into a larger cache") {
  const OpenModel model(tiny_model_path(GgmlType::kF32));
  OpenSession empty(model, window_options(64));
  const std::string nothing = save(*empty);
  OpenSession session(model, window_options(64));
  talk(*session, {});
  const std::string saved = save(*session);
  const Logits logits = logits_of(*session);
  REQUIRE(session->restore(nothing.c_str()).ok());
  CHECK(session->stats().position == 0);
  CHECK(session->logits().status().code() == ErrorCode::kBadState);
  OpenSession larger(model, window_options(256));
  REQUIRE(larger->restore(saved.c_str()).ok());
  CHECK(logits_of(*larger) == logits);
  CHECK(go_on(*larger).ids.size() == 50);
}

// A session that must not change, whatever it is told to restore.
struct Target {
  Target() : model(tiny_model_path(GgmlType::kF32)), session(model, window_options(64)) {
    talk(*session, kSampled);
    before = read_file(save(*session));
    OpenSession other(model, window_options(64));
    feed(*other, random_ids(200, kVocab, 3));
    file = read_file(save(*other));
  }
  Status restore(std::string_view bytes) const {
    const std::string path = temporary_path(".session");
    write_file(path, bytes);
    const Status status = session->restore(path.c_str());
    fs::remove(path);
    return status;
  }
  void check_unchanged() const { CHECK(read_file(save(*session)) == before); }
  OpenModel model;
  OpenSession session;
  std::string before;  // the session, saved
  std::string file;    // another conversation, sound
};

TEST_CASE_FIXTURE(Target, "snapshot: a truncated file is refused and the session keeps what it had") {
  std::vector<size_t> lengths;
  for (size_t n = 1; n < 200; ++n) lengths.push_back(n);
  for (size_t n = 200; n < file.size(); n += 1009) lengths.push_back(n);
  for (size_t n = 1; n <= 9; ++n) lengths.push_back(file.size() - n);
  for (const size_t length : lengths) {
    CAPTURE(length);
    CHECK(restore(std::string_view(file).substr(0, length)).code() == ErrorCode::kCorruptSnapshot);
    if (length >= 16) CHECK_FALSE(restore(rehash(file.substr(0, length))).ok());
  }
  CHECK(restore("").code() == ErrorCode::kIo);
  CHECK(restore(file + "x").code() == ErrorCode::kCorruptSnapshot);
  CHECK(restore(rehash(file + std::string(64, '\0'))).code() == ErrorCode::kCorruptSnapshot);
  check_unchanged();
  CHECK(restore(file).ok());
}

TEST_CASE_FIXTURE(Target, "snapshot: a changed byte is found") {
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    std::string bad = file;
    const size_t at = round < 100 ? static_cast<size_t>(round) : random() % bad.size();
    CAPTURE(at);
    bad[at] = static_cast<char>(bad[at] ^ (1 + random() % 255));
    CHECK(restore(bad).code() == ErrorCode::kCorruptSnapshot);
  }
  check_unchanged();
}

TEST_CASE_FIXTURE(Target, "snapshot: a file with a right checksum and wrong content is an error or a usable session") {
  std::mt19937 random(6);
  const size_t head = kPositionAt + 8 + 8 + 32 + 8 + 4 * 256 + 8 + 4 * 4;  // all but logits and blocks
  int refused = 0, accepted = 0;
  for (int round = 0; round < 600; ++round) {
    std::string bad = file;
    for (auto flips = 1 + random() % 3; flips > 0; --flips) {
      const size_t at = round < 400 ? random() % head : random() % (bad.size() - 8);
      bad[at] = static_cast<char>(bad[at] ^ (1 << random() % 8));
    }
    OpenSession other(model, window_options(64));
    feed(*other, Ids{4, 5, 6});
    const Logits logits = logits_of(*other);
    const std::string path = temporary_path(".session");
    write_file(path, rehash(bad));
    const Status status = other->restore(path.c_str());
    fs::remove(path);
    if (status.ok()) {
      ++accepted;
      // Whatever it says now; a cache of NaN gives an error, and a reset heals it.
      (void)generate(*other, 20, kPastEnd).status.ok();
      (void)other->feed(random_ids(100, kVocab, 9)).ok();
      other->reset();
      CHECK(feed(*other, Ids{4, 5, 6}) == logits);
    } else {
      ++refused;
      CHECK(status.code() != ErrorCode::kInternal);
      CHECK(logits_of(*other) == logits);
      CHECK(other->stats().position == 3);
    }
  }
  CHECK(refused > 50);
  CHECK(accepted > 50);
}

TEST_CASE_FIXTURE(Target, "snapshot: positions must increase along a list and lie in the conversation") {
  const KvLayout layout = make_kv_layout(KvType::kF16, 16);
  const size_t blocks_at = file.size() - 8 - 4 * 2 * size_t{layout.block_bytes};  // 4 lists of 2 blocks
  const auto with_position = [&](uint32_t slot, uint32_t position) {
    std::string bad = file;
    const size_t at = blocks_at + layout.positions_offset + slot * 4;
    uint32_t right = 0;
    std::memcpy(&right, &bad[at], 4);
    if (slot < 4) REQUIRE(right == slot);  // the sinks: this is where positions are
    std::memcpy(&bad[at], &position, 4);
    return rehash(bad);
  };
  CHECK(restore(with_position(1, 0)).code() == ErrorCode::kCorruptSnapshot);     // that of slot 0
  CHECK(restore(with_position(0, 1)).code() == ErrorCode::kCorruptSnapshot);     // that of slot 1
  CHECK(restore(with_position(2, 1)).code() == ErrorCode::kCorruptSnapshot);     // that of slot 1
  CHECK(restore(with_position(31, 200)).code() == ErrorCode::kCorruptSnapshot);  // beyond the conversation
  CHECK(restore(with_position(31, ~0u)).code() == ErrorCode::kCorruptSnapshot);
  check_unchanged();
  CHECK(restore(with_position(3, 3)).ok());
}

TEST_CASE("snapshot: one list may not be longer than the cache, even if the others leave the blocks") {
  TinyOptions shape;
  shape.context_length = 2048;
  shape.embed_dim = shape.ffn_dim = 32;
  const OpenModel model(tiny_model_path(shape));
  OpenSession session(model, full_options(640));
  feed(*session, random_ids(600, kVocab, 1));
  std::string file = read_file(save(*session));
  // The first list takes the blocks of all four: 19 each. Positions must go on increasing for it to be accepted.
  const KvLayout layout = make_kv_layout(KvType::kF16, shape.head_dim);
  const size_t lengths_at = file.size() - 8 - 4 * 19 * size_t{layout.block_bytes} - kVocab * 4 - 4 * 4;
  uint32_t lengths[4];
  std::memcpy(lengths, &file[lengths_at], sizeof lengths);
  REQUIRE(lengths[0] == 600);
  REQUIRE(lengths[3] == 600);
  const uint32_t crafted[4] = {4 * 19 * 32, 0, 0, 0};
  std::memcpy(&file[lengths_at], crafted, sizeof crafted);
  for (uint32_t slot = 0; slot < crafted[0]; ++slot) {
    const size_t block_at = file.size() - 8 - (76 - slot / 32) * size_t{layout.block_bytes};
    std::memcpy(&file[block_at + layout.positions_offset + slot % 32 * 4], &slot, 4);
  }
  const uint64_t position = crafted[0];
  std::memcpy(&file[kPositionAt], &position, 8);
  const std::string path = temporary_path(".session");
  write_file(path, rehash(file));
  const Logits before = logits_of(*session);
  const Status status = session->restore(path.c_str());
  CHECK(status.code() == ErrorCode::kPromptTooLong);
  CHECK_MESSAGE(std::string_view(status.message()).find("2432") != std::string_view::npos, status.message());
  CHECK(logits_of(*session) == before);
}

TEST_CASE_FIXTURE(Target, "snapshot: a conversation ends at the last position that the cache can number") {
  std::string late = file;
  uint64_t position = 0;
  std::memcpy(&position, &late[kPositionAt], 8);
  REQUIRE(position == 200);
  position = kMaxPosition - 3;
  std::memcpy(&late[kPositionAt], &position, 8);
  REQUIRE(restore(rehash(late)).ok());
  const Generated out = generate(*session, 10, kPastEnd);
  CHECK(out.status.code() == ErrorCode::kPromptTooLong);
  CHECK(out.count == 3);
  CHECK(session->stats().position == kMaxPosition);
  CHECK(session->feed(Ids{5}).code() == ErrorCode::kPromptTooLong);
  position = kMaxPosition + 1;
  std::memcpy(&late[kPositionAt], &position, 8);
  CHECK(restore(rehash(late)).code() == ErrorCode::kCorruptSnapshot);
}

TEST_CASE_FIXTURE(Target, "snapshot: another model, other options or a smaller cache are refused") {
  const auto saved_by = [](const Model& from, const SessionOptions& options) {
    OpenSession other(from, options);
    feed(*other, random_ids(90, kVocab, 3));
    return save(*other);
  };
  TinyOptions shape;
  shape.seed = 2;
  const OpenModel stranger(tiny_model_path(shape));
  SessionOptions int8 = window_options(96), absolute = window_options(96), sinks = window_options(96);
  int8.kv_type = KvType::kInt8;
  absolute.positions = PositionMode::kAbsolute;
  sinks.sinks = 5;
  SessionOptions full = full_options(96);
  full.positions = PositionMode::kRolling;
  for (const std::string& path : {saved_by(stranger, window_options(96)), saved_by(model, int8),
                                  saved_by(model, absolute), saved_by(model, sinks), saved_by(model, full)}) {
    CHECK(session->restore(path.c_str()).code() == ErrorCode::kWrongModel);
  }
  const Status too_long = session->restore(saved_by(model, window_options(96)).c_str());
  CHECK(too_long.code() == ErrorCode::kPromptTooLong);
  CHECK(session->restore("/nonexistent/session").code() == ErrorCode::kIo);
  CHECK(session->restore("/dev/null").code() == ErrorCode::kIo);
  check_unchanged();
}

TEST_CASE_FIXTURE(Target, "snapshot: a save that fails leaves the old file and nothing else") {
  const fs::path folder = temporary_path(".folder");
  fs::create_directory(folder);
  const std::string path = (folder / "session").string();
  const auto entries = [&] { return std::distance(fs::directory_iterator(folder), {}); };
  const auto fail = [&] {
    // The device that is always full stands in for a full disk.
    fs::create_symlink("/dev/full", path + ".partial-" + std::to_string(getpid()));
    CHECK(session->save(path.c_str()).code() == ErrorCode::kDiskFull);
  };
  fail();
  CHECK(entries() == 0);
  REQUIRE(session->save(path.c_str()).ok());
  CHECK(entries() == 1);
  REQUIRE(generate(*session, 5, kPastEnd).status.ok());
  fail();
  CHECK(entries() == 1);
  CHECK(read_file(path) == before);
  CHECK(session->save((folder / "missing" / "session").c_str()).code() == ErrorCode::kIo);
  REQUIRE(session->save(path.c_str()).ok());
  CHECK(read_file(path) != before);
  fs::remove_all(folder);
}

TEST_CASE("fork: original and copy go on independently, each as it would alone") {
  for (const KvType kv : kKvTypes) {
    const OpenModel model(tiny_model_path(GgmlType::kF32));
    SessionOptions options = window_options(64);
    options.kv_type = kv;
    const Ids left = random_ids(90, kVocab, 11), right = random_ids(90, kVocab, 12);
    // Alone: the same conversation twice, with different continuations.
    const auto alone = [&](const Ids& ids) {
      OpenSession session(model, options);
      talk(*session, kSampled);
      for (const int32_t id : ids) feed(*session, {&id, 1});
      return go_on(*session);
    };
    const Continuation expected_left = alone(left), expected_right = alone(right);
    REQUIRE(expected_left.ids != expected_right.ids);

    Continuation original_end;
    std::optional<OpenSession> original(std::in_place, model, options);
    talk(**original, kSampled);
    OpenSession copy((*original)->fork());
    CHECK(model->users() == 2);
    CHECK(copy->stats().position == 130);
    CHECK(logits_of(*copy) == logits_of(**original));
    OpenSession untouched((*original)->fork());
    for (size_t i = 0; i < left.size(); ++i) {  // in turn, so that shared state would show
      feed(**original, {&left[i], 1});
      feed(*copy, {&right[i], 1});
    }
    original_end = go_on(**original);
    original.reset();
    CHECK(original_end == expected_left);
    CHECK(go_on(*copy) == expected_right);
    for (const int32_t id : left) feed(*untouched, {&id, 1});
    CHECK(go_on(*untouched) == expected_left);
  }
}

}  // namespace
}  // namespace lethe::test
