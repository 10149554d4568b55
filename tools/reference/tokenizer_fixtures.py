#!/usr/bin/env python3
"""Trains a tiny tokenizer of every family and writes it with lines and their ids, for tests/text/families_test.cc.

    tokenizer_fixtures.py tests/data/tokenizers

Needs the packages `tokenizers` and `sentencepiece` (those in tests/data were written with 0.23.3 and 0.2.3). Every
family becomes a folder as Hugging Face's: tokenizer.json or tokenizer.model, and vectors.txt in the format that
tokenizer_vectors.py explains, with the ids that the library itself gives.
"""

import base64
import io
import json
import os
import random
import sys

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tokenizer_vectors

LINES = 150
HERE = os.path.dirname(os.path.abspath(__file__))
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPECIALS = ["<|begin|>", "<|end|>"]


def corpus():
    with open(os.path.join(HERE, "../../tests/data/opticks_excerpt.txt"), encoding="utf-8") as file:
        text = file.read()
    rng = random.Random(7)
    words = [tokenizer_vectors.line(rng, ["<s>"]).decode("utf-8", "ignore") for _ in range(60)]
    return text.splitlines() + [line.replace("\0", "") for line in words]


def write_vectors(folder, encode, specials, seed, may_parse):
    rng = random.Random(seed)
    with open(os.path.join(folder, "vectors.txt"), "w", encoding="ascii") as file:
        for number in range(LINES):
            text = tokenizer_vectors.line(rng, specials).decode("utf-8", "replace")
            parse = may_parse and number % 2 == 0
            ids = " ".join(map(str, encode(text, parse)))
            file.write(f"{base64.b64encode(text.encode()).decode()}\t{'S' if parse else 'P'}\t{ids}\n")


def write_json(folder, tokenizer, specials, config, seed):
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, "tokenizer.json"), pretty=False)
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)

    def encode(text, parse):
        tokenizer.encode_special_tokens = not parse
        return tokenizer.encode(text, add_special_tokens=False).ids

    write_vectors(folder, encode, specials, seed, True)


def byte_level(folder, pre_tokenizer, seed, nfc=False, whole_words=()):
    tokenizer = Tokenizer(models.BPE(ignore_merges=bool(whole_words)))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=700, show_progress=False, special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if whole_words:  # tokens that no merge makes
        content = json.loads(tokenizer.to_str())
        for word in whole_words:
            content["model"]["vocab"][word] = len(content["model"]["vocab"])
        tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False, special=False)])
    if whole_words:
        tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    write_json(folder, tokenizer, SPECIALS + ["<tool>"], {"bos_token": "<|begin|>", "eos_token": "<|end|>"}, seed)


def train_sentencepiece(**options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=model, minloglevel=2, num_threads=1, hard_vocab_limit=False,
        character_coverage=0.98, **options)
    return model.getvalue()


def sentencepiece_model(folder, model, specials, seed):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "tokenizer.model"), "wb") as file:
        file.write(model)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    write_vectors(folder, lambda text, _: processor.encode(text), specials, seed, False)


def as_hugging_face(model, first_only):
    """The BPE of a SentencePiece model with explicit merges, as `transformers` converts it."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    vocab = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    merges = []
    for piece in proto.pieces:
        if piece.type != 1:
            continue
        parts = [(piece.piece[:k], piece.piece[k:]) for k in range(1, len(piece.piece))]
        parts = sorted((p for p in parts if p[0] in vocab and p[1] in vocab), key=lambda p: (vocab[p[0]], vocab[p[1]]))
        merges += [(piece.score, part) for part in parts]
    merges.sort(key=lambda merge: -merge[0])
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[part for _, part in merges], unk_token="<unk>", fuse_unk=True,
                                     byte_fallback=True))
    if first_only:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens([AddedToken(p.piece, normalized=False, special=True) for p in proto.pieces if p.type in (2, 3)])
    tokenizer.add_tokens([AddedToken("<|user|>", normalized=False, special=False, lstrip=True, rstrip=True)])
    return tokenizer


def main():
    out = sys.argv[1]
    folder = lambda name: os.path.join(out, name)
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = lambda pattern: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_only])
    byte_level(folder("gpt2"), pre_tokenizers.ByteLevel(add_prefix_space=False), 11)
    byte_level(folder("llama3"), split(LLAMA3), 12, whole_words=["Ġinternationalization", "Ġpeople", "Ġantidisestablishmentarianism"])
    byte_level(folder("qwen2"), split(QWEN2), 13, nfc=True)

    llama2 = train_sentencepiece(model_type="bpe", vocab_size=700, byte_fallback=True, split_digits=True,
                                 normalization_rule_name="identity", remove_extra_whitespaces=False)
    sentencepiece_model(folder("llama2"), llama2, ["<s>", "</s>"], 14)
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    write_json(folder("llama2_json"), as_hugging_face(llama2, False), ["<s>", "</s>", "<|user|>"], config, 15)
    write_json(folder("mistral"), as_hugging_face(llama2, True), ["<s>", "</s>", "<|user|>"], config, 16)
    gemma = train_sentencepiece(model_type="bpe", vocab_size=700, byte_fallback=True, add_dummy_prefix=False,
                                normalization_rule_name="identity", remove_extra_whitespaces=False,
                                allow_whitespace_only_pieces=True,
                                user_defined_symbols=["▁▁", "▁▁▁", "▁▁▁▁", "\n", "\n\n", "<turn>", "<tu"])
    sentencepiece_model(folder("gemma"), gemma, ["<turn>", "<tu", "<s>", "▁▁"], 17)

    rules = os.path.join(out, "rules.tsv")
    with open(rules, "w", encoding="ascii") as file:  # code points in hex: full-width letters, ligatures, spaces
        file.write("".join(f"{0xFF21 + i:X}\t{0x41 + i:X}\n" for i in range(26)) +
                   "FB01\t66 69\n3000\t20\n9\t20\nA\t20\nD A\t20\n65 301\tE9\nAD\t\nB2\t32\n")
    unigram = train_sentencepiece(model_type="unigram", vocab_size=600, normalization_rule_tsv=rules)
    os.remove(rules)
    sentencepiece_model(folder("unigram"), unigram, ["<s>", "</s>"], 18)
    unigram_bytes = train_sentencepiece(model_type="unigram", vocab_size=800, byte_fallback=True,
                                        normalization_rule_name="identity", remove_extra_whitespaces=False)
    sentencepiece_model(folder("unigram_bytes"), unigram_bytes, ["<s>", "</s>"], 19)
    proto = sentencepiece_model_pb2.ModelProto.FromString(unigram)
    # Without the special tokens' texts in the model: there `tokenizers` would find them in plain text as well.
    pieces = [(piece.piece if piece.type == 1 else f"[{number}]", piece.score) for number, piece in enumerate(proto.pieces)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", True)
    write_json(folder("unigram_json"), tokenizer, ["<s>"], {}, 20)


if __name__ == "__main__":
    main()
