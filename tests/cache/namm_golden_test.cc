// The scorer against the authors' code: three intervals of two layers with eviction (tests/data/namm/policy.bin).
#include "tests/cache/namm_support.h"
#include "tests/support/simd_targets.h"

using namespace lethe;
using namespace lethe::namm;

namespace {

struct Update {
  uint32_t queries, tokens;
  struct Head {
    uint32_t wanted;
    std::vector<std::vector<float>> attention;  // [queries][seen]
    std::vector<float> features, scores;        // [tokens][25], [tokens]
    std::vector<uint32_t> kept;
  };
  std::vector<Head> heads;
};

struct Golden {
  Golden() {
    Fixture file("policy.bin");
    const uint32_t layer_count = file.number();
    kv_heads = file.number();
    const uint32_t updates = file.number();
    flat = file.take<float>(4172 + 17 + 17);
    layers.resize(layer_count);
    for (uint32_t i = 0; i < updates; ++i) {
      for (auto& layer : layers) {
        Update update{file.number(), file.number(), {}};
        const uint32_t width = file.number();
        for (uint32_t head = 0; head < kv_heads; ++head) {
          Update::Head h;
          h.wanted = file.number();
          for (uint32_t q = 0; q < update.queries; ++q) {
            h.attention.push_back(file.take<float>(update.tokens - update.queries + q + 1));
          }
          h.features = file.take<float>(update.tokens * 25);
          h.scores = file.take<float>(update.tokens);
          h.kept = file.take<uint32_t>(width);
          update.heads.push_back(h);
        }
        layer.push_back(update);
      }
    }
    REQUIRE(file.at_end());
    const Result<Parameters> viewed = view_parameters(Shape{}, flat);
    REQUIRE(viewed.ok());
    parameters = viewed.value();
  }

  uint32_t kv_heads;
  std::vector<float> flat;
  Parameters parameters;
  std::vector<std::vector<Update>> layers;  // [layers][updates]
};

double score_size(const Update::Head& head) {
  return reference::largest_magnitude(reference::Row(head.scores.begin(), head.scores.end()));
}

}  // namespace

TEST_CASE("namm: the plain definition gives the authors' features, scores and kept tokens") {
  const Golden golden;
  for (const auto& updates : golden.layers) {
    std::vector<reference::List> lists(golden.kv_heads);
    uint32_t position = 0;
    for (const Update& update : updates) {
      std::vector<reference::Row> scores;
      for (uint32_t h = 0; h < golden.kv_heads; ++h) {
        const Update::Head& head = update.heads[h];
        for (uint32_t q = 0; q < update.queries; ++q) {
          lists[h].see(position + q, [&](size_t rank) { return head.attention[q][rank]; });
        }
        const reference::Rows features = reference::features(lists[h], golden.parameters);
        REQUIRE(features.size() == update.tokens);
        double worst = 0;
        for (size_t i = 0; i < features.size(); ++i) {
          for (size_t k = 0; k < 25; ++k) {
            worst = std::max(worst, std::abs(features[i][k] - static_cast<double>(head.features[i * 25 + k])));
          }
        }
        CHECK(worst < 1e-5);
        scores.push_back(reference::bam_scores(features, golden.parameters));
        for (size_t i = 0; i < update.tokens; ++i) {
          REQUIRE(std::abs(scores[h][i] - static_cast<double>(head.scores[i])) < 1e-5 * score_size(head));
        }
      }
      std::vector<uint32_t> wanted;
      const auto kept = reference::kept_ranks(scores, &wanted);
      for (uint32_t h = 0; h < golden.kv_heads; ++h) {
        CHECK(wanted[h] == update.heads[h].wanted);
        CHECK(kept[h] == update.heads[h].kept);
        std::vector<reference::Token> stay;
        for (const uint32_t rank : kept[h]) stay.push_back(lists[h].tokens[rank]);
        lists[h].tokens = stay;
      }
      position += update.queries;
    }
  }
}

TEST_CASE("namm: the authors' scores from the authors' features, on every target") {
  const Golden golden;
  Carved<FoldedBam> bam(Shape{});
  bam.it.fold(bam_weights(golden.parameters));
  test::for_each_target([&] {
    double worst = 0;
    for (const auto& updates : golden.layers) {
      for (const Update& update : updates) {
        for (const Update::Head& head : update.heads) {
          std::vector<std::vector<float>> features;
          for (auto at = head.features.begin(); at != head.features.end(); at += 25) features.emplace_back(at, at + 25);
          std::vector<float> scores(update.tokens);
          bam_scores(bam.it, in_blocks(features).data(), scores);
          for (size_t i = 0; i < update.tokens; ++i) {
            worst = std::max<double>(worst, std::abs(scores[i] - head.scores[i]) / score_size(head));
          }
        }
      }
    }
    CHECK(worst < 1e-5);
  });
}

