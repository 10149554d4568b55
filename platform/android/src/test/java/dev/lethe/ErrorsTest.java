package dev.lethe;

import static dev.lethe.Support.RAM;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Errors carry the library's code, name and sentence; and Java's numbers are those of lethe.h. */
class ErrorsTest {
  private static final Path HEADER = Path.of(System.getProperty("lethe.header"));

  /** Constants of lethe.h whose names begin with the prefix, without it. */
  private static Map<String, Integer> constants(String prefix) throws Exception {
    Map<String, Integer> found = new TreeMap<>();
    Matcher matcher =
        Pattern.compile("\\b" + prefix + "([A-Z0-9_]+) = (-?\\d+)").matcher(Files.readString(HEADER));
    while (matcher.find()) found.put(matcher.group(1), Integer.valueOf(matcher.group(2)));
    assertFalse(found.isEmpty(), prefix);
    return found;
  }

  private static void assertSame(String prefix, Enum<?>[] values) throws Exception {
    Map<String, Integer> ours = new TreeMap<>();
    for (Enum<?> value : values) ours.put(value.name(), value.ordinal());
    assertEquals(constants(prefix), ours);
  }

  @Test
  void theNumbersAreThoseOfTheHeader() throws Exception {
    Map<String, Integer> codes = new TreeMap<>();
    for (Field field : LetheException.class.getFields()) {
      if (Modifier.isStatic(field.getModifiers())) codes.put(field.getName(), field.getInt(null));
    }
    assertEquals(constants("LETHE_ERROR_"), codes);
    assertSame("LETHE_KV_", SessionOptions.KvType.values());
    assertSame("LETHE_POSITIONS_", SessionOptions.Positions.values());
    assertSame("LETHE_BUDGET_", SessionOptions.Budget.values());
    assertSame("LETHE_POOL_", SessionOptions.Pool.values());
    assertSame("LETHE_HAND_OVER_", SessionOptions.HandOver.values());
    Map<String, Integer> reasons = constants("LETHE_STOP_");
    assertEquals(-1, reasons.remove("ERROR"));
    reasons.put("LISTENER", reasons.remove("CALLBACK"));
    for (Reply.Reason reason : Reply.Reason.values()) assertEquals(reasons.remove(reason.name()), reason.ordinal());
    assertTrue(reasons.isEmpty());
    assertEquals(LetheSession.TEXT_SPECIAL, constants("LETHE_TEXT_").get("SPECIAL"));
    assertEquals(LetheSession.TEXT_BOS, constants("LETHE_TEXT_").get("BOS"));
  }

  private static void assertCarries(LetheException thrown, int code, String name) {
    assertEquals(code, thrown.getCode());
    assertEquals(name, thrown.getCodeName());
    assertEquals(name + ": " + thrown.getSentence(), thrown.getMessage());
  }

  @Test
  void aMissingFile() {
    LetheException thrown = Support.assertCode(LetheException.IO, () -> LetheModel.open("/no/such/模型.lethe"));
    assertCarries(thrown, 23, "io");
    assertTrue(thrown.getSentence().contains("/no/such/模型.lethe"), thrown.getSentence());
  }

  @Test
  void aFileThatIsNoModel(@TempDir Path folder) throws Exception {
    Path file = Files.writeString(folder.resolve("poem.lethe"), "Nothing but words. ".repeat(1000));
    assertCarries(
        Support.assertCode(LetheException.NOT_A_MODEL, () -> LetheModel.open(file.toString())), 40, "not_a_model");
  }

  /** A sentence is cut to 251 bytes, maybe inside a character: that must not upset the virtual machine. */
  @Test
  void aSentenceThatIsCutInsideACharacter() {
    for (int i = 0; i < 4; ++i) {
      String path = "/" + "x".repeat(i) + "😀".repeat(80);
      String sentence = Support.assertCode(LetheException.IO, () -> LetheModel.open(path)).getSentence();
      assertTrue(sentence.contains("😀😀😀"), sentence);
    }
  }

  @Test
  void aCapThatIsTooSmallSaysWhichOneIsNot() {
    try (LetheModel model = Support.openModel()) {
      SessionOptions tiny = SessionOptions.ofRam(1 << 20);
      LetheException thrown = Support.assertCode(LetheException.RAM_TOO_SMALL, () -> model.newSession(tiny));
      assertCarries(thrown, 20, "ram_too_small");
      long least = model.minimumRam(tiny);
      assertTrue(thrown.getSentence().contains(Long.toString(least)), thrown.getSentence());
      Support.assertCode(LetheException.RAM_TOO_SMALL, () -> model.plan(tiny));
      Support.assertCode(LetheException.RAM_TOO_SMALL, () -> model.newSession(SessionOptions.ofRam(least - 1)));
      SessionMemory plan = model.plan(SessionOptions.ofRam(least));
      try (LetheSession session = model.newSession(SessionOptions.ofRam(least))) {
        assertEquals(plan.getTagBytes(), session.memory().getTagBytes());
        assertEquals(
            session.memory().getTotalBytes(),
            session.memory().getTagBytes().values().stream().mapToLong(Long::longValue).sum());
      }
    }
  }

