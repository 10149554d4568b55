#!/usr/bin/env python3
"""Writes the tables of Unicode's canonical normalisation for runtime/text/nfc.cc, from Python's unicodedata.

    unicode_tables.py > runtime/text/nfc_tables.inc

Unicode's stability policy fixes the normalisation of every assigned character, so a newer version only adds entries.
With --properties it lists instead, for tools/pack/patterns.cc, the characters by which the properties of Oniguruma (by
way of the package `tokenizers`) exceed those of unicodedata.
"""

import argparse
import sys
import unicodedata


def ranges(codes):
    out = []
    for code in codes:
        if out and out[-1][1] == code - 1:
            out[-1][1] = code
        else:
            out.append([code, code])
    return out


def rows(cells, width=118):
    line = "   "
    for cell in cells:
        if len(line) + len(cell) + 2 > width:
            yield line
            line = "   "
        line += " " + cell + ","
    yield line


def write_normalisation(codes):
    decompositions = []
    for code in codes:
        mapping = unicodedata.decomposition(chr(code))
        if mapping and not mapping.startswith("<"):
            parts = [int(part, 16) for part in mapping.split()]
            decompositions.append((code, parts[0], parts[1] if len(parts) > 1 else 0))
    # Exclusions and the like are the pairs that do not compose back.
    pairs = sorted((first, second, index) for index, (code, first, second) in enumerate(decompositions)
                   if second and unicodedata.normalize("NFC", chr(first) + chr(second)) == chr(code))
    classes = []
    for code in codes:
        value = unicodedata.combining(chr(code))
        if value:
            if classes and classes[-1][1] == code - 1 and classes[-1][2] == value:
                classes[-1][1] = code
            else:
                classes.append([code, code, value])
    print(f"// Written by tools/reference/unicode_tables.py from Unicode {unicodedata.unidata_version}.")
    print("// clang-format off")
    print("constexpr Decomposition kDecompositions[] = {  // sorted by code; second is 0 when there is one part")
    print("\n".join(rows("{0x%x, 0x%x, 0x%x}" % entry for entry in decompositions)))
    print("};")
    print("constexpr uint16_t kCompositions[] = {  // entries above that compose, sorted by (first, second)")
    print("\n".join(rows(str(index) for _, _, index in pairs)))
    print("};")
    print("constexpr ClassRange kClasses[] = {  // canonical combining classes other than 0, sorted")
    print("\n".join(rows("{0x%x, 0x%x, %d}" % tuple(entry) for entry in classes)))
    print("};")
    starters = sorted({second for _, second, _ in pairs if not unicodedata.combining(chr(second))})
    print("constexpr uint32_t kComposingStarters[] = {  // second parts of compositions whose class is 0, sorted")
    print("\n".join(rows("0x%x" % code for code in starters)))
    print("};")
    print("// clang-format on")


def write_properties(codes):
    from tokenizers import Regex, pre_tokenizers
    for name in ["L", "N", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "P", "S"]:
        found = set()
        matcher = pre_tokenizers.Split(Regex(r"\p{%s}" % name), "removed", invert=True)
        for begin in range(0, len(codes), 20000):
            for text, _ in matcher.pre_tokenize_str("".join(map(chr, codes[begin:begin + 20000]))):
                found.update(map(ord, text))
        own = {code for code in codes if unicodedata.category(chr(code)).startswith(name)}
        print(name, "".join(r"\x{%x}-\x{%x}" % tuple(r) for r in ranges(sorted(found - own))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--properties", action="store_true")
    codes = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    (write_properties if parser.parse_args().properties else write_normalisation)(codes)


if __name__ == "__main__":
    main()
