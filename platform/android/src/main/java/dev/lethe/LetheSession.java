package dev.lethe;

import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Objects;
import java.util.function.LongConsumer;
import java.util.function.LongFunction;

/**
 * One conversation within a fixed amount of memory. Calls block; make them away from the main thread.
 *
 * <p>A session belongs to one thread at a time: a call while another is in gives BAD_STATE, and so does one from the
 * session's listener. {@link #cancel}, {@link #requestRam} and {@link #close} may be called by any thread at any
 * moment.
 *
 * <p>It must be closed: nothing else frees its memory.
 */
public final class LetheSession implements AutoCloseable {
  /** Flag of texts: special tokens written in the text, such as &lt;|im_end|&gt;, become those tokens. */
  public static final int TEXT_SPECIAL = 1;

  /** Flag of texts: begin with the model's BOS token, if it wants one. */
  public static final int TEXT_BOS = 2;

  /** As the end of {@link #pin}. */
  public static final long ALL_SO_FAR = -1;

  private static final int STOP_LISTENER = 3; // LETHE_STOP_CALLBACK

  private final long model; // a handle: the library closes no model that has a session
  private final Gate gate;

  LetheSession(long model, long handle) {
    this.model = model;
    gate = new Gate(handle);
  }

  // ---- Replies -----------------------------------------------------------------------------------------------------

  /** Feeds the user's message through the chat template and generates the reply to it. */
  public Reply chat(String message, GenerateOptions options, PieceListener listener) {
    return chat(Collections.singletonList(Message.user(message)), options, listener);
  }

  /** The same for a turn of several messages, such as a system message before the first one of the user. */
  public Reply chat(List<Message> messages, GenerateOptions options, PieceListener listener) {
    Objects.requireNonNull(options, "options");
    Relay relay = new Relay(gate, listener);
    return call(
        session -> {
          feedTurn(session, messages);
          return generate(session, options, relay);
        });
  }

  /**
   * Continues what was fed, token by token.
   *
   * @throws LetheException CANCELLED after {@link #cancel} or {@link #close}; what was given to the listener is part of
   * the
   *     conversation then, too
   */
  public Reply generate(GenerateOptions options, PieceListener listener) {
    Objects.requireNonNull(options, "options");
    Relay relay = new Relay(gate, listener);
    return call(session -> generate(session, options, relay));
  }

  private Reply generate(long session, GenerateOptions options, Relay relay) {
    long[] count = new long[1];
    long tokens = 0;
    while (true) {
      long most = options.maxTokens == 0 ? 0 : options.maxTokens - tokens;
      int reason =
          Native.generate(session, model, most, options.stop, options.ignoreEnd, relay, count);
      tokens += count[0];
      boolean paused = reason == STOP_LISTENER && relay.isPaused();
      if (!paused) return new Reply(Reply.Reason.values()[reason], tokens);
      gate.applyWantedRam();
      if (tokens == options.maxTokens) return new Reply(Reply.Reason.MAX_TOKENS, tokens);
    }
  }

  /** Until this is called a session is greedy. */
  public void setSampling(Sampling sampling) {
    run(session -> Native.setSampling(session, sampling.floats, sampling.integers));
  }

  // ---- From any thread ---------------------------------------------------------------------------------------------

  /**
   * Makes the call that another thread is in, feeding, scoring or generating, end soon with CANCELLED. Such a call that
   * was already at its end may still return what it has. Without one it does nothing, also to the next one.
   */
  public void cancel() {
    gate.cancel();
  }

  /** {@link #cancel} for whoever knows the thread, and must not meet another one's call. */
  void cancelCallOf(Thread thread) {
    gate.cancelCallOf(thread);
  }

  /**
   * {@link #setRam} for whoever must not wait, as when the system warns that memory is short. A session that is idle
   * gets the new cap at once, and one that generates before its next tokens; another call in progress is finished
   * first. A cap that is too small becomes the smallest that works, to within a page: 0 asks for that one. Does nothing
   * to a closed session.
   */
  public void requestRam(long bytes) {
    if (bytes < 0) throw LetheException.invalidArgument("a cap of " + bytes + " bytes is negative");
    gate.requestRam(bytes);
  }

