package dev.lethe;

import static dev.lethe.Support.ENDLESS;
import static dev.lethe.Support.RAM;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Collections;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Several threads: who may be in a session, and what cancelling, closing and a new cap do to whoever is. */
@Timeout(300)
class ThreadsTest {
  private static LetheModel model;
  private static ExecutorService threads;

  @BeforeAll
  static void open() {
    model = Support.openModel();
    threads = Executors.newCachedThreadPool();
  }

  @AfterAll
  static void close() {
    threads.shutdown();
    model.close();
  }

  private static LetheSession newSession() {
    return model.newSession(SessionOptions.ofRam(RAM));
  }

  private static LetheException failureOf(Future<?> call) {
    ExecutionException failed = assertThrows(ExecutionException.class, () -> call.get(200, TimeUnit.SECONDS));
    assertTrue(failed.getCause() instanceof LetheException, () -> String.valueOf(failed.getCause()));
    return (LetheException) failed.getCause();
  }

  /** A reply without end in another thread, of which this one has seen three tokens. */
  private static Future<Reply> endlessReply(LetheSession session, AtomicInteger tokens) throws Exception {
    Support.feedPrompt(session, "Once upon a time");
    CountDownLatch begun = new CountDownLatch(3);
    Future<Reply> reply =
        threads.submit(
            () ->
                session.generate(
                    ENDLESS,
                    (piece, token) -> {
                      if (token >= 0) tokens.incrementAndGet();
                      begun.countDown();
                      return true;
                    }));
    assertTrue(begun.await(200, TimeUnit.SECONDS));
    return reply;
  }

  @Test
  void cancelEndsAReplyAndTheSessionGoesOn() throws Exception {
    try (LetheSession session = newSession()) {
      AtomicInteger tokens = new AtomicInteger();
      Future<Reply> reply = endlessReply(session, tokens);
      session.cancel();
      assertEquals(LetheException.CANCELLED, failureOf(reply).getCode());
      // What the listener was given is in the conversation, and nothing else.
      long prompt = session.tokenize("Once upon a time", LetheSession.TEXT_SPECIAL | LetheSession.TEXT_BOS).length;
      assertEquals(prompt + tokens.get(), session.stats().getPosition());
      assertFalse(Support.generate(session, Support.tokens(4)).isEmpty());
    }
  }

  @Test
  void cancelEndsAPromptWithinAStep() throws Exception {
    try (LetheSession session = model.newSession(SessionOptions.builder(RAM).prefillChunk(32).build())) {
      int[] prompt = session.tokenize("The waters of the river made everyone forget. ".repeat(2000), 0);
      Future<?> feeding = threads.submit(() -> session.feed(prompt));
      Thread.sleep(300);
      session.cancel();
      assertEquals(LetheException.CANCELLED, failureOf(feeding).getCode());
      SessionStats stats = session.stats();
      assertTrue(stats.getPosition() < prompt.length, () -> stats.getPosition() + " of " + prompt.length);
      assertEquals(0, stats.getPosition() % 32);
      session.feedText("It goes on.", 0);
      assertFalse(Support.generate(session, Support.tokens(4)).isEmpty());
    }
  }

  @Test
  void aCancelWithoutACallDoesNothing() throws Exception {
    String text = Support.letheText("Once upon a time", 12, "--raw", "--ignore-eos");
    try (LetheSession session = newSession()) {
      session.cancel();
      Support.feedPrompt(session, "Once upon a time");
      session.cancel();
      assertEquals(text, Support.generate(session, Support.tokens(12)));
    }
  }

  /** A request that meets the end of a call, which has done all its work, must not end the next call. */
  @Test
  void aLateCancelEndsNoOtherCall() throws Exception {
    try (LetheSession session = newSession()) {
      for (int i = 0; i < 20; ++i) {
        // Tokenising is not cancelled: every request is too late, and would stay behind.
        Future<?> tokenizing = threads.submit(() -> session.tokenize("forget ".repeat(2000), 0));
        while (!tokenizing.isDone()) session.cancel();
        tokenizing.get();
        session.feedText(" more", 0);
        assertEquals(i + 1, session.stats().getPosition());
      }
    }
  }

