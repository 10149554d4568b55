#!/usr/bin/env python3
"""Assembles the Android library archive out of the jar and the native libraries, without an Android SDK.

    make_aar.py --jar lethe.jar --library arm64-v8a=liblethe_jni.so [--library ABI=FILE ...] -o lethe.aar

The same input gives the same bytes. check_aar.py tells whether the result is fit for a phone.
"""

import argparse
import pathlib
import sys
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
EPOCH = (1980, 1, 1, 0, 0, 0)  # no time of day in a result


def entries(jar, libraries):
    """Yields (name, bytes) in the archive's order."""
    yield "AndroidManifest.xml", (HERE / "src/AndroidManifest.xml").read_bytes()
    yield "classes.jar", jar.read_bytes()
    yield "R.txt", b""  # the library has no resources; the build of an app wants the file all the same
    yield "proguard.txt", (HERE / "consumer-rules.pro").read_bytes()
    for abi, path in sorted(libraries.items()):
        yield f"jni/{abi}/liblethe_jni.so", path.read_bytes()


def write_aar(out, jar, libraries):
    """jar, out: paths; libraries: ABI -> path. An archive that is there stays whole until the new one is."""
    part = out.with_name(out.name + ".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries(jar, libraries):
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    part.replace(out)


def library(text):
    abi, separator, path = text.partition("=")
    if not separator or not path:
        raise argparse.ArgumentTypeError(f"{text}: write ABI=FILE, as in arm64-v8a=liblethe_jni.so")
    return abi, pathlib.Path(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jar", type=pathlib.Path, required=True, help="the classes, as Maven or Gradle make them")
    parser.add_argument("--library", type=library, action="append", required=True, metavar="ABI=FILE",
                        help="the native library for an ABI; may be repeated")
    parser.add_argument("-o", "--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    try:
        write_aar(options.out, options.jar, dict(options.library))
    except OSError as error:
        sys.exit(f"make_aar.py: {error}")


if __name__ == "__main__":
    main()
