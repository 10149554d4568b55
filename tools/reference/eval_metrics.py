#!/usr/bin/env python3
"""Writes pairs of texts with what the original metric code says of them, for tests/eval/metrics_test.cc.

    eval_metrics.py > tests/data/eval_metrics.json

Needs the packages `rouge` 1.0.1, `rouge_score` 0.1.2 and `rapidfuzz` (the file in tests/data: 3.14.6). The formulas that are in no
package are written down again from LongBench (metrics.py), InfiniteBench (src/compute_scores.py) and SCROLLS. Also the first
draws of the prompt generators, from the definitions of SplitMix64 and xoshiro256++.
"""

import collections
import json
import re
import string
import sys

import rapidfuzz
import rouge
from rouge_score import rouge_scorer

WIDE = "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."

PAIRS = [
    ("The cat sat on the mat.", "A cat sat on a mat"),
    ("the the the", "the"),
    ("Paris", "Paris, France"),
    ("It was Émile Zola, the author.", "émile zola"),
    ("“The answer” is an—apple", "answer is apple"),
    ("nothing in common", "quite different words"),
    ("", "something"),
    ("something", ""),
    ("...", "a b"),
    (" . . ", "x. y"),
    ("a. b. c.", "c. b. a."),
    ("The quick brown fox. It jumped over the lazy dog. Then it slept.",
     "A quick brown fox jumped over a dog. The dog was lazy. It slept then."),
    ("one two three four five six", "six five four three two one"),
    ("w1 w2 w6 w7 w8. w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5"),
    ("repeat repeat repeat repeat", "repeat repeat"),
    ("First line of it\nsecond line here\n\nthird", "first line\nthe second line was here\nand a third one"),
    ("alpha beta\ngamma delta alpha", "gamma alpha beta\nalpha delta"),
    ("北京是中国的首都。", "中国的首都是北京"),
    ("答案是：四十二！", "四十二"),
    ("東京タワーは、1958年に完成した。", "東京タワー（1958年）"),
    ("Straße nach Köln, 2 km", "strasse nach köln 2km"),
    ("yes", "Yes."),
    ("Unanswerable", "unanswerable"),
    ("an hour a day", "hour day"),
    ("ΑΘΗΝΑ and МОСКВА", "αθηνα москва"),
    ("x = foo(bar, baz)", "x = foo(baz, bar)"),
    ("state-of-the-art U.S. model's", "stateoftheart us models"),
]
CODE = [
    ("return x + 1\nmore", "return x + 2"),
    ("\n\n# comment\n    return self.value", "    return self.values"),
    ("```python\nfoo()\n```", "foo()"),
    ("// only\n# comments", "foo()"),
    ("", ""),
    ("", "foo"),
    ("abcd", "abcd"),
    ("ab", "abcdefghij"),
    ("for (int i = 0; i < n; ++i) {", "for (auto& x : items) {"),
    ("x" * 7, "x" * 9),
    ("ünï = 1", "uni = 1"),
    ("a" * 9 + "b", "a" * 6),
]
CLASSES = ["Food", "Food and drink", "City", "Country", "Number of something", "Number", "Other number"]
CLASSIFICATION = [("Type: Food", "Food"), ("Food and drink", "Food and drink"), ("City, Country", "City"),
                  ("Number of something", "Number of something"), ("Other number and Number", "Number"), ("nothing", "City"),
                  ("Number of something, Number, Food, Food and drink", "Number of something"), ("", "Food")]
RETRIEVAL = [("Paragraph 12", "Paragraph 12"), ("Paragraph 1, 12 or 12", "Paragraph 12"), ("twelve", "Paragraph 12"),
             ("It is 3.5", "Paragraph 5"), ("paragraph 012", "Paragraph 12")]
COUNT = [("There are 7 of 10", "7"), ("7", "7"), ("seven", "7"), ("17", "7"), ("7 7 8", "7")]