  @Test
  void closeEndsAReplyAndWaitsForIt() throws Exception {
    LetheSession session = newSession();
    Future<Reply> reply = endlessReply(session, new AtomicInteger());
    session.close();
    assertEquals(LetheException.CANCELLED, failureOf(reply).getCode());
    session.close();
    session.cancel();
    session.requestRam(RAM);
    LetheException closed = Support.assertCode(LetheException.BAD_STATE, session::stats);
    assertTrue(closed.getSentence().contains("closed"), closed.getMessage());
    Support.assertCode(LetheException.BAD_STATE, () -> session.generate(ENDLESS, (piece, token) -> true));
  }

  @Test
  void manyThreadsMayCloseASession() throws Exception {
    for (int i = 0; i < 10; ++i) {
      LetheModel own = Support.openModel();
      LetheSession session = own.newSession(SessionOptions.ofRam(RAM));
      Future<Reply> reply = endlessReply(session, new AtomicInteger());
      Callable<Void> close =
          () -> {
            session.close();
            own.close(); // fails if the session is not gone
            return null;
          };
      for (Future<Void> closed : threads.invokeAll(Collections.nCopies(4, close))) closed.get();
      assertEquals(LetheException.CANCELLED, failureOf(reply).getCode());
    }
  }

  @Test
  void closeFromTheListenerIsTheEndOfTheCall() {
    LetheModel own = Support.openModel();
    LetheSession session = own.newSession(SessionOptions.ofRam(RAM));
    Support.feedPrompt(session, "Once upon a time");
    int[] tokens = new int[1];
    Support.assertCode(
        LetheException.CANCELLED,
        () ->
            session.generate(
                ENDLESS,
                (piece, token) -> {
                  if (++tokens[0] == 2) session.close();
                  return true;
                }));
    assertEquals(2, tokens[0]);
    Support.assertCode(LetheException.BAD_STATE, session::stats);
    own.close(); // fails if the session is not gone
  }

  @Test
  void aModelWithASessionStaysOpen() {
    LetheModel own = Support.openModel();
    LetheSession session = own.newSession(SessionOptions.ofRam(RAM));
    Support.assertCode(LetheException.BAD_STATE, own::close);
    session.feedText("still here", 0);
    session.close();
    own.close();
    own.close();
    Support.assertCode(LetheException.BAD_STATE, own::info);
  }

  @Test
  void oneThreadAtATime() throws Exception {
    try (LetheSession session = newSession()) {
      Future<Reply> reply = endlessReply(session, new AtomicInteger());
      LetheException refused = Support.assertCode(LetheException.BAD_STATE, session::stats);
      assertTrue(refused.getSentence().contains("in use by thread"), refused.getMessage());
      session.cancel();
      failureOf(reply);
      session.generate(
          ENDLESS,
          (piece, token) -> {
            Support.assertCode(LetheException.BAD_STATE, session::memory);
            return false;
          });
    }
  }

  @Test
  void twoSessionsOnTwoThreads() throws Exception {
    String[] prompts = {"Once upon a time", "The capital of France is"};
    String[] expected = new String[2];
    for (int i = 0; i < 2; ++i) expected[i] = Support.letheText(prompts[i], 24, "--raw", "--ignore-eos");
    for (int round = 0; round < 3; ++round) {
      Future<?>[] texts = new Future<?>[2];
      for (int i = 0; i < 2; ++i) {
        String prompt = prompts[i];
        texts[i] =
            threads.submit(
                () -> {
                  try (LetheSession session = newSession()) {
                    Support.feedPrompt(session, prompt);
                    return Support.generate(session, Support.tokens(24));
                  }
                });
      }
      for (int i = 0; i < 2; ++i) assertEquals(expected[i], texts[i].get());
    }
  }

