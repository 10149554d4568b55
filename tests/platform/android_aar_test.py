#!/usr/bin/env python3
"""make_aar.py and check_aar.py of platform/android: the archive of this machine's build passes, and every defect is named.

Usage: android_aar_test.py lethe.jar liblethe_jni.so
"""

import io
import pathlib
import platform
import re
import struct
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
ANDROID = ROOT / "platform/android"
sys.path.insert(0, str(ANDROID))
import check_aar  # noqa: E402
import make_aar  # noqa: E402
from class_file import ClassFile  # noqa: E402
from elf_file import ElfFile  # noqa: E402

HOST_ABI = {"x86_64": "x86_64", "aarch64": "arm64-v8a"}[platform.machine()]


def make_elf(bits, machine, align=16384, needed=("libc.so",), exports=("JNI_OnLoad",), texts=(), kind=3, shift=0):
    """A shared library by the book: one segment at offset 0, which holds the dynamic section, its strings and symbols.
    shift: how far the segment's address is from its offset."""
    word = "Q" if bits == 64 else "I"
    strings = b"\0"
    offsets = {}
    for text in (*needed, *exports):
        offsets[text] = len(strings)
        strings += text.encode() + b"\0"
    header, program, section = (64, 56, 64) if bits == 64 else (52, 32, 40)
    dynamic_at = header + 2 * program
    entries = [(1, offsets[n]) for n in needed] + [(5, None), (6, None), (0, 0)]
    symbols_at = dynamic_at + len(entries) * bits // 4
    symbol_size = 24 if bits == 64 else 16
    symbols = bytes(symbol_size)
    for name in exports:
        symbols += (struct.pack("<IBBHQQ", offsets[name], 0x12, 0, 1, 64, 4) if bits == 64 else
                    struct.pack("<IIIBBH", offsets[name], 64, 4, 0x12, 0, 1))
    strings_at = symbols_at + len(symbols)
    dynamic = b"".join(
        struct.pack("<2" + word, tag, value if value is not None else shift + (strings_at if tag == 5 else symbols_at))
        for tag, value in entries)
    texts_at = strings_at + len(strings)
    rodata = b"\0" + b"".join(text.encode() + b"\0" for text in texts)
    end = texts_at + len(rodata)

    def segment(kind, offset, size, alignment):
        fields = ((kind, 4, offset, offset + shift, offset + shift, size, size, alignment) if bits == 64 else
                  (kind, offset, offset + shift, offset + shift, size, size, 4, alignment))
        return struct.pack("<II6Q" if bits == 64 else "<8I", *fields)

    def symbol_table():
        return struct.pack("<II4QII2Q" if bits == 64 else "<10I",
                           0, 11, 2, symbols_at + shift, symbols_at, len(symbols), 0, 1, 8, symbol_size)

    ident = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    head = ident + struct.pack(f"<HHI3{word}I6H", kind, machine, 1, 0, header, end, 0, header, program, 2, section, 1, 0)
    return (head + segment(1, 0, end, align) + segment(2, dynamic_at, len(dynamic), 8) + dynamic + symbols + strings +
            rodata + symbol_table())


class Failures:
    def __init__(self):
        self.count = 0

    def expect(self, condition, text):
        if not condition:
            self.count += 1
            print(f"FAILED: {text}")


