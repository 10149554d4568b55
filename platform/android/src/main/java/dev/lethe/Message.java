package dev.lethe;

import java.util.Objects;

/** One message of a chat. Special tokens written in it become those tokens: remove them from text of strangers. */
public final class Message {
  final String role;
  final String content;

  /** @param role as the model's chat template knows it: "system", "user", "assistant" */
  public Message(String role, String content) {
    this.role = Objects.requireNonNull(role, "role");
    this.content = Objects.requireNonNull(content, "content");
  }

  public static Message system(String content) {
    return new Message("system", content);
  }

  public static Message user(String content) {
    return new Message("user", content);
  }

  public String getRole() {
    return role;
  }

  public String getContent() {
    return content;
  }
}