  @Test
  void optionsArriveAndAreChecked() throws Exception {
    try (LetheModel model = Support.openModel()) {
      SessionOptions.Builder options =
          SessionOptions.builder(RAM)
              .hostBytes(12345)
              .policy("snapkv")
              .kvType(SessionOptions.KvType.INT8)
              .maxTokens(640)
              .prefillChunk(64)
              .threads(1);
      try (LetheSession session = model.newSession(options.build())) {
        SessionMemory memory = session.memory();
        assertEquals(12345, memory.getTagBytes().get("host"));
        assertEquals(640, memory.getCacheTokens());
        assertEquals(64, memory.getPrefillChunk());
        assertEquals(1, memory.getThreads());
        assertEquals(RAM, memory.getCapBytes());
        session.feedText("a b c d e f g h", 0);
        session.pin(0, LetheSession.ALL_SO_FAR);
        Support.assertCode(LetheException.INVALID_ARGUMENT, () -> session.pin(3, 3));
        Support.assertCode(LetheException.INVALID_ARGUMENT, () -> session.pin(-1, 3));
        Support.assertCode(LetheException.INVALID_ARGUMENT, () -> session.setRam(-1));
        Support.assertCode(LetheException.INVALID_ARGUMENT, () -> session.feed(new int[0]));
        Support.assertCode(LetheException.INVALID_ARGUMENT, () -> session.feed(1, -7));
        Support.assertCode(LetheException.INVALID_ARGUMENT, () -> session.score(new int[] {1, 2}, 2));
        Support.assertCode(LetheException.INVALID_ARGUMENT, () -> session.feedTurn());
        Support.assertCode(LetheException.INVALID_ARGUMENT, () -> session.feedEmbeddings(new float[7], 2));
        Support.assertCode(LetheException.INVALID_ARGUMENT, () -> session.feedText(null, 0));
        Support.assertCode(
            LetheException.INVALID_ARGUMENT, () -> session.setSampling(Sampling.builder().topK(-2).build()));
        session.feedEmbeddings(new float[(int) model.info().getEmbedDim()], 1);
      }
      LetheException policy =
          Support.assertCode(
              LetheException.INVALID_ARGUMENT, () -> model.newSession(options.policy("amnesia").build()));
      assertTrue(policy.getSentence().contains("amnesia"), policy.getSentence());
      LetheException sinks =
          Support.assertCode(
              LetheException.INVALID_ARGUMENT, () -> model.newSession(options.policy("window").sinks(-1).build()));
      assertTrue(sinks.getSentence().startsWith("sinks is -1"), sinks.getSentence());
      Support.assertCode(LetheException.INVALID_ARGUMENT, () -> model.newSession(SessionOptions.ofRam(-1)));
    }
  }

  @Test
  void whatTheModelIs() throws Exception {
    try (LetheModel model = Support.openModel()) {
      model.verify();
      ModelInfo info = model.info();
      // SmolLM2-135M's own configuration.
      assertEquals("llama", info.getArchitecture());
      assertEquals(30, info.getLayers());
      assertEquals(576, info.getEmbedDim());
      assertEquals(9, info.getHeads());
      assertEquals(3, info.getKvHeads());
      assertEquals(64, info.getHeadDim());
      assertEquals(1536, info.getFfnDim());
      assertEquals(49152, info.getVocab());
      assertEquals(Files.size(Path.of(Support.environment("LETHE_TEST_MODEL"))), info.getFileBytes());
      assertEquals(30 * 3 * 64 * 2 * 2, info.getKvBytesPerToken());
      assertTrue(info.hasChatTemplate());
    }
    Matcher version =
        Pattern.compile("LETHE_VERSION_MAJOR (\\d+)\\s.*MINOR (\\d+)\\s.*PATCH (\\d+)", Pattern.DOTALL)
            .matcher(Files.readString(HEADER));
    assertTrue(version.find());
    assertEquals(
        String.format(Locale.ROOT, "%s.%s.%s", version.group(1), version.group(2), version.group(3)),
        LetheModel.version());
  }
}
