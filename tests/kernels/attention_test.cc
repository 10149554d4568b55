#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>

#include "tests/kernels/support.h"

namespace lethe::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Shape {
  KvType type = KvType::kF16;
  PositionMode mode = PositionMode::kAbsolute;
  uint32_t head_dim = 64, group = 3, length = 100;
  uint32_t tokens = 1;      // of the step, the last of `length`
  uint32_t hole_every = 0;  // about one hole in the positions per that many tokens before the step
  uint32_t rotary_dim = 0;  // 0: all of head_dim
  uint32_t first_position = 0;
  uint32_t window = 0;
  float softcap = 0;
  uint32_t sinks = 0;
};

// One KV list with random keys and values whose last tokens are the step, and the queries of the step.
struct AttentionCase {
  explicit AttentionCase(const Shape& s) : shape(s) {
    if (shape.rotary_dim == 0) shape.rotary_dim = shape.head_dim;
    const size_t hd = shape.head_dim, half = shape.rotary_dim / 2;
    for (size_t i = 0; i < half; ++i) {
      inv_freq.push_back(std::pow(10000.0f, -static_cast<float>(i) / static_cast<float>(half)));
    }
    uint32_t position = shape.first_position;
    for (uint32_t i = 0; i < shape.length; ++i, ++position) {
      if (shape.hole_every != 0 && i <= shape.length - shape.tokens && generator()() % shape.hole_every == 0) {
        position += 1 + static_cast<uint32_t>(generator()() % 50);
      }
      positions.push_back(position);
    }
    keys = random_floats(shape.length * hd, 1.5f);
    values = random_floats(shape.length * hd);
    queries = random_floats(shape.tokens * shape.group * hd, 1.5f);
    query_delta = positions.back() - (shape.length - 1);
    clamp = query_delta / 2;
    store(reference_kernels());
  }

  // The pool has the list's blocks in a scattered order; all that is not stored is 0xff bytes: NaN, in f16 and f32.
  void store(const Kernels& kernels) {
    const uint32_t blocks = (shape.length + 31) / 32;
    layout = make_kv_layout(shape.type, shape.head_dim);
    pool.assign(size_t{2 * blocks + 1} * layout.block_bytes / 64, Line{});
    std::memset(static_cast<void*>(pool.data()), 0xff, pool.size() * 64);
    next.assign(2 * blocks + 1, kNoBlock);
    order.clear();
    for (uint32_t i = 0; i < blocks; ++i) order.push_back((i * 7919 + 3) % (2 * blocks + 1));
    std::sort(order.begin(), order.end());
    order.erase(std::unique(order.begin(), order.end()), order.end());
    for (uint32_t id = 0; order.size() < blocks; ++id) {
      if (std::find(order.begin(), order.end(), id) == order.end()) order.push_back(id);
    }
    std::reverse(order.begin(), order.end());
    for (uint32_t i = 0; i + 1 < blocks; ++i) next[order[i]] = order[i + 1];

    std::vector<float> rotated = keys, scratch(store_scratch_floats(shape.head_dim), NAN);
    for (uint32_t i = 0; i < shape.length; ++i) rotate(&rotated[i * shape.head_dim], positions[i]);
    for (uint32_t i = 0; i < shape.length;) {  // runs of consecutive positions, as steps would store them
      uint32_t count = 1;
      while (i + count < shape.length && positions[i + count] == positions[i] + count) ++count;
      std::vector<uint32_t> block_of_token;
      for (uint32_t t = 0; t < count; ++t) block_of_token.push_back(order[(i + t) / 32]);
      kernels.store_kv({view(), block_of_token.data(), i % 32, positions[i], &rotated[i * shape.head_dim],
                        &values[i * shape.head_dim], shape.head_dim, shape.head_dim, count, scratch.data()});
      i += count;
    }
  }

  KvPoolView view() { return {layout, pool[0].bytes, next.data()}; }

