#!/usr/bin/env python3
"""Compares the speed and memory of lethe with llama.cpp's and other runtimes', side by side on this machine.

    compare_peers.py --model M.lethe --llama-bench BIN --gguf M.gguf [--gguf ...] [--peer NAME=COMMAND ...]
    compare_peers.py --first-token --model M.lethe --llama-completion BIN --gguf M.gguf

Every run is a process of its own with one sample of each figure, and the runtimes take turns (A B A B), so that a machine
whose speed drifts treats them alike. llama.cpp runs with flash attention on and off, and on several threads with OpenMP's
default wait policy and with spinning, pinned threads; each of its figures is that of the variant with the best median.
Variants that reach less than 80 % of the best one in every figure are dropped after the first round.

Nothing is built or downloaded here; "Peers" in docs/building.md tells how to obtain llama.cpp and to quantise its file.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing

EXAMPLES = """\
columns:
  Median (min - max) of tokens per second; "lethe" is how many times better lethe's median is than this one. RSS is the
  peak of resident memory, mapped files included; private is what of it the system cannot drop, looked at every 5 ms.
  CPU s is the CPU time of the whole process, beside its wall time: both include loading and warming up (lethe bench warms
  up with a full run of each phase, llama-bench with the prompt and one token). RSS, CPU s and wall s are of the variant
  with the fastest decode.

examples:
  tools/bench/compare_peers.py --model m.lethe --llama-bench llama.cpp/build/bin/llama-bench \\
      --gguf m.Q4_1.gguf --gguf m.Q4_0.gguf --threads 1,2 --depth 0,4096 --kv f16,int8
  tools/bench/compare_peers.py --model m.lethe --prompt 4096 --generate 0 --repeat 3 --json \\
      --peer 'other=python3 other_bench.py --threads {threads} -p {prompt} -g {generate} -d {depth}'
  tools/bench/compare_peers.py --first-token --model m.lethe \\
      --llama-completion llama.cpp/build/bin/llama-completion --gguf m.Q4_1.gguf

The command of a --peer takes one sample of each and prints {"prefill_tps": X, "decode_tps": Y}, where null stands for what
it did not measure; "rss_peak_bytes" may be added. Without {kv} or {depth} in it, it runs only with the first of those.
"""

# 16 tokens of SmolLM2; other vocabularies cut it about alike.
PROMPT = "The old lighthouse keeper climbed the stairs every evening to light the lamp, and then"
PROMPT_TOKENS, CONTEXT = 16, 2048
KEEP = 0.8  # of the best variant's speed in the first round, in one figure at least
LLAMA_KV = {"f16": "f16", "int8": "q8_0"}
# OpenMP's threads go to sleep between two operators, or spin where they are: which is better depends on the machine.
SPIN = {"OMP_WAIT_POLICY": "ACTIVE", "OMP_PROC_BIND": "TRUE"}


def fail(text):
    sys.exit(f"tools/bench/compare_peers.py: {text}")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What one table is about. Lengths are in tokens; depth is what the cache holds before either phase."""

    threads: int
    kv: str
    depth: int
    prompt: int
    generate: int


@dataclasses.dataclass(frozen=True)
class Run:
    """A command that takes one sample. `read` gets its Finished and returns {figure: value or None}; RSS in bytes is the
    only figure that all have."""

    peer: str
    variant: str
    argv: tuple
    read: object
    env: tuple = ()


@dataclasses.dataclass
class Finished:
    """A process that has ended: its output, when the first byte of that came, what it used."""

    stdout: str
    first_byte_s: typing.Optional[float]  # None: it printed nothing
    wall_s: float
    cpu_s: float
    rss_peak_bytes: int
    private_peak_bytes: int  # anonymous memory, which the system cannot drop; 0 when it ended before the first look


