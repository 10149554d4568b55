// Policy namm in a session: the authors' generation of a tiny llama, token by token, and where parameters come from.
#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "tests/engine/engine_support.h"
#include "tests/support/hf_fixture.h"
#include "tests/support/tiny_namm.h"

namespace lethe::test {
namespace {

constexpr uint32_t kVocab = 3 + 256 + 41;

// What the authors' code does with the tiny llama (tools/reference/namm_fixtures.py).
struct Golden {
  struct Layer {
    uint32_t width, scored;
  };
  struct Update {
    uint32_t position;
    std::vector<Layer> layers;
  };

  Golden() {
    const std::string file = read_file(LETHE_TEST_DATA "/namm/generate.bin");
    size_t at = 0;
    const auto take = [&](size_t bytes) {
      at += bytes;
      REQUIRE(at <= file.size());
      return file.data() + at - bytes;
    };
    const auto number = [&] {
      uint32_t value;
      std::memcpy(&value, take(4), 4);
      return value;
    };
    interval = number(), chunk = number(), prompt = number();
    tokens.resize(number());
    std::vector<float> flat(4172 + 17 + 17);
    std::memcpy(flat.data(), take(flat.size() * 4), flat.size() * 4);
    const Result<namm::Parameters> parameters = namm::view_parameters({}, flat, interval, true);
    REQUIRE(parameters.ok());
    namm_file.resize(namm::file_bytes({}));
    namm::write_file(parameters.value(), namm_file);
    std::memcpy(tokens.data(), take(tokens.size() * 4), tokens.size() * 4);
    while (at < file.size()) {
      Update update{number(), {}};
      for (int layer = 0; layer < 2; ++layer) {
        update.layers.push_back({number(), number()});
        take(2 * 4 * (update.layers.back().width + update.layers.back().scored));
      }
      updates.push_back(update);
    }
  }

  uint32_t interval, chunk, prompt;
  Ids tokens;  // the prompt and what is generated
  std::vector<uint8_t> namm_file;
  std::vector<Update> updates;
};

std::string packed_llama() {
  const HfFolder folder("llama");  // for its tokenizer
  using Options = std::filesystem::copy_options;
  std::filesystem::copy(LETHE_TEST_DATA "/namm/llama", folder.path, Options::recursive | Options::overwrite_existing);
  PackOptions options;
  options.input = folder.path;
  options.output = temporary_path(".lethe");
  PackReport report;
  const Status status = pack_model(options, &report);
  REQUIRE_MESSAGE(status.ok(), status.message());
  CHECK(report.errors.empty());
  return options.output;
}

int32_t likeliest(const Logits& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.begin() + 97) - logits.begin());
}

SessionOptions namm_options(std::span<const uint8_t> file, uint32_t tokens, uint32_t chunk) {
  SessionOptions options = full_options(tokens, chunk);
  options.policy = &kNammPolicy;
  options.namm = file;
  return options;
}

}  // namespace

TEST_CASE("namm: a tiny llama generates the authors' tokens, and forgets when and as much as there") {
  const Golden golden;
  REQUIRE(golden.updates.size() == 4);
  const OpenModel model(packed_llama());
  for (const uint32_t chunk : {golden.chunk, 7u, 100u}) {
    CAPTURE(chunk);
    SessionOptions options = namm_options(golden.namm_file, 512, chunk);
    options.sinks = 0;
    const OpenSession session(model, options);
    size_t updates = 0;
    const auto check_updates = [&] {
      // Forgotten before the step that begins at a multiple of the interval.
      const SessionStats stats = session->stats();
      if (stats.position <= golden.interval * (updates + 1)) return;
      const Golden::Update& update = golden.updates.at(updates++);
      CAPTURE(update.position);
      CHECK(stats.cache.evictions == updates);
      const auto [one, two] = std::pair(update.layers[0], update.layers[1]);
      const uint32_t lost[2] = {one.scored - one.width, two.scored - two.width};
      CHECK(stats.cache.last.lists == 4);
      CHECK(stats.cache.last.tokens == 2 * (lost[0] + lost[1]));
      CHECK(stats.cache.last.fewest == std::min(lost[0], lost[1]));
      CHECK(stats.cache.last.most == std::max(lost[0], lost[1]));
      CHECK(stats.cache.last_length == std::max(one.width, two.width));
    };
    Logits logits;
    for (uint32_t at = 0; at < golden.prompt; at += golden.interval) {
      const uint32_t end = std::min(golden.prompt, at + golden.interval);
      logits = feed(*session, std::span(golden.tokens).subspan(at, end - at));
      check_updates();
    }
    for (size_t at = golden.prompt; at < golden.tokens.size(); ++at) {
      CAPTURE(at);
      const int32_t next = likeliest(logits);
      REQUIRE(next == golden.tokens[at]);
      if (at + 1 == golden.tokens.size()) break;
      logits = feed(*session, std::span(&next, 1));
      check_updates();
    }
    CHECK(updates == 4);
  }
}

