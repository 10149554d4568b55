#!/usr/bin/env python3
"""Makes the wheel of the Python package, which holds the library. Needs nothing but Python.

    platform/python/make_wheel.py LIBRARY FOLDER       FOLDER/lethe-VERSION-py3-none-PLATFORM.whl

`cmake --build --preset release --target wheel` calls it with the library of that build, stripped. It is also the build backend
of pyproject.toml: LETHE_LIBRARY=build/release/liblethe.so pip wheel platform/python

The platform is the library's processor, and this machine's glibc: what was linked here runs there and on anything newer.
"""

import base64
import hashlib
import os
import pathlib
import re
import sys
import zipfile

PACKAGE = pathlib.Path(__file__).resolve().parent / "lethe"
LICENSE = PACKAGE.parents[2] / "LICENSE"
MACHINES = {62: "x86_64", 183: "aarch64"}  # e_machine of ELF


def platform_tag(library):
    if library[:4] != b"\x7fELF":
        sys.exit("make_wheel.py: the library is not an ELF file: give liblethe.so")
    machine = int.from_bytes(library[18:20], "little")
    glibc = os.confstr("CS_GNU_LIBC_VERSION").split()[1].replace(".", "_")
    return f"manylinux_{glibc}_{MACHINES[machine]}"


def files(library):
    """Path in the wheel -> contents, in the order of the archive."""
    version = re.search(r'^VERSION = "(.+)"', (PACKAGE / "_abi.py").read_text(), re.MULTILINE)[1]
    info = f"lethe-{version}.dist-info"
    tag = f"py3-none-{platform_tag(library)}"
    contents = {f"lethe/{path.name}": path.read_bytes() for path in sorted(PACKAGE.iterdir()) if path.suffix in (".py", ".typed")}
    contents["lethe/liblethe.so"] = library
    contents[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: lethe\nVersion: {version}\n"
        "Summary: Runs quantised language models in a fixed amount of memory\n"
        "License: Apache-2.0\nLicense-File: LICENSE\nRequires-Python: >=3.9\n").encode()
    contents[f"{info}/LICENSE"] = LICENSE.read_bytes()
    contents[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: lethe\nRoot-Is-Purelib: false\nTag: {tag}\n").encode()
    lines = []
    for name, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    record = f"{info}/RECORD"
    contents[record] = "".join([*lines, f"{record},,\n"]).encode()
    return f"lethe-{version}-{tag}.whl", contents


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """PEP 517."""
    if not (library := os.environ.get("LETHE_LIBRARY")):
        sys.exit("make_wheel.py: set LETHE_LIBRARY to the liblethe.so that the wheel is to hold")
    return make(pathlib.Path(library), pathlib.Path(wheel_directory))


def make(library, folder):
    name, contents = files(library.read_bytes())
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, data in contents.items():
            entry = zipfile.ZipInfo(path)  # of a fixed date: the same input gives the same bytes
            entry.external_attr, entry.compress_type = 0o100644 << 16, zipfile.ZIP_DEFLATED
            wheel.writestr(entry, data)
    return name


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(make(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))
