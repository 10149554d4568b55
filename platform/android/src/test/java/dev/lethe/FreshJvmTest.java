package dev.lethe;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;

/** {@link Exercise} in a virtual machine of its own that checks every JNI call, and whose memory is nobody else's. */
class FreshJvmTest {
  /** The numbers before and after in a line "name: before after". */
  private static long[] figures(String out, String name) {
    Matcher line = Pattern.compile("^" + name + ": (\\d+) (\\d+)$", Pattern.MULTILINE).matcher(out);
    assertTrue(line.find(), out);
    return new long[] {Long.parseLong(line.group(1)), Long.parseLong(line.group(2))};
  }

  @Test
  void nothingToWarnOfAndNothingLeftBehind() throws Exception {
    Process process =
        new ProcessBuilder(
                List.of(
                    System.getProperty("java.home") + "/bin/java",
                    "-Xcheck:jni",
                    "-Xms64m",
                    "-Xmx64m",
                    "-XX:+AlwaysPreTouch",
                    "-XX:+UseSerialGC",
                    "-Djava.library.path=" + System.getProperty("java.library.path"),
                    "-cp",
                    System.getProperty("java.class.path"),
                    "dev.lethe.Exercise"))
            .redirectErrorStream(true)
            .start();
    String out = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertEquals(0, process.waitFor(), out);
    assertFalse(out.contains("WARNING") || out.contains("FATAL"), out);

    long[] references = figures(out, "global references");
    assertEquals(references[0], references[1], out);
    long[] rss = figures(out, "resident KiB");
    // A page lost by each of the thousand cycles would be 4,000 KiB.
    assertTrue(rss[1] - rss[0] < 3000, out);
  }
}
