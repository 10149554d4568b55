package dev.lethe;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

/** The samples of README.md are those that the compiler saw. Tests run in the folder of the project. */
class DocumentTest {
  @Test
  void theSamplesAreInTheReadme() throws Exception {
    String readme = Files.readString(Path.of("README.md"));
    for (String sample : List.of("src/test/java/sample/Ask.java", "src/test/kotlin/sample/Ask.kt")) {
      List<String> lines = new ArrayList<>(Files.readAllLines(Path.of(sample)));
      assertTrue(lines.remove(0).startsWith("package sample"));
      assertTrue(lines.size() < 35 && readme.contains(String.join("\n", lines).strip() + "\n```"), sample);
    }
  }
}
