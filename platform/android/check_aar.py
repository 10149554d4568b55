#!/usr/bin/env python3
"""Checks that an Android library archive is fit for a phone.

    check_aar.py lethe.aar [--abis arm64-v8a,armeabi-v7a,x86_64] [--host]

Looks at what no compiler does: whether everything is there; for every native library its class and machine, segments for pages
of 16 KiB, the libraries that it needs (only those that Android promises) and what it exports (JNI alone); whether its native
methods and those of the jar are the same; and whether the ProGuard rules keep what native code looks up by name. Prints every
problem in a line of its own and exits with 1 if there is one.

--host   the libraries are this machine's (a test of the packaging): glibc's libraries are allowed. No phone loads such an archive.
"""

import argparse
import io
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree
import zipfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from class_file import ClassFile  # noqa: E402
from elf_file import ElfFile  # noqa: E402

REQUIRED = ("AndroidManifest.xml", "classes.jar", "R.txt", "proguard.txt")
LIBRARY = "liblethe_jni.so"
PAGE = 16384
# ABI -> ELF class in bits, e_machine.
ABIS = {"arm64-v8a": (64, 183), "armeabi-v7a": (32, 40), "x86_64": (64, 62), "x86": (32, 3)}
# What every Android has for apps (NDK, stable APIs) and a runtime like this may need.
ANDROID_LIBRARIES = {"libc.so", "libm.so", "libdl.so", "liblog.so"}
HOST_LIBRARIES = {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
EXPORTS = re.compile(r"JNI_OnLoad|JNI_OnUnload|Java_\w+")
ANDROID = "{http://schemas.android.com/apk/res/android}"


def check_manifest(data):
    try:
        manifest = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        yield f"AndroidManifest.xml: {error}"
        return
    if manifest.tag != "manifest" or not manifest.get("package"):
        yield "AndroidManifest.xml: no <manifest> with a package"
    sdk = manifest.find("uses-sdk")
    if sdk is None or not sdk.get(ANDROID + "minSdkVersion", "").isdigit():
        yield "AndroidManifest.xml: no minSdkVersion"


def check_library(name, abi, data, allowed):
    try:
        elf = ElfFile(data)
    except ValueError as error:
        yield f"{name}: {error}"
        return
    bits, machine = ABIS[abi]
    if (elf.bits, elf.machine) != (bits, machine):
        yield f"{name}: is for machine {elf.machine} with {elf.bits} bits; {abi} is {machine} with {bits}"
    for segment in elf.loads:
        if segment.align < PAGE or segment.align & segment.align - 1:
            yield f"{name}: a segment is aligned to {segment.align}, less than the {PAGE} of large pages"
        elif (segment.address - segment.offset) % segment.align:
            yield f"{name}: a segment's address and offset differ by no multiple of its alignment {segment.align}"
    if not elf.loads:
        yield f"{name}: no segment to load"
    for needed in elf.needed:
        if needed not in allowed:
            yield f"{name}: needs {needed}, which Android does not promise"
    for symbol in elf.exports:
        if not EXPORTS.fullmatch(symbol):
            yield f"{name}: exports {symbol}: only JNI's functions are for others"
    if "JNI_OnLoad" not in elf.exports:
        yield f"{name}: does not export JNI_OnLoad"


def keep_rules(text):
    """Returns {class name: text between its braces} of the -keep rules that keep a class by its full name."""
    text = re.sub(r"#.*", "", text)
    return {name: body for name, body in re.findall(r"-keep\s+class\s+([\w.$]+)\s*\{([^}]*)\}", text)}


def knows(library, method):
    """Whether the texts to find the method by stand in a native library. (A linker may put one at the end of another.)"""
    return all(b"%s\0" % text.encode() in library for text in (method.name, method.descriptor))


def check_java(classes, libraries, rules):
    """classes: name with slashes -> ClassFile; libraries: name -> bytes; rules: the text of proguard.txt."""
    kept = keep_rules(rules)
    natives = {(c.name, m) for c in classes.values() for m in c.methods if m.native}
    if not natives:
        yield "classes.jar: no native methods"
    for owner in sorted({owner for owner, _ in natives}):
        if not re.search(r"native\s+<methods>\s*;|(?<![\w<])\*\s*;", kept.get(owner.replace("/", "."), "")):
            yield f"proguard.txt: no rule keeps the native methods of {owner.replace('/', '.')}"
    for name, data in libraries.items():
        for owner, method in sorted(natives):
            if not knows(data, method):
                yield f"{name}: does not know {owner}.{method.name}{method.descriptor} of classes.jar"
        # Classes that native code finds by name stand in it as text.
        for found in sorted(set(re.findall(rb"(?<=\0)dev/lethe/[\w/$]+(?=\0)", data))):
            owner = found.decode()
            if owner not in classes:
                yield f"{name}: looks for {owner}, which classes.jar has not"
            elif owner.replace("/", ".") not in kept:
                yield f"proguard.txt: no rule keeps {owner.replace('/', '.')}, which {name} looks for"
            elif not any(owner == native for native, _ in natives):
                # What it calls there, it finds by name and descriptor as well; a constructor is <init> in both languages.
                called = [method for method in classes[owner].methods if knows(data, method)]
                if not called:
                    yield f"{name}: looks for {owner} and finds none of its methods"
                for method in called:
                    if not re.search(rf"(?<!\w){re.escape(method.name)}\s*\(", kept[owner.replace("/", ".")]):
                        yield f"proguard.txt: no rule keeps {owner.replace('/', '.')}.{method.name}, which {name} calls"


def check_aar(path, abis, host=False):
    """Yields what is wrong with the archive, sentence by sentence. abis: those that must be there."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    except (OSError, zipfile.BadZipFile) as error:
        yield f"{path}: {error}"
        return
    missing = [name for name in REQUIRED if name not in files]
    yield from (f"{name} is missing" for name in missing)
    libraries = {}
    for name, data in files.items():
        if name in REQUIRED:
            continue
        match = re.fullmatch(rf"jni/([\w-]+)/{re.escape(LIBRARY)}", name)
        if not match or match[1] not in ABIS:
            yield f"{name}: nothing of this name belongs into the archive"
            continue
        libraries[name] = data
        yield from check_library(name, match[1], data, ANDROID_LIBRARIES | (HOST_LIBRARIES if host else set()))
    for abi in abis:
        if f"jni/{abi}/{LIBRARY}" not in files:
            yield f"jni/{abi}/{LIBRARY} is missing"
    if "AndroidManifest.xml" in files:
        yield from check_manifest(files["AndroidManifest.xml"])
    if not missing:
        try:
            classes = read_jar(files["classes.jar"])
        except (ValueError, zipfile.BadZipFile) as error:
            yield f"classes.jar: {error}"
            return
        yield from check_java(classes, libraries, files["proguard.txt"].decode())


def read_jar(data):
    with zipfile.ZipFile(io.BytesIO(data)) as jar:
        found = (ClassFile(jar.read(name)) for name in jar.namelist() if name.endswith(".class"))
        return {c.name: c for c in found}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aar", type=pathlib.Path)
    parser.add_argument("--abis", default="arm64-v8a", help="those that must be there, with commas (default: %(default)s)")
    parser.add_argument("--host", action="store_true", help="allow glibc's libraries")
    options = parser.parse_args()
    abis = options.abis.split(",")
    if unknown := [abi for abi in abis if abi not in ABIS]:
        parser.error(f"unknown ABI {unknown[0]}: {', '.join(ABIS)}")
    problems = list(check_aar(options.aar, abis, options.host))
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