  @Test
  void anExceptionOfTheListenerEndsTheReply() {
    try (LetheSession session = newSession()) {
      Support.feedPrompt(session, "Once upon a time");
      IllegalStateException mine = new IllegalStateException("enough");
      int[] calls = new int[1];
      Throwable thrown =
          assertThrows(
              IllegalStateException.class,
              () ->
                  session.generate(
                      ENDLESS,
                      (piece, token) -> {
                        if (++calls[0] == 3) throw mine;
                        return true;
                      }));
      assertSame(mine, thrown);
      assertEquals(3, calls[0]);
      assertEquals(Reply.Reason.LISTENER, session.generate(ENDLESS, (piece, token) -> false).getReason());
      long position = session.stats().getPosition();
      assertThrows(NullPointerException.class, () -> session.chat("nobody listens", ENDLESS, null));
      assertThrows(NullPointerException.class, () -> session.chat("for how long?", null, (piece, token) -> true));
      assertEquals(position, session.stats().getPosition());
    }
  }

  // ---- Another cap -------------------------------------------------------------------------------------------------

  /** The same cap again and again, asked for by another thread: the reply is interrupted, and must not show it. */
  @Test
  void aRequestedCapLeavesNoTraceInTheText() throws Exception {
    String prompt = "😀".repeat(10);
    String text = Support.letheText(prompt, 40, "--raw", "--ignore-eos");
    try (LetheSession session = newSession()) {
      Support.feedPrompt(session, prompt);
      StringBuilder pieces = new StringBuilder();
      Reply reply =
          session.generate(
              GenerateOptions.builder().maxTokens(40).ignoreEnd(true).stop("😀x").build(),
              (piece, token) -> {
                pieces.append(piece);
                session.requestRam(RAM);
                return true;
              });
      assertEquals(text, pieces.toString());
      assertEquals(Reply.Reason.MAX_TOKENS, reply.getReason());
      assertEquals(40, reply.getTokens());
      assertNull(session.ramFailure());
    }
  }

  @Test
  void aRequestedCapHoldsInMidReply() throws Exception {
    try (LetheSession session = newSession()) {
      session.feedText("The waters of the river made everyone forget. ".repeat(60), 0);
      long before = session.memory().getTotalBytes();
      long cached = session.stats().getCachedTokens();
      int[] tokens = new int[1];
      Reply reply =
          session.generate(
              Support.tokens(10),
              (piece, token) -> {
                if (token >= 0 && ++tokens[0] == 3) session.requestRam(0);
                return true;
              });
      assertEquals(10, reply.getTokens());
      assertEquals(10, tokens[0]);
      assertNull(session.ramFailure());
      SessionMemory memory = session.memory();
      assertTrue(memory.getTotalBytes() <= memory.getCapBytes() && memory.getCapBytes() < before);
      assertTrue(session.stats().getCachedTokens() < cached);
      Support.assertCode(LetheException.RAM_TOO_SMALL, () -> session.setRam(memory.getCapBytes() - 4096));
      Support.assertCode(LetheException.INVALID_ARGUMENT, () -> session.requestRam(-1));
    }
  }

  @Test
  void aCapWithoutRoomForAllIsRefusedUnderPolicyFull() {
    try (LetheSession session = model.newSession(SessionOptions.builder(RAM).policy("full").build())) {
      session.feedText("The waters of the river made everyone forget. ".repeat(60), 0);
      session.requestRam(RAM / 4);
      assertEquals(LetheException.KV_FULL, session.ramFailure().getCode());
      assertEquals(RAM, session.memory().getCapBytes());
    }
  }

  @Test
  void aRequestedCapWaitsForAPrompt() throws Exception {
    try (LetheSession session = newSession()) {
      int[] prompt = session.tokenize("The waters of the river made everyone forget. ".repeat(100), 0);
      Future<?> feeding = threads.submit(() -> session.feed(prompt));
      Thread.sleep(50);
      session.requestRam(RAM / 4);
      session.requestRam(RAM / 2);
      feeding.get();
      assertEquals(RAM / 2, session.memory().getCapBytes());
      assertNull(session.ramFailure());
    }
  }
}