TEST_CASE("namm: a session without parameters, or with damaged ones, is refused with a sentence") {
  const OpenModel model(tiny_model_path({}));
  const auto refused = [&](std::span<const uint8_t> file, ErrorCode code, std::string_view part) {
    const Result<Session*> session = Session::create(model, namm_options(file, 64, 16));
    REQUIRE_FALSE(session.ok());
    CHECK(session.status().code() == code);
    CHECK_MESSAGE(std::string_view(session.status().message()).find(part) != std::string_view::npos,
                  session.status().message());
  };
  refused({}, ErrorCode::kInvalidArgument, "give the session a NAMM file, or pack the model with one");
  std::vector<uint8_t> file = make_namm(64);
  OpenSession(model, namm_options(file, 64, 16));
  refused(std::span(file).first(63), ErrorCode::kNotAModel, "63 bytes are no NAMM file");
  refused(std::span(file).first(file.size() - 4), ErrorCode::kCorruptModel, "checksum");
  refused(std::span(file).first(file.size() - 1), ErrorCode::kCorruptModel, "whole, aligned numbers");
  for (const size_t at : {12u, 20u, 33u, 70u}) {
    file[at] ^= 1;
    refused(file, ErrorCode::kCorruptModel, "checksum");
    file[at] ^= 1;
  }
  file[8] = 2;
  refused(file, ErrorCode::kNotAModel, "version 2");
  file = make_namm(64);
  file[0] = 'X';
  refused(file, ErrorCode::kNotAModel, "begins with LETHNAMM");
}

TEST_CASE("namm: any inputs and networks work in a session, and go on alike when restored or forked") {
  using namm::Input;
  const auto shape = [](std::initializer_list<Input> inputs, namm::Network network = namm::Network::kBam) {
    namm::Shape of{network, network == namm::Network::kLinear ? 0u : 32u, {}, static_cast<uint32_t>(inputs.size())};
    std::copy(inputs.begin(), inputs.end(), of.inputs.begin());
    return of;
  };
  const namm::Shape shapes[] = {
      {},
      shape({Input::kAge, Input::kSpectrum}, namm::Network::kMlp),
      shape({Input::kAge, Input::kKeyNorm, Input::kKeyCosine, Input::kValueNorm}),
      shape({Input::kAttentionSum, Input::kRecency, Input::kDiversity}),
      shape({Input::kRawAttention, Input::kAge}),
      shape({Input::kLogAttention, Input::kLogRecency, Input::kKeyCosine}, namm::Network::kLinear)};
  TinyOptions tiny;
  tiny.context_length = 2048;
  const OpenModel model(tiny_model_path(tiny));
  const Ids prompt = random_ids(300, kVocab, 1), end = random_ids(200, kVocab, 2);
  for (const KvType type : {KvType::kF16, KvType::kInt8}) {
    for (const namm::Shape& of : shapes) {
      for (const uint32_t tokens : {128u, 1024u}) {  // under a cap, and by its own wish alone
        CAPTURE(of.width());
        CAPTURE(tokens);
        const std::vector<uint8_t> file = make_namm(64, of);
        SessionOptions options = namm_options(file, tokens, 16);
        options.kv_type = type;
        OpenSession session(model, options), restored(model, options);
        feed(*session, prompt);
        CHECK(session->stats().cache.evictions >= 4);
        const std::string path = temporary_path(".state");
        REQUIRE(session->save(path.c_str()).ok());
        REQUIRE(restored->restore(path.c_str()).ok());
        OpenSession copy(session->fork());
        const Logits expected = feed(*session, end);
        CHECK(feed(*restored, end) == expected);
        CHECK(feed(*copy, end) == expected);
      }
    }
  }
}

TEST_CASE("namm: the file that a model carries is the session's default") {
  TinyOptions tiny;
  PackOptions options;
  options.input = temporary_path(".gguf");
  options.output = temporary_path(".lethe");
  write_file(options.input, tiny_gguf(tiny).bytes());
  const std::span<const uint8_t> file = options.namm = tiny_namm();
  PackReport report;
  Status status = pack_model(options, &report);
  REQUIRE_MESSAGE(status.ok(), status.message());
  const OpenModel carrying(options.output), bare(tiny_model_path(tiny));
  CHECK(bare->namm().empty());
  REQUIRE(std::equal(file.begin(), file.end(), carrying->namm().begin(), carrying->namm().end()));
  const Ids prompt = random_ids(200, kVocab, 1);
  const OpenSession by_default(carrying, namm_options({}, 256, 16)), given(bare, namm_options(file, 256, 16));
  CHECK(feed(*by_default, prompt) == feed(*given, prompt));
  CHECK(given->stats().cache.evictions == 4);

  options.namm = file.first(7);
  status = pack_model(options, &report);
  CHECK(status.code() == ErrorCode::kNotAModel);
  CHECK_MESSAGE(std::string_view(status.message()).find("7 bytes are no NAMM file") != std::string_view::npos,
                status.message());
}

}  // namespace lethe::test
