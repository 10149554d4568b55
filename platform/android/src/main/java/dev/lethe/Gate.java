package dev.lethe;

/**
 * The door to a native session: one call in it at a time, requests of other threads to the call that is in, and an end
 * that nobody can be in. Thread-safe.
 */
final class Gate {
  private static final long NONE = -1;
  private static final long PAGE = 4096;

  private long handle; // 0: closed
  private Thread inside; // whose call is in, or null
  private boolean cancelled; // that call was sent a request
  private boolean closing;
  private long wantedRam = NONE;
  private LetheException ramFailure;

  Gate(long handle) {
    this.handle = handle;
  }

  /** Returns the handle, which is good until exit(). */
  synchronized long enter() {
    if (handle == 0 || closing) throw LetheException.badState("the session is closed");
    if (inside == Thread.currentThread()) {
      throw LetheException.badState("this call comes from the session's own listener");
    }
    if (inside != null) throw LetheException.badState("the session is in use by thread " + inside.getName());
    inside = Thread.currentThread();
    return handle;
  }

  synchronized void exit() {
    if (closing) {
      free();
    } else {
      // Whether or not the call felt it: what is left of a request must not end the next call.
      if (cancelled) Native.dropCancel(handle);
      applyWantedRam();
    }
    cancelled = false;
    inside = null;
    notifyAll();
  }

  /** Ends the call that is in, if any. */
  synchronized void cancel() {
    cancelCallOf(inside);
  }

  /** Ends the call that is in if it is the thread's. */
  synchronized void cancelCallOf(Thread thread) {
    if (inside == null || inside != thread) return;
    cancelled = true;
    Native.cancel(handle);
  }

  /** At once if no call is in; otherwise the call that is in sees to it, or its end. */
  synchronized void requestRam(long bytes) {
    if (handle == 0 || closing) return;
    wantedRam = bytes;
    if (inside == null) applyWantedRam();
  }

  synchronized boolean isRamWanted() {
    return wantedRam != NONE;
  }

  /** Only where the session does nothing: by the thread that is in, between native calls, or while none is in. */
  synchronized void applyWantedRam() {
    if (wantedRam == NONE) return;
    ramFailure = setRamOrLeast(wantedRam);
    wantedRam = NONE;
  }

  /** Returns why the cap was refused, or null. */
  private LetheException setRamOrLeast(long bytes) {
    LetheException refused = tryRam(bytes);
    if (refused == null || refused.getCode() != LetheException.RAM_TOO_SMALL) return refused;
    // Between what is too small and what works: the least is not known beforehand, as it depends on what is pinned. A
    // refusal changes nothing.
    long tooSmall = bytes;
    long works = new SessionMemory(Native.memory(handle)).getCapBytes();
    while (works - tooSmall > PAGE) {
      long middle = tooSmall + (works - tooSmall) / 2;
      if (tryRam(middle) == null) works = middle;
      else tooSmall = middle;
    }
    return null;
  }

  private LetheException tryRam(long bytes) {
    try {
      Native.setRam(handle, bytes);
      return null;
    } catch (LetheException refused) {
      return refused;
    }
  }

  synchronized LetheException ramFailure() {
    return ramFailure;
  }

  synchronized void close() {
    if (handle == 0) return;
    closing = true;
    if (inside == null) {
      free();
      return;
    }
    cancel();
    if (inside == Thread.currentThread()) return; // from the listener: exit() frees
    boolean interrupted = false;
    while (handle != 0) {
      try {
        wait();
      } catch (InterruptedException e) {
        interrupted = true; // to leave now would leave the caller with a model that it cannot close
      }
    }
    if (interrupted) Thread.currentThread().interrupt();
  }

  private void free() {
    Native.close(handle);
    handle = 0;
  }
}
