#include "tools/cli/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "tools/cli/failure.h"
#include "tools/cli/units.h"

namespace lethe::cli {
namespace {

struct Choice {
  const char* name;
  int32_t value;
};

// The value of the choice that `text` names.
int32_t choose(const char* option, const std::string& text, std::initializer_list<Choice> choices) {
  std::string names;
  for (const Choice& choice : choices) {
    if (text == choice.name) return choice.value;
    names += (names.empty() ? "" : ", ") + std::string(choice.name);
  }
  fail(LETHE_ERROR_INVALID_ARGUMENT, "%s is '%s'; it can be %s", option, text.c_str(), names.c_str());
}

// "none", "mean5", "max7".
void set_pooling(const std::string& text, lethe_session_params& params) {
  const size_t digits = std::min(text.find_first_of("0123456789"), text.size());
  const std::string kind = text.substr(0, digits);
  if (text == "none") {
    params.pool = LETHE_POOL_NONE;
  } else if ((kind == "mean" || kind == "max") && digits < text.size() && text.size() - digits <= 3 &&
             text.find_first_not_of("0123456789", digits) == std::string::npos) {
    params.pool = kind == "mean" ? LETHE_POOL_MEAN : LETHE_POOL_MAX;
    params.pool_width = static_cast<uint32_t>(std::stoul(text.substr(digits)));
  } else {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--pool is '%s'; it can be none, meanN or maxN, such as max7", text.c_str());
  }
}

}  // namespace

NammFile::NammFile(const std::string& path) {
  Result<os::FileMap> map = os::FileMap::open(path.c_str());
  check(map.status());
  map_ = std::move(map.value());
}

void NammFile::give_to(lethe_session_params& params) const {
  params.namm = data();
  params.namm_bytes = size();
}

void add_model(CLI::App& command, std::string& path) {
  command.add_option("MODEL", path, "model file (.lethe)")->required();
}

void add_json(CLI::App& command, bool& json) { command.add_flag("--json", json, "print one JSON object on stdout"); }

void RamOption::add_to(CLI::App& command) {
  command.add_option("--ram", text, "cap on all private memory of the process: 64MiB, 48M, 1000000, ...");
}

uint64_t RamOption::bytes() const {
  if (!text) {
    fail(LETHE_ERROR_INVALID_ARGUMENT,
         "--ram SIZE is missing: the cap on all private memory, such as --ram 64MiB "
         "('lethe plan MODEL --ram 64MiB' shows what fits)");
  }
  const std::optional<uint64_t> bytes = parse_size(*text);
  if (!bytes) {
    fail(LETHE_ERROR_INVALID_ARGUMENT, "--ram is '%s', which is no size: write 64MiB, 48M, 1.5GB or 1000000",
         text->c_str());
  }
  return *bytes;
}

void SessionOptions::add_to(CLI::App& command) {
  ram.add_to(command);
  command.add_option(
      "--policy", policy,
      "what the cache forgets (default: namm, which is learned, if the model has its parameters, else h2o): window "
      "(keeps the first tokens and the most recent), h2o, tova, snapkv, pyramidkv, pyramidinfer, scissorhands, "
      "fastgen, "
      "expected-attention, keydiff, lagkv, l2, namm, random, or full (nothing: a full cache is an error)");
  command.add_option("--recent", recent,
                     "percent of what stays in an eviction that is the newest tokens (default: as the policy has it)");
  command.add_option("--budget", budget,
                     "how layers and heads share a full cache: list (evenly), pyramid (early layers keep more), layer "
                     "(heads of a layer compete by score) or global (all compete); default: as the policy has it");
  command.add_option("--pool", pool,
                     "smooth scores over N neighbouring tokens: meanN, maxN (such as max7) or none (default: as the "
                     "policy has it)");
  command.add_flag("--value-norm", value_norm, "multiply scores by the norm of the token's value");
  command.add_option(
      "--hand-over", hand_over,
      "what becomes of forgotten tokens: none (default), compensation (one token stands for all of them) "
      "or merge (each is blended into the most similar one that stays)");
  command.add_option("--namm", namm, "NAMM file, the parameters of policy namm (default: those in the model file)");
  command.add_option("--policy-seed", policy_seed, "for policies that draw (default 0)");
  command.add_option("--sinks", sinks, "first tokens that are never forgotten (default 4)");
  command.add_option("--kv", kv,
                     "type of cached keys and values: f16 (default), int8, int8k4v (keys of 8 bits, values "
                     "of 4) or int4");
  command.add_option("--positions", positions, "auto (default), absolute, rolling or clamped");
  command.add_option("--chunk", chunk, "tokens per prefill step (default: what suits the cap)");
  command.add_option("--threads", threads, "threads (default: the fast cores)");
}

lethe_session_params SessionOptions::params(uint64_t host_bytes) const {
  lethe_session_params params = api::session_params(ram.bytes());
  params.host_bytes = host_bytes;
  if (policy) params.policy = policy->c_str();
  if (sinks) params.sinks = *sinks;
  if (kv)
    params.kv_type = choose(
        "--kv", *kv,
        {{"f16", LETHE_KV_F16}, {"int8", LETHE_KV_INT8}, {"int8k4v", LETHE_KV_INT8K4V}, {"int4", LETHE_KV_INT4}});
  if (positions) {
    params.positions = choose("--positions", *positions,
                              {{"auto", LETHE_POSITIONS_AUTO},
                               {"absolute", LETHE_POSITIONS_ABSOLUTE},
                               {"rolling", LETHE_POSITIONS_ROLLING},
                               {"clamped", LETHE_POSITIONS_CLAMPED}});
  }
  if (chunk) params.prefill_chunk = *chunk;
  if (recent) {
    if (*recent > 100) fail(LETHE_ERROR_INVALID_ARGUMENT, "--recent is %u percent: at most 100", *recent);
    params.recent_percent = static_cast<int32_t>(*recent);
  }
  if (budget) {
    params.budget = choose("--budget", *budget,
                           {{"list", LETHE_BUDGET_LIST},
                            {"pyramid", LETHE_BUDGET_PYRAMID},
                            {"layer", LETHE_BUDGET_LAYER},
                            {"global", LETHE_BUDGET_GLOBAL}});
  }
  if (pool) set_pooling(*pool, params);
  params.value_norm = value_norm ? 1 : 0;
  if (hand_over) {
    params.hand_over = choose("--hand-over", *hand_over,
                              {{"none", LETHE_HAND_OVER_NONE},
                               {"compensation", LETHE_HAND_OVER_COMPENSATION},
                               {"merge", LETHE_HAND_OVER_MERGE}});
  }
  if (policy_seed) params.policy_seed = *policy_seed;
  if (threads) params.threads = *threads;
  if (namm) {
    if (!namm_file) namm_file = std::make_shared<NammFile>(*namm);
    namm_file->give_to(params);
  }
  return params;
}

void SamplingOptions::add_to(CLI::App& command) {
  command.add_flag("--greedy", greedy, "always take the likeliest token");
  command.add_option("--temperature", temperature, "default 0.8; 0 is greedy");
  command.add_option("--top-k", top_k, "keep the K likeliest tokens (default 40; 0: off)");
  command.add_option("--top-p", top_p, "keep the likeliest tokens of this total probability (default 0.95; 1: off)");
  command.add_option("--min-p", min_p, "drop tokens below this share of the likeliest (default 0: off)");
  command.add_option("--repetition-penalty", repetition_penalty, "default 1: off");
  command.add_option("--seed", seed, "same seed, same text (default 0)")->check(CLI::NonNegativeNumber);
}

lethe_sampling SamplingOptions::sampling() const {
  if (greedy && (temperature || top_k || top_p || min_p)) {
    fail(LETHE_ERROR_INVALID_ARGUMENT,
         "--greedy takes the likeliest token, so %s would do nothing: give one of the two",
         temperature ? "--temperature"
         : top_k     ? "--top-k"
         : top_p     ? "--top-p"
                     : "--min-p");
  }
  lethe_sampling sampling = api::sampling();
  if (greedy) sampling.temperature = 0;
  if (temperature) sampling.temperature = *temperature;
  if (top_k) sampling.top_k = *top_k;
  if (top_p) sampling.top_p = *top_p;
  if (min_p) sampling.min_p = *min_p;
  if (repetition_penalty) sampling.repetition_penalty = *repetition_penalty;
  if (seed) sampling.seed = *seed;
  return sampling;
}

void ReplyOptions::add_to(CLI::App& command) {
  command.add_option("--max-tokens", max_tokens, "longest reply, tokens (0: until the model ends it)")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command.add_option("--stop", stop, "text that ends the reply (may be repeated)")->expected(1)->take_all();
  command.add_flag("--ignore-eos", ignore_eos, "go on after the model's end token");
}

lethe_generate_params ReplyOptions::params(std::vector<const char*>& stop_texts) const {
  stop_texts.clear();
  for (const std::string& text : stop) stop_texts.push_back(text.c_str());
  lethe_generate_params params = api::generate_params();
  params.max_tokens = max_tokens;
  params.stop = stop_texts.data();
  params.stop_count = stop_texts.size();
  params.ignore_eos = ignore_eos ? 1 : 0;
  return params;
}

void TraceOption::add_to(CLI::App& command, const char* help) { command.add_option("--trace", path, help); }

void TraceOption::start(api::Session& session) const {
  if (!path) return;
  lethe_trace_params params = api::trace_params();
  params.interval_ms = interval_ms;
  params.tokens = 1;
  check(session.start_trace(path->c_str(), params));
}

void TraceOption::stop(api::Session& session) const {
  if (path) check(session.stop_trace());
}

}  // namespace lethe::cli
