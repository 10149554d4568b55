package sample;

import dev.lethe.GenerateOptions;
import dev.lethe.LetheException;
import dev.lethe.LetheModel;
import dev.lethe.LetheSession;
import dev.lethe.SessionOptions;
import java.util.function.Consumer;

public final class Ask {
  /** Blocks: call it from a thread of your own. */
  public static void ask(String model, String question, Consumer<String> show) {
    try (LetheModel opened = LetheModel.open(model);
        LetheSession session = opened.newSession(SessionOptions.ofRam(64L << 20))) { // 64 MiB, whatever comes
      session.chat(
          question,
          GenerateOptions.builder().maxTokens(200).build(),
          (text, token) -> {
            show.accept(text); // whole characters only
            return true; // false ends the reply
          });
    } catch (LetheException e) {
      show.accept(e.getCodeName() + ": " + e.getSentence());
    }
  }

  private Ask() {}
}
