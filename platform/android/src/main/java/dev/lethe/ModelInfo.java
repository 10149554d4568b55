package dev.lethe;

/** What a model file holds. */
public final class ModelInfo {
  private final String architecture;
  private final long[] figures;

  ModelInfo(String architecture, long[] figures) {
    this.architecture = architecture;
    this.figures = figures;
  }

  /** Of the source: "llama", "gemma3", ... */
  public String getArchitecture() {
    return architecture;
  }

  public long getLayers() {
    return figures[0];
  }

  public long getEmbedDim() {
    return figures[1];
  }

  public long getHeads() {
    return figures[2];
  }

  public long getKvHeads() {
    return figures[3];
  }

  public long getHeadDim() {
    return figures[4];
  }

  public long getFfnDim() {
    return figures[5];
  }

  public long getVocab() {
    return figures[6];
  }

  /** Trained length, tokens. */
  public long getContextLength() {
    return figures[7];
  }

  /** Mapped read-only. */
  public long getFileBytes() {
    return figures[8];
  }

  /** Of the model's own tables. */
  public long getPrivateBytes() {
    return figures[9];
  }

  /** Of an f16 cache. */
  public long getKvBytesPerToken() {
    return figures[10];
  }

  public boolean hasChatTemplate() {
    return figures[11] != 0;
  }
}
