// Models, and the plan and creation of their sessions.
#include <algorithm>
#include <cinttypes>
#include <limits>
#include <utility>

#include "platform/android/jni/java.h"
#include "platform/android/jni/natives.h"

namespace lethe::jni {
namespace {

// Session parameters out of the numbers of dev.lethe.SessionOptions, in its order. Those it does not set keep the
// library's defaults.
class ParamsReader {
 public:
  ParamsReader(JNIEnv* env, jlongArray numbers, jstring policy)
      : numbers_(longs_of(env, numbers, "numbers")), policy_(policy ? c_string_of(env, policy, "policy") : "") {
    lethe_session_params_init(&params_);
    if (policy != nullptr) params_.policy = policy_.c_str();
    take("ramBytes", &params_.ram_bytes);
    take("hostBytes", &params_.host_bytes);
    take("sinks", &params_.sinks);
    take("kvType", &params_.kv_type);
    take("positions", &params_.positions);
    take("maxTokens", &params_.max_tokens);
    take("prefillChunk", &params_.prefill_chunk);
    take("threads", &params_.threads);
    take("logitRows", &params_.logit_rows);
    take("turnBytes", &params_.turn_bytes);
    take("recentPercent", &params_.recent_percent);
    take_seed("policySeed", &params_.policy_seed);
    take("budget", &params_.budget);
    take("pool", &params_.pool);
    take("poolWidth", &params_.pool_width);
    take("valueNorm", &params_.value_norm);
    take("handOver", &params_.hand_over);
  }
  ParamsReader(const ParamsReader&) = delete;  // params_ points into policy_
  ParamsReader& operator=(const ParamsReader&) = delete;

  const lethe_session_params* get() const { return &params_; }

 private:
  static constexpr int64_t kUnset = std::numeric_limits<int64_t>::min();  // SessionOptions.UNSET

  int64_t next(const char* name) {
    if (next_ == numbers_.size()) refuse(LETHE_ERROR_INVALID_ARGUMENT, "%s is not among the numbers", name);
    return numbers_[next_++];
  }
  // A number outside the field's range would become another one.
  template <typename T>
  void take(const char* name, T* field) {
    const int64_t value = next(name);
    if (value == kUnset) return;
    if (!std::in_range<T>(value)) {
      const auto most =
          std::min(uint64_t{std::numeric_limits<int64_t>::max()}, static_cast<uint64_t>(std::numeric_limits<T>::max()));
      refuse(LETHE_ERROR_INVALID_ARGUMENT, "%s is %" PRId64 ": from %" PRId64 " to %" PRIu64, name, value,
             static_cast<int64_t>(std::numeric_limits<T>::min()), most);
    }
    *field = static_cast<T>(value);
  }
  void take_seed(const char* name, uint64_t* field) {  // 64 bits of any kind
    if (const int64_t value = next(name); value != kUnset) *field = static_cast<uint64_t>(value);
  }

  std::vector<int64_t> numbers_;
  std::string policy_;
  lethe_session_params params_;
  size_t next_ = 0;
};

}  // namespace

jlong model_open(JNIEnv* env, jclass, jstring path) {
  return guarded(env, [&] {
    lethe_model* model = nullptr;
    check(lethe_model_open, c_string_of(env, path, "path").c_str(), &model);
    return to_handle(model);
  });
}

void model_close(JNIEnv* env, jclass, jlong model) {
  guarded(env, [&] { check(lethe_model_close, model_of(model)); });
}

void model_verify(JNIEnv* env, jclass, jlong model) {
  guarded(env, [&] { check(lethe_model_verify, model_of(model)); });
}

jlongArray model_info(JNIEnv* env, jclass, jlong model) {
  return guarded(env, [&] {
    lethe_model_info info{};
    info.struct_size = sizeof info;
    check(lethe_model_get_info, model_of(model), &info);
    return new_array(
        env, std::vector<int64_t>{info.layers, info.embed_dim, info.heads, info.kv_heads, info.head_dim, info.ffn_dim,
                                  info.vocab, info.context_length, static_cast<int64_t>(info.file_bytes),
                                  static_cast<int64_t>(info.private_bytes),
                                  static_cast<int64_t>(info.kv_bytes_per_token), info.has_chat_template});
  });
}

jstring model_architecture(JNIEnv* env, jclass, jlong model) {
  return guarded(env, [&] {
    lethe_model_info info{};
    info.struct_size = sizeof info;
    check(lethe_model_get_info, model_of(model), &info);
    return new_string(env, info.architecture);
  });
}

jlongArray session_plan(JNIEnv* env, jclass, jlong model, jlongArray numbers, jstring policy) {
  return guarded(env, [&] {
    const ParamsReader params(env, numbers, policy);
    lethe_memory memory{};
    memory.struct_size = sizeof memory;
    check(lethe_session_plan, model_of(model), params.get(), &memory);
    return new_memory(env, memory);
  });
}

jlong minimum_ram(JNIEnv* env, jclass, jlong model, jlongArray numbers, jstring policy) {
  return guarded(env, [&] {
    const ParamsReader params(env, numbers, policy);
    lethe_memory memory{};
    memory.struct_size = sizeof memory;
    lethe_error error{};
    const lethe_code code = lethe_session_plan(model_of(model), params.get(), &memory, &error);
    if (code != LETHE_OK && code != LETHE_ERROR_RAM_TOO_SMALL) throw Failure{code, error.message};
    return static_cast<jlong>(memory.minimum_ram_bytes);
  });
}

jlong session_create(JNIEnv* env, jclass, jlong model, jlongArray numbers, jstring policy) {
  return guarded(env, [&] {
    const ParamsReader params(env, numbers, policy);
    lethe_session* session = nullptr;
    check(lethe_session_create, model_of(model), params.get(), &session);
    return to_handle(session);
  });
}

jstring version(JNIEnv* env, jclass) {
  return guarded(env, [&] { return new_string(env, lethe_version()); });
}

jstring memory_tag_name(JNIEnv* env, jclass, jint tag) {
  return guarded(env, [&] { return new_string(env, lethe_memory_tag_name(tag)); });
}

}  // namespace lethe::jni
