// The native methods of dev.lethe.Native, by file. Handles and arrays are as that class documents them.
#pragma once

#include <jni.h>

namespace lethe::jni {

// model.cc
jlong model_open(JNIEnv* env, jclass, jstring path);
void model_close(JNIEnv* env, jclass, jlong model);
void model_verify(JNIEnv* env, jclass, jlong model);
jlongArray model_info(JNIEnv* env, jclass, jlong model);
jstring model_architecture(JNIEnv* env, jclass, jlong model);
jlongArray session_plan(JNIEnv* env, jclass, jlong model, jlongArray numbers, jstring policy);
jlong minimum_ram(JNIEnv* env, jclass, jlong model, jlongArray numbers, jstring policy);
jlong session_create(JNIEnv* env, jclass, jlong model, jlongArray numbers, jstring policy);
jstring version(JNIEnv* env, jclass);
jstring memory_tag_name(JNIEnv* env, jclass, jint tag);

// session.cc
void session_close(JNIEnv* env, jclass, jlong session);
void session_cancel(JNIEnv* env, jclass, jlong session);
void session_drop_cancel(JNIEnv* env, jclass, jlong session);
void session_reset(JNIEnv* env, jclass, jlong session);
void session_set_ram(JNIEnv* env, jclass, jlong session, jlong bytes);
void session_pin(JNIEnv* env, jclass, jlong session, jlong begin, jlong end);
jlongArray session_memory(JNIEnv* env, jclass, jlong session);
jlongArray session_stats(JNIEnv* env, jclass, jlong session);
jlong session_fork(JNIEnv* env, jclass, jlong session);
void session_save(JNIEnv* env, jclass, jlong session, jstring path);
void session_restore(JNIEnv* env, jclass, jlong session, jstring path);
void session_set_sampling(JNIEnv* env, jclass, jlong session, jfloatArray floats, jlongArray integers);

// feed.cc
jintArray session_tokenize(JNIEnv* env, jclass, jlong session, jstring text, jint flags);
jintArray session_tokenize_turn(JNIEnv* env, jclass, jlong session, jobjectArray roles, jobjectArray contents);
void session_feed(JNIEnv* env, jclass, jlong session, jintArray ids);
void session_feed_embeddings(JNIEnv* env, jclass, jlong session, jfloatArray rows, jint count);
jlong session_feed_text(JNIEnv* env, jclass, jlong session, jstring text, jint flags);
jlong session_feed_turn(JNIEnv* env, jclass, jlong session, jobjectArray roles, jobjectArray contents);
jfloatArray session_score(JNIEnv* env, jclass, jlong session, jintArray ids, jint first);
jfloatArray session_logits(JNIEnv* env, jclass, jlong session);

// generate.cc
jint session_generate(JNIEnv* env, jclass, jlong session, jlong model, jlong max_tokens, jobjectArray stop,
                      jboolean ignore_end, jobject relay, jlongArray generated);

}  // namespace lethe::jni
