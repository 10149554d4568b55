#include "tools/cli/kernel_cases.h"

#include <algorithm>
#include <set>

#include "runtime/cache/kv_layout.h"

namespace lethe::cli {
namespace {

using cpu::Kernels;

constexpr uint32_t kPrompt = 512;                   // tokens of a prefill step
constexpr uint32_t kPartTokens = 512;               // ranks of one call of attention
constexpr uint32_t kParts = 8;                      // of a cache of 4,096 tokens
constexpr double kMostFlops = 0.3e9;                // of one call, so that slow targets get through many
constexpr uint64_t kMostBytes = kKernelMemory / 4;  // of one matrix

// Calls body(kernels, number of the call) over and over.
template <class Body>
KernelCalls repeat(Body body) {
  return [body](const Kernels& kernels, uint64_t first, uint64_t calls) {
    for (uint64_t i = 0; i < calls; ++i) body(kernels, first + i);
  };
}

std::string times(std::initializer_list<uint32_t> sizes) {
  std::string text;
  for (const uint32_t size : sizes) text += (text.empty() ? "" : "x") + std::to_string(size);
  return text;
}

cpu::QuantisedRows take_quantised(Arena& memory, uint64_t rows, uint64_t cols) {
  const uint64_t groups = rows * ((cols + kGroup - 1) / kGroup);
  return {memory.take<int8_t>(rows * cols).data(), memory.take<float>(groups).data(), memory.take<float>(groups).data(),
          memory.take<float>(groups).data()};
}

// As many copies of something of `bytes` bytes as there is memory for.
struct Copies {
  uint8_t* data;
  uint64_t bytes, count;
  uint8_t* at(uint64_t call) const { return data + call % count * bytes; }
};
Copies take_copies(Arena& memory, uint64_t bytes) {
  const uint64_t count = (kKernelMemory - memory.used()) / bytes;
  return {memory.take<uint8_t>(count * bytes).data(), bytes, count};
}

// `y = x W^T` for `tokens` tokens: bound by the bytes of the weights for one, by arithmetic for many. Of a large matrix
// one call does some panels, as a thread's task does.
KernelCase linear_case(const KernelShapes::Matrix& matrix, uint32_t tokens) {
  const double row_flops = 2.0 * tokens * matrix.cols;
  const uint64_t row_bytes = std::max<uint64_t>(1, panel_bytes(matrix.format, matrix.cols) / kPanelRows);
  const uint64_t most = std::min<uint64_t>(static_cast<uint64_t>(kMostFlops / row_flops), kMostBytes / row_bytes);
  const auto rows = static_cast<uint32_t>(std::min<uint64_t>(matrix.rows, round_up(most + 1, kPanelRows)));
  const uint64_t bytes = tensor_bytes(matrix.format, rows, matrix.cols);
  const auto prepare = [=](Arena& memory) {
    const float* const x = memory.take<float>(uint64_t{tokens} * matrix.cols).data();
    float* const y = memory.take<float>(uint64_t{tokens} * rows).data();
    const cpu::QuantisedRows xq = take_quantised(memory, tokens, matrix.cols);
    uint8_t* const scratch = memory.take<uint8_t>(cpu::linear_scratch_bytes(matrix.cols)).data();
    const Copies weights =
        tokens == 1 ? take_copies(memory, bytes) : Copies{memory.take<uint8_t>(bytes).data(), bytes, 1};
    return repeat([=](const Kernels& kernels, uint64_t call) {
      kernels.linear({{weights.at(call), matrix.format, rows, matrix.cols}, x, xq, tokens, y, rows, scratch}, 0,
                     static_cast<uint32_t>((rows + kPanelRows - 1) / kPanelRows));
    });
  };
  return {.kernel = "linear",
          .what = std::string(weight_format_name(matrix.format)) + " " + times({tokens, matrix.rows, matrix.cols}),
          .flops = row_flops * rows,
          .bytes = tokens == 1 ? static_cast<double>(bytes) : 0,
          .from_memory = tokens == 1,
          .prepare = prepare};
}

KernelCase embed_case(const KernelShapes::Matrix& table) {
  const auto rows = static_cast<uint32_t>(
      std::min<uint64_t>(table.rows, kMostBytes / panel_bytes(table.format, table.cols) * kPanelRows));
  const auto prepare = [=](Arena& memory) {
    float* const out = memory.take<float>(table.cols).data();
    const uint8_t* const data = memory.take<uint8_t>(tensor_bytes(table.format, rows, table.cols)).data();
    return repeat([=](const Kernels& kernels, uint64_t call) {
      // A step that is prime to most sizes: neighbours in a text are none in the table.
      kernels.embed_row({data, table.format, rows, table.cols}, static_cast<uint32_t>(call * 7919 % rows), out);
    });
  };
  return {.kernel = "embed_row",
          .what = std::string(weight_format_name(table.format)) + " " + times({1, table.cols}),
          .bytes = 4.0 * table.cols,
          .prepare = prepare};
}

// A kernel over floats: `buffers` of [tokens][width], of which the body gets the addresses.
template <class Body>
KernelCase row_case(const char* kernel, uint32_t tokens, uint32_t width, uint32_t buffers, Body body) {
  const auto prepare = [=](Arena& memory) {
    float* at[3] = {};
    for (uint32_t i = 0; i < buffers; ++i) at[i] = memory.take<float>(uint64_t{tokens} * width).data();
    return repeat([=](const Kernels& kernels, uint64_t) { body(kernels, at[0], at[1], at[2]); });
  };
  return {
      .kernel = kernel, .what = times({tokens, width}), .bytes = 4.0 * buffers * tokens * width, .prepare = prepare};
}

KernelCase quantise_case(uint32_t tokens, uint32_t width) {
  const auto prepare = [=](Arena& memory) {
    const float* const x = memory.take<float>(uint64_t{tokens} * width).data();
    const cpu::QuantisedRows out = take_quantised(memory, tokens, width);
    return repeat([=](const Kernels& kernels, uint64_t) { kernels.quantise(x, tokens, width, out); });
  };
  return {.kernel = "quantise",
          .what = times({tokens, width}),
          .bytes = tokens * width * (4.0 + 1.0 + 3 * 4.0 / kGroup),
          .prepare = prepare};
}

KernelCase rope_case(const ModelConfig& config, uint32_t tokens) {
  const uint32_t half = config.rotary_dim / 2, width = config.heads * config.head_dim;
  const auto prepare = [=](Arena& memory) {
    float* const x = memory.take<float>(uint64_t{tokens} * width).data();
    float* const cos = memory.take<float>(uint64_t{tokens} * half).data();
    float* const sin = memory.take<float>(uint64_t{tokens} * half).data();
    std::fill_n(cos, uint64_t{tokens} * half, 1.0f);
    std::fill_n(sin, uint64_t{tokens} * half, 0.0f);
    return repeat([=, dims = config.head_dim, heads = config.heads](const Kernels& kernels, uint64_t) {
      kernels.rope(x, tokens, width, heads, dims, {cos, sin, nullptr, 2 * half});
    });
  };
  return {.kernel = "rope",
          .what = times({tokens, width}),
          .bytes = tokens * (8.0 * config.heads * 2 * half + 8.0 * half),
          .prepare = prepare};
}

// Lists of kPartTokens tokens, block behind block.
struct KvLists {
  KvPoolView pool;
  uint32_t count;
};
KvLists take_lists(Arena& memory, const KvLayout& layout, uint32_t count) {
  constexpr uint32_t kBlocks = kPartTokens / kBlockSlots;
  const uint32_t blocks = count * kBlocks;
  uint32_t* const next = memory.take<uint32_t>(blocks).data();
  uint8_t* const data = memory.take<uint8_t>(uint64_t{blocks} * layout.block_bytes).data();
  for (uint32_t i = 0; i < blocks; ++i) next[i] = i % kBlocks == kBlocks - 1 ? kNoBlock : i + 1;
  return {{layout, data, next}, count};
}
void set_positions(const KvLists& lists, uint32_t hole_every) {
  const KvLayout& layout = lists.pool.layout;
  for (uint32_t i = 0; i < lists.count * kPartTokens; ++i) {
    const uint32_t rank = i % kPartTokens, position = hole_every == 0 ? rank : rank + rank / hole_every;
    uint8_t* const block = lists.pool.blocks + uint64_t{i / kBlockSlots} * layout.block_bytes;
    reinterpret_cast<uint32_t*>(block + layout.positions_offset)[i % kBlockSlots] = position;
  }
}

// One KV head of a cache that moves with the conversation; with holes, a block has some in its positions.
KernelCase attend_case(const ModelConfig& config, KvType type, uint32_t tokens, bool holes) {
  constexpr uint32_t kHoleEvery = 20;
  const uint32_t group = config.heads / config.kv_heads, dims = config.head_dim;
  const KvLayout layout = make_kv_layout(type, dims);
  const auto list_bytes = uint64_t{kPartTokens / kBlockSlots} * layout.block_bytes;
  const auto prepare = [=, rotary = config.rotary_dim](Arena& memory) {
    cpu::AttendArgs args{};
    float* const inv_freq = memory.take<float>(rotary / 2).data();
    args.q = memory.take<float>(uint64_t{tokens} * group * dims).data();
    args.max = memory.take<float>(tokens * group).data();
    args.sum = memory.take<float>(tokens * group).data();
    args.acc = memory.take<float>(uint64_t{tokens} * group * dims).data();
    args.scratch = memory.take<float>(cpu::attend_scratch_floats(group, dims)).data();
    // Decoding, a step reads all lists of all layers once; a prompt's tiles read one list many times.
    const auto most = static_cast<uint32_t>((kKernelMemory - memory.used() - (1 << 20)) / list_bytes);
    const KvLists lists = take_lists(memory, layout, tokens == 1 ? most : 1);
    set_positions(lists, holes ? kHoleEvery : 0);
    args.pool = lists.pool;
    args.mode = PositionMode::kRolling;
    args.query_delta = holes ? (kPartTokens - 1) / kHoleEvery : 0;
    args.first_rank_of_step = kPartTokens - tokens;
    args.q_stride = group * dims;
    args.group = group;
    args.scale = 1;
    args.rope = {nullptr, nullptr, inv_freq, rotary};
    args.query_end = tokens;
    args.rank_end = kPartTokens;
    return repeat([=](const Kernels& kernels, uint64_t call) {
      constexpr uint32_t kBlocks = kPartTokens / kBlockSlots;
      cpu::AttendArgs mine = args;
      mine.start_block = static_cast<uint32_t>(call % lists.count) * kBlocks;
      mine.list = {mine.start_block, mine.start_block + kBlocks - 1, kPartTokens};
      kernels.attend(mine);
    });
  };
  return {.kernel = "attend",
          .what = std::string(kv_type_name(type)) + " " + times({tokens, kPartTokens}) + (holes ? " holes" : ""),
          .flops = 4.0 * kPartTokens * dims * group * tokens,
          .bytes = tokens == 1 ? static_cast<double>(list_bytes) : 0,
          .from_memory = tokens == 1,
          .prepare = prepare};
}

KernelCase store_case(const ModelConfig& config, KvType type, uint32_t tokens) {
  const uint32_t dims = config.head_dim;
  const KvLayout layout = make_kv_layout(type, dims);
  const auto prepare = [=](Arena& memory) {
    const float* const kv = memory.take<float>(uint64_t{tokens} * dims).data();
    uint32_t* const block_of_token = memory.take<uint32_t>(tokens).data();
    float* const scratch = memory.take<float>(cpu::store_scratch_floats(dims)).data();
    const KvLists lists = take_lists(memory, layout, 1);
    for (uint32_t t = 0; t < tokens; ++t) block_of_token[t] = t / kBlockSlots;
    return repeat([=](const Kernels& kernels, uint64_t call) {
      const uint32_t slot = tokens == 1 ? static_cast<uint32_t>(call % kBlockSlots) : 0;
      kernels.store_kv({lists.pool, block_of_token, slot, slot, kv, kv, dims, dims, tokens, scratch});
    });
  };
  return {.kernel = "store_kv",
          .what = std::string(kv_type_name(type)) + " " + times({tokens, dims}),
          .bytes = tokens * (2.0 * 4 * dims + static_cast<double>(layout.block_bytes) / kBlockSlots),
          .prepare = prepare};
}

KernelCase merge_case(const ModelConfig& config, uint32_t tokens) {
  const uint32_t group = config.heads / config.kv_heads, dims = config.head_dim, rows = kParts * tokens * group;
  const auto prepare = [=](Arena& memory) {
    const float* const max = memory.take<float>(rows).data();
    const float* const sum = memory.take<float>(rows).data();
    const float* const acc = memory.take<float>(uint64_t{rows} * dims).data();
    float* const out = memory.take<float>(uint64_t{tokens} * group * dims).data();
    return repeat([=](const Kernels& kernels, uint64_t) {
      kernels.merge({kParts, max, sum, acc, tokens, group, dims, out, group * dims});
    });
  };
  return {.kernel = "merge",
          .what = times({tokens, group * dims}) + " of " + std::to_string(kParts),
          .bytes = 4.0 * (rows * (dims + 2.0) + tokens * group * dims),
          .prepare = prepare};
}

KernelCase weigh_case(const ModelConfig& config, uint32_t tokens) {
  const uint32_t group = config.heads / config.kv_heads, rows = tokens * group;
  const auto prepare = [=](Arena& memory) {
    const float* const max = memory.take<float>(kParts * rows).data();
    const float* const sum = memory.take<float>(kParts * rows).data();
    const float* const scores = memory.take<float>(uint64_t{rows} * kPartTokens).data();
    float* const out = memory.take<float>(uint64_t{tokens} * kPartTokens).data();
    return repeat([=](const Kernels& kernels, uint64_t) {
      kernels.weigh({kParts, max, sum, scores, kPartTokens, tokens, group, kPartTokens, out, kPartTokens});
    });
  };
  return {.kernel = "weigh",
          .what = times({tokens, kPartTokens}),
          .bytes = 4.0 * kPartTokens * (rows + tokens),
          .prepare = prepare};
}

}  // namespace

KernelShapes default_kernel_shapes() {
  KernelShapes shapes{};
  ModelConfig& config = shapes.config;
  config.embed_dim = 576;
  config.ffn_dim = 1536;
  config.heads = 9;
  config.kv_heads = 3;
  config.head_dim = config.rotary_dim = 64;
  config.vocab = 49152;
  config.activation = Activation::kSilu;
  for (const auto format : {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kQ8, WeightFormat::kQ6,
                            WeightFormat::kQ5M, WeightFormat::kQ5, WeightFormat::kQ4M, WeightFormat::kQ4}) {
    shapes.matrices.push_back({format, config.ffn_dim, config.embed_dim});
  }
  shapes.output = shapes.embedding = {WeightFormat::kQ8, config.vocab, config.embed_dim};
  return shapes;
}

KernelShapes kernel_shapes_of(const Model& model) {
  KernelShapes shapes{};
  shapes.config = model.config();
  const auto matrix = [](const Tensor& tensor) {
    return KernelShapes::Matrix{tensor.format, tensor.rows, tensor.cols};
  };
  std::set<KernelShapes::Matrix> matrices;
  for (const Tensor& tensor : model.tensors()) {
    const bool is_vector = tensor.format == WeightFormat::kF32Vector;
    if (!is_vector && role_is_per_layer(tensor.role)) matrices.insert(matrix(tensor));
  }
  shapes.matrices.assign(matrices.begin(), matrices.end());
  const Tensor* const output = model.find(Role::kOutput, 0);
  shapes.embedding = matrix(*model.find(Role::kTokenEmbedding, 0));
  shapes.output = output == nullptr ? shapes.embedding : matrix(*output);
  return shapes;
}

std::vector<KernelCase> kernel_cases(const KernelShapes& shapes) {
  const ModelConfig& config = shapes.config;
  const uint32_t embed = config.embed_dim, vocab = config.vocab;
  uint64_t widest = std::max({embed, config.ffn_dim, config.heads * config.head_dim});
  for (const KernelShapes::Matrix& matrix : shapes.matrices) widest = std::max<uint64_t>(widest, matrix.cols);
  // Three buffers of floats, and some room for weights.
  const auto prompt = static_cast<uint32_t>(std::clamp<uint64_t>(kKernelMemory / 4 * 3 / (12 * widest), 1, kPrompt));
  std::vector<KernelCase> cases;
  for (const KernelShapes::Matrix& matrix : shapes.matrices) {
    for (const uint32_t tokens : {1u, prompt}) cases.push_back(linear_case(matrix, tokens));
  }
  cases.push_back(linear_case(shapes.output, 1));
  for (const KvType type : kKvTypes) {
    for (const uint32_t tokens : {1u, cpu::kQueryTile}) {
      for (const bool holes : {false, true}) cases.push_back(attend_case(config, type, tokens, holes));
    }
  }
  for (const uint32_t tokens : {1u, cpu::kQueryTile}) cases.push_back(merge_case(config, tokens));
  cases.push_back(weigh_case(config, cpu::kQueryTile));
  for (const KvType type : kKvTypes) {
    for (const uint32_t tokens : {1u, prompt}) cases.push_back(store_case(config, type, tokens));
  }
  cases.push_back(embed_case(shapes.embedding));
  for (const uint32_t tokens : {1u, prompt}) {
    cases.push_back(row_case("rms_norm", tokens, embed, 2, [=](const Kernels& kernels, float* x, float* y, float*) {
      kernels.rms_norm(x, x, 1e-5f, tokens, embed, y);
    }));
    cases.push_back(row_case("layer_norm", tokens, embed, 2, [=](const Kernels& kernels, float* x, float* y, float*) {
      kernels.layer_norm(x, x, x, 1e-5f, tokens, embed, y);
    }));
    cases.push_back(quantise_case(tokens, embed));
    if (config.rotary_dim != 0) cases.push_back(rope_case(config, tokens));
    const uint32_t gates = tokens * config.ffn_dim;
    cases.push_back(row_case("activate", tokens, config.ffn_dim, 3,
                             [=, how = config.activation](const Kernels& kernels, float* gate, float* up, float* out) {
                               kernels.activate(how, gate, up, gates, out);
                             }));
    cases.push_back(row_case("add", tokens, embed, 2, [=](const Kernels& kernels, float* x, float* y, float*) {
      kernels.add(x, y, tokens * embed);
    }));
    cases.push_back(row_case("scale", tokens, embed, 1, [=](const Kernels& kernels, float* x, float*, float*) {
      kernels.scale(x, 1.0f, tokens * embed);
    }));
  }
  cases.push_back(row_case("softcap", 1, vocab, 1, [=](const Kernels& kernels, float* x, float*, float*) {
    kernels.softcap(x, 30.0f, vocab);
  }));
  cases.push_back(row_case("argmax", 1, vocab, 1,
                           [=](const Kernels& kernels, float* x, float*, float*) { kernels.argmax(x, vocab); }));
  cases.push_back(row_case("log_sum_exp", 1, vocab, 1,
                           [=](const Kernels& kernels, float* x, float*, float*) { kernels.log_sum_exp(x, vocab); }));
  for (KernelCase& one : namm_cases(config)) cases.push_back(std::move(one));
  return cases;
}

}  // namespace lethe::cli