class PrivatePeak(threading.Thread):
    """Looks at the private memory of a process (Linux: RssAnon + VmSwap) every few milliseconds until it ends."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.status, self.peak, self.ended = f"/proc/{pid}/status", 0, threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(0.005):
            try:
                with open(self.status, encoding="ascii", errors="replace") as status:
                    sizes = [int(line.split()[1]) for line in status if line.startswith(("RssAnon:", "VmSwap:"))]
            except OSError:
                return
            self.peak = max(self.peak, 1024 * sum(sizes))

    def bytes(self):
        self.ended.set()
        self.join()
        return self.peak


def execute(run, wrap):
    """Runs one process to its end. Its environment has no OMP_ variables but the run's own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")} | dict(run.env)
    with tempfile.TemporaryFile() as errors:
        begin = time.monotonic()
        process = subprocess.Popen([*wrap, *run.argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                                   env=env, bufsize=0)
        private = PrivatePeak(process.pid)
        output = process.stdout.read(1)
        first_byte_s = time.monotonic() - begin if output else None
        while block := process.stdout.read(1 << 16):
            output += block
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)  # of this process and the children that it waited for
        wall_s = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().splitlines()[-5:]
            fail("\n  ".join([f"{run.peer} ended with status {process.returncode}: {shlex.join(run.argv)}", *last]))
    return Finished(output.decode(errors="replace"), first_byte_s, wall_s, usage.ru_utime + usage.ru_stime,
                    usage.ru_maxrss * 1024, private.bytes())


# --- what is run, and how it is read ---


def parse(run_name, text):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        fail(f"{run_name} printed no JSON but: {text.strip()[:200]!r}")


def flat_figures(name):
    """Reads what lethe bench --json prints; other peers print the same or less."""

    def read(finished):
        result = parse(name, finished.stdout)
        if not isinstance(result, dict) or not {"prefill_tps", "decode_tps"} <= result.keys():
            fail(f"{name} printed no object with prefill_tps and decode_tps: {finished.stdout.strip()[:200]!r}")
        if not result["prefill_tps"] and not result["decode_tps"]:
            fail(f"{name} measured nothing: {finished.stdout.strip()[:200]!r}")
        # lethe bench reads a large buffer at the end, which is not the model's memory.
        return {"prefill": result["prefill_tps"] or None, "decode": result["decode_tps"] or None,
                "rss_peak_bytes": result.get("rss_peak_bytes", finished.rss_peak_bytes)}

    return read


def llama_figures(finished):
    figures = {"prefill": None, "decode": None, "rss_peak_bytes": finished.rss_peak_bytes}
    for test in parse("llama-bench", finished.stdout):
        figures["prefill" if test["n_prompt"] else "decode"] = test["avg_ts"]
    return figures


def llama_name(gguf):
    return f"llama.cpp {pathlib.Path(gguf).stem}"


def waits(setting):
    """The names and environments of the ways in which OpenMP's threads can wait; one thread has none to wait for."""
    return [("", ())] + ([("spin", tuple(SPIN.items()))] if setting.threads > 1 else [])


def speed_runs(args, setting):
    """All runs of one round, in their order."""
    runs = [Run("lethe", "", (args.lethe, "bench", args.model, "--repeat", "1", "--json",
                              "--threads", str(setting.threads), "--kv", setting.kv, "--depth", str(setting.depth),
                              "--prompt", str(setting.prompt), "--generate", str(setting.generate)),
                flat_figures("lethe bench"))]
    kv = LLAMA_KV[setting.kv]
    attention = ("on", "off") if kv == "f16" else ("on",)  # a quantised cache works with flash attention alone
    for gguf, flash, (wait, env) in itertools.product(args.gguf, attention, waits(setting)):
        argv = (args.llama_bench, "-m", gguf, "-r", "1", "-o", "json", "-t", str(setting.threads), "-fa", flash,
                "-ctk", kv, "-ctv", kv, "-d", str(setting.depth), "-p", str(setting.prompt), "-n", str(setting.generate))
        runs.append(Run(llama_name(gguf), f"fa {flash} {wait}".strip(), argv, llama_figures, env))
    for name, command in args.peer:
        first = {"kv": args.kv[0], "depth": args.depth[0]}
        if any("{%s}" % key not in command and getattr(setting, key) != value for key, value in first.items()):
            continue
        # The command is split before its placeholders are filled in: a value stays one argument.
        argv = tuple(word.format(**dataclasses.asdict(setting)) for word in shlex.split(command))
        runs.append(Run(name, "", argv, flat_figures(name)))
    return runs


