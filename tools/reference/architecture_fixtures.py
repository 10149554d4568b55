#!/usr/bin/env python3
"""Writes tiny random models as Hugging Face folders, with the logits that transformers computes from them.

    architecture_fixtures.py tests/data/hf [--only NAME ...] [--llama-cpp FOLDER]

Needs torch, transformers and safetensors (the fixtures in tests/data were written with torch 2.15.0 and transformers
5.23.0). With --llama-cpp, the folder of a llama.cpp checkout (b9000 or near), its convert_hf_to_gguf.py also makes
GGUF files.

A folder holds config.json, model.safetensors (one or several) and expected.bin: the u32 numbers of tokens and of the
vocabulary, the i32 ids, and the f32 logits [tokens, vocab] after each. The first PREFILL tokens went through the model
at once, the others one by one with a cache. Folders without weights use those of the folder named after "base" in
expected.json. All share tokenizer/: 256 byte tokens, special ones, a few merges; the rest of the vocabulary is unused.
"""

import argparse
import json
import pathlib
import shutil
import struct
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM

VOCAB = 272
PREFILL = 40
DECODE = 8
CONTEXT = 64  # so that the 48 tokens are in reach of every model

COMMON = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=CONTEXT, bos_token_id=256, eos_token_id=257,
              pad_token_id=None)

# name: (configuration class, its arguments, data type of the weights, options of this script)
MODELS = {
    "llama": ("LlamaConfig", COMMON | dict(head_dim=16, tie_word_embeddings=False, rope_theta=500.0), "bf16", {}),
    "llama-biases": ("LlamaConfig", COMMON | dict(hidden_size=64, intermediate_size=96, num_hidden_layers=1,
                                                  attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
                     "bf16", {"old": True}),
    "mistral": ("MistralConfig", COMMON | dict(head_dim=32, num_attention_heads=3, num_key_value_heads=1,
                                               sliding_window=10, rope_theta=1000.0), "f16", {"old": True}),
    "qwen2": ("Qwen2Config", COMMON | dict(use_sliding_window=True, sliding_window=9, max_window_layers=1,
                                           num_hidden_layers=3, tie_word_embeddings=True), "bf16", {"shards": True}),
    "qwen3": ("Qwen3Config", COMMON | dict(head_dim=32, tie_word_embeddings=True, rope_theta=1e6), "bf16", {}),
    "gemma2": ("Gemma2Config", COMMON | dict(head_dim=16, num_hidden_layers=3, query_pre_attn_scalar=24,
                                             sliding_window=8, attn_logit_softcapping=2.0,
                                             final_logit_softcapping=3.0), "bf16", {}),
    "gemma3_text": ("Gemma3TextConfig", COMMON | dict(head_dim=16, num_hidden_layers=4, query_pre_attn_scalar=48,
                                                      sliding_window=12, sliding_window_pattern=3,
                                                      rope_theta=1e6, rope_local_base_freq=100.0,
                                                      rope_scaling={"rope_type": "linear", "factor": 4.0}),
                    "bf16", {}),
    "gpt2": ("GPT2Config", dict(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=2, n_positions=CONTEXT,
                                bos_token_id=256, eos_token_id=257), "f16", {}),
    "phi3": ("Phi3Config", COMMON | dict(sliding_window=11, tie_word_embeddings=False), "bf16", {}),
    "starcoder2": ("Starcoder2Config", COMMON | dict(sliding_window=8), "bf16", {}),
}

# Other positions for the weights of "llama": what config.json says, as files on the hub do.
SCALINGS = {
    "llama-linear": {"type": "linear", "factor": 4.0},
    "llama-dynamic": {"type": "dynamic", "factor": 2.0},
    "llama-yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0,
                   "beta_slow": 1.0},
    "llama-yarn-mscale": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "beta_fast": 8.0,
                          "beta_slow": 2.0, "mscale": 0.7, "mscale_all_dim": 1.3, "truncate": False},
    "llama-llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 32},
}


