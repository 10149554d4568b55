// The one function that the library exports: it registers the native methods of dev.lethe.Native.
#include <iterator>

#include "platform/android/jni/java.h"
#include "platform/android/jni/natives.h"

namespace lethe::jni {
namespace {

template <typename Function>
JNINativeMethod method(const char* name, const char* signature, Function* function) {
  // Android's jni.h has const members, older ones have not.
  return {const_cast<char*>(name), const_cast<char*>(signature), reinterpret_cast<void*>(function)};
}

bool look_up(JNIEnv* env) {
  const jclass exception = env->FindClass("dev/lethe/LetheException");
  if (exception == nullptr) return false;
  java.exception = static_cast<jclass>(env->NewGlobalRef(exception));
  java.exception_create = env->GetMethodID(exception, "<init>", "(ILjava/lang/String;Ljava/lang/String;)V");
  if (java.exception == nullptr || java.exception_create == nullptr) return false;
  const jclass relay = env->FindClass("dev/lethe/Relay");
  if (relay == nullptr) return false;
  java.relay_on_piece = env->GetMethodID(relay, "onPiece", "(Ljava/lang/String;IZ)Z");
  return java.relay_on_piece != nullptr;
}

bool register_natives(JNIEnv* env) {
  const jclass native = env->FindClass("dev/lethe/Native");
  if (native == nullptr) return false;
  const JNINativeMethod methods[] = {
      method("version", "()Ljava/lang/String;", version),
      method("memoryTagName", "(I)Ljava/lang/String;", memory_tag_name),
      method("modelOpen", "(Ljava/lang/String;)J", model_open),
      method("modelClose", "(J)V", model_close),
      method("modelVerify", "(J)V", model_verify),
      method("modelInfo", "(J)[J", model_info),
      method("modelArchitecture", "(J)Ljava/lang/String;", model_architecture),
      method("plan", "(J[JLjava/lang/String;)[J", session_plan),
      method("minimumRam", "(J[JLjava/lang/String;)J", minimum_ram),
      method("create", "(J[JLjava/lang/String;)J", session_create),
      method("close", "(J)V", session_close),
      method("cancel", "(J)V", session_cancel),
      method("dropCancel", "(J)V", session_drop_cancel),
      method("reset", "(J)V", session_reset),
      method("setRam", "(JJ)V", session_set_ram),
      method("pin", "(JJJ)V", session_pin),
      method("memory", "(J)[J", session_memory),
      method("stats", "(J)[J", session_stats),
      method("fork", "(J)J", session_fork),
      method("save", "(JLjava/lang/String;)V", session_save),
      method("restore", "(JLjava/lang/String;)V", session_restore),
      method("setSampling", "(J[F[J)V", session_set_sampling),
      method("tokenize", "(JLjava/lang/String;I)[I", session_tokenize),
      method("tokenizeTurn", "(J[Ljava/lang/String;[Ljava/lang/String;)[I", session_tokenize_turn),
      method("feed", "(J[I)V", session_feed),
      method("feedEmbeddings", "(J[FI)V", session_feed_embeddings),
      method("feedText", "(JLjava/lang/String;I)J", session_feed_text),
      method("feedTurn", "(J[Ljava/lang/String;[Ljava/lang/String;)J", session_feed_turn),
      method("score", "(J[II)[F", session_score),
      method("logits", "(J)[F", session_logits),
      method("generate", "(JJJ[Ljava/lang/String;ZLdev/lethe/Relay;[J)I", session_generate),
  };
  return env->RegisterNatives(native, methods, static_cast<jint>(std::size(methods))) == JNI_OK;
}

}  // namespace
}  // namespace lethe::jni

// On a failure Java throws what is pending (NoClassDefFoundError, NoSuchMethodError): the jar and the library differ.
extern "C" JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM* vm, void*) {
  JNIEnv* env = nullptr;
  if (vm->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_1_6) != JNI_OK) return JNI_ERR;
  if (!lethe::jni::look_up(env) || !lethe::jni::register_natives(env)) return JNI_ERR;
  return JNI_VERSION_1_6;
}
