// Sessions: their memory, figures, sampling, copies and end. Java lets one call in at a time (dev.lethe.Gate); only
// session_cancel comes from other threads.
#include <cmath>
#include <limits>

#include "platform/android/jni/java.h"
#include "platform/android/jni/natives.h"

namespace lethe::jni {

void session_close(JNIEnv*, jclass, jlong session) { lethe_session_close(session_of(session)); }

void session_cancel(JNIEnv*, jclass, jlong session) { lethe_session_cancel(session_of(session)); }

// A request that came after the work it was meant for would cancel the next one. So it is spent on work of no effect: a
// reply that ends before its first token or, where there is nothing to continue, a token that is not fed.
void session_drop_cancel(JNIEnv*, jclass, jlong session) {
  lethe_generate_params params;
  lethe_generate_params_init(&params);
  params.max_tokens = 1;
  lethe_session_cancel(session_of(session));  // there may be none left, and then the work would have an effect
  if (lethe_session_generate(session_of(session), &params, nullptr, nullptr, nullptr) == LETHE_ERROR_CANCELLED) return;
  const int32_t any = 0;
  lethe_session_feed(session_of(session), &any, 1, nullptr);
}

void session_reset(JNIEnv* env, jclass, jlong session) {
  guarded(env, [&] { check(lethe_session_reset, session_of(session)); });
}

void session_set_ram(JNIEnv* env, jclass, jlong session, jlong bytes) {
  guarded(env, [&] {
    if (bytes < 0)
      refuse(LETHE_ERROR_INVALID_ARGUMENT, "a cap of %lld bytes is negative", static_cast<long long>(bytes));
    check(lethe_session_set_ram, session_of(session), static_cast<uint64_t>(bytes));
  });
}

void session_pin(JNIEnv* env, jclass, jlong session, jlong begin, jlong end) {
  guarded(env, [&] {
    // A negative end is LetheSession.ALL_SO_FAR, which is UINT64_MAX; a negative begin is past every end.
    check(lethe_session_pin, session_of(session), static_cast<uint64_t>(begin), static_cast<uint64_t>(end));
  });
}

jlongArray session_memory(JNIEnv* env, jclass, jlong session) {
  return guarded(env, [&] {
    lethe_memory memory{};
    memory.struct_size = sizeof memory;
    check(lethe_session_memory, session_of(session), &memory);
    return new_memory(env, memory);
  });
}

jlongArray session_stats(JNIEnv* env, jclass, jlong session) {
  return guarded(env, [&] {
    lethe_stats stats{};
    stats.struct_size = sizeof stats;
    check(lethe_session_get_stats, session_of(session), &stats);
    std::vector<int64_t> figures;
    for (const uint64_t figure :
         {stats.position, uint64_t{stats.cached_tokens}, stats.prefill_tokens, stats.prefill_ns, stats.decode_tokens,
          stats.decode_ns, stats.evictions, stats.evicted_tokens, stats.eviction_ns, stats.last_lists,
          stats.last_tokens, stats.last_fewest, stats.last_most, stats.last_ns}) {
      figures.push_back(static_cast<int64_t>(figure));
    }
    return new_array(env, figures);
  });
}

jlong session_fork(JNIEnv* env, jclass, jlong session) {
  return guarded(env, [&] {
    lethe_session* copy = nullptr;
    check(lethe_session_fork, session_of(session), &copy);
    return to_handle(copy);
  });
}

void session_save(JNIEnv* env, jclass, jlong session, jstring path) {
  guarded(env, [&] { check(lethe_session_save, session_of(session), c_string_of(env, path, "path").c_str()); });
}

void session_restore(JNIEnv* env, jclass, jlong session, jstring path) {
  guarded(env, [&] { check(lethe_session_restore, session_of(session), c_string_of(env, path, "path").c_str()); });
}

void session_set_sampling(JNIEnv* env, jclass, jlong session, jfloatArray floats, jlongArray integers) {
  guarded(env, [&] {
    const std::vector<float> f = floats_of(env, floats, "floats");
    const std::vector<int64_t> n = longs_of(env, integers, "integers");
    if (f.size() != 4 || n.size() != 3) refuse(LETHE_ERROR_INVALID_ARGUMENT, "4 floats and 3 integers make a sampling");
    lethe_sampling sampling;
    lethe_sampling_init(&sampling);
    // NaN and -1 are Sampling's marks for what it leaves to the library.
    const auto take_float = [](float value, float* field) {
      if (!std::isnan(value)) *field = value;
    };
    const auto take_count = [](const char* name, int64_t value, uint32_t* field) {
      if (value == -1) return;
      if (value < 0 || value > std::numeric_limits<uint32_t>::max()) {
        refuse(LETHE_ERROR_INVALID_ARGUMENT, "%s is %lld: not negative, below 2^32", name,
               static_cast<long long>(value));
      }
      *field = static_cast<uint32_t>(value);
    };
    take_float(f[0], &sampling.temperature);
    take_float(f[1], &sampling.top_p);
    take_float(f[2], &sampling.min_p);
    take_float(f[3], &sampling.repetition_penalty);
    take_count("topK", n[0], &sampling.top_k);
    take_count("penaltyWindow", n[1], &sampling.penalty_window);
    sampling.seed = static_cast<uint64_t>(n[2]);
    check(lethe_session_set_sampling, session_of(session), &sampling);
  });
}

}  // namespace lethe::jni