# What llama.cpp's converter can express.
GGUF = ["llama-linear", "llama-yarn", "llama-llama3", "llama-biases", "mistral", "qwen2", "qwen3", "gemma2",
        "gemma3_text", "gpt2", "phi3", "starcoder2"]


def fill(model, seed, dtype):
    """Random weights that make the options count: norms off their neutral value, biases, scores of several units. What
    layers add is small enough beside the embedding that keys and values may be rounded to halves, as a cache does,
    without moving a logit by 1e-3."""
    generator = torch.Generator().manual_seed(seed)
    gemma = "gemma" in model.config.model_type
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        adds = any(part in name for part in ("o_proj", "down_proj", "c_proj"))
        if name.endswith("bias"):
            values = 0.3 * noise * (0.3 if adds else 1)
        elif "norm" in name or ".ln_" in name:
            last = name in ("model.norm.weight", "transformer.ln_f.weight")
            added = gemma and "post_" in name
            values = (1 + 0.2 * noise) * ((0.3 if gemma else 0.15) if last else 0.3 if added else 1) - (1 if gemma else 0)
        elif any(part in name for part in ("embed", "wte", "wpe", "lm_head")):
            values = noise * (0.5 if gemma else 1)
        else:
            fan_in = parameter.shape[0] if model.config.model_type == "gpt2" else parameter.shape[1]
            values = (0.3 if adds else 1.2) * noise / fan_in ** 0.5
        parameter.data = values.to(dtype).float()


