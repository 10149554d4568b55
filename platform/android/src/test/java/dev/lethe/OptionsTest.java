package dev.lethe;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;

import org.junit.jupiter.api.Test;

/** Options are values. Needs no native library: tools/setup.sh runs this test to see that Maven has everything. */
class OptionsTest {
  @Test
  void aBuilderThatGoesOnDoesNotChangeWhatItBuilt() {
    SessionOptions.Builder builder = SessionOptions.builder(64 << 20).policy("h2o");
    SessionOptions first = builder.build();
    SessionOptions second = builder.threads(3).policy("window").build();
    assertNotEquals(first.numbers[7], second.numbers[7]);
    assertEquals("h2o", first.policy);
    assertEquals(64 << 20, second.numbers[0]);
  }

  @Test
  void stopTextsAreCopied() {
    String[] stop = {"a"};
    GenerateOptions options = GenerateOptions.builder().stop(stop).build();
    stop[0] = "b";
    assertArrayEquals(new String[] {"a"}, options.stop);
  }
}
