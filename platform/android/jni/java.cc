#include "platform/android/jni/java.h"

#include <cstdarg>
#include <cstdio>

#include "platform/android/jni/utf.h"

namespace lethe::jni {

static_assert(sizeof(jchar) == sizeof(char16_t) && sizeof(jint) == sizeof(int32_t) && sizeof(jlong) == sizeof(int64_t));

Java java;

// ---- Errors --------------------------------------------------------------------------------------------------------

void refuse(lethe_code code, const char* format, ...) {
  char sentence[252];
  va_list args;
  va_start(args, format);
  vsnprintf(sentence, sizeof sentence, format, args);
  va_end(args);
  throw Failure{code, sentence};
}

void throw_to_java(JNIEnv* env, lethe_code code, std::string_view sentence) {
  try {
    const jstring name = new_string(env, lethe_code_name(code));
    const jstring text = new_string(env, sentence);
    const jobject exception = env->NewObject(java.exception, java.exception_create, jint{code}, name, text);
    if (exception != nullptr) env->Throw(static_cast<jthrowable>(exception));
  } catch (const PendingException&) {  // Java had no memory for it, and says so itself
  } catch (const std::bad_alloc&) {
    throw_out_of_memory(env);
  }
}

void throw_out_of_memory(JNIEnv* env) {
  if (env->ExceptionCheck()) return;
  if (const jclass error = env->FindClass("java/lang/OutOfMemoryError")) {
    env->ThrowNew(error, "native memory for a copy of the arguments");
  }
}

// ---- Strings -------------------------------------------------------------------------------------------------------

std::string utf8_of(JNIEnv* env, jstring text, const char* name) {
  if (text == nullptr) refuse(LETHE_ERROR_INVALID_ARGUMENT, "%s is null", name);
  std::u16string units(static_cast<size_t>(env->GetStringLength(text)), u'\0');
  env->GetStringRegion(text, 0, static_cast<jsize>(units.size()), reinterpret_cast<jchar*>(units.data()));
  check_pending(env);
  std::string utf8;
  utf8.reserve(units.size());
  if (const size_t lone = to_utf8(units, &utf8); lone != kNoSurrogate) {
    refuse(LETHE_ERROR_INVALID_UTF8, "%s has half a character, the surrogate U+%04X at index %zu", name,
           unsigned{units[lone]}, lone);
  }
  return utf8;
}

std::string c_string_of(JNIEnv* env, jstring text, const char* name) {
  std::string utf8 = utf8_of(env, text, name);
  if (const size_t end = utf8.find('\0'); end != std::string::npos) {
    refuse(LETHE_ERROR_INVALID_ARGUMENT, "%s has U+0000 at byte %zu", name, end);
  }
  return utf8;
}

std::vector<std::string> c_strings_of(JNIEnv* env, jobjectArray texts, const char* name) {
  if (texts == nullptr) refuse(LETHE_ERROR_INVALID_ARGUMENT, "%s is null", name);
  std::vector<std::string> result;
  const jsize count = env->GetArrayLength(texts);
  for (jsize i = 0; i < count; ++i) {
    const auto text = static_cast<jstring>(env->GetObjectArrayElement(texts, i));
    check_pending(env);
    result.push_back(c_string_of(env, text, name));
    env->DeleteLocalRef(text);
  }
  return result;
}

jstring new_string(JNIEnv* env, std::string_view utf8) {
  std::u16string units;
  to_utf16(utf8, &units);
  const jstring text = env->NewString(reinterpret_cast<const jchar*>(units.data()), static_cast<jsize>(units.size()));
  check_pending(env);
  return text;
}

// ---- Arrays --------------------------------------------------------------------------------------------------------

namespace {

template <typename T, typename Array>
std::vector<T> copy_of(JNIEnv* env, Array values, const char* name) {
  if (values == nullptr) refuse(LETHE_ERROR_INVALID_ARGUMENT, "%s is null", name);
  return std::vector<T>(static_cast<size_t>(env->GetArrayLength(values)));
}

}  // namespace

std::vector<int32_t> ints_of(JNIEnv* env, jintArray values, const char* name) {
  auto result = copy_of<int32_t>(env, values, name);
  env->GetIntArrayRegion(values, 0, static_cast<jsize>(result.size()), reinterpret_cast<jint*>(result.data()));
  return result;
}

std::vector<int64_t> longs_of(JNIEnv* env, jlongArray values, const char* name) {
  auto result = copy_of<int64_t>(env, values, name);
  env->GetLongArrayRegion(values, 0, static_cast<jsize>(result.size()), reinterpret_cast<jlong*>(result.data()));
  return result;
}

std::vector<float> floats_of(JNIEnv* env, jfloatArray values, const char* name) {
  auto result = copy_of<float>(env, values, name);
  env->GetFloatArrayRegion(values, 0, static_cast<jsize>(result.size()), result.data());
  return result;
}

jintArray new_array(JNIEnv* env, const std::vector<int32_t>& values) {
  const auto size = static_cast<jsize>(values.size());
  const jintArray array = env->NewIntArray(size);
  check_pending(env);
  env->SetIntArrayRegion(array, 0, size, reinterpret_cast<const jint*>(values.data()));
  return array;
}

jlongArray new_array(JNIEnv* env, const std::vector<int64_t>& values) {
  const auto size = static_cast<jsize>(values.size());
  const jlongArray array = env->NewLongArray(size);
  check_pending(env);
  env->SetLongArrayRegion(array, 0, size, reinterpret_cast<const jlong*>(values.data()));
  return array;
}

jfloatArray new_array(JNIEnv* env, const float* values, size_t count) {
  const auto size = static_cast<jsize>(count);
  const jfloatArray array = env->NewFloatArray(size);
  check_pending(env);
  env->SetFloatArrayRegion(array, 0, size, values);
  return array;
}

jlongArray new_memory(JNIEnv* env, const lethe_memory& memory) {
  std::vector<int64_t> figures;
  for (const uint64_t bytes : {memory.cap_bytes, memory.total_bytes, memory.peak_bytes, memory.minimum_ram_bytes,
                               memory.weights_mapped_bytes}) {
    figures.push_back(static_cast<int64_t>(bytes));
  }
  figures.insert(figures.end(), {memory.cache_tokens, memory.prefill_chunk, memory.threads});
  for (int tag = 0; tag < LETHE_MEMORY_TAGS; ++tag) figures.push_back(static_cast<int64_t>(memory.tag_bytes[tag]));
  return new_array(env, figures);
}

}  // namespace lethe::jni
