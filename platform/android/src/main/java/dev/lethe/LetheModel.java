package dev.lethe;

import java.util.Objects;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.LongFunction;

/**
 * A .lethe file, mapped read-only; any number of sessions share it. Thread-safe. It must be closed: nothing else unmaps
 * it.
 */
public final class LetheModel implements AutoCloseable {
  private final ReentrantReadWriteLock lock = new ReentrantReadWriteLock(); // writing is closing
  private long handle; // 0: closed

  private LetheModel(long handle) {
    this.handle = handle;
  }

  /** Verifies the file's structure; its weights are read when they are needed ({@link #verify} reads them all). */
  public static LetheModel open(String path) {
    return new LetheModel(Native.modelOpen(path));
  }

  /** Of the library: "0.1.0". */
  public static String version() {
    return Native.version();
  }

  /** Compares the checksums of the whole file; takes as long as reading it does. */
  public void verify() {
    use(
        model -> {
          Native.modelVerify(model);
          return null;
        });
  }

  public ModelInfo info() {
    return use(model -> new ModelInfo(Native.modelArchitecture(model), Native.modelInfo(model)));
  }

  /** What {@link #newSession} would take: will it fit? */
  public SessionMemory plan(SessionOptions options) {
    return use(model -> new SessionMemory(Native.plan(model, options.numbers, options.policy)));
  }

  /** The smallest cap in bytes that works with these options, whatever cap they have. */
  public long minimumRam(SessionOptions options) {
    return use(model -> Native.minimumRam(model, options.numbers, options.policy));
  }

  /** Takes all of the session's memory. Close it before the model. */
  public LetheSession newSession(SessionOptions options) {
    Objects.requireNonNull(options, "options");
    return use(model -> new LetheSession(model, Native.create(model, options.numbers, options.policy)));
  }

  /**
   * Does nothing the second time. Waits for other calls of this object.
   *
   * @throws LetheException BAD_STATE while a session is open; the model then stays open
   */
  @Override
  public void close() {
    lock.writeLock().lock();
    try {
      if (handle == 0) return;
      Native.modelClose(handle);
      handle = 0;
    } finally {
      lock.writeLock().unlock();
    }
  }

  /** Runs `body` with the handle, which is good until it returns. */
  <T> T use(LongFunction<T> body) {
    lock.readLock().lock();
    try {
      if (handle == 0) throw LetheException.badState("the model is closed");
      return body.apply(handle);
    } finally {
      lock.readLock().unlock();
    }
  }
}
