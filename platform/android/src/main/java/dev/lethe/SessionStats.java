package dev.lethe;

/** What a session has done since it was created. Times in nanoseconds. */
public final class SessionStats {
  private final long[] figures;

  SessionStats(long[] figures) {
    this.figures = figures;
  }

  /** Tokens of the conversation so far, forgotten ones included. */
  public long getPosition() {
    return figures[0];
  }

  /** The longest list of any KV head. */
  public long getCachedTokens() {
    return figures[1];
  }

  public long getPrefillTokens() {
    return figures[2];
  }

  public long getPrefillNs() {
    return figures[3];
  }

  public long getDecodeTokens() {
    return figures[4];
  }

  /** Sampling included, listeners not. */
  public long getDecodeNs() {
    return figures[5];
  }

  public long getEvictions() {
    return figures[6];
  }

  /** The mean over layers and KV heads. */
  public long getEvictedTokens() {
    return figures[7];
  }

  public long getEvictionNs() {
    return figures[8];
  }

  /** Of the last eviction: how many lists (one per layer and KV head) lost tokens. */
  public long getLastEvictionLists() {
    return figures[9];
  }

  /** How many tokens they lost together. */
  public long getLastEvictionTokens() {
    return figures[10];
  }

  /** How many tokens one of them lost at least. */
  public long getLastEvictionFewest() {
    return figures[11];
  }

  /** How many tokens one of them lost at most. */
  public long getLastEvictionMost() {
    return figures[12];
  }

  public long getLastEvictionNs() {
    return figures[13];
  }
}
