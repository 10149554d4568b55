package dev.lethe;

import java.util.Arrays;

/**
 * The cap of a session and what its cache does within it. What is not set is the library's default
 * (lethe_session_params of lethe.h, which has the whole story of each). Immutable.
 */
public final class SessionOptions {
  // The orders of these are the numbers of lethe.h.

  /** Types of cached keys and values. */
  public enum KvType {
    F16,
    INT8,
    /** Keys of 8 bits, values of 4. */
    INT8K4V,
    INT4
  }

  /** How distances of cached tokens are counted. */
  public enum Positions {
    AUTO,
    ABSOLUTE,
    ROLLING,
    CLAMPED
  }

  /** How the lists of the cache, one per layer and head, share it when it is full. */
  public enum Budget {
    AUTO,
    LIST,
    PYRAMID,
    LAYER,
    GLOBAL
  }

  /** How scores are smoothed over neighbouring tokens. */
  public enum Pool {
    AUTO,
    NONE,
    MEAN,
    MAX
  }

  /** What becomes of forgotten tokens. */
  public enum HandOver {
    NONE,
    COMPENSATION,
    MERGE
  }

  private static final long UNSET = Long.MIN_VALUE;

  // Places in `numbers`, as the native method reads them.
  private static final int RAM_BYTES = 0;
  private static final int HOST_BYTES = 1;
  private static final int SINKS = 2;
  private static final int KV_TYPE = 3;
  private static final int POSITIONS = 4;
  private static final int MAX_TOKENS = 5;
  private static final int PREFILL_CHUNK = 6;
  private static final int THREADS = 7;
  private static final int LOGIT_ROWS = 8;
  private static final int TURN_BYTES = 9;
  private static final int RECENT_PERCENT = 10;
  private static final int POLICY_SEED = 11;
  private static final int BUDGET = 12;
  private static final int POOL = 13;
  private static final int POOL_WIDTH = 14;
  private static final int VALUE_NORM = 15;
  private static final int HAND_OVER = 16;
  private static final int NUMBERS = 17;

  final long[] numbers;
  final String policy; // null: the default

  private SessionOptions(long[] numbers, String policy) {
    this.numbers = numbers;
    this.policy = policy;
  }

  /** Everything by default under a cap of so many bytes. */
  public static SessionOptions ofRam(long ramBytes) {
    return builder(ramBytes).build();
  }

  /** @param ramBytes the cap on everything private that the session and its model take */
  public static Builder builder(long ramBytes) {
    return new Builder(ramBytes);
  }

  public static final class Builder {
    private final long[] numbers = new long[NUMBERS];
    private String policy;

    private Builder(long ramBytes) {
      Arrays.fill(numbers, UNSET);
      set(RAM_BYTES, ramBytes);
    }

    private Builder set(int place, long value) {
      numbers[place] = value;
      return this;
    }

    /** Bytes of the app's own, to be counted inside the cap. */
    public Builder hostBytes(long bytes) {
      return set(HOST_BYTES, bytes);
    }

    /** What the cache forgets when it is full: "keydiff", "namm", "window", "h2o", ..., or "full": nothing. */
    public Builder policy(String name) {
      policy = name;
      return this;
    }

    /** So many first tokens are never forgotten. */
    public Builder sinks(int tokens) {
      return set(SINKS, tokens);
    }

    public Builder kvType(KvType type) {
      return set(KV_TYPE, type.ordinal());
    }

    public Builder positions(Positions positions) {
      return set(POSITIONS, positions.ordinal());
    }

    /** Capacity of the cache, in tokens; by default what the cap allows. Not the length of a reply or conversation. */
    public Builder maxTokens(int tokens) {
      return set(MAX_TOKENS, tokens);
    }

    /** Tokens per step of a prompt; cancellation and a new cap wait for a step at most. */
    public Builder prefillChunk(int tokens) {
      return set(PREFILL_CHUNK, tokens);
    }

    /** By default the fast cores. */
    public Builder threads(int threads) {
      return set(THREADS, threads);
    }

    /** Rows of logits that {@link LetheSession#score} computes at once. */
    public Builder logitRows(int rows) {
      return set(LOGIT_ROWS, rows);
    }

    /** Longest turn through the chat template, in bytes of UTF-8. Takes eleven times as much of the cap. */
    public Builder turnBytes(int bytes) {
      return set(TURN_BYTES, bytes);
    }

    /** Of what stays in an eviction, the newest tokens. */
    public Builder recentPercent(int percent) {
      return set(RECENT_PERCENT, percent);
    }

    public Builder policySeed(long seed) {
      return set(POLICY_SEED, seed);
    }

    public Builder budget(Budget budget) {
      return set(BUDGET, budget.ordinal());
    }

    /** @param width tokens, odd; with MEAN and MAX, 0 otherwise */
    public Builder pool(Pool pool, int width) {
      return set(POOL, pool.ordinal()).set(POOL_WIDTH, width);
    }

    /** Multiplies scores by the norm of the token's value. */
    public Builder valueNorm(boolean multiply) {
      return set(VALUE_NORM, multiply ? 1 : 0);
    }

    public Builder handOver(HandOver handOver) {
      return set(HAND_OVER, handOver.ordinal());
    }

    public SessionOptions build() {
      return new SessionOptions(numbers.clone(), policy);
    }
  }
}
