package dev.lethe;

/** When a reply ends. Immutable. */
public final class GenerateOptions {
  /** Until the model ends the reply. */
  public static final GenerateOptions DEFAULT = new Builder().build();

  final long maxTokens;
  final String[] stop;
  final boolean ignoreEnd;

  private GenerateOptions(Builder builder) {
    maxTokens = builder.maxTokens;
    stop = builder.stop;
    ignoreEnd = builder.ignoreEnd;
  }

  public static Builder builder() {
    return new Builder();
  }

  public static final class Builder {
    private long maxTokens;
    private String[] stop = {};
    private boolean ignoreEnd;

    /** 0 (default): no limit. */
    public Builder maxTokens(long tokens) {
      maxTokens = tokens;
      return this;
    }

    /** Texts that end the reply and are not given to the listener; at most 8, of at most 64 bytes in UTF-8 each. */
    public Builder stop(String... texts) {
      stop = texts.clone();
      return this;
    }

    /** Go on after an end token, which is then kept in the conversation. */
    public Builder ignoreEnd(boolean ignore) {
      ignoreEnd = ignore;
      return this;
    }

    public GenerateOptions build() {
      return new GenerateOptions(this);
    }
  }
}
