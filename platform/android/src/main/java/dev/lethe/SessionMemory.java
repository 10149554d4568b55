package dev.lethe;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;

/** The memory of a session, as planned or as it is; bytes, equal to the byte. */
public final class SessionMemory {
  private static final int TAGS = 8; // where the tags begin

  private final long[] figures;

  SessionMemory(long[] figures) {
    this.figures = figures;
  }

  public long getCapBytes() {
    return figures[0];
  }

  /** The sum of {@link #getTagBytes}. */
  public long getTotalBytes() {
    return figures[1];
  }

  /** Highest total so far. */
  public long getPeakBytes() {
    return figures[2];
  }

  /** The smallest cap that would create a session with these options. */
  public long getMinimumRamBytes() {
    return figures[3];
  }

  /** Beside the cap: clean file pages, which the system may drop. */
  public long getWeightsMappedBytes() {
    return figures[4];
  }

  /** Capacity of the cache per KV head, tokens. */
  public long getCacheTokens() {
    return figures[5];
  }

  public long getPrefillChunk() {
    return figures[6];
  }

  public long getThreads() {
    return figures[7];
  }

  /** Bytes by what they are for ("kv_pool", "activations", ...), in the library's order. */
  public Map<String, Long> getTagBytes() {
    Map<String, Long> bytes = new LinkedHashMap<>();
    for (int i = TAGS; i < figures.length; ++i) bytes.put(Native.memoryTagName(i - TAGS), figures[i]);
    return Collections.unmodifiableMap(bytes);
  }
}
