#!/usr/bin/env python3
"""Runs the lethe executable for a long time under each cap and checks that its private memory stays below.

    tests/tools/cap_soak.py build/release/lethe MODEL.lethe 16MiB 32MiB 64MiB --tokens 100000

RssAnon + VmSwap of the process are sampled from outside every few milliseconds. Prints one row per cap; the exit status
is 1 when a cap was exceeded, the ledger was, a run failed or nothing was evicted. Linux; standard library only.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time

PROMPT = "The river remembers nothing, and whoever drinks from it forgets the world above. "


def private_bytes(pid):
    """RssAnon + VmSwap, 0 when the process has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            return sum(int(line.split()[1]) * 1024 for line in status if line.startswith(("RssAnon:", "VmSwap:")))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def soak(args, cap):
    """What one run was like; `problems` is empty when all held."""
    command = [args.cli, "run", args.model, "--ram", cap, "--policy", "window", "--ignore-eos", "--greedy", "--raw",
               "--json", "--max-tokens", str(args.tokens), *args.option, PROMPT]
    peak = samples = 0
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        try:
            while process.poll() is None:
                peak = max(peak, private_bytes(process.pid))
                samples += 1
                time.sleep(args.interval_ms / 1000)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            text = err.read().decode(errors="replace").strip()
            return {"cap": cap, "problems": [f"exit status {process.returncode}: {text}"]}
        result = json.load(out)
    memory = result["memory"]
    row = {"cap": memory["cap_bytes"], "sampled": peak, "samples": samples, "ledger": memory["total_bytes"],
           "cache": memory["cache_tokens"], "tokens": len(result["ids"]), "evictions": result["evictions"]["count"],
           "tok/s": round(result["timing"]["decode_tps"], 1)}
    problems = []
    if samples == 0 or peak == 0:
        problems.append("no sample was taken")
    for name, value in (("sampled private memory", peak), ("private peak by itself", memory["private_peak_bytes"]),
                        ("ledger", memory["peak_bytes"])):
        if value > memory["cap_bytes"]:
            problems.append(f"{name} {value} exceeds the cap {memory['cap_bytes']}")
    if len(result["ids"]) != args.tokens:
        problems.append(f"{len(result['ids'])} tokens instead of {args.tokens}")
    if result["evictions"]["count"] == 0:
        problems.append("nothing was evicted: the run was too short for this cap")
    return row | {"problems": problems}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cli", help="the lethe executable")
    parser.add_argument("model", help="a .lethe file")
    parser.add_argument("caps", nargs="+", help="as for --ram: 16MiB, 48M, 20000000")
    parser.add_argument("--tokens", type=int, default=100_000, help="tokens to generate (default 100000)")
    parser.add_argument("--interval-ms", type=float, default=5, help="between two samples (default 5)")
    parser.add_argument("--option", action="append", default=[],
                        help="one more word for `lethe run`, such as --option=--kv --option=int8")
    args = parser.parse_args()

    columns = ("cap", "sampled", "samples", "ledger", "cache", "tokens", "evictions", "tok/s")
    print("".join(f"{name:>13}" for name in columns), flush=True)
    failed = False
    for cap in args.caps:
        row = soak(args, cap)
        print("".join(f"{row.get(name, '-'):>13}" for name in columns), flush=True)
        for problem in row["problems"]:
            print(f"  {cap}: {problem}", file=sys.stderr, flush=True)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
