package dev.lethe;

/** How the next token is drawn. What is not set is the library's default (lethe_sampling of lethe.h). Immutable. */
public final class Sampling {
  // In the order that the native method reads; NaN and -1 stand for the default.
  final float[] floats;
  final long[] integers;

  private Sampling(Builder builder) {
    floats = new float[] {builder.temperature, builder.topP, builder.minP, builder.repetitionPenalty};
    integers = new long[] {builder.topK, builder.penaltyWindow, builder.seed};
  }

  /** Always the most probable token. A session is greedy until it is told otherwise. */
  public static Sampling greedy() {
    return builder().temperature(0).build();
  }

  public static Builder builder() {
    return new Builder();
  }

  public static final class Builder {
    private float temperature = Float.NaN;
    private float topP = Float.NaN;
    private float minP = Float.NaN;
    private float repetitionPenalty = Float.NaN;
    private long topK = -1;
    private long penaltyWindow = -1;
    private long seed;

    /** 0: greedy. */
    public Builder temperature(float value) {
      temperature = value;
      return this;
    }

    /** 1: off. */
    public Builder topP(float value) {
      topP = value;
      return this;
    }

    /** 0: off. */
    public Builder minP(float value) {
      minP = value;
      return this;
    }

    /** 1: off. */
    public Builder repetitionPenalty(float value) {
      repetitionPenalty = value;
      return this;
    }

    /** 0: off. */
    public Builder topK(int tokens) {
      topK = tokens;
      return this;
    }

    /** How many of the last tokens the penalty looks at, at most 256. */
    public Builder penaltyWindow(int tokens) {
      penaltyWindow = tokens;
      return this;
    }

    /** Same seed, same text. Default 0. */
    public Builder seed(long value) {
      seed = value;
      return this;
    }

    public Sampling build() {
      return new Sampling(this);
    }
  }
}
