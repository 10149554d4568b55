#!/usr/bin/env python3
"""Writes lines of text with the ids that Hugging Face's tokenizers gives them.

    tokenizer_vectors.py TOKENIZER_JSON --count 10000 --seed 1 > vectors.txt

Needs the package `tokenizers` (the vectors in tests/data were written with 0.23.3). The lines mix what tokenizers get
wrong: languages, emoji sequences, combining marks, white space of all kinds, control characters, digits, contractions,
code, texts of special tokens, and bytes that are not UTF-8 (decoded with "replace" for the reference).

Each output line: base64 of the raw bytes, a tab, S (special tokens are parsed) or P (they are plain text), a tab, and
the ids in decimal, separated by spaces.
"""

import argparse
import base64
import random
import sys

from tokenizers import Tokenizer

ENGLISH = """the of and to a in is it you that he was for on are with as I his they be at one have this from or had by
hot but some what there we can out other were all your when up use word how said an each she which do their time if
will way about many then them would write like so these her long make thing see him two has look more day could go come
did my sound no most number who over know water than call first people may down side been now find internationalization
antidisestablishmentarianism Schrödinger naïve café O'Brien rock'n'roll""".split()
CONTRACTIONS = ["don't", "I'll", "we've", "you're", "he's", "I'm", "she'd", "DON'T", "I'LL", "it’s", "'s", "'ll", "'re",
                "'Ve", "y'all'd've", "'tis", "d'être", "''s", "' s", "'\u017f"]
CODE = ["for (int i = 0; i < n; ++i) {", "\tif x == None:\n\t\treturn False", "#include <stdio.h>", "std::vector<int>&& v",
        "SELECT * FROM t WHERE a='b';", "<div class=\"x\">&nbsp;</div>", "lambda x: x**2", "https://example.org/a?b=c#d",
        "C:\\path\\to\\file.txt", "0xDEADBEEF", "foo_bar-baz.qux", "/* ... */", "{\"key\": [1, 2.5e-3, null]}",
        "$\\sum_{i=0}^{\\infty} x_i$", "printf(\"%d\\n\", x);", "@property", "=> -> != === <<= >>>", "```python\n", "---", "==="]
SCRIPTS = [(0x4E00, 0x9FFF), (0x3040, 0x30FF), (0xAC00, 0xD7A3), (0x0600, 0x06FF), (0x0900, 0x097F), (0x0E00, 0x0E7F),
           (0x0400, 0x04FF), (0x0370, 0x03FF), (0x0590, 0x05FF), (0x1200, 0x137F), (0x1800, 0x18AF), (0x20000, 0x2A6DF),
           (0x10A0, 0x10FF), (0x0B80, 0x0BFF), (0x13A0, 0x13FF), (0x1F00, 0x1FFF), (0x1E900, 0x1E95F)]
EMOJI = ["👨‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "❤️", "🇩🇪", "🇯🇵🇺🇸", "1️⃣", "😀", "🤷🏿‍♀️", "🧑‍🚀", "☃", "🏴\U000E0067\U000E0062\U000E0065\U000E006E\U000E0067\U000E007F"]
SPACES = list("\t\n\v\f\r \x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
              "\u200b\u200c\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff")
MARKS = [chr(c) for c in range(0x300, 0x370)] + ["\u20dd", "\u0591", "\u093c", "\u3099"]
DIGITS = [0x30, 0x660, 0x6F0, 0x966, 0xE50, 0xFF10, 0x1D7CE, 0x1D2C0, 0x116D0, 0x1CCF0]
NUMBER_LIKE = list("²³¹¼½¾①②ⅣⅫ〇〡五፩𒐀𐄇㊿")
BAD_BYTES = [b"\xff", b"\xc0\xaf", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xbf\xbf",
             b"\xe0\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xc3", b"\xf0\x9f", b"\xfe\xfe"]


def character(rng):
    while True:
        code = rng.choice([rng.randrange(0x80), rng.randrange(0x3000), rng.randrange(0x20000), rng.randrange(0x110000)])
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def fragment(rng, specials):
    """A piece of text, as bytes."""
    kind = rng.randrange(16)
    if kind <= 2:
        words = [rng.choice(ENGLISH) for _ in range(rng.randint(1, 12))]
        text = " ".join(w.capitalize() if rng.random() < 0.2 else w for w in words) + rng.choice([".", ",", "!", "?", "", ":", "…"])
    elif kind == 3:
        text = rng.choice(CONTRACTIONS)
    elif kind == 4:
        text = rng.choice(CODE)
    elif kind == 5:
        low, high = rng.choice(SCRIPTS)
        text = "".join(chr(rng.randint(low, high)) if rng.random() < 0.9 else " " for _ in range(rng.randint(1, 20)))
    elif kind == 6:
        text = "".join(rng.choice(EMOJI) for _ in range(rng.randint(1, 3)))
    elif kind == 7:
        text = "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 6)))
    elif kind == 8:
        text = rng.choice([" ", "\n", "\t", "\r\n", "  ", " \n"]) * rng.randint(1, 9)
    elif kind == 9:
        zero = rng.choice(DIGITS)
        text = "".join(chr(zero + rng.randrange(10)) for _ in range(rng.choice([1, 2, 3, 4, 7, 20, 60])))
    elif kind == 10:
        text = "".join(rng.choice("aeioun") + "".join(rng.choice(MARKS) for _ in range(rng.randint(0, 3))) for _ in range(rng.randint(1, 6)))
    elif kind == 11:
        text = "".join(chr(rng.randrange(0x20)) for _ in range(rng.randint(1, 4))) + rng.choice(["", "\x7f", "\x80", "\x9f"])
    elif kind == 12:
        special = rng.choice(specials)
        text = rng.choice([special, special[:-1], special[1:], special.upper(), special + special, special.replace("_", " ")])
    elif kind == 13:
        return rng.choice(BAD_BYTES) * rng.randint(1, 2)
    elif kind == 14:
        text = "".join(character(rng) for _ in range(rng.randint(1, 10)))
    else:
        text = rng.choice(["a" * rng.randint(1, 70), "=" * rng.randint(1, 70), "ab" * rng.randint(1, 30), rng.choice(NUMBER_LIKE) * 2,
                           "".join(rng.choice("!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~") for _ in range(rng.randint(1, 12)))])
    return text.encode("utf-8")


def line(rng, specials):
    pieces = []
    for _ in range(rng.randint(1, 6)):
        pieces.append(fragment(rng, specials))
        if rng.random() < 0.4:
            pieces.append(b" ")
    return b"".join(pieces)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer_json")
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    tokenizer = Tokenizer.from_file(args.tokenizer_json)
    specials = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    rng = random.Random(args.seed)
    for number in range(args.count):
        raw = line(rng, specials)
        parse_special = number % 2 == 0
        tokenizer.encode_special_tokens = not parse_special
        ids = tokenizer.encode(raw.decode("utf-8", "replace"), add_special_tokens=False).ids
        sys.stdout.write(f"{base64.b64encode(raw).decode()}\t{'S' if parse_special else 'P'}\t{' '.join(map(str, ids))}\n")


if __name__ == "__main__":
    main()