  /**
   * Why the last cap of {@link #requestRam} that had its turn was refused, or null if it was not. Policy "full" refuses
   * a cap in which its cache has no room.
   */
  public LetheException ramFailure() {
    return gate.ramFailure();
  }

  /**
   * Frees everything. Cancels a call that another thread is in and waits until it has returned; from the session's own
   * listener it does not wait, and that call frees the session on its way out. Does nothing the second time.
   */
  @Override
  public void close() {
    gate.close();
  }

  // ---- Feeding -----------------------------------------------------------------------------------------------------

  /** Returns the token ids of a text. Nothing is fed. */
  public int[] tokenize(String text, int flags) {
    return call(session -> Native.tokenize(session, text, flags));
  }

  /** Returns the token ids that {@link #feedTurn} would feed now. */
  public int[] tokenizeTurn(List<Message> messages) {
    return call(session -> Native.tokenizeTurn(session, roles(messages), contents(messages)));
  }

  public void feed(int... ids) {
    run(session -> Native.feed(session, ids));
  }

  /**
   * Feeds rows that stand in for the embeddings of tokens.
   *
   * @param rows [count][embed_dim], finite
   */
  public void feedEmbeddings(float[] rows, int count) {
    run(session -> Native.feedEmbeddings(session, rows, count));
  }

  /**
   * @param flags {@link #TEXT_SPECIAL} and {@link #TEXT_BOS}, or 0
   * @return how many tokens
   */
  public long feedText(String text, int flags) {
    return call(session -> Native.feedText(session, text, flags));
  }

  /**
   * Feeds one turn through the model's chat template, and the head of the assistant's reply. The first turn may begin
   * with a system message.
   *
   * @return how many tokens
   */
  public long feedTurn(Message... messages) {
    return call(session -> feedTurn(session, Arrays.asList(messages)));
  }

  private static long feedTurn(long session, List<Message> messages) {
    return Native.feedTurn(session, roles(messages), contents(messages));
  }

  private static String[] roles(List<Message> messages) {
    return messages.stream().map(message -> message.role).toArray(String[]::new);
  }

  private static String[] contents(List<Message> messages) {
    return messages.stream().map(message -> message.content).toArray(String[]::new);
  }

  /**
   * Feeds `ids` and returns the natural logarithm of the probability that the model gave to each of them from index
   * `first` on; `first` is at least 1, or 0 when something was fed before.
   */
  public float[] score(int[] ids, int first) {
    return call(session -> Native.score(session, ids, first));
  }

  /** Returns a copy of the logits [vocab] after the last token fed. */
  public float[] logits() {
    return call(Native::logits);
  }

  // ---- Memory and figures ------------------------------------------------------------------------------------------

  /**
   * Another cap for the rest of the conversation. Lowering it makes the policy forget and gives pages back at once;
   * raising it gives the cache room, up to what it was created with.
   */
  public void setRam(long bytes) {
    run(session -> Native.setRam(session, bytes));
  }

  /** The tokens at positions [begin, end) of the conversation are never forgotten from now on. */
  public void pin(long begin, long end) {
    run(session -> Native.pin(session, begin, end));
  }

  public SessionMemory memory() {
    return call(session -> new SessionMemory(Native.memory(session)));
  }

  public SessionStats stats() {
    return call(session -> new SessionStats(Native.stats(session)));
  }

  // ---- The conversation as a whole ---------------------------------------------------------------------------------

  /** Forgets everything, also a failure. */
  public void reset() {
    run(Native::reset);
  }

  /** A second session with the same conversation, under a cap of its own as large as this one was created with. */
  public LetheSession fork() {
    return call(session -> new LetheSession(model, Native.fork(session)));
  }

  /** Writes the conversation to a file, whole or not at all. */
  public void save(String path) {
    run(session -> Native.save(session, path));
  }

  /** Replaces the conversation by a saved one; on any error it stays as it was. */
  public void restore(String path) {
    run(session -> Native.restore(session, path));
  }

  // ------------------------------------------------------------------------------------------------------------------

  private <T> T call(LongFunction<T> body) {
    long session = gate.enter();
    try {
      return body.apply(session);
    } finally {
      gate.exit();
    }
  }

  private void run(LongConsumer body) {
    call(
        session -> {
          body.accept(session);
          return null;
        });
  }
}