  // RoPE in double.
  void rotate(float* x, double position) const {
    const size_t half = shape.rotary_dim / 2;
    for (size_t i = 0; i < half; ++i) {
      const double c = std::cos(position * inv_freq[i]), s = std::sin(position * inv_freq[i]);
      const double a = x[i], b = x[i + half];
      x[i] = static_cast<float>(a * c - b * s);
      x[i + half] = static_cast<float>(a * s + b * c);
    }
  }

  // [tokens][group][head_dim], by tiles of `tile` tokens and spans of `span` ranks, merged. `weights`, when given, gets
  // what a policy sees: [tokens][length].
  std::vector<float> run(const Kernels& kernels, uint32_t tile, uint32_t span, std::vector<float>* weights = nullptr) {
    if (weights != nullptr) weights->assign(size_t{shape.tokens} * shape.length, NAN);
    const uint32_t hd = shape.head_dim, group = shape.group, first_rank = shape.length - shape.tokens;
    const size_t stride = size_t{group} * hd + 7;
    std::vector<float> q(shape.tokens * stride);
    for (uint32_t t = 0; t < shape.tokens; ++t) {
      for (uint32_t head = 0; head < group; ++head) {
        float* to = &q[t * stride + head * hd];
        std::copy_n(&queries[(t * group + head) * hd], hd, to);
        rotate(to, positions[first_rank + t]);
      }
    }
    std::vector<float> out(size_t{shape.tokens} * group * hd);
    for (uint32_t begin = 0; begin < shape.tokens; begin += tile) {
      const uint32_t end = std::min(begin + tile, shape.tokens), count = end - begin;
      const uint32_t parts = (shape.length + span - 1) / span;
      std::vector<float> max(size_t{parts} * count * group, NAN), sum = max, acc(max.size() * hd, NAN);
      std::vector<float> scores(max.size() * span, NAN);
      for (uint32_t part = 0; part < parts; ++part) {
        std::vector<float> scratch(attend_scratch_floats(group, hd), NAN);
        const size_t at = size_t{part} * count * group;
        AttendArgs args{};
        args.pool = view();
        args.list = {order.front(), order.back(), shape.length};
        args.mode = shape.mode;
        args.query_delta = query_delta;
        args.clamp = clamp;
        args.first_rank_of_step = first_rank;
        args.q = q.data();
        args.q_stride = static_cast<uint32_t>(stride);
        args.group = group;
        args.scale = 1 / std::sqrt(static_cast<float>(hd));
        args.softcap = shape.softcap;
        args.sight = {shape.sinks, shape.window};
        args.rope = {nullptr, nullptr, inv_freq.data(), shape.rotary_dim};
        args.query_begin = begin;
        args.query_end = end;
        args.start_block = order[part * span / 32];
        args.rank_begin = part * span;
        args.rank_end = std::min(args.rank_begin + span, shape.length);
        args.max = &max[at];
        args.sum = &sum[at];
        args.acc = &acc[at * hd];
        args.scratch = scratch.data();
        args.scores = weights == nullptr ? nullptr : &scores[at * span];
        args.scores_stride = span;
        kernels.attend(args);
      }
      for (uint32_t part = 0; part < parts && weights != nullptr; ++part) {
        const uint32_t from = part * span;
        kernels.weigh({parts, max.data(), sum.data(), &scores[size_t{part} * count * group * span], span, count, group,
                       std::min(span, shape.length - from), &(*weights)[begin * shape.length + from], shape.length});
      }
      kernels.merge(
          {parts, max.data(), sum.data(), acc.data(), count, group, hd, &out[size_t{begin} * group * hd], group * hd});
    }
    return out;
  }