TEST_CASE("namm: the authors' features from the spectrum kernel, on every target") {
  const Golden golden;
  test::for_each_target([&] {
    double worst = 0;
    for (const auto& updates : golden.layers) {
      for (uint32_t h = 0; h < golden.kv_heads; ++h) {
        std::vector<std::vector<float>> history;  // [tokens][queries since it came, after 16 before]
        std::vector<reference::Row> averages;
        std::vector<uint32_t> positions;
        uint32_t position = 0;
        for (const Update& update : updates) {
          const Update::Head& head = update.heads[h];
          for (uint32_t q = 0; q < update.queries; ++q, ++position) {
            history.emplace_back(16 + q % 16);
            averages.emplace_back(17);
            positions.push_back(position);
            for (size_t i = 0; i < history.size(); ++i) history[i].push_back(head.attention[q][i]);
            if (position % 16 != 15) continue;
            for (size_t first = 0; first < history.size(); first += 32) {
              std::vector<float> frame(32 * 32), magnitudes(17 * 32);
              const size_t count = std::min<size_t>(32, history.size() - first);
              for (size_t i = 0; i < count * 32; ++i) frame[i % 32 * 32 + i / 32] = history[first + i / 32][i % 32];
              frame_magnitudes(frame.data(), magnitudes.data());
              for (size_t i = 0; i < count; ++i) {
                history[first + i].erase(history[first + i].begin(), history[first + i].begin() + 16);
                for (size_t k = 0; k < 17; ++k) {
                  double& average = averages[first + i][k];
                  average += (1 - std::pow(0.99, 16)) * (static_cast<double>(magnitudes[k * 32 + i]) - average);
                }
              }
            }
          }
          for (size_t i = 0; i < update.tokens; ++i) {
            for (size_t k = 0; k < 17; ++k) {
              const double mean = golden.parameters.means[k], variance = golden.parameters.variances[k];
              const double feature = reference::standardised(averages[i][k], mean, variance);
              worst = std::max(worst, std::abs(feature - static_cast<double>(head.features[i * 25 + 8 + k])));
            }
          }
          const auto keep = [&](auto& rows) {
            auto kept = rows;
            kept.clear();
            for (const uint32_t rank : head.kept) kept.push_back(rows[rank]);
            rows = kept;
          };
          keep(history), keep(averages), keep(positions);
        }
      }
    }
    CHECK(worst < 1e-5);
  });
}

// The authors record attention in bfloat16; what they would get from exact attention is as far away as 2.7e-3.
TEST_CASE("namm: with its state in 16 bits, scores deviate less than the authors' own, and the same tokens stay") {
  const Golden golden;
  const OwnedScorer scorer(golden.parameters);
  test::for_each_target([&] {
    double worst = 0;
    for (const auto& updates : golden.layers) {
      ObservedPool lists(kRing | kAverages, golden.kv_heads, 512);
      uint32_t position = 0;
      for (const Update& update : updates) {
        // Steps of 24 tokens: hops end within steps and tiles.
        for (uint32_t q = 0; q < update.queries; q += 24) {
          lists.step(position + q, std::min(24u, update.queries - q),
                     [&](uint32_t h, uint32_t t, uint32_t rank) { return update.heads[h].attention[q + t][rank]; });
        }
        position += update.queries;
        std::vector<reference::Row> scores;
        for (uint32_t h = 0; h < golden.kv_heads; ++h) {
          scores.push_back(scorer.score(lists.pool.view(), lists.pool.list(0, h)));
          for (uint32_t i = 0; i + 1 < update.tokens; ++i) {
            const double error = std::abs(scores[h][i] - static_cast<double>(update.heads[h].scores[i]));
            worst = std::max(worst, error / score_size(update.heads[h]));
          }
        }
        std::vector<uint32_t> wanted;
        const auto kept = reference::kept_ranks(scores, &wanted);
        for (uint32_t h = 0; h < golden.kv_heads; ++h) {
          CHECK(wanted[h] == update.heads[h].wanted);
          CHECK(kept[h] == update.heads[h].kept);
          lists.keep(h, update.heads[h].kept);
        }
      }
    }
    CHECK(worst < 1e-3);
  });
}