# InfiniteBench: labels (texts of the file; for choices also the letter) and replies.
INFINITE = {
    "letter_of_choice": (["Mary", "B"], ["B", "B. Mary", "A", "", "The answer is: B", "The answer is Mary.", "answer: C", "answer is:", "I think C or B",
                                         "so it is  B ", "option is B", "none", "ABC", "It's \"B\"", "the answer  is: Mary B"]),
    "letter_of_bug": (["func_a", "C"], ["C.", "C: because", "C", "The answer is: C", "It is: func_a", "answer: `func_a`", "is:", "Option C", "answer:D",
                                        " the answer is: - C", "D. is: C"]),
    "last_number": (["-17"], ["-17", "The value is -17.", "17", "", "-17 or", "is: '-17'", "-17.0", "+17"]),
    "found_number": (["42"], ["42", "It is 42.", "42.0", "42.5", "042", "none", "", "1, 42"]),
    "right_prefix": (["1", "4", "8"], ["[1, 4, 8]", "1 4 9", "2 4 8", "1", "", "1, 4, 8, 12", "14 8"]),
    "name_of_speaker": (["MARY"], ["mary", "Mary.", "MARY:", "Maryann", "", "It's Mary", "Mary's"]),
    "first_number": (["71432"], ["71432", " is 71432.", "x71432y", "7143 71432", ""]),
    "retrieved": (["a-b"], ['"a-b"', "a-b.", "a-bc", "{x: a-b}", ""]),
}


