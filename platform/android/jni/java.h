// What every native method needs: errors on their way to Java, and strings and arrays on their way in and out.
#pragma once

#include <jni.h>

#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "lethe/lethe.h"

namespace lethe::jni {

// Classes and methods of Java that are used from here. Set once, when the library is loaded, and never released.
struct Java {
  jclass exception = nullptr;            // dev.lethe.LetheException, a global reference
  jmethodID exception_create = nullptr;  // (int code, String name, String sentence)
  jmethodID relay_on_piece = nullptr;    // dev.lethe.Relay: boolean onPiece(String text, int token, boolean settled)
};
extern Java java;

// C++ exceptions end at guarded(). Nothing of Java's may be called on the way there once a Java exception is pending.
struct Failure {  // becomes a LetheException
  lethe_code code;
  std::string sentence;  // UTF-8
};
struct PendingException {};  // Java has one already

[[noreturn]] void refuse(lethe_code code, const char* format, ...) __attribute__((format(printf, 2, 3)));
void throw_to_java(JNIEnv* env, lethe_code code, std::string_view sentence);
void throw_out_of_memory(JNIEnv* env);
inline void check_pending(JNIEnv* env) {
  if (env->ExceptionCheck()) throw PendingException{};
}

// Runs the body of a native method. After a failure its result does not matter: Java throws.
template <typename Body>
auto guarded(JNIEnv* env, Body body) -> decltype(body()) {
  try {
    return body();
  } catch (const Failure& failure) {
    throw_to_java(env, failure.code, failure.sentence);
  } catch (const PendingException&) {
  } catch (const std::bad_alloc&) {
    throw_out_of_memory(env);
  }
  if constexpr (!std::is_void_v<decltype(body())>) return {};
}

// Calls a function of the C ABI whose last parameter is a lethe_error*.
template <typename Function, typename... Args>
void check(Function function, Args... args) {
  lethe_error error{};
  if (const lethe_code code = function(args..., &error); code != LETHE_OK) throw Failure{code, error.message};
}

// Handles are addresses in a Java long. Java keeps them from being used after close.
template <typename T>
jlong to_handle(T* pointer) {
  return static_cast<jlong>(reinterpret_cast<uintptr_t>(pointer));
}
inline lethe_model* model_of(jlong handle) { return reinterpret_cast<lethe_model*>(static_cast<uintptr_t>(handle)); }
inline lethe_session* session_of(jlong handle) {
  return reinterpret_cast<lethe_session*>(static_cast<uintptr_t>(handle));
}

// `name` is for the error sentence. A null reference and a lone surrogate are errors.
std::string utf8_of(JNIEnv* env, jstring text, const char* name);
// For what C takes as a NUL-terminated string: U+0000 within is an error too, as it would end the text early.
std::string c_string_of(JNIEnv* env, jstring text, const char* name);
std::vector<std::string> c_strings_of(JNIEnv* env, jobjectArray texts, const char* name);
jstring new_string(JNIEnv* env, std::string_view utf8);

std::vector<int32_t> ints_of(JNIEnv* env, jintArray values, const char* name);
std::vector<int64_t> longs_of(JNIEnv* env, jlongArray values, const char* name);
std::vector<float> floats_of(JNIEnv* env, jfloatArray values, const char* name);
jintArray new_array(JNIEnv* env, const std::vector<int32_t>& values);
jlongArray new_array(JNIEnv* env, const std::vector<int64_t>& values);
jfloatArray new_array(JNIEnv* env, const float* values, size_t count);
// The figures of dev.lethe.SessionMemory, in its order.
jlongArray new_memory(JNIEnv* env, const lethe_memory& memory);

}  // namespace lethe::jni
