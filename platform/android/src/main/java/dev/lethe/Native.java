package dev.lethe;

/**
 * The native methods, one for each function of the C interface (lethe.h), in liblethe_jni. A handle is the address of a
 * model or session; a stale one is a crash, so only {@link LetheModel} and {@link Gate} hold them. Every method may
 * throw a {@link LetheException}. Arrays of figures have the order of the class that reads them.
 */
final class Native {
  private Native() {}

  static {
    System.loadLibrary("lethe_jni");
  }

  static native String version();

  static native String memoryTagName(int tag);

  static native long modelOpen(String path);

  static native void modelClose(long model);

  static native void modelVerify(long model);

  static native long[] modelInfo(long model);

  static native String modelArchitecture(long model);

  static native long[] plan(long model, long[] numbers, String policy);

  static native long minimumRam(long model, long[] numbers, String policy);

  static native long create(long model, long[] numbers, String policy);

  static native void close(long session);

  /** The only one that may be called while another thread is in the session. */
  static native void cancel(long session);

  /** Undoes a {@link #cancel} that came too late for the work it was meant for. */
  static native void dropCancel(long session);

  static native void reset(long session);

  static native void setRam(long session, long bytes);

  static native void pin(long session, long begin, long end);

  static native long[] memory(long session);

  static native long[] stats(long session);

  static native long fork(long session);

  static native void save(long session, String path);

  static native void restore(long session, String path);

  static native void setSampling(long session, float[] floats, long[] integers);

  static native int[] tokenize(long session, String text, int flags);

  static native int[] tokenizeTurn(long session, String[] roles, String[] contents);

  static native void feed(long session, int[] ids);

  static native void feedEmbeddings(long session, float[] rows, int count);

  static native long feedText(long session, String text, int flags);

  static native long feedTurn(long session, String[] roles, String[] contents);

  static native float[] score(long session, int[] ids, int first);

  static native float[] logits(long session);

  /** Returns the stop reason of lethe.h and writes the number of tokens to generated[0]. */
  static native int generate(
      long session, long model, long maxTokens, String[] stop, boolean ignoreEnd, Relay relay, long[] generated);
}