def normalize(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def normalize_zh(text):
    return "".join("".join(c for c in text.lower() if c not in set(string.punctuation + WIDE)).split())


def f1(reply, truth):
    same = sum((collections.Counter(reply) & collections.Counter(truth)).values())
    if same == 0:
        return 0
    precision, recall = same / len(reply), same / len(truth)
    return 2 * precision * recall / (precision + recall)


def rouge_l(reply, truth):
    try:
        return rouge.Rouge().get_scores([reply], [truth], avg=True)["rouge-l"]["f"]
    except Exception:  # as LongBench does
        return 0.0


def classification(reply, truth, classes):
    found = [name for name in classes if name in reply]
    for term in found:
        if term in truth and term != truth:
            found.remove(term)
    return 1 / len(found) if truth in found else 0.0


def retrieval(reply, truth):
    wanted = re.findall(r"Paragraph (\d+)", truth)[0]
    numbers = re.findall(r"\d+", reply)
    return sum(n == wanted for n in numbers) / len(numbers) if numbers else 0.0


def count(reply, truth):
    numbers = re.findall(r"\d+", reply)
    return sum(n == truth for n in numbers) / len(numbers) if numbers else 0.0


def code(reply, truth):
    line = ""
    for candidate in reply.lstrip("\n").split("\n"):
        if "`" not in candidate and "#" not in candidate and "//" not in candidate:
            line = candidate
            break
    return int(round(rapidfuzz.fuzz.ratio(line, truth))) / 100


def blanked(text, parts):
    for part in parts:
        text = text.replace(part, " ")
    return text


def after_prefix(text, prefixes, labels):
    for prefix in prefixes:
        at = text.find(prefix)
        if at == -1:
            continue
        if len(text) < at + len(prefix) + 1:
            return False
        rest = text[at + len(prefix) + 1:]
        return any(rest.startswith(label) for label in labels)
    return None


def infinite(name, label, reply):
    """InfiniteBench's get_score_one_*, where an empty reply is wrong instead of an exception."""
    if name == "letter_of_choice":
        if not reply:
            return False
        if reply[0] in "ABCD":
            return reply[0] in label
        text = re.sub(" +", " ", blanked(reply, ["\n", '"', "'", ".", ",", "?", "!", "{", "}"]))
        found = after_prefix(text, ["answer is:", "answer:", "answer is", "option is"], label)
        if found is not None:
            return found
        for word in text.split():
            if word in "ABCD":
                return word in label
        return False
    if name == "letter_of_bug":
        function, letter = label
        if reply[:2] in [f"{letter}.", f"{letter}:"]:
            return True
        text = re.sub(" +", " ", blanked(reply.strip(), ["\n", "`", "'", '"', "-", "*", "Option", "option"]))
        return bool(after_prefix(text, ["answer is:", "is:", "answer:"], [letter, function]))
    if name == "last_number":
        words = blanked(reply.strip(), ["\n", ".", "`", "'", '"', ":"]).split()
        try:
            return bool(words) and int(label[0]) == int(words[-1])
        except ValueError:
            return False
    if name == "found_number":
        number = re.search(r"\d+\.\d+|\d+", reply)
        if number is None:
            return False
        try:
            return int(number.group(0)) == int(label[0])
        except ValueError:
            return float(number.group(0)) == float(label[0])  # the original ends with an exception
    if name == "right_prefix":
        numbers = [int(n) for n in re.split("[^0-9]", reply) if n != ""]
        right = 0
        for wanted, got in zip(label, numbers):
            if int(wanted) != got:
                break
            right += 1
        return right / len(label)
    words = blanked(reply, ["\n", ":", '"', "'", ".", ",", "?", "!", "{", "}"]).split()
    if name == "name_of_speaker":
        return label[0] in [word.upper() for word in words]
    if name == "retrieved":
        return label[0] in words
    return ([n for n in re.split("[^0-9]", reply) if n != ""] or [""])[0] == label[0]


def draws(seed):
    """xoshiro256++ seeded with SplitMix64, and what the generators draw from it first."""
    mask, state = 2**64 - 1, []
    for _ in range(4):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        mixed = ((seed ^ seed >> 30) * 0xBF58476D1CE4E5B9) & mask
        mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & mask
        state.append(mixed ^ mixed >> 31)
    rotl = lambda x, k: (x << k | x >> 64 - k) & mask

    def draw(alphabet):
        result = (rotl((state[0] + state[3]) & mask, 23) + state[0]) & mask
        shifted = state[1] << 17 & mask
        state[2] ^= state[0]
        state[3] ^= state[1]
        state[1] ^= state[2]
        state[0] ^= state[3]
        state[2] ^= shifted
        state[3] = rotl(state[3], 45)
        return alphabet[result % len(alphabet)]

    hexes = lambda n: "".join(draw("0123456789abcdef") for _ in range(n))

    def uuid():
        out = hexes(8) + "-" + hexes(4) + "-4" + hexes(3)
        out += "-" + draw("89ab") + hexes(3)
        return out + "-" + hexes(12)

    return (lambda: draw("123456789") + "".join(draw("0123456789") for _ in range(4))), uuid


def main():
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=False)
    pairs = []
    for reply, truth in PAIRS:
        scores = scorer.score(truth, reply)
        pairs.append({
            "reply": reply, "truth": truth,
            "f1_words": f1(normalize(reply).split(), normalize(truth).split()),
            "exact_match": float(normalize(reply) == normalize(truth)),
            "f1_characters": f1(list(normalize_zh(reply)), list(normalize_zh(truth))),
            "rouge_l": rouge_l(reply, truth),
            "rouge_l_characters": rouge_l(" ".join(c for c in reply if not c.isspace()), " ".join(c for c in truth if not c.isspace())),
            **{name: scores[name].fmeasure for name in ("rouge1", "rouge2", "rougeL", "rougeLsum")}})
    listed = lambda items, score: [{"reply": reply, "truth": truth, "score": score(reply, truth)} for reply, truth in items]
    out = {
        "pairs": pairs,
        "code": listed(CODE, code),
        "classes": CLASSES,
        "classification": listed(CLASSIFICATION, lambda r, t: classification(r, t, CLASSES)),
        "retrieval": listed(RETRIEVAL, retrieval),
        "count": listed(COUNT, count),
        "infinitebench": [{"score": name, "labels": labels, "replies": [{"reply": reply, "score": float(infinite(name, labels, reply))}
                                                                            for reply in replies]}
                          for name, (labels, replies) in INFINITE.items()],
        "draws": [{"seed": seed, "passkey": draws(seed)[0](), "uuid": draws(seed)[1]()} for seed in (0, 1, 7, 2**64 - 1)],
    }
    json.dump(out, sys.stdout, ensure_ascii=False, indent=1)
    print()


if __name__ == "__main__":
    main()