def use_old_keys(path):
    """rope_theta and rope_scaling on the top level, as transformers wrote them before version 5."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope["rope_theta"]
    config["rope_scaling"] = None
    path.write_text(json.dumps(config, indent=1) + "\n")


def load(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    scaling = getattr(model.config, "rope_parameters", None) or {}
    if scaling.get("rope_type") == "dynamic":
        # As transformers computes them at factor times the length of the training, and there without change.
        function = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["dynamic"]
        length = int(scaling["factor"] * model.config.max_position_embeddings)
        model.model.rotary_emb.inv_freq = function(model.config, "cpu", seq_len=length)[0]
    return model


@torch.no_grad()
def write_expected(folder, source, seed, base=None):
    model = load(source)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCAB, (PREFILL + DECODE,), generator=generator)
    output = model(ids[None, :PREFILL], use_cache=True)
    rows = [output.logits[0]]
    for token in ids[PREFILL:]:
        output = model(token[None, None], past_key_values=output.past_key_values, use_cache=True)
        rows.append(output.logits[0])
    logits = torch.cat(rows)
    whole = model(ids[None]).logits[0]
    difference = (logits - whole).abs().max().item()
    assert difference < 1e-4, difference
    header = struct.pack("<II", len(ids), VOCAB) + struct.pack(f"<{len(ids)}i", *ids.tolist())
    (folder / "expected.bin").write_bytes(header + logits.float().numpy().tobytes())
    if base:
        (folder / "expected.json").write_text(json.dumps({"base": base}) + "\n")
    print(f"{folder.name}: logits of deviation {logits.std():.2f}, largest {logits.abs().max():.2f}")


def write_tokenizer(folder):
    """Byte-level BPE of GPT-2 with a few merges."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    character = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    vocab = {character[b]: b for b in range(256)}
    specials = ["<|endoftext|>", "<|im_end|>"]
    merges = [["h", "e"], ["l", "l"], ["he", "ll"], ["hell", "o"]]
    for left, right in merges:
        vocab[left + right] = len(vocab) + len(specials)
    while len(vocab) + len(specials) < VOCAB:
        vocab[f"unused{len(vocab)}"] = len(vocab) + len(specials)
    token = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": 256 + i, "content": text} | token for i, text in enumerate(specials)],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": merges},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1, ensure_ascii=False) + "\n")
    settings = {"tokenizer_class": "GPT2TokenizerFast", "bos_token": specials[0], "eos_token": specials[1],
                "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def write_model(folder, name, seed):
    class_name, arguments, dtype, options = MODELS[name]
    config = getattr(transformers, class_name)(**arguments)
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    model = AutoModelForCausalLM.from_config(config)
    fill(model, seed, dtype)
    model.to(dtype).save_pretrained(folder, **({"max_shard_size": "30KB"} if options.get("shards") else {}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if options.get("old"):
        use_old_keys(folder / "config.json")
    write_expected(folder, folder, seed)


def write_scaling(root, name, scaling):
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    base = root / "llama"
    config = json.loads((base / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["rope_scaling"] = scaling
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    shutil.copy(base / "model.safetensors", folder)
    write_expected(folder, folder, 1, base="llama")
    (folder / "model.safetensors").unlink()


def write_gguf(root, name, llama_cpp):
    """By llama.cpp's own converter, except for the vocabulary (it knows tokenizers by a hash of their output) and for
    options that it leaves out because the common models of the architecture do not use them."""
    sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    import convert_hf_to_gguf
    import gguf
    from conversion.base import TextModel

    vocabulary = json.loads((root / "tokenizer" / "tokenizer.json").read_text())

    def set_vocab(self):
        tokens, kinds = [""] * VOCAB, [0] * VOCAB
        for text, i in vocabulary["model"]["vocab"].items():
            tokens[i], kinds[i] = text, int(gguf.TokenType.NORMAL)
        for special in vocabulary["added_tokens"]:
            tokens[special["id"]], kinds[special["id"]] = special["content"], int(gguf.TokenType.CONTROL)
        self.gguf_writer.add_tokenizer_model("gpt2")
        self.gguf_writer.add_tokenizer_pre("gpt-2")
        self.gguf_writer.add_token_list(tokens)
        self.gguf_writer.add_token_types(kinds)
        self.gguf_writer.add_token_merges([" ".join(pair) for pair in vocabulary["model"]["merges"]])
        self.gguf_writer.add_bos_token_id(256)
        self.gguf_writer.add_eos_token_id(257)
        if "layer_types" in described:
            self.gguf_writer.add_sliding_window_pattern([t == "sliding_attention" for t in described["layer_types"]])
        if described["model_type"] in ("mistral", "qwen2", "starcoder2"):
            self.gguf_writer.add_sliding_window(described["sliding_window"])
        if "query_pre_attn_scalar" in described:
            self.gguf_writer.add_attention_scale(described["query_pre_attn_scalar"] ** -0.5)

    def subclasses(cls):
        return {cls}.union(*(subclasses(c) for c in cls.__subclasses__()))

    folder = root / name
    described = json.loads((folder / "config.json").read_text())
    architecture = described["architectures"][0]
    convert_hf_to_gguf.get_model_class(architecture)  # imports the module with the class
    for cls in subclasses(TextModel):
        cls.set_vocab = set_vocab
    shared = [root / "tokenizer" / "tokenizer.json"]
    if (folder / "expected.json").exists():
        shared.append(root / json.loads((folder / "expected.json").read_text())["base"] / "model.safetensors")
    if described["model_type"] == "gpt2":  # a key that transformers no longer writes
        (folder / "config.json").write_text(json.dumps(described | {"n_ctx": described["n_positions"]}))
    for path in shared:
        shutil.copy(path, folder)
    sys.argv = ["convert_hf_to_gguf.py", str(folder), "--outfile", str(root / "gguf" / f"{name}.gguf")]
    (root / "gguf").mkdir(exist_ok=True)
    try:
        convert_hf_to_gguf.main()
    finally:
        for path in shared:
            (folder / path.name).unlink()
        (folder / "config.json").write_text(json.dumps(described, indent=1) + "\n")


def main():
    transformers.utils.logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", nargs="+", default=[*MODELS, *SCALINGS])
    parser.add_argument("--llama-cpp", type=pathlib.Path)
    options = parser.parse_args()
    write_tokenizer(options.folder / "tokenizer")
    for seed, name in enumerate(MODELS):
        if name in options.only:
            write_model(options.folder / name, name, seed)
    for name, scaling in SCALINGS.items():
        if name in options.only:
            write_scaling(options.folder, name, scaling)
    if options.llama_cpp:
        for name in filter(GGUF.__contains__, options.only):
            write_gguf(options.folder, name, options.llama_cpp)


if __name__ == "__main__":
    main()
