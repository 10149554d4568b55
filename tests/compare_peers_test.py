#!/usr/bin/env python3
"""Tests tools/bench/compare_peers.py with programs that pretend to be lethe and llama.cpp and print what they are told.
Usage: compare_peers_test.py REPOSITORY_ROOT
"""

import contextlib
import importlib.util
import io
import json
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(sys.argv[1])
spec = importlib.util.spec_from_file_location("compare_peers", ROOT / "tools/bench/compare_peers.py")
compare_peers = importlib.util.module_from_spec(spec)
sys.modules["compare_peers"] = compare_peers  # where dataclasses look a module up
spec.loader.exec_module(compare_peers)

# What every pretender begins with: it notes its call in the log and knows which call of its kind this is.
PREAMBLE = f"""#!{sys.executable}
import json, os, pathlib, sys, time
log = pathlib.Path(__file__).with_name("log")
def note(name):
    with log.open("a") as f: f.write(name + "\\n")
    return log.read_text().split("\\n").count(name) - 1
def option(name): return sys.argv[sys.argv.index(name) + 1]
"""
LETHE = PREAMBLE + """
call = note("lethe")
print(json.dumps({"prefill_tps": [100, 300, 200][call], "decode_tps": [50, 10, 20][call], "rss_peak_bytes": 1 << 20}))
"""
# Spinning doubles decode, flash attention doubles prefill, and without both there is nothing to be had.
LLAMA = PREAMBLE + """
spin, flash = os.environ.get("OMP_WAIT_POLICY") == "ACTIVE", option("-fa") == "on"
call = note(f"llama {option('-ctk')} {'on' if flash else 'off'}{' spin' if spin else ''}")
tests = []
if option("-p") != "0": tests.append({"n_prompt": 8, "n_gen": 0, "avg_ts": (40 + call) * (1 + flash)})
if option("-n") != "0": tests.append({"n_prompt": 0, "n_gen": 8, "avg_ts": (10 + call) * (1 + spin)})
print(json.dumps(tests))
"""
OTHER = PREAMBLE + """
note(f"other {sys.argv[1:]}")
print(json.dumps({"prefill_tps": None, "decode_tps": 5}))
"""


class ComparePeersTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "m.gguf").touch()
        self.lethe, self.llama, self.other = map(self.program, ("lethe", "llama", "other"), (LETHE, LLAMA, OTHER))

    def program(self, name, text):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def calls(self):
        return (self.folder / "log").read_text().splitlines()

    def run_tool(self, *argv):
        """What the tool prints, or the text that it ends with."""
        gguf = str(self.folder / "m.gguf")
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                compare_peers.main(["--lethe", self.lethe, "--model", gguf, *argv])
            except SystemExit as exit_:
                return exit_.code if isinstance(exit_.code, str) else err.getvalue()
        return out.getvalue()

    def results(self, *argv):
        return json.loads(self.run_tool("--json", *argv))["results"]

    def llama_options(self):
        return "--llama-bench", self.llama, "--gguf", str(self.folder / "m.gguf")

    def test_takes_turns_and_the_best_variants(self):
        [result] = self.results(*self.llama_options(), "--threads", "2", "--depth", "0", "--repeat", "3")
        # Prefill of the first round: on 80, off 40; decode: spin 20, else 10. So "off" without spinning is worth nothing.
        kept = ["lethe", "llama f16 on", "llama f16 on spin", "llama f16 off spin"]
        first = ["lethe", "llama f16 on", "llama f16 on spin", "llama f16 off", "llama f16 off spin"]
        self.assertEqual(self.calls(), first + kept + kept)
        lethe, llama = result["rows"]
        self.assertEqual((lethe["prefill"]["median"], lethe["prefill"]["min"], lethe["prefill"]["max"]), (200, 100, 300))
        self.assertEqual((lethe["decode"]["median"], lethe["decode"]["lethe"]), (20, 1))
        self.assertEqual(lethe["process"]["rss_peak_bytes"], 1 << 20)  # its own word for it
        self.assertEqual(llama["prefill"]["samples"], [80, 82, 84])
        self.assertEqual((llama["prefill"]["variant"], llama["decode"]["variant"]), ("fa on", "fa on spin"))
        self.assertAlmostEqual(llama["prefill"]["lethe"], 200 / 82)
        self.assertAlmostEqual(llama["decode"]["lethe"], 20 / 22)
        self.assertGreater(llama["process"]["rss_peak_bytes"], 1 << 21)

    def test_one_thread_does_not_spin_and_a_quantised_cache_needs_flash_attention(self):
        self.results(*self.llama_options(), "--threads", "1", "--depth", "0", "--kv", "f16,int8", "--repeat", "1")
        self.assertEqual(self.calls(), ["lethe", "llama f16 on", "llama f16 off", "lethe", "llama q8_0 on"])

    def test_runs_other_peers_only_where_they_differ(self):
        results = self.results("--peer", f"other={self.other} {{threads}} {{depth}}", "--threads", "1", "--depth", "0,7",
                               "--kv", "f16", "--repeat", "1")
        self.assertEqual(self.calls(), ["lethe", "other ['1', '0']", "lethe", "other ['1', '7']"])
        self.assertIsNone(results[1]["rows"][1]["prefill"])
        self.assertAlmostEqual(results[0]["rows"][1]["decode"]["lethe"], 10)
        (self.folder / "log").unlink()
        self.results("--peer", f"other={self.other} {{threads}}", "--threads", "1", "--depth", "0,7", "--repeat", "1")
        self.assertEqual(self.calls(), ["lethe", "other ['1']", "lethe"])

    def test_prints_a_table(self):
        text = self.run_tool(*self.llama_options(), "--threads", "1", "--depth", "0", "--generate", "0", "--repeat", "3")
        row = next(line for line in text.splitlines() if line.startswith("llama.cpp m "))
        self.assertEqual(row.split()[2:8], ["82.0", "(80.0", "-", "84.0)", "2.44x", "fa"])
        self.assertNotIn("decode", text)

    def test_measures_time_and_memory_of_a_process(self):
        argv = (sys.executable, "-c", "import time\nb = bytearray(b'x') * (96 << 20)\nend = time.process_time() + 0.3\n"
                "while time.process_time() < end: pass\nprint('a', flush=True)\ntime.sleep(1)\nprint('b')")
        finished = compare_peers.execute(compare_peers.Run("p", "", argv, None), [])
        self.assertEqual(finished.stdout, "a\nb\n")
        self.assertGreater(finished.rss_peak_bytes, 96 << 20)
        self.assertGreater(finished.private_peak_bytes, 96 << 20)
        self.assertLess(finished.private_peak_bytes, finished.rss_peak_bytes)
        self.assertGreaterEqual(finished.cpu_s, 0.3)
        self.assertGreaterEqual(finished.first_byte_s, 0.3)
        self.assertGreaterEqual(finished.wall_s, finished.first_byte_s + 0.2)

    def test_first_token(self):
        talker = PREAMBLE + """
long = "2032" in sys.argv
note(f"{pathlib.Path(__file__).name}{' no repack' if '--no-repack' in sys.argv else ''}{' long' if long else ''}")
memory = bytearray(b"x") * (int("--no-repack" not in sys.argv) * long * 64 << 20)
if "--no-repack" in sys.argv and not long: time.sleep(1.5)
print(" at")
"""
        completion, self.lethe = self.program("completion", talker), self.program("talker", talker)
        [result] = self.results("--first-token", "--llama-completion", completion, "--gguf", str(self.folder / "m.gguf"),
                                "--threads", "1", "--repeat", "2")
        self.assertEqual(self.calls(), ["talker", "completion", "completion no repack", "talker", "completion",
                                        "talker long", "completion long", "completion no repack long"])
        llama = result["rows"][1]
        self.assertEqual(llama["first_token_ms"]["variant"], "repack")
        self.assertEqual(llama["rss_peak_bytes"]["variant"], "no repack")
        self.assertLess(llama["rss_peak_bytes"]["median"], 64 << 20)
        self.assertLess(llama["private_peak_bytes"]["median"], 64 << 20)

    def test_lower_is_better_for_times_and_memory(self):
        self.assertEqual(compare_peers.better("first_token_ms", 50, 200), 4)
        self.assertEqual(compare_peers.better("decode", 50, 200), 0.25)
        self.assertIsNone(compare_peers.better("decode", None, 200))

    def test_says_what_is_missing_or_broken(self):
        gguf = str(self.folder / "m.gguf")
        broken = self.program("broken", PREAMBLE + "print('out of luck', file=sys.stderr)\nsys.exit(3)\n")
        silent = self.program("silent", PREAMBLE)
        for argv, expected in (
                (("--llama-bench", "/nowhere", "--gguf", gguf), "no program /nowhere for --llama-bench"),
                (("--gguf", gguf), "--gguf needs --llama-bench BIN"),
                (("--llama-bench", self.llama), "--llama-bench needs --gguf FILE"),
                (("--llama-bench", self.llama, "--gguf", "/nowhere"), "no file /nowhere for --gguf"),
                (("--llama-bench", self.llama, "--gguf", gguf, "--gguf", gguf), "two rows would be named llama.cpp m"),
                (("--wrap", "/nowhere -x"), "no program /nowhere for --wrap"),
                (("--peer", "other=/nowhere {threads}"), "no program /nowhere for --peer"),
                (("--peer", f"other={self.other} {{thread}}"), "the command of 'other' cannot be filled in"),
                (("--llama-bench", broken, "--gguf", gguf), "ended with status 3"),
                (("--llama-bench", broken, "--gguf", gguf), "out of luck"),
                (("--peer", f"other={silent}"), "other printed no JSON"),
                (("--first-token", "--peer", f"other={self.other}"), "leave --peer out"),
                (("--threads", "0"), "'0' is no list of numbers from 1 on"),
                (("--kv", "f32"), "'f32' is no list of f16, int8"),
                (("--prompt", "0", "--generate", "0"), "leaves nothing to measure")):
            (self.folder / "log").unlink(missing_ok=True)
            self.assertIn(expected, self.run_tool("--repeat", "1", *argv))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
