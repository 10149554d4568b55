// A reply, piece by piece, to dev.lethe.Relay.
#include <string>

#include "platform/android/jni/java.h"
#include "platform/android/jni/natives.h"
#include "platform/android/jni/utf.h"

namespace lethe::jni {
namespace {

// What the callback of one reply needs. `held` is the bytes of the tokens so far less those of the text so far: 0 when
// the library keeps nothing back, neither a character that has only begun nor what may become a stop text. Only then
// can a reply be interrupted and continued without a trace. (Bytes that are no text at all become a longer U+FFFD, and
// after them it is 0 no more: the reply is then not interrupted.)
struct Reply {
  JNIEnv* env;
  jobject relay;
  const lethe_model* model;
  int64_t held = 0;
  std::u16string text;  // kept for its memory
  bool out_of_memory = false;

  // Whether to go on.
  bool give(std::string_view utf8, int32_t id) {
    const char* bytes = nullptr;
    size_t size = 0;
    if (id >= 0 && lethe_model_token_bytes(model, id, &bytes, &size, nullptr) == LETHE_OK) {
      held += static_cast<int64_t>(size);
    }
    held -= static_cast<int64_t>(utf8.size());
    to_utf16(utf8, &text);
    const jstring piece = env->NewString(reinterpret_cast<const jchar*>(text.data()), static_cast<jsize>(text.size()));
    if (piece == nullptr) return false;  // with an OutOfMemoryError of Java's
    const jboolean go_on =
        env->CallBooleanMethod(relay, java.relay_on_piece, piece, jint{id}, static_cast<jboolean>(held == 0));
    env->DeleteLocalRef(piece);  // or they would gather until the reply ends
    return !env->ExceptionCheck() && go_on == JNI_TRUE;
  }
};

// C++ exceptions must not cross the library, and Java's only wait: the library stops at once and calls no more.
int32_t on_piece(void* user, const char* text, size_t bytes, int32_t id) {
  auto& reply = *static_cast<Reply*>(user);
  try {
    return reply.give({text, bytes}, id) ? 0 : 1;
  } catch (const std::bad_alloc&) {
    reply.out_of_memory = true;
    return 1;
  }
}

}  // namespace

jint session_generate(JNIEnv* env, jclass, jlong session, jlong model, jlong max_tokens, jobjectArray stop,
                      jboolean ignore_end, jobject relay, jlongArray generated) {
  return guarded(env, [&]() -> jint {
    if (max_tokens < 0) {
      refuse(LETHE_ERROR_INVALID_ARGUMENT, "maxTokens is %lld: not negative", static_cast<long long>(max_tokens));
    }
    const std::vector<std::string> stops = c_strings_of(env, stop, "stop text");
    std::vector<const char*> stop_pointers;
    for (const std::string& text : stops) stop_pointers.push_back(text.c_str());
    Reply reply{.env = env, .relay = relay, .model = model_of(model), .text = {}};
    lethe_generate_params params;
    lethe_generate_params_init(&params);
    params.max_tokens = static_cast<uint64_t>(max_tokens);
    params.stop = stop_pointers.data();
    params.stop_count = stop_pointers.size();
    params.ignore_eos = ignore_end == JNI_TRUE;
    params.on_piece = on_piece;
    params.user = &reply;

    int32_t reason = LETHE_STOP_ERROR;
    uint64_t tokens = 0;
    lethe_error error{};
    const lethe_code code = lethe_session_generate(session_of(session), &params, &reason, &tokens, &error);
    check_pending(env);
    if (reply.out_of_memory) throw std::bad_alloc();
    const auto count = static_cast<jlong>(tokens);
    env->SetLongArrayRegion(generated, 0, 1, &count);
    check_pending(env);
    if (code != LETHE_OK) throw Failure{code, error.message};
    return reason;
  });
}

}  // namespace lethe::jni
