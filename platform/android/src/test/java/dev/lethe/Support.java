package dev.lethe;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.function.Executable;

/** What the tests share: the model, and the executable as the one to compare with. */
final class Support {
  static final long RAM = 32L << 20;

  /** Keeps generating until it is stopped. */
  static final GenerateOptions ENDLESS = GenerateOptions.builder().ignoreEnd(true).build();

  private Support() {}

  static String environment(String name) {
    String value = System.getenv(name);
    assertNotNull(value, name + " must be set; tools/test.sh does");
    return value;
  }

  static LetheModel openModel() {
    return LetheModel.open(environment("LETHE_TEST_MODEL"));
  }

  /** What `lethe run` writes on standard output for a prompt, greedily, under the cap RAM. */
  static String lethe(String prompt, int maxTokens, String... options) throws IOException, InterruptedException {
    List<String> command =
        new ArrayList<>(List.of(environment("LETHE_CLI"), "run", environment("LETHE_TEST_MODEL")));
    if (!List.of(options).contains("--ram")) command.addAll(List.of("--ram", Long.toString(RAM)));
    command.addAll(List.of("--greedy", "--max-tokens", Integer.toString(maxTokens)));
    command.addAll(List.of(options));
    command.add("-"); // a prompt among the arguments would go through this process's locale
    Process process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
    try (OutputStream in = process.getOutputStream()) {
      in.write(prompt.getBytes(StandardCharsets.UTF_8));
    }
    String out = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertEquals(0, process.waitFor());
    return out;
  }

  /** The text of a reply of `lethe run`. */
  static String letheText(String prompt, int maxTokens, String... options) throws IOException, InterruptedException {
    String out = lethe(prompt, maxTokens, options);
    return out.substring(0, out.length() - 1); // a newline follows the reply
  }

  static GenerateOptions tokens(long most) {
    return GenerateOptions.builder().maxTokens(most).ignoreEnd(true).build();
  }

  static String generate(LetheSession session, GenerateOptions options) {
    StringBuilder text = new StringBuilder();
    session.generate(
        options,
        (piece, token) -> {
          text.append(piece);
          return true;
        });
    return text.toString();
  }

  static void feedPrompt(LetheSession session, String prompt) {
    session.feedText(prompt, LetheSession.TEXT_SPECIAL | LetheSession.TEXT_BOS);
  }

  static LetheException assertCode(int code, Executable call) {
    LetheException thrown = assertThrows(LetheException.class, call);
    assertEquals(code, thrown.getCode(), thrown.getMessage());
    return thrown;
  }
}
