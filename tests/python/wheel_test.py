"""The wheel: what is in it, and that a fresh environment runs it without anything else."""

import base64
import csv
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
import zipfile

from support import MODEL, QUESTION, run_lethe

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = f"""
import lethe
with lethe.Model({MODEL!r}) as model, model.session(64 * lethe.MiB) as session:
    for piece in session.chat({QUESTION!r}, max_tokens=24):
        print(piece, end="")
"""


def run(*command, **options):
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    if result.returncode != 0:
        raise AssertionError(f"{command}:\n{result.stdout}{result.stderr}")
    return result.stdout


class WheelTest(unittest.TestCase):
    def test_the_record_holds(self):
        with tempfile.TemporaryDirectory() as folder:
            name = run(sys.executable, ROOT / "platform/python/make_wheel.py", os.environ["LETHE_LIBRARY"], folder).strip()
            with zipfile.ZipFile(pathlib.Path(folder, name)) as wheel:
                info = name.split("-py3")[0] + ".dist-info"
                rows = list(csv.reader(wheel.read(f"{info}/RECORD").decode().splitlines()))
                self.assertEqual({row[0] for row in rows}, set(wheel.namelist()))
                for path, digest, size in rows[:-1]:
                    data = wheel.read(path)
                    sha256 = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
                    self.assertEqual((digest, int(size)), (f"sha256={sha256}", len(data)), path)
                self.assertEqual(rows[-1], [f"{info}/RECORD", "", ""])
                for path in ("lethe/liblethe.so", "lethe/py.typed", "lethe/__init__.py"):
                    self.assertIn(path, wheel.namelist())

    def test_a_fresh_environment_runs_it(self):
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LETHE_LIBRARY")}
        with tempfile.TemporaryDirectory() as folder:
            run(sys.executable, "-m", "venv", f"{folder}/venv")
            python = f"{folder}/venv/bin/python"
            # Through the build backend, with nothing from an index.
            run(python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", ROOT / "platform/python",
                env={**environment, "LETHE_LIBRARY": os.environ["LETHE_LIBRARY"]})
            told = run(python, "-c", PROGRAM, env=environment, cwd=folder)
        self.assertEqual(told, run_lethe("--max-tokens", "24", QUESTION)["text"])


if __name__ == "__main__":
    unittest.main()
