#!/usr/bin/env python3
"""Installs a build into a temporary folder, and its Debian package into another, and runs the programs beside this file that
an app's developer would write. Usage: install_test.py BUILD_FOLDER CMAKE

CC is the C compiler, LETHE_TEST_MODEL the model.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD, CMAKE = pathlib.Path(sys.argv[1]), sys.argv[2]
MODEL = os.environ["LETHE_TEST_MODEL"]
QUESTION = "What is the capital of France? Answer in one sentence."


def run(*command, **options):
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    if result.returncode != 0:
        raise AssertionError(f"{command}:\n{result.stdout}{result.stderr}")
    return result.stdout


class InstallTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.prefix = cls.folder / "prefix"
        run(CMAKE, "--install", BUILD, "--prefix", cls.prefix)
        [cls.library] = cls.prefix.glob("lib*/**/liblethe.so")
        cls.told = run(cls.prefix / "bin/lethe", "run", MODEL, "--ram", "64MiB", "--greedy", QUESTION)
        assert len(cls.told) > 20, cls.told

    def answers(self, program):
        """The answer of a program that runs with the installed library."""
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self.library.parent)}
        self.assertEqual(run(program, MODEL, QUESTION, env=environment) + "\n", self.told)

    def pkg_config(self, *options):
        path = {"PKG_CONFIG_PATH": str(self.library.parent / "pkgconfig")}
        return run("pkg-config", *options, "lethe", env={**os.environ, **path}).split()

    def compile(self, name, *options):
        run(os.environ["CC"], HERE / "pkgconfig/answer.c", "-o", self.folder / name, "-Wall", "-Wextra", "-Werror", *options)
        return self.folder / name

    def test_only_the_abi_is_exported(self):
        header = re.sub(r"/\*.*?\*/", "", (ROOT / "runtime/include/lethe/lethe.h").read_text(), flags=re.DOTALL)
        declared = set(re.findall(r"LETHE_API [^;]*?\b(lethe_\w+)\(", header))
        self.assertGreater(len(declared), 30)
        symbols = [line.split() for line in run("nm", "--dynamic", "--defined-only", self.library).splitlines()]
        self.assertEqual({symbol[-1] for symbol in symbols}, declared)
        self.assertEqual({symbol[-2] for symbol in symbols}, {"T"})

    def test_what_the_library_needs(self):
        dynamic = run("readelf", "--dynamic", "--wide", self.library)
        self.assertEqual(re.findall(r"\(SONAME\).*\[(.*)\]", dynamic), ["liblethe.so.0"])
        needed = {name.split(".so")[0] for name in re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)}
        self.assertLessEqual(needed, {"libstdc++", "libm", "libgcc_s", "libc", "ld-linux-x86-64", "ld-linux-aarch64"})

    def test_a_project_of_cmake(self):
        build = self.folder / "cmake"
        run(CMAKE, "-S", HERE / "cmake", "-B", build, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={self.prefix}")
        run(CMAKE, "--build", build)
        self.answers(build / "answer")
        self.answers(build / "answer_static")

    def test_the_shared_library_by_pkg_config(self):
        self.answers(self.compile("shared", *self.pkg_config("--cflags", "--libs")))

    def test_the_static_library_by_pkg_config(self):
        program = self.compile("static", "-static", *self.pkg_config("--static", "--cflags", "--libs"))
        self.assertNotIn("NEEDED", run("readelf", "--dynamic", program))
        self.answers(program)

    def test_the_debian_package(self):
        run(CMAKE.replace("cmake", "cpack"), "-G", "DEB", "-B", self.folder / "deb", cwd=BUILD)
        [package] = (self.folder / "deb").glob("*.deb")
        fields = run("dpkg-deb", "--field", package)
        self.assertRegex(fields, r"(?m)^Package: lethe$")
        self.assertRegex(fields, r"(?m)^Depends: libc6 .*libstdc\+\+6")
        run("dpkg-deb", "--extract", package, self.folder / "root")
        installed = {path.relative_to(self.prefix) for path in self.prefix.rglob("*")}
        unpacked = {path.relative_to(self.folder / "root/usr") for path in (self.folder / "root/usr").rglob("*")}
        self.assertEqual(unpacked, installed)
        self.assertEqual(run(self.folder / "root/usr/bin/lethe", "--version"), run(self.prefix / "bin/lethe", "--version"))

    def test_the_guide_shows_these_programs(self):
        guide = (ROOT / "docs/apps.md").read_text()
        for program in ("cmake/answer.cc", "pkgconfig/answer.c"):
            text = (HERE / program).read_text()
            self.assertIn("```\n" + text[text.index("#include"):] + "```", guide.replace("```cpp", "```").replace("```c", "```"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