def completion_runs(args, setting, generate, read, wait_policies):
    """Runs that go on from PROMPT by `generate` tokens, with a context of CONTEXT tokens."""
    length = str(generate)
    # Under so large a cap nothing is forgotten; memory is taken only as the cache fills.
    runs = [Run("lethe", "", (args.lethe, "run", args.model, "--ram", "64GiB", "--policy", "full", "--raw", "--greedy",
                              "--ignore-eos", "--max-tokens", length, "--threads", str(setting.threads),
                              "--kv", setting.kv, PROMPT), read)]
    kv = LLAMA_KV[setting.kv]
    # Repacked weights are faster, but have to be made at the start, and are a second copy.
    repacking = (("repack", ()), ("no repack", ("--no-repack",)))
    for gguf, (repack, option), (wait, env) in itertools.product(args.gguf, repacking, wait_policies):
        argv = (args.llama_completion, "-m", gguf, "-c", str(CONTEXT), "-n", length, "--temp", "0", "--ignore-eos",
                "-t", str(setting.threads), "-ctk", kv, "-ctv", kv, "-fa", "on", "--no-conversation",
                "--no-display-prompt", "--no-warmup", *option, "-p", PROMPT)
        runs.append(Run(llama_name(gguf), f"{repack} {wait}".strip(), argv, read, env))
    return runs


def first_token_figures(finished):
    if finished.first_byte_s is None:
        fail("a run ended without printing a token")
    return {"first_token_ms": finished.first_byte_s * 1000, "rss_peak_bytes": finished.rss_peak_bytes}


def long_run_figures(finished):
    return {"rss_peak_bytes": finished.rss_peak_bytes, "private_peak_bytes": finished.private_peak_bytes}


# --- measuring ---

# A figure is better the higher or the lower it is.
HIGHER = {"prefill": True, "decode": True, "first_token_ms": False, "rss_peak_bytes": False,
          "private_peak_bytes": False}


def better(figure, one, other):
    """How many times better `one` is than `other`; None where one is missing."""
    if not one or not other:
        return None
    return one / other if HIGHER[figure] else other / one


def contenders(samples, figures):
    """The runs that are worth more rounds: within KEEP of the best variant of their peer in one of `figures`."""
    kept = []
    for run in samples:
        rivals = [other for other in samples if other.peer == run.peer]
        for figure in figures:
            mine = samples[run][0][figure]
            if mine and all((better(figure, mine, samples[rival][0][figure]) or 1) >= KEEP for rival in rivals):
                kept.append(run)
                break
    return kept


def measure(runs, figures, repeat, wrap, progress):
    """{run: [sample, ...]}, a sample being {figure: value} with the process's seconds, for the runs that were kept: `repeat`
    rounds through them, one after the other. The first round chooses and counts as well."""
    samples = {run: [] for run in runs}
    for round_ in range(repeat):
        for run in list(samples):
            progress(f"round {round_ + 1} of {repeat}: {run.peer} {run.variant}".rstrip())
            finished = execute(run, wrap)
            samples[run].append(run.read(finished) | {"cpu_s": finished.cpu_s, "wall_s": finished.wall_s})
        if round_ == 0:
            samples = {run: samples[run] for run in contenders(samples, figures)}
    return samples


def summary(samples, figures):
    """[{"peer", figure: {"median", "min", "max", "variant", "samples", "lethe"} or None, "process": {"rss_peak_bytes",
    "cpu_s", "wall_s"}}], a row for each peer, each figure from its best variant; "lethe" is how many times better lethe is.
    What a process uses are medians of the variant that is the best in the last figure there is."""
    rows = []
    for peer in dict.fromkeys(run.peer for run in samples):
        row, fastest = {"peer": peer}, None
        for figure in figures:
            row[figure] = None
            for run in (run for run in samples if run.peer == peer):
                values = [sample[figure] for sample in samples[run] if sample[figure] is not None]
                if not values:
                    continue
                median = statistics.median(values)
                if row[figure] is None or better(figure, median, row[figure]["median"]) > 1:
                    row[figure] = {"median": median, "min": min(values), "max": max(values), "variant": run.variant,
                                   "samples": values}
                    fastest = run
        row["process"] = {name: statistics.median(sample[name] for sample in samples[fastest])
                          for name in ("rss_peak_bytes", "cpu_s", "wall_s")}
        rows.append(row)
    for row, figure in itertools.product(rows, figures):
        if row[figure]:
            row[figure]["lethe"] = better(figure, (rows[0][figure] or {}).get("median"), row[figure]["median"])
    return rows


