// Text and tokens on their way into a session.
#include "platform/android/jni/java.h"
#include "platform/android/jni/natives.h"

namespace lethe::jni {
namespace {

// The messages of a turn, which point into the strings that it keeps.
class Turn {
 public:
  Turn(JNIEnv* env, jobjectArray roles, jobjectArray contents)
      : roles_(c_strings_of(env, roles, "role")), contents_(c_strings_of(env, contents, "content")) {
    if (roles_.size() != contents_.size()) {
      refuse(LETHE_ERROR_INVALID_ARGUMENT, "%zu roles and %zu contents", roles_.size(), contents_.size());
    }
    for (size_t i = 0; i < roles_.size(); ++i) messages_.push_back({roles_[i].c_str(), contents_[i].c_str()});
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  // data() of an empty vector may be NULL; a count of 0 has the better sentence.
  const lethe_message* data() const { return messages_.empty() ? &none_ : messages_.data(); }
  size_t size() const { return messages_.size(); }

 private:
  std::vector<std::string> roles_, contents_;
  std::vector<lethe_message> messages_;
  lethe_message none_{};
};

// Ids that `tokenize(ids, capacity, &count, &error)` gives: asked once for their number and once for them.
template <typename Tokenize>
std::vector<int32_t> all_ids(Tokenize tokenize) {
  size_t count = 0;
  lethe_error error{};
  const lethe_code code = tokenize(nullptr, 0, &count, &error);
  if (code != LETHE_OK && count == 0) throw Failure{code, error.message};
  std::vector<int32_t> ids(count);
  if (count != 0) check(tokenize, ids.data(), ids.size(), &count);
  return ids;
}

}  // namespace

jintArray session_tokenize(JNIEnv* env, jclass, jlong session, jstring text, jint flags) {
  return guarded(env, [&] {
    const std::string utf8 = utf8_of(env, text, "text");
    return new_array(env, all_ids([&](int32_t* ids, size_t capacity, size_t* count, lethe_error* error) {
                       return lethe_session_tokenize(session_of(session), utf8.data(), utf8.size(),
                                                     static_cast<uint32_t>(flags), ids, capacity, count, error);
                     }));
  });
}

jintArray session_tokenize_turn(JNIEnv* env, jclass, jlong session, jobjectArray roles, jobjectArray contents) {
  return guarded(env, [&] {
    const Turn turn(env, roles, contents);
    return new_array(env, all_ids([&](int32_t* ids, size_t capacity, size_t* count, lethe_error* error) {
                       return lethe_session_tokenize_turn(session_of(session), turn.data(), turn.size(), ids, capacity,
                                                          count, error);
                     }));
  });
}

void session_feed(JNIEnv* env, jclass, jlong session, jintArray ids) {
  guarded(env, [&] {
    const std::vector<int32_t> list = ints_of(env, ids, "ids");
    check(lethe_session_feed, session_of(session), list.data(), list.size());
  });
}

void session_feed_embeddings(JNIEnv* env, jclass, jlong session, jfloatArray rows, jint count) {
  guarded(env, [&] {
    const std::vector<float> values = floats_of(env, rows, "rows");
    if (count < 1 || values.size() % static_cast<size_t>(count) != 0) {
      refuse(LETHE_ERROR_INVALID_ARGUMENT, "%zu numbers are not %d rows", values.size(), count);
    }
    check(lethe_session_feed_embeddings, session_of(session), values.data(), static_cast<size_t>(count));
  });
}

jlong session_feed_text(JNIEnv* env, jclass, jlong session, jstring text, jint flags) {
  return guarded(env, [&] {
    const std::string utf8 = utf8_of(env, text, "text");
    size_t fed = 0;
    check(lethe_session_feed_text, session_of(session), utf8.data(), utf8.size(), static_cast<uint32_t>(flags), &fed);
    return static_cast<jlong>(fed);
  });
}

jlong session_feed_turn(JNIEnv* env, jclass, jlong session, jobjectArray roles, jobjectArray contents) {
  return guarded(env, [&] {
    const Turn turn(env, roles, contents);
    size_t fed = 0;
    check(lethe_session_feed_turn, session_of(session), turn.data(), turn.size(), &fed);
    return static_cast<jlong>(fed);
  });
}

jfloatArray session_score(JNIEnv* env, jclass, jlong session, jintArray ids, jint first) {
  return guarded(env, [&] {
    const std::vector<int32_t> list = ints_of(env, ids, "ids");
    if (first < 0 || static_cast<size_t>(first) >= list.size()) {
      refuse(LETHE_ERROR_INVALID_ARGUMENT, "first is %d of %zu ids", first, list.size());
    }
    std::vector<float> log_probs(list.size() - static_cast<size_t>(first));
    check(lethe_session_score, session_of(session), list.data(), list.size(), static_cast<size_t>(first),
          log_probs.data());
    return new_array(env, log_probs.data(), log_probs.size());
  });
}

jfloatArray session_logits(JNIEnv* env, jclass, jlong session) {
  return guarded(env, [&] {
    const float* logits = nullptr;
    size_t vocab = 0;
    check(lethe_session_logits, session_of(session), &logits, &vocab);
    return new_array(env, logits, vocab);
  });
}

}  // namespace lethe::jni
