package dev.lethe;

import static dev.lethe.Support.RAM;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Text on its way in and out, against the executable. */
class TextTest {
  private static LetheModel model;

  @BeforeAll
  static void open() {
    model = Support.openModel();
  }

  @AfterAll
  static void close() {
    model.close();
  }

  private static boolean isWhole(String text) {
    return text.codePoints().noneMatch(code -> code >= 0xD800 && code <= 0xDFFF);
  }

  @ParameterizedTest
  @ValueSource(strings = {"😀", "漢字"})
  void charactersOfSeveralTokensArriveWhole(String repeated) throws Exception {
    String prompt = repeated.repeat(10);
    String character = prompt.substring(0, prompt.offsetByCodePoints(0, 1));
    List<String> pieces = new ArrayList<>();
    List<Integer> ids = new ArrayList<>();
    try (LetheSession session = model.newSession(SessionOptions.ofRam(RAM))) {
      Support.feedPrompt(session, prompt);
      Reply reply =
          session.generate(
              Support.tokens(48),
              (piece, token) -> {
                pieces.add(piece);
                if (token >= 0) ids.add(token);
                return true;
              });
      assertEquals(Reply.Reason.MAX_TOKENS, reply.getReason());
      assertEquals(48, reply.getTokens());
    }
    assertEquals(48, ids.size());
    assertEquals(Support.letheText(prompt, 48, "--raw", "--ignore-eos"), String.join("", pieces));
    // Or the test would show nothing: the model goes on in the same script, and some tokens end inside a character.
    assertTrue(String.join("", pieces).split(character, -1).length > 4, () -> "no " + character + " in " + pieces);
    assertTrue(pieces.contains(""), () -> "every token is whole characters: " + pieces);
    for (String piece : pieces) assertTrue(isWhole(piece), () -> "half a character in " + pieces);
  }

  @Test
  void aChatIsTheExecutables() throws Exception {
    StringBuilder text = new StringBuilder();
    try (LetheSession session = model.newSession(SessionOptions.ofRam(RAM))) {
      session.chat(
          List.of(Message.system("You answer in one sentence."), Message.user("Who was Lethe?")),
          GenerateOptions.builder().maxTokens(24).build(),
          (piece, token) -> text.append(piece) != null);
    }
    assertEquals(
        Support.letheText("Who was Lethe?", 24, "--system", "You answer in one sentence."), text.toString());
  }

  @Test
  void allKindsOfCharactersGoIn() throws Exception {
    String text = "naïve 漢字 👩‍👩‍👧 \uD83C\uDF89 <|im_end|> end";
    Matcher ids =
        Pattern.compile("\"prompt_ids\":\\s*\\[([^]]*)]")
            .matcher(Support.lethe(text, 1, "--raw", "--json"));
    assertTrue(ids.find());
    int[] expected = Arrays.stream(ids.group(1).split(",")).mapToInt(id -> Integer.parseInt(id.trim())).toArray();
    try (LetheSession session = model.newSession(SessionOptions.ofRam(RAM))) {
      assertArrayEquals(expected, session.tokenize(text, LetheSession.TEXT_SPECIAL | LetheSession.TEXT_BOS));
      assertEquals(0, session.tokenize("", 0).length);
      int[] split = session.tokenize("before", 0);
      assertTrue(session.tokenize("before\0after", 0).length > split.length);
      assertEquals(expected.length, session.feedText(text, LetheSession.TEXT_SPECIAL | LetheSession.TEXT_BOS));
      assertEquals(expected.length, session.stats().getPosition());
    }
  }

  @Test
  void halfACharacterIsRefused() {
    try (LetheSession session = model.newSession(SessionOptions.ofRam(RAM))) {
      LetheException refused =
          Support.assertCode(LetheException.INVALID_UTF8, () -> session.feedText("ab\uD83D!", 0));
      assertTrue(refused.getSentence().contains("U+D83D at index 2"), refused.getMessage());
      Support.assertCode(
          LetheException.INVALID_ARGUMENT, () -> session.feedTurn(Message.user("a C string ends at \0 this")));
      assertEquals(0, session.stats().getPosition());
    }
  }

  @Test
  void scoresAreTheSoftmaxOfTheLogits() {
    try (LetheSession session = model.newSession(SessionOptions.ofRam(RAM));
        LetheSession other = model.newSession(SessionOptions.ofRam(RAM))) {
      int[] ids = session.tokenize("The river of forgetfulness", 0);
      float[] scores = session.score(ids, 1);
      assertEquals(ids.length - 1, scores.length);
      for (int i = 1; i < ids.length; ++i) {
        other.feed(ids[i - 1]);
        float[] logits = other.logits();
        assertEquals(model.info().getVocab(), logits.length);
        double most = Double.NEGATIVE_INFINITY;
        for (float logit : logits) most = Math.max(most, logit);
        double sum = 0;
        for (float logit : logits) sum += Math.exp(logit - most);
        assertEquals(logits[ids[i]] - most - Math.log(sum), scores[i - 1], 1e-3);
      }
    }
  }

  @Test
  void stopTextsAreNotShown() throws Exception {
    String whole = Support.letheText("One two three four", 32, "--raw", "--ignore-eos");
    String stop = whole.substring(20, 26);
    try (LetheSession session = model.newSession(SessionOptions.ofRam(RAM))) {
      Support.feedPrompt(session, "One two three four");
      StringBuilder text = new StringBuilder();
      Reply reply =
          session.generate(
              GenerateOptions.builder().maxTokens(32).ignoreEnd(true).stop("never seen", stop).build(),
              (piece, token) -> text.append(piece) != null);
      assertEquals(Reply.Reason.TEXT, reply.getReason());
      assertEquals(whole.substring(0, whole.indexOf(stop)), text.toString());
    }
  }

  @Test
  void aConversationIsCopiedAndSaved(@TempDir Path folder) {
    String file = folder.resolve("conversation 漢.lethe-session").toString();
    try (LetheSession session = model.newSession(SessionOptions.ofRam(RAM));
        LetheSession other = model.newSession(SessionOptions.ofRam(RAM))) {
      Support.feedPrompt(session, "Once upon a time");
      session.save(file);
      other.restore(file);
      try (LetheSession copy = session.fork()) {
        String text = Support.generate(session, Support.tokens(12));
        assertTrue(text.length() > 12, text);
        assertEquals(text, Support.generate(copy, Support.tokens(12)));
        assertEquals(text, Support.generate(other, Support.tokens(12)));
      }
      assertTrue(folder.toFile().list().length == 1);
      other.reset();
      assertEquals(0, other.stats().getPosition());
    }
  }

  @Test
  void theSeedDecidesTheText() {
    String[] texts = new String[3];
    for (int i = 0; i < texts.length; ++i) {
      try (LetheSession session = model.newSession(SessionOptions.ofRam(RAM))) {
        session.setSampling(Sampling.builder().temperature(1.5f).topK(0).seed(i == 2 ? 8 : 7).build());
        Support.feedPrompt(session, "Once upon a time");
        texts[i] = Support.generate(session, Support.tokens(16));
      }
    }
    assertEquals(texts[0], texts[1]);
    assertTrue(!texts[0].equals(texts[2]), texts[0]);
  }
}
