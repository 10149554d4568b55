"""What the tests of the Python package share. The environment comes from tests/CMakeLists.txt and tools/test.sh."""

import json
import os
import subprocess

MODEL = os.environ["LETHE_TEST_MODEL"]
QUESTION = "What is the capital of France? Answer in one sentence."
MiB = 1 << 20


def run_lethe(*arguments):
    """The JSON object of `lethe run`, greedy, over the test model."""
    command = [os.environ["LETHE_CLI"], "run", MODEL, "--ram", "64MiB", "--greedy", "--json", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