def lines(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def check_real(failures, jar, library, folder):
    """The archive of this build; and the readers against binutils and the JDK."""
    aar, again = folder / "lethe.aar", folder / "again.aar"
    for out in (aar, again):
        lines(sys.executable, ANDROID / "make_aar.py", "--jar", jar, "--library", f"{HOST_ABI}={library}", "-o", out)
    failures.expect(aar.read_bytes() == again.read_bytes(), "the same input gives the same archive")
    checked = subprocess.run([sys.executable, ANDROID / "check_aar.py", aar, "--abis", HOST_ABI, "--host"],
                             capture_output=True, text=True)
    failures.expect((checked.returncode, checked.stdout) == (0, "0 problems\n"), f"this build passes: {checked.stdout}")
    checked = subprocess.run([sys.executable, ANDROID / "check_aar.py", aar, "--abis", HOST_ABI], capture_output=True,
                             text=True)
    failures.expect(checked.returncode == 1 and "libc.so.6" in checked.stdout, "a library of this machine is no phone's")

    elf = ElfFile(library.read_bytes())
    needed = [re.search(r"\[(.*)]", line)[1] for line in lines("readelf", "-dW", library) if "(NEEDED)" in line]
    failures.expect(elf.needed == needed and needed, f"needed: {elf.needed}, and readelf: {needed}")
    exports = [line.split()[-1] for line in lines("nm", "-D", "--defined-only", library)]
    failures.expect(elf.exports == exports == ["JNI_OnLoad"], f"exports: {elf.exports}, and nm: {exports}")
    aligns = [int(line.split()[-1], 16) for line in lines("readelf", "-lW", library) if line.split()[:1] == ["LOAD"]]
    failures.expect([s.align for s in elf.loads] == aligns and aligns, f"alignments {elf.loads}, and readelf: {aligns}")
    natives = [m.name for m in check_aar.read_jar(jar.read_bytes())["dev/lethe/Native"].methods if m.native]
    listed = [re.search(r"(\w+)\(", line)[1] for line in lines("javap", "-p", "-cp", jar, "dev.lethe.Native")
              if " native " in line]
    failures.expect(natives == listed and len(natives) > 20, f"native methods: {natives}, and javap: {listed}")


def good_files(jar):
    """The archive of a build for phones: the real jar, rules and manifest, and libraries by the book."""
    classes = check_aar.read_jar(jar.read_bytes())
    natives = [m for m in classes["dev/lethe/Native"].methods if m.native]
    texts = ["dev/lethe/Native", "dev/lethe/Relay", "dev/lethe/LetheException", "<init>", "onPiece",
             "(Ljava/lang/String;IZ)Z", "(ILjava/lang/String;Ljava/lang/String;)V",
             *(text for m in natives for text in (m.name, m.descriptor))]
    files = dict(make_aar.entries(jar, {}))
    for abi, (bits, machine) in check_aar.ABIS.items():
        files[f"jni/{abi}/liblethe_jni.so"] = make_elf(bits, machine, texts=texts)
    return files, texts


def problems_of(files, folder, abis=tuple(check_aar.ABIS), host=False):
    path = folder / "tried.aar"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return list(check_aar.check_aar(path, abis, host))


def jar_with(jar, name, data):
    """The jar with one entry replaced, or without it (data None)."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(jar)) as source, zipfile.ZipFile(out, "w") as target:
        for entry in source.namelist():
            if entry != name:
                target.writestr(entry, source.read(entry))
        if data is not None:
            target.writestr(name, data)
    return out.getvalue()


def defects(files, texts):
    """Yields (what is broken, entries that are other (None: gone), what must be said about it)."""
    for name in check_aar.REQUIRED:
        yield f"no {name}", {name: None}, f"{name} is missing"
    arm64, arm32 = "jni/arm64-v8a/liblethe_jni.so", "jni/armeabi-v7a/liblethe_jni.so"
    yield "no library for an ABI", {arm32: None}, f"{arm32} is missing"
    yield "a library of an ABI that is none", {"jni/mips/liblethe_jni.so": files[arm64]}, "jni/mips/liblethe_jni.so: nothing"
    yield "a second library", {"jni/arm64-v8a/libc++_shared.so": b"x"}, "libc++_shared.so: nothing of this name"
    yield "a stray file", {"notes.txt": b"x"}, "notes.txt: nothing of this name"

    for name, bits, machine in ((arm64, 64, 183), (arm32, 32, 40)):
        def elf(**changes):
            return {name: make_elf(**{"bits": bits, "machine": machine, "texts": texts, **changes})}

        yield "another machine", elf(machine=62), f"{name}: is for machine 62"
        yield "another class", elf(bits=96 - bits), f"{name}: is for machine {machine} with {96 - bits} bits"
        yield "segments for small pages", elf(align=4096), f"{name}: a segment is aligned to 4096"
        yield "no alignment at all", elf(align=0), f"{name}: a segment is aligned to 0"
        yield "an odd alignment", elf(align=16384 * 3), f"{name}: a segment is aligned to 49152"
        yield "a segment that large pages cannot map", elf(shift=4096), f"{name}: a segment's address and offset"
        yield "a library of glibc", elf(needed=("libc.so", "libpthread.so.0")), f"{name}: needs libpthread.so.0"
        yield "a C++ library beside it", elf(needed=("libc++_shared.so",)), f"{name}: needs libc++_shared.so"
        yield "exports of the library inside", elf(exports=("JNI_OnLoad", "lethe_model_open")), "exports lethe_model_open"
        yield "no exports", elf(exports=()), f"{name}: does not export JNI_OnLoad"
        yield "no shared library", elf(kind=2), f"{name}: not a shared library"
        yield "no ELF file", {name: b"#!/bin/sh\n" * 40}, f"{name}: not an ELF file"
        yield "half a file", {name: files[name][:len(files[name]) // 2]}, f"{name}: "
        for gone in ("generate", "(JJJ[Ljava/lang/String;ZLdev/lethe/Relay;[J)I"):
            yield f"a library without {gone}", elf(texts=[t for t in texts if t != gone]), \
                f"{name}: does not know dev/lethe/Native.generate"
        yield "a class that is gone", elf(texts=[*texts, "dev/lethe/Gone"]), f"{name}: looks for dev/lethe/Gone"
        yield "a method that is gone", elf(texts=[t for t in texts if t != "onPiece"]), \
            f"{name}: looks for dev/lethe/Relay and finds none"

    manifest = files["AndroidManifest.xml"].decode()
    yield "a manifest that is no XML", {"AndroidManifest.xml": b"<manifest"}, "AndroidManifest.xml: "
    yield "a manifest without a package", {"AndroidManifest.xml": manifest.replace(' package="dev.lethe"', "").encode()}, \
        "no <manifest> with a package"
    yield "a manifest without a version", {"AndroidManifest.xml": re.sub("<uses-sdk.*", "", manifest).encode()}, \
        "no minSdkVersion"

    rules = files["proguard.txt"].decode()
    for name in ("Native", "Relay", "LetheException"):
        without = re.sub(rf"-keep class dev\.lethe\.{name} [^}}]*}}", "", rules)
        yield f"no rule for {name}", {"proguard.txt": without.encode()}, f"dev.lethe.{name}"
        commented = rules.replace(f"-keep class dev.lethe.{name}", f"#-keep class dev.lethe.{name}")
        yield f"a rule for {name} in a comment", {"proguard.txt": commented.encode()}, f"dev.lethe.{name}"
    for line in ("native <methods>;", "boolean onPiece", "<init>"):
        without = "".join(each for each in rules.splitlines(True) if line not in each)
        yield f"a rule without {line}", {"proguard.txt": without.encode()}, "proguard.txt: no rule keeps"

    jar = files["classes.jar"]
    yield "no jar", {"classes.jar": b"no jar"}, "classes.jar: "
    yield "a jar without native methods", {"classes.jar": jar_with(jar, "dev/lethe/Native.class", None)}, \
        "classes.jar: no native methods"
    yield "a jar without a class", {"classes.jar": jar_with(jar, "dev/lethe/Relay.class", None)}, \
        "looks for dev/lethe/Relay, which classes.jar has not"
    yield "a damaged class", {"classes.jar": jar_with(jar, "dev/lethe/Relay.class", b"\xca\xfe\xba\xbe\0\0\0\0")}, \
        "classes.jar: damaged class file"


def check_damage(failures, reader, whole):
    """Wherever the bytes end, the reader has a sentence for it."""
    for size in range(0, len(whole) - 1, 7):
        try:
            reader(whole[:size])
            failures.expect(False, f"{reader.__name__} takes {size} of {len(whole)} bytes")
        except ValueError:
            pass


def main():
    jar, library = map(pathlib.Path, sys.argv[1:])
    failures = Failures()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        check_real(failures, jar, library, folder)
        files, texts = good_files(jar)
        failures.expect(problems_of(files, folder) == [], f"the good archive passes: {problems_of(files, folder)}")
        count = 0
        for what, changes, sentence in defects(files, texts):
            broken = {n: d for n, d in {**files, **changes}.items() if d is not None}
            found = problems_of(broken, folder)
            failures.expect(any(sentence in problem for problem in found), f"{what}: no '{sentence}' in {found}")
            count += 1
        (folder / "none.aar").write_bytes(b"no archive")
        failures.expect(list(check_aar.check_aar(folder / "none.aar", [])) != [], "no archive at all")
        for abi, (bits, machine) in check_aar.ABIS.items():
            check_damage(failures, ElfFile, make_elf(bits, machine))
        with zipfile.ZipFile(jar) as classes:
            check_damage(failures, ClassFile, classes.read("dev/lethe/Relay.class"))
    print(f"{count} defects tried, {failures.count} failures")
    return 1 if failures.count else 0


if __name__ == "__main__":
    sys.exit(main())
