package dev.lethe;

/** How a reply ended. */
public final class Reply {
  /** In the order of lethe.h. */
  public enum Reason {
    /** The model ended it. */
    END,
    /** A stop text came. */
    TEXT,
    MAX_TOKENS,
    /** The listener wanted no more. */
    LISTENER
  }

  private final Reason reason;
  private final long tokens;

  Reply(Reason reason, long tokens) {
    this.reason = reason;
    this.tokens = tokens;
  }

  public Reason getReason() {
    return reason;
  }

  /** All of them are in the conversation. */
  public long getTokens() {
    return tokens;
  }
}
