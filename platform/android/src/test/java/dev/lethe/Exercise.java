package dev.lethe;

import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.management.ObjectName;

/** Calls every kind of native method, then opens and closes a thousand sessions and prints what that left behind. */
public final class Exercise {
  private static final int WARM_UP = 300;
  private static final int CYCLES = 1000;

  private Exercise() {}

  public static void main(String[] arguments) throws Exception {
    try (LetheModel model = Support.openModel()) {
      converse(model);
      fail();
      for (int i = 0; i < WARM_UP; ++i) cycle(model);
      long references = globalReferences();
      long resident = residentKib();
      for (int i = 0; i < CYCLES; ++i) cycle(model);
      System.out.println("global references: " + references + " " + globalReferences());
      System.out.println("resident KiB: " + resident + " " + residentKib());
    }
  }

  private static void converse(LetheModel model) throws Exception {
    model.plan(SessionOptions.ofRam(Support.RAM));
    try (LetheSession session = model.newSession(SessionOptions.ofRam(Support.RAM))) {
      session.feedTurn(Message.system("Use emoji. 🎉"), Message.user("漢字 🎉🎉🎉"));
      session.setSampling(Sampling.builder().temperature(1).seed(3).build());
      // More pieces than local references fit into a frame.
      Support.generate(session, GenerateOptions.builder().maxTokens(64).ignoreEnd(true).stop("a", "b c").build());
      Support.generate(session, Support.tokens(64));
      session.score(session.tokenize("some more text", 0), 0);
      session.logits();
      session.memory().getTagBytes();
      session.stats();
      Path file = Files.createTempFile("lethe", ".session");
      session.save(file.toString());
      session.restore(file.toString());
      Files.delete(file);
      session.fork().close();
    }
  }

  private static void fail() {
    for (int i = 0; i < 100; ++i) {
      Support.assertCode(LetheException.IO, () -> LetheModel.open("/no/such/file"));
      Support.assertCode(LetheException.INVALID_UTF8, () -> LetheModel.open("\uD800"));
    }
  }

  private static void cycle(LetheModel model) {
    try (LetheSession session = model.newSession(SessionOptions.builder(8 << 20).threads(2).build())) {
      session.tokenizeTurn(List.of(Message.user("hello")));
      try {
        session.feed();
        throw new AssertionError("no tokens are no error");
      } catch (LetheException expected) {
        // counted among what may be left behind
      }
    }
  }

  /** JNI's global references, weak ones included, as the virtual machine counts them. */
  private static long globalReferences() throws Exception {
    System.gc();
    String dump =
        (String)
            ManagementFactory.getPlatformMBeanServer()
                .invoke(
                    new ObjectName("com.sun.management:type=DiagnosticCommand"),
                    "threadPrint",
                    new Object[] {new String[0]},
                    new String[] {String[].class.getName()});
    Matcher counts = Pattern.compile("JNI global refs: (\\d+), weak refs: (\\d+)").matcher(dump);
    if (!counts.find()) throw new AssertionError(dump);
    return Long.parseLong(counts.group(1)) + Long.parseLong(counts.group(2));
  }

  private static long residentKib() throws Exception {
    Matcher line =
        Pattern.compile("RssAnon:\\s+(\\d+) kB").matcher(Files.readString(Path.of("/proc/self/status")));
    if (!line.find()) throw new AssertionError("no RssAnon");
    return Long.parseLong(line.group(1));
  }
}