  // Attention written down directly: unrotated keys and queries, both rotated to where the mode says they stand.
  // `weights` as in run().
  std::vector<double> dense(std::vector<double>* weights = nullptr) const {
    if (weights != nullptr) weights->assign(size_t{shape.tokens} * shape.length, 0.0);
    const size_t hd = shape.head_dim;
    const uint32_t first_rank = shape.length - shape.tokens;
    const auto place = [&](uint32_t rank) -> double {
      if (shape.mode == PositionMode::kAbsolute) return positions[rank];
      if (shape.mode == PositionMode::kRolling) return rank;
      return std::max<double>(static_cast<double>(positions[rank]) - clamp, rank);
    };
    const auto distance = [&](uint32_t from, uint32_t to) -> double {  // for the window
      return shape.mode == PositionMode::kRolling ? to - from : positions[to] - positions[from];
    };
    std::vector<float> placed_keys = keys;
    for (uint32_t i = 0; i < shape.length; ++i) rotate(&placed_keys[i * hd], place(i));
    std::vector<double> out;
    for (uint32_t row = 0; row < shape.tokens * shape.group; ++row) {
      const uint32_t rank = first_rank + row / shape.group;
      std::vector<float> q(&queries[row * hd], &queries[row * hd] + hd);
      rotate(q.data(), place(rank));
      std::vector<double> p(rank + 1);
      for (uint32_t i = 0; i <= rank; ++i) {
        if (shape.window != 0 && distance(i, rank) >= shape.window && i >= shape.sinks) continue;
        const double dot = std::inner_product(q.begin(), q.end(), &placed_keys[i * hd], 0.0);
        const double score = dot / std::sqrt(static_cast<double>(hd));
        p[i] = std::exp(shape.softcap == 0 ? score : shape.softcap * std::tanh(score / shape.softcap));
      }
      const double total = std::accumulate(p.begin(), p.end(), 0.0);
      for (uint32_t i = 0; i <= rank && weights != nullptr; ++i) {
        (*weights)[row / shape.group * shape.length + i] += p[i] / total / shape.group;
      }
      for (size_t d = 0; d < hd; ++d) {
        double sum = 0;
        for (uint32_t i = 0; i <= rank; ++i) sum += p[i] / total * values[i * hd + d];
        out.push_back(sum);
      }
    }
    return out;
  }

  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  Shape shape;
  KvLayout layout{};
  std::vector<float> inv_freq, keys, values, queries;
  std::vector<uint32_t> positions, next, order;
  std::vector<Line> pool;
  uint32_t query_delta = 0, clamp = 0;
};

