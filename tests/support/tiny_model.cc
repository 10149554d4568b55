#include "tests/support/tiny_model.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

namespace lethe::test {
namespace {

template <typename T>
void put(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_string(std::string* out, std::string_view text) {
  put<uint64_t>(out, text.size());
  out->append(text);
}

std::string typed(uint32_t type) {
  std::string out;
  put(&out, type);
  return out;
}

// ---- halves, by their definition: sign * 2^(e-15) * (1 + m/1024) ----

double half_value(uint16_t half) {
  const int exponent = half >> 10 & 31;
  const int mantissa = half & 1023;
  double value = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  if (exponent == 31) value = mantissa == 0 ? INFINITY : NAN;
  return (half & 0x8000) != 0 ? -value : value;
}

// The nearest finite half by binary search over the ordered positive halves.
uint16_t nearest_half(double value) {
  const double magnitude = std::abs(value);
  uint16_t low = 0;
  uint16_t high = 0x7bff;
  while (low < high) {
    const auto middle = static_cast<uint16_t>((low + high + 1) / 2);
    if (half_value(middle) <= magnitude) {
      low = middle;
    } else {
      high = static_cast<uint16_t>(middle - 1);
    }
  }
  if (low < 0x7bff && half_value(static_cast<uint16_t>(low + 1)) - magnitude < magnitude - half_value(low)) ++low;
  return static_cast<uint16_t>(low | (std::signbit(value) ? 0x8000 : 0));
}

// ---- ggml's reference quantisers, in their simplest form ----

void put_block(std::string* out, GgmlType type, const float* w) {
  const bool with_minimum = type == GgmlType::kQ4_1 || type == GgmlType::kQ5_1;
  const bool five_bits = type == GgmlType::kQ5_0 || type == GgmlType::kQ5_1;
  const float low = *std::min_element(w, w + 32);
  const float high = *std::max_element(w, w + 32);
  const float largest = std::max(std::abs(low), std::abs(high));
  const double last = five_bits ? 31 : 15;
  const double middle = five_bits ? 16 : 8;
  const double scale = with_minimum ? (high - low) / last : largest / (type == GgmlType::kQ8_0 ? 127.0 : middle);
  const uint16_t d = nearest_half(scale);
  const uint16_t m = nearest_half(low);
  put(out, d);
  if (with_minimum) put(out, m);
  const double inverse = half_value(d) > 0 ? 1 / half_value(d) : 0;
  if (type == GgmlType::kQ8_0) {
    for (int i = 0; i < 32; ++i) put(out, static_cast<int8_t>(std::clamp(std::round(w[i] * inverse), -127.0, 127.0)));
    return;
  }
  const auto level = [&](float value) {
    const double q = with_minimum ? (value - half_value(m)) * inverse : value * inverse + middle;
    return static_cast<int>(std::clamp(std::round(q), 0.0, last));
  };
  uint32_t fifth_bits = 0;
  for (int i = 0; i < 32; ++i) fifth_bits |= static_cast<uint32_t>(level(w[i]) >> 4) << i;
  if (five_bits) put(out, fifth_bits);
  for (int i = 0; i < 16; ++i) put(out, static_cast<uint8_t>((level(w[i]) & 15) | (level(w[i + 16]) & 15) << 4));
}

std::string encode(GgmlType type, const std::vector<float>& weights) {
  std::string out;
  switch (type) {
    case GgmlType::kF32:
      for (const float w : weights) put(&out, w);
      break;
    case GgmlType::kF16:
      for (const float w : weights) put(&out, nearest_half(w));
      break;
    case GgmlType::kBF16:
      for (const float w : weights) put(&out, static_cast<uint16_t>(std::bit_cast<uint32_t>(w) >> 16));
      break;
    default:
      for (size_t i = 0; i < weights.size(); i += 32) put_block(&out, type, &weights[i]);
  }
  return out;
}

// ---- the vocabulary ----

// GPT-2's alphabet: the character that stands for a byte, as UTF-8.
std::string byte_character(int byte) {
  int character = byte;
  const auto printable = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
  if (!printable(byte)) {
    character = 256;
    for (int b = 0; b < byte; ++b) character += printable(b) ? 0 : 1;
  }
  if (character < 128) return {static_cast<char>(character)};
  return {static_cast<char>(0xc0 | character >> 6), static_cast<char>(0x80 | (character & 63))};
}

constexpr const char* kMerges[] = {  // "Ġ" stands for a space
    "h e",   "l l",  "he ll", "hell o", "Ġ t",   "Ġt he", "i n",     "a n",  "an d", "Ġ and", "e r",
    "r e",   "o n",  "Ġ w",   "Ġw o",   "Ġwo r", "l d",   "Ġwor ld", "s t",  "Ġ a",  "o u",   "y ou",
    "Ġ you", "u s",  "us er", "Ġ i",    "Ġi s",  "Ġ s",   "a t",     "in g", "Ġ m",  "o r",   "e n",
    "Ġ o",   "Ġo f", "i s",   "e s",    "Ġ in",  "Ġ b",   "a r",     "Ġ Ġ"};

constexpr const char* kChatTemplate =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

void add_tokenizer(GgufSource* out, bool all_bytes) {
  std::string used;  // by the merges
  for (const char* merge : kMerges) used += merge;
  std::vector<std::string> tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  std::vector<int32_t> types = {3, 3, 3};
  for (int byte = 0; byte < 256; ++byte) {
    const std::string character = byte_character(byte);
    if (all_bytes || (byte == ' ' || (byte > ' ' && used.find(character) != std::string::npos))) {
      tokens.push_back(character);
    }
  }
  std::vector<std::string> merges;
  for (const char* merge : kMerges) {
    merges.emplace_back(merge);
    std::string joined = merge;
    joined.erase(joined.find(' '), 1);
    tokens.push_back(joined);
  }
  types.resize(tokens.size(), 1);
  out->set_string("tokenizer.ggml.model", "gpt2");
  out->set_string("tokenizer.ggml.pre", "smollm");
  out->set_strings("tokenizer.ggml.tokens", tokens);
  out->set_i32s("tokenizer.ggml.token_type", types);
  out->set_strings("tokenizer.ggml.merges", merges);
  out->set_u32("tokenizer.ggml.bos_token_id", 1);
  out->set_u32("tokenizer.ggml.eos_token_id", 2);
  out->set_bool("tokenizer.ggml.add_bos_token", false);
  out->set_string("tokenizer.chat_template", kChatTemplate);
  out->set_u32("llama.vocab_size", static_cast<uint32_t>(tokens.size()));
}

// Removes the temporary files of this process when it ends.
struct TemporaryFiles {
  std::vector<std::string> paths;
  ~TemporaryFiles() {
    for (const std::string& path : paths) std::remove(path.c_str());
  }
};

}  // namespace

void GgufSource::set_raw(std::string_view key, std::string value) {
  const auto found = std::find_if(keys.begin(), keys.end(), [key](const GgufKey& k) { return k.key == key; });
  if (found != keys.end()) {
    found->value = std::move(value);
  } else {
    keys.push_back({std::string(key), std::move(value)});
  }
}

void GgufSource::set_u32(std::string_view key, uint32_t value) {
  std::string out = typed(4);
  put(&out, value);
  set_raw(key, out);
}

void GgufSource::set_f32(std::string_view key, float value) {
  std::string out = typed(6);
  put(&out, value);
  set_raw(key, out);
}

void GgufSource::set_bool(std::string_view key, bool value) {
  std::string out = typed(7);
  put<uint8_t>(&out, value);
  set_raw(key, out);
}

void GgufSource::set_string(std::string_view key, std::string_view value) {
  std::string out = typed(8);
  put_string(&out, value);
  set_raw(key, out);
}

void GgufSource::set_strings(std::string_view key, const std::vector<std::string>& values) {
  std::string out = typed(9) + typed(8);
  put<uint64_t>(&out, values.size());
  for (const std::string& value : values) put_string(&out, value);
  set_raw(key, out);
}

void GgufSource::set_i32s(std::string_view key, const std::vector<int32_t>& values) {
  std::string out = typed(9) + typed(5);
  put<uint64_t>(&out, values.size());
  for (const int32_t value : values) put(&out, value);
  set_raw(key, out);
}

void GgufSource::erase(std::string_view key) {
  std::erase_if(keys, [key](const GgufKey& k) { return k.key == key; });
}

GgufSourceTensor& GgufSource::tensor(std::string_view name) {
  for (GgufSourceTensor& t : tensors) {
    if (t.name == name) return t;
  }
  std::fprintf(stderr, "the tiny model has no tensor %.*s\n", static_cast<int>(name.size()), name.data());
  std::abort();
}

std::string GgufSource::bytes(uint64_t* metadata_bytes) const {
  std::string out = "GGUF";
  put(&out, version);
  put<uint64_t>(&out, tensors.size());
  put<uint64_t>(&out, keys.size());
  for (const GgufKey& key : keys) {
    put_string(&out, key.key);
    out += key.value;
  }
  std::string data;
  for (const GgufSourceTensor& t : tensors) {
    data.resize((data.size() + 31) / 32 * 32);
    put_string(&out, t.name);
    put<uint32_t>(&out, static_cast<uint32_t>(t.dims.size()));
    for (const uint64_t dim : t.dims) put(&out, dim);
    put<uint32_t>(&out, static_cast<uint32_t>(t.type));
    put<uint64_t>(&out, data.size());
    data += t.data;
  }
  if (metadata_bytes != nullptr) *metadata_bytes = out.size();
  out.resize((out.size() + 31) / 32 * 32);
  return out + data;
}

GgufSource tiny_gguf(const TinyOptions& options) {
  GgufSource out;
  out.set_string("general.architecture", "llama");
  out.set_u32("llama.block_count", options.layers);
  out.set_u32("llama.context_length", options.context_length);
  out.set_u32("llama.embedding_length", options.embed_dim);
  out.set_u32("llama.feed_forward_length", options.ffn_dim);
  out.set_u32("llama.attention.head_count", options.heads);
  out.set_u32("llama.attention.head_count_kv", options.kv_heads);
  out.set_u32("llama.attention.key_length", options.head_dim);
  out.set_u32("llama.attention.value_length", options.head_dim);
  out.set_u32("llama.rope.dimension_count", options.head_dim);
  out.set_f32("llama.rope.freq_base", 10000);
  out.set_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  add_tokenizer(&out, options.all_bytes);

  // The engine's own numbers, not a std distribution's: those differ between standard libraries.
  std::mt19937 random(options.seed);
  const auto uniform = [&random] { return (static_cast<double>(random()) + 0.5) / 4294967296.0; };
  const auto normal = [&uniform] {
    return std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform());
  };
  const auto add_matrix = [&](const std::string& name, uint32_t rows, uint32_t cols) {
    std::vector<float> weights(static_cast<size_t>(rows) * cols);
    for (float& w : weights) w = static_cast<float>(normal() / std::sqrt(cols));
    out.tensors.push_back({name, options.type, {cols, rows}, encode(options.type, weights)});
  };
  const auto add_norm = [&](const std::string& name) {
    std::vector<float> weights(options.embed_dim);
    for (float& w : weights) w = static_cast<float>(1 + 0.1 * normal());
    out.tensors.push_back({name, GgmlType::kF32, {options.embed_dim}, encode(GgmlType::kF32, weights)});
  };
  const auto vocab_value = std::find_if(out.keys.begin(), out.keys.end(), [](const GgufKey& k) {
                             return k.key == "llama.vocab_size";
                           })->value;
  uint32_t vocab = 0;
  std::memcpy(&vocab, vocab_value.data() + 4, sizeof vocab);
  const uint32_t query_dim = options.heads * options.head_dim;
  const uint32_t kv_dim = options.kv_heads * options.head_dim;
  add_matrix("token_embd.weight", vocab, options.embed_dim);
  for (uint32_t layer = 0; layer < options.layers; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    add_norm(prefix + "attn_norm.weight");
    add_matrix(prefix + "ffn_down.weight", options.embed_dim, options.ffn_dim);
    add_matrix(prefix + "ffn_gate.weight", options.ffn_dim, options.embed_dim);
    add_matrix(prefix + "ffn_up.weight", options.ffn_dim, options.embed_dim);
    add_norm(prefix + "ffn_norm.weight");
    add_matrix(prefix + "attn_k.weight", kv_dim, options.embed_dim);
    add_matrix(prefix + "attn_output.weight", options.embed_dim, query_dim);
    add_matrix(prefix + "attn_q.weight", query_dim, options.embed_dim);
    add_matrix(prefix + "attn_v.weight", kv_dim, options.embed_dim);
  }
  add_norm("output_norm.weight");
  if (!options.tied) add_matrix("output.weight", vocab, options.embed_dim);
  return out;
}

std::vector<float> reference_dequantise(GgmlType type, std::string_view data) {
  std::vector<float> out;
  const auto* bytes = reinterpret_cast<const uint8_t*>(data.data());
  const auto half_at = [bytes](size_t at) { return half_value(static_cast<uint16_t>(bytes[at] | bytes[at + 1] << 8)); };
  const auto push = [&out](double value) { out.push_back(static_cast<float>(value)); };
  switch (type) {
    case GgmlType::kF32:
      out.resize(data.size() / 4);
      std::memcpy(out.data(), data.data(), data.size());
      break;
    case GgmlType::kF16:
      for (size_t at = 0; at < data.size(); at += 2) push(half_at(at));
      break;
    case GgmlType::kBF16:
      for (size_t at = 0; at < data.size(); at += 2) {
        out.push_back(std::bit_cast<float>(static_cast<uint32_t>(bytes[at] | bytes[at + 1] << 8) << 16));
      }
      break;
    case GgmlType::kQ8_0:
      for (size_t at = 0; at < data.size(); at += 34) {
        for (size_t i = 0; i < 32; ++i) push(half_at(at) * static_cast<int8_t>(bytes[at + 2 + i]));
      }
      break;
    case GgmlType::kQ4_0:
    case GgmlType::kQ4_1:
    case GgmlType::kQ5_0:
    case GgmlType::kQ5_1: {
      const bool with_minimum = type == GgmlType::kQ4_1 || type == GgmlType::kQ5_1;
      const bool five_bits = type == GgmlType::kQ5_0 || type == GgmlType::kQ5_1;
      const size_t params = with_minimum ? 4 : 2, quants = params + (five_bits ? 4 : 0);
      for (size_t at = 0; at < data.size(); at += quants + 16) {
        for (size_t i = 0; i < 32; ++i) {
          const int nibble = i < 16 ? bytes[at + quants + i] & 15 : bytes[at + quants + i - 16] >> 4;
          const int fifth = five_bits ? bytes[at + params + i / 8] >> (i % 8) & 1 : 0;
          const int level = nibble + 16 * fifth;
          push(with_minimum ? half_at(at) * level + half_at(at + 2) : half_at(at) * (level - (five_bits ? 16 : 8)));
        }
      }
      break;
    }
    default: std::fprintf(stderr, "no tiny model has weights of type %s\n", ggml_type_name(type)); std::abort();
  }
  return out;
}

std::string temporary_path(std::string_view suffix) {
  static TemporaryFiles files;
  static int count = 0;
  const std::string name = "lethe-test-" + std::to_string(getpid()) + "-" + std::to_string(count++);
  files.paths.push_back((std::filesystem::temp_directory_path() / name).string() + std::string(suffix));
  return files.paths.back();
}

void write_file(const std::string& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) {
    std::fprintf(stderr, "cannot write %s\n", path.c_str());
    std::abort();
  }
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

std::string tiny_model_path(const TinyOptions& options, PackType type) {
  PackOptions pack;
  pack.input = temporary_path(".gguf");
  pack.output = temporary_path(".lethe");
  pack.type = type;
  write_file(pack.input, tiny_gguf(options).bytes());
  PackReport report;
  if (Status status = pack_model(pack, &report); !status.ok()) {
    std::fprintf(stderr, "cannot pack the tiny model: %s\n", status.message());
    std::abort();
  }
  return pack.output;
}

std::string tiny_model_path(GgmlType type) {
  TinyOptions options;
  options.type = type;
  return tiny_model_path(options);
}

}  // namespace lethe::test
