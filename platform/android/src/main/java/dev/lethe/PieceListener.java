package dev.lethe;

/** Hears a reply as it is written. */
@FunctionalInterface
public interface PieceListener {
  /**
   * In the thread that generates, before the next token is computed. An exception ends the reply and comes out of the
   * call that generates. Of the session only {@link LetheSession#cancel}, {@link LetheSession#requestRam} and
   * {@link LetheSession#close} may be called from here.
   *
   * @param text whole characters only, maybe none
   * @param token the token just sampled, or -1 for more text of the same one and for text that was held back
   * @return whether to go on
   */
  boolean onPiece(String text, int token);
}