# --- output ---


def columns(lines):
    """Lines of cells as text: the first column to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in lines)


def cells(figure, scale=1):
    if not figure:
        return ["-", "", "", ""]
    median, low, high = (f"{figure[key] / scale:.1f}" for key in ("median", "min", "max"))
    ratio = f"{figure['lethe']:.2f}x" if figure["lethe"] else "-"
    return [median, f"({low} - {high})" if low != high else "", ratio, figure["variant"]]


def speed_table(setting, rows):
    phases = [(name, tokens) for name, tokens in (("prefill", setting.prompt), ("decode", setting.generate)) if tokens]
    title = f"threads {setting.threads}, {setting.kv} cache, {setting.depth} tokens cached"
    lines = [["", *(cell for name, tokens in phases for cell in (f"{name} {tokens}", "", "lethe", "")),
              "RSS MiB", "CPU s", "wall s"]]
    for row in rows:
        lines.append([row["peer"], *(cell for name, _ in phases for cell in cells(row[name])),
                      f"{row['process']['rss_peak_bytes'] / 2**20:.0f}", f"{row['process']['cpu_s']:.1f}",
                      f"{row['process']['wall_s']:.1f}"])
    return f"{title}\n{columns(lines)}\n"


def first_token_table(setting, rows):
    title = f"threads {setting.threads}, {setting.kv} cache: a process's first token, and its memory over {CONTEXT} tokens"
    lines = [["", "first token ms", "", "lethe", "", "RSS MiB", "", "lethe", "", "private", "", "lethe", ""]]
    for row in rows:
        lines.append([row["peer"], *cells(row["first_token_ms"]), *cells(row["rss_peak_bytes"], 2**20),
                      *cells(row["private_peak_bytes"], 2**20)])
    return f"{title}\n{columns(lines)}\n"


# --- the command line ---


def numbers(least):
    def parse_list(text):
        if not re.fullmatch(r"\d+(,\d+)*", text) or min(map(int, text.split(","))) < least:
            raise argparse.ArgumentTypeError(f"'{text}' is no list of numbers from {least} on, such as {least},{least + 1}")
        return [int(word) for word in text.split(",")]

    return parse_list


def at_least(least):
    def parse_number(text):
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"'{text}' is no number from {least} on")
        return int(text)

    return parse_number


def kv_types(text):
    kinds = text.split(",")
    if not set(kinds) <= LLAMA_KV.keys():
        raise argparse.ArgumentTypeError(f"'{text}' is no list of {', '.join(LLAMA_KV)}")
    return kinds


def peer(text):
    name, _, command = text.partition("=")
    if not name or not command:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=COMMAND")
    try:
        command.format(**dataclasses.asdict(Setting(1, "f16", 0, 1, 1)))
        shlex.split(command)
    except (KeyError, IndexError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"the command of '{name}' cannot be filled in: {error!r}")
    return name, command


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, usage="%(prog)s [options] (see below)",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lethe", default="build/release/lethe", metavar="BIN", help="default: %(default)s")
    parser.add_argument("--model", required=True, metavar="FILE", help="lethe's model file")
    parser.add_argument("--llama-bench", metavar="BIN", help="llama.cpp's benchmark")
    parser.add_argument("--gguf", action="append", default=[], metavar="FILE", help="llama.cpp's model file; each is a row")
    parser.add_argument("--peer", action="append", default=[], type=peer, metavar="NAME=COMMAND",
                        help="another runtime; {threads} {prompt} {generate} {depth} {kv} are filled in")
    parser.add_argument("--threads", type=numbers(1), default=[1, 2], metavar="LIST", help="default: 1,2")
    parser.add_argument("--depth", type=numbers(0), default=[0, 4096], metavar="LIST",
                        help="tokens in the cache before prefill and before decode (default: 0,4096)")
    parser.add_argument("--kv", type=kv_types, default=["f16"], metavar="LIST",
                        help="types of the cache: f16, int8 (llama.cpp's q8_0); default: f16")
    parser.add_argument("--prompt", type=at_least(0), default=512, metavar="N",
                        help="tokens whose reading is timed (default: %(default)s; 0: none)")
    parser.add_argument("--generate", type=at_least(0), default=128, metavar="N",
                        help="tokens whose generation is timed (default: %(default)s; 0: none)")
    parser.add_argument("--repeat", type=at_least(1), default=5, metavar="N", help="rounds (default: %(default)s)")
    parser.add_argument("--first-token", action="store_true",
                        help=f"instead of speed: the time from starting a process to the first token after {PROMPT_TOKENS} "
                             f"tokens, with the model file in the page cache, and the peak RSS of a run of {CONTEXT} tokens")
    parser.add_argument("--llama-completion", metavar="BIN", help="llama.cpp's text completion, for --first-token")
    parser.add_argument("--wrap", type=shlex.split, default=[], metavar="COMMAND",
                        help="run every process through this command, such as 'taskset -c 0,1'; its time counts as the "
                             "process's")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    args = parser.parse_args(argv)
    if args.prompt == 0 and args.generate == 0:
        parser.error("--prompt 0 --generate 0 leaves nothing to measure")
    if args.first_token and args.peer:
        parser.error("--first-token compares with llama.cpp alone: leave --peer out")
    return args


def check_files(args):
    """Finds what is missing before the first run."""
    llama = "--llama-completion" if args.first_token else "--llama-bench"
    program = args.llama_completion if args.first_token else args.llama_bench
    if args.gguf and not program:
        fail(f'--gguf needs {llama} BIN ("Peers" in docs/building.md tells how to build it)')
    if program and not args.gguf:
        fail(f"{llama} needs --gguf FILE, the model in llama.cpp's format")
    for option, path, advice in (
            ("--lethe", args.lethe, "build it (docs/building.md) or name it"),
            (llama, program, '"Peers" in docs/building.md tells how to build it'),
            *(("--peer", shlex.split(command)[0], "the command is not found") for _, command in args.peer),
            *(("--wrap", word, "the command is not found") for word in args.wrap[:1])):
        if path and not shutil.which(path):
            fail(f"no program {path} for {option}: {advice}")
    for option, path in (("--model", args.model), *(("--gguf", path) for path in args.gguf)):
        if not os.path.isfile(path):
            fail(f"no file {path} for {option}")
    names = ["lethe", *map(llama_name, args.gguf), *(name for name, _ in args.peer)]
    if twice := [name for name in names if names.count(name) > 1]:
        fail(f"two rows would be named {twice[0]}: rename one of the files or peers")


def compare(args, setting, progress):
    """The figures and the summary of one setting."""
    if not args.first_token:
        figures = ["prefill", "decode"]
        return summary(measure(speed_runs(args, setting), figures, args.repeat, args.wrap, progress), figures)
    short = completion_runs(args, setting, 1, first_token_figures, waits(setting))
    long = completion_runs(args, setting, CONTEXT - PROMPT_TOKENS, long_run_figures, waits(setting)[:1])
    rows = summary(measure(short, ["first_token_ms"], args.repeat, args.wrap, progress), ["first_token_ms"])
    kinds = ["rss_peak_bytes", "private_peak_bytes"]
    memory = summary(measure(long, kinds, 1, args.wrap, progress), kinds)
    return [{"peer": row["peer"], "first_token_ms": row["first_token_ms"], **{kind: of[kind] for kind in kinds}}
            for row, of in zip(rows, memory)]


def main(argv):
    args = parse_args(argv)
    check_files(args)
    depths = [0] if args.first_token else args.depth
    settings = [Setting(threads, kv, depth, args.prompt, args.generate)
                for kv, depth, threads in itertools.product(args.kv, depths, args.threads)]
    results = []
    for number, setting in enumerate(settings, 1):
        where = f"[{number} of {len(settings)}: threads {setting.threads}, {setting.kv}, depth {setting.depth}]"
        rows = compare(args, setting, lambda text: print(where, text, file=sys.stderr, flush=True))
        results.append({"setting": dataclasses.asdict(setting), "rows": rows})
        if not args.json:
            print((first_token_table if args.first_token else speed_table)(setting, rows), flush=True)
    if args.json:
        print(json.dumps({"results": results}))


if __name__ == "__main__":
    main(sys.argv[1:])
