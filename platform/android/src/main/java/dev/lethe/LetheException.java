package dev.lethe;

/** What the library reports: a pinned code, its name, and one sentence with the numbers. */
public final class LetheException extends RuntimeException {
  private static final long serialVersionUID = 1;

  // The numbers of lethe.h: never renumbered, new ones are appended.
  public static final int INVALID_ARGUMENT = 1;
  public static final int INVALID_UTF8 = 2;
  public static final int PROMPT_TOO_LONG = 3;
  public static final int BAD_STATE = 4;
  public static final int CANCELLED = 5;
  public static final int TEMPLATE = 6;
  public static final int RAM_TOO_SMALL = 20;
  public static final int OUT_OF_MEMORY = 21;
  public static final int KV_FULL = 22;
  public static final int IO = 23;
  public static final int DISK_FULL = 24;
  public static final int THREAD = 25;
  public static final int NOT_A_MODEL = 40;
  public static final int CORRUPT_MODEL = 41;
  public static final int UNSUPPORTED = 42;
  public static final int CORRUPT_SNAPSHOT = 43;
  public static final int WRONG_MODEL = 44;
  public static final int INTERNAL = 60;

  private final int code;
  private final String codeName;
  private final String sentence;

  LetheException(int code, String codeName, String sentence) {
    super(codeName + ": " + sentence);
    this.code = code;
    this.codeName = codeName;
    this.sentence = sentence;
  }

  static LetheException invalidArgument(String sentence) {
    return new LetheException(INVALID_ARGUMENT, "invalid_argument", sentence);
  }

  static LetheException badState(String sentence) {
    return new LetheException(BAD_STATE, "bad_state", sentence);
  }

  public int getCode() {
    return code;
  }

  /** As in lethe.h, in lower case: "ram_too_small". A code that is newer than this class has a name all the same. */
  public String getCodeName() {
    return codeName;
  }

  public String getSentence() {
    return sentence;
  }
}