// Mean squared difference over mean square.
template <class A, class B>
double nmse(const A& a, const B& b) {
  REQUIRE(a.size() == b.size());
  double difference = 0, square = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    square += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return difference / square;
}

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (const KvType type : kKvTypes) {
    for (const PositionMode mode : {PositionMode::kAbsolute, PositionMode::kRolling, PositionMode::kClamped}) {
      for (const uint32_t length : {1u, 31u, 32u, 33u, 100u, 257u}) {
        for (const uint32_t hole_every : {0u, 3u, 60u}) {
          all.push_back({type, mode, 64, 3, length, std::min(length, 5u), hole_every});
        }
      }
      for (const uint32_t head_dim : {16u, 40u, 64u, 80u, 96u, 128u, 256u}) {
        for (const uint32_t group : {1u, 3u, 4u, 8u}) all.push_back({type, mode, head_dim, group, 70, 2, 9});
      }
      for (const uint32_t tokens : {1u, 7u, 9u, 17u, 40u}) all.push_back({type, mode, 32, 2, 90, tokens, 9});
      all.push_back({type, mode, 80, 2, 65, 3, 9, 20});            // partial rotation
      all.push_back({type, mode, 64, 2, 65, 3, 9, 0, 3'000'000});  // far along in a stream
      for (const uint32_t window : {1u, 8u, 31u, 33u, 100u, 1000u}) {
        for (const uint32_t hole_every : {0u, 9u}) {
          all.push_back({type, mode, 32, 2, 150, 40, hole_every, 0, 1'000, window, window == 33 ? 2.0f : 0.0f});
        }
      }
      for (const float softcap : {0.5f, 2.0f, 50.0f}) all.push_back({type, mode, 64, 3, 70, 9, 9, 0, 0, 0, softcap});
    }
  }
  return all;
}

// Windows beside which the first tokens are seen: within a block, over several, and where both meet.
std::vector<Shape> shapes_with_sinks() {
  std::vector<Shape> all;
  for (const KvType type : kKvTypes) {
    for (const PositionMode mode : {PositionMode::kAbsolute, PositionMode::kRolling, PositionMode::kClamped}) {
      for (const auto& [window, sinks] :
           {std::pair{1u, 4u}, {8u, 1u}, {33u, 17u}, {64u, 4u}, {40u, 60u}, {100u, 60u}}) {
        for (const uint32_t hole_every : {0u, 9u}) {
          all.push_back({type, mode, 32, 2, 250, 40, hole_every, 0, 1'000, window, window == 33 ? 2.0f : 0.0f, sinks});
        }
      }
    }
  }
  return all;
}

// NMSE against attention over what was not rounded.
double rounding_of(KvType type) {
  switch (type) {
    case KvType::kF16: return 3e-6;
    case KvType::kInt8: return 2e-3;
    case KvType::kInt8k4v: return 4e-2;
    case KvType::kInt4: return 0.12;
  }
  return 0;
}

std::string describe(const Shape& s) {
  return std::string(kv_type_name(s.type)) +
         std::array{" absolute", " rolling", " clamped"}[static_cast<size_t>(s.mode)] + " head_dim " +
         std::to_string(s.head_dim) + " group " + std::to_string(s.group) + " length " + std::to_string(s.length) +
         " tokens " + std::to_string(s.tokens) + " holes 1/" + std::to_string(s.hole_every) + " at " +
         std::to_string(s.first_position) + " window " + std::to_string(s.window) + " sinks " +
         std::to_string(s.sinks) + " softcap " + std::to_string(s.softcap);
}

// The reference differs from dense attention by what storing keys and values rounds: NMSE 3e-6 for halves (2^-11 each),
// 2e-3 for int8. Targets differ from the reference by float sums and exp only, NMSE 1e-11; over int8 pools also by
// queries and weights of 14 bits: NMSE 1e-7.
void check_attention(const Shape& shape) {
  CAPTURE(describe(shape));
  AttentionCase c(shape);
  const std::vector<float> expected = c.run(reference_kernels(), kQueryTile, 512);
  REQUIRE(nmse(expected, c.dense()) < rounding_of(shape.type));
  const double bound = shape.type == KvType::kF16 ? 1e-11 : 1e-7;
  for_each_target([&](const Kernels& kernels) {
    REQUIRE(nmse(c.run(kernels, kQueryTile, 512), expected) < bound);
    REQUIRE(nmse(c.run(kernels, 3, 32), expected) < bound);
  });
}

}  // namespace

TEST_CASE("attention is dense attention, on every target") {
  for (const Shape& shape : shapes()) check_attention(shape);
}

// What policies see. The bounds are those of the results.
TEST_CASE("the weights beside attention are those of dense attention, on every target") {
  for (const Shape& shape : shapes()) {
    CAPTURE(describe(shape));
    AttentionCase c(shape);
    std::vector<double> exact;
    std::vector<float> expected, weights;
    c.dense(&exact);
    const std::vector<float> plain = c.run(reference_kernels(), kQueryTile, 96, &expected);
    REQUIRE(nmse(expected, exact) < rounding_of(shape.type));
    for_each_target([&](const Kernels& kernels) {
      const std::vector<float> out = c.run(kernels, kQueryTile, 96, &weights);
      REQUIRE(nmse(weights, expected) < (shape.type == KvType::kF16 ? 1e-11 : 1e-7));
      REQUIRE(out == c.run(kernels, kQueryTile, 96));  // seeing changes nothing
    });
  }
}

// Keys and queries of one size that agree in all signs or in none, and no rotation: the largest bytes of int8 pools.
// Every query finds the values of the keys that agree.
TEST_CASE("extreme bytes do not overflow") {
  AttentionCase c({KvType::kInt8, PositionMode::kAbsolute, 64, 5, 64, 2});
  std::fill(c.inv_freq.begin(), c.inv_freq.end(), 0.0f);
  for (size_t i = 0; i < c.keys.size(); ++i) {
    c.keys[i] = i / 64 % 2 == 0 ? 3.0f : -3.0f;
    c.values[i] = (i / 64 % 2 == 0) == (i % 64 % 3 == 0) ? 1.0f : -1.0f;
  }
  for (size_t i = 0; i < c.queries.size(); ++i) c.queries[i] = i / 64 % 2 == 0 ? 3.0f : -3.0f;
  c.store(reference_kernels());
  for_each_target([&](const Kernels& kernels) {
    const std::vector<float> out = c.run(kernels, kQueryTile, 512);
    for (size_t i = 0; i < out.size(); ++i) {
      REQUIRE(out[i] == doctest::Approx((i / 64 % 2 == 0) == (i % 64 % 3 == 0) ? 1.0f : -1.0f).epsilon(1e-4));
    }
  });
}

TEST_CASE("a query's result has the same bits in every tile") {
  for (const KvType type : kKvTypes) {
    for (const uint32_t holes : {0u, 4u, 40u}) {
      AttentionCase c({type, PositionMode::kRolling, 48, 3, 150, 40, holes});
      for_each_target([&](const Kernels& kernels) {
        const std::vector<float> alone = c.run(kernels, 1, 64);
        for (const uint32_t tile : {2u, 5u, 8u}) REQUIRE(c.run(kernels, tile, 64) == alone);
      });
    }
  }
}

// Rolling positions count ranks, so it does not matter where in the stream the cache's tokens stood.
TEST_CASE("rolling attention does not depend on where in the stream it happens") {
  AttentionCase here({KvType::kF16, PositionMode::kRolling, 64, 2, 80, 3, 5});
  AttentionCase there = here;
  for (uint32_t i = 0; i < 80; ++i) there.positions[i] = 5'000'000 + i * (i < 77 ? 3 : 0);
  for (uint32_t i = 77; i < 80; ++i) there.positions[i] = 6'000'000 + i;
  there.query_delta = 6'000'000;
  there.store(reference_kernels());
  REQUIRE(nmse(there.run(reference_kernels(), 8, 64), here.run(reference_kernels(), 8, 64)) < 2e-6);
  for_each_target(
      [&](const Kernels& kernels) { REQUIRE(nmse(there.run(kernels, 8, 64), here.run(kernels, 8, 64)) < 2e-6); });
}

// Clamped positions: only what lies before the beginning of the conversation, as it is taken, moves.
TEST_CASE("clamped attention does not depend on where in the stream it happens") {
  AttentionCase here({KvType::kF16, PositionMode::kClamped, 64, 2, 80, 3, 5});
  AttentionCase there = here;
  for (uint32_t i = 0; i < 80; ++i) {  // 4 sinks, and others at the same distances from the queries
    here.positions[i] = i < 4 ? i : here.positions[i] + 20;
    there.positions[i] = i < 4 ? i : here.positions[i] + 5'000'000;
  }
  here.query_delta = here.positions.back() - 79, there.query_delta = there.positions.back() - 79;
  here.clamp = 0, there.clamp = 5'000'000;
  here.store(reference_kernels());
  there.store(reference_kernels());
  REQUIRE(nmse(there.run(reference_kernels(), 8, 64), here.run(reference_kernels(), 8, 64)) < 2e-6);
  for_each_target(
      [&](const Kernels& kernels) { REQUIRE(nmse(there.run(kernels, 8, 64), here.run(kernels, 8, 64)) < 2e-6); });
}

TEST_CASE("store_kv writes the reference's bytes and no others") {
  for (const KvType type : kKvTypes) {
    for (const uint32_t head_dim : {7u, 10u, 16u, 40u, 80u, 96u, 128u, 320u}) {
      AttentionCase c({type, PositionMode::kAbsolute, head_dim, 1, 75, 1, 10});
      for (size_t i = 0; i < head_dim; ++i) c.keys[3 * head_dim + i] = c.values[4 * head_dim + i] = 0;
      for (size_t i = 0; i < head_dim; ++i) c.values[5 * head_dim + i] *= 1e-7f;  // subnormal halves
      c.values[6 * head_dim] = 70000;                                             // beyond a half
      c.store(reference_kernels());
      const std::vector<AttentionCase::Line> expected = c.pool;
      for_each_target([&](const Kernels& kernels) {
        c.store(kernels);
        REQUIRE(std::memcmp(c.pool.data(), expected.data(), expected.size() * 64) == 0);
      });
    }
  }
}

TEST_CASE("merge ignores parts that saw nothing") {
  // Two parts, one query, two heads of 3: the second head sees nothing at all.
  const std::vector<float> max = {1, -kInfinity, -kInfinity, -kInfinity}, sum = {2, 0, 0, 0};
  std::vector<float> acc(12, NAN);
  acc[0] = 2, acc[1] = 4, acc[2] = -6;
  const auto check = [&](const Kernels& kernels) {
    std::vector<float> out(6, NAN);
    kernels.merge({2, max.data(), sum.data(), acc.data(), 1, 2, 3, out.data(), 6});
    REQUIRE(out == std::vector<float>{1, 2, -3, 0, 0, 0});
  };
  check(reference_kernels());
  for_each_target(check);
}

TEST_CASE("a span that a query does not see leaves an empty part") {
  AttentionCase c({KvType::kF16, PositionMode::kAbsolute, 16, 1, 70, 70, 0});
  const std::vector<float> whole = c.run(reference_kernels(), 8, 96);  // the first tokens see nothing of rank 32..
  for_each_target([&](const Kernels& kernels) { REQUIRE(nmse(c.run(kernels, 8, 32), whole) < 1e-11); });
}

TEST_CASE("NaN and infinity in queries and keys stay within the head") {
  for (const KvType type : kKvTypes) {
    for (const float bad : {NAN, kInfinity}) {
      AttentionCase c({type, PositionMode::kRolling, 32, 2, 40, 3, 5});
      c.queries[32 + 4] = bad;  // token 0, head 1
      for_each_target([&](const Kernels& kernels) {
        const std::vector<float> out = c.run(kernels, 8, 32);
        for (size_t i = 0; i < out.size(); ++i) REQUIRE(std::isfinite(out[i]) == (i / 32 != 1));
      });
    }
  }
}

TEST_CASE("integers do not hide NaN in a value") {
  for (const KvType type : {KvType::kInt8, KvType::kInt8k4v, KvType::kInt4}) {
    CAPTURE(static_cast<int>(type));
    AttentionCase c({type, PositionMode::kRolling, 32, 2, 40, 1, 5});
    c.values[7 * 32 + 4] = NAN;
    for_each_target([&](const Kernels& kernels) {
      c.store(kernels);
      const std::vector<float> out = c.run(kernels, 8, 32);
      for (const size_t head : {0, 1}) {
        const auto of_head = std::span(out).subspan(head * 32, 32);
        REQUIRE(std::any_of(of_head.begin(), of_head.end(), [](float x) { return std::isnan(x); }));
      }
    });
  }
}

// Puts the generator back: bounds of cases before and after are for their numbers.
TEST_CASE("attention to the first tokens and a window is dense attention, on every target") {
  const std::mt19937 before = generator();
  for (const Shape& shape : shapes_with_sinks()) check_attention(shape);
  generator() = before;
}

}  // namespace lethe::cpu
