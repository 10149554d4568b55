// The recency ratio against attention computed in double precision, and where it is known by arithmetic.
#include "tools/profile/recency.h"

#include <cstring>

#include "tests/engine/engine_support.h"
#include "tests/engine/llama_reference.h"

namespace lethe::test {
namespace {

using profile::Recency;
using profile::RecencyMeter;

constexpr uint32_t kWindow = 24, kSinks = 3, kTokens = 150;
const TinyOptions kTiny{.layers = 3, .heads = 6, .kv_heads = 2};
constexpr uint32_t kVocab = 259;  // ids that the tiny vocabulary surely has

std::vector<Recency> measure(const std::string& path, const std::vector<Ids>& texts, uint32_t threads) {
  const OpenModel model(path);
  RecencyMeter meter(model);
  const Status opened = meter.open({.window = kWindow, .sinks = kSinks, .tokens = kTokens, .threads = threads});
  REQUIRE_MESSAGE(opened.ok(), opened.message());
  for (const Ids& ids : texts) {
    const Status status = meter.read(ids);
    REQUIRE_MESSAGE(status.ok(), status.message());
  }
  return meter.ratios();
}

// Sharper attention than random weights give: heads differ.
GgufSource sharp_source() {
  GgufSource source = tiny_gguf(kTiny);
  for (uint32_t layer = 0; layer < kTiny.layers; ++layer) {
    GgufSourceTensor& q = source.tensor("blk." + std::to_string(layer) + ".attn_q.weight");
    for (size_t at = 0; at < q.data.size(); at += sizeof(float)) {
      float value;
      std::memcpy(&value, &q.data[at], sizeof value);
      value *= 2.5f;
      std::memcpy(&q.data[at], &value, sizeof value);
    }
  }
  return source;
}

TEST_CASE("ratios are those of attention computed in double precision") {
  const GgufSource source = sharp_source();
  const std::vector<Ids> texts{random_ids(kTokens, kVocab, 1), random_ids(4 * kWindow + 9, kVocab, 2)};
  std::vector<Recency> expected(kTiny.layers * kTiny.heads);
  size_t queries = 0;
  for (const Ids& ids : texts) {
    LlamaReference reference(source, kTiny,
                             {.see = [&](uint32_t layer, size_t head, std::span<const double> attention) {
                               if (attention.size() <= 4 * kWindow) return;
                               Recency& sum = expected[layer * kTiny.heads + head];
                               for (size_t j = 0; j < attention.size(); ++j) {
                                 const bool is_near = j + kWindow >= attention.size(), is_first = j < kSinks;
                                 sum.near += is_near ? attention[j] : 0;
                                 sum.near_or_first += is_near || is_first ? attention[j] : 0;
                               }
                             }});
    for (const int32_t id : ids) reference.feed(id);
    queries += ids.size() - 4 * kWindow;
  }
  const std::string path = pack_source(source);
  for (const uint32_t threads : {1u, 2u}) {
    const std::vector<Recency> ratios = measure(path, texts, threads);
    REQUIRE(ratios.size() == expected.size());
    double least = 1, most = 0;
    for (size_t i = 0; i < ratios.size(); ++i) {
      CAPTURE(i);
      CHECK(ratios[i].near == doctest::Approx(expected[i].near / static_cast<double>(queries)).epsilon(2e-3));
      CHECK(ratios[i].near_or_first ==
            doctest::Approx(expected[i].near_or_first / static_cast<double>(queries)).epsilon(2e-3));
      least = std::min(least, ratios[i].near);
      most = std::max(most, ratios[i].near);
    }
    CHECK(most > least + 0.02);  // so that heads cannot be mixed up unnoticed
  }
}

TEST_CASE("without queries all tokens get the same attention") {
  GgufSource source = tiny_gguf(kTiny);
  for (uint32_t layer = 0; layer < kTiny.layers; ++layer) {
    std::string& q = source.tensor("blk." + std::to_string(layer) + ".attn_q.weight").data;
    q.assign(q.size(), '\0');
  }
  const std::vector<Recency> ratios = measure(pack_source(source), {random_ids(kTokens, kVocab, 3)}, 1);
  double near = 0;
  for (uint32_t seen = 4 * kWindow + 1; seen <= kTokens; ++seen) near += 1.0 / seen;
  near /= kTokens - 4 * kWindow;
  for (const Recency& ratio : ratios) {
    CHECK(ratio.near == doctest::Approx(kWindow * near).epsilon(1e-5));
    CHECK(ratio.near_or_first == doctest::Approx((kWindow + kSinks) * near).epsilon(1e-5));
  }
}

TEST_CASE("options that contradict each other are refused") {
  const OpenModel model(tiny_model_path(kTiny));
  for (const auto& [window, sinks, tokens] : {std::tuple{0u, 0u, 100u}, {16u, 17u, 100u}, {16u, 4u, 64u}}) {
    RecencyMeter meter(model);
    CHECK(meter.open({.window = window, .sinks = sinks, .tokens = tokens}).code() == ErrorCode::kInvalidArgument);
  }
  RecencyMeter meter(model);
  CHECK(meter.open({.window = 16, .sinks = 16, .tokens = 65}).ok());
}

}  // namespace
}  // namespace lethe::test
