package dev.lethe;

import java.util.Objects;

/** Hands the pieces of a reply from native code to the listener. */
final class Relay {
  private final Gate gate;
  private final PieceListener listener;
  private boolean paused;

  Relay(Gate gate, PieceListener listener) {
    this.gate = gate;
    this.listener = Objects.requireNonNull(listener, "listener");
  }

  /**
   * Called by native code.
   *
   * @param settled the library keeps no text back: a reply that ends here can be continued without a trace
   * @return whether to go on
   */
  @SuppressWarnings("unused")
  boolean onPiece(String text, int token, boolean settled) {
    boolean goOn = listener.onPiece(text, token);
    paused = goOn && settled && gate.isRamWanted();
    return goOn && !paused;
  }

  /** The listener wanted more, but the session is to get another cap first. */
  boolean isPaused() {
    return paused;
  }
}
