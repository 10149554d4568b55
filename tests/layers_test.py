#!/usr/bin/env python3
"""Checks every include line of runtime/, tools/ and platform/ against the layer diagram of docs/architecture.md, and that
no code file is too long to read. Usage: layers_test.py REPOSITORY_ROOT

Tests may include everything and are not looked at (but for their length).
"""

import os
import pathlib
import re
import sys

# Layer -> what it may include besides itself: a layer (with everything below its folder) or a single file.
# The longest folder that holds a file is its layer, so runtime/backend/cpu is not runtime/backend. Bottom up: a layer names
# only layers above its own line, so the table has no cycles.
EDGES = {
    "runtime/include/lethe": [],
    "runtime/base": [],
    "runtime/os": ["runtime/base"],
    "runtime/memory": ["runtime/os", "runtime/base"],
    "runtime/model": ["runtime/memory", "runtime/os", "runtime/base", "schema/model_generated.h"],
    "runtime/sample": ["runtime/memory", "runtime/base"],
    "runtime/text": ["runtime/model", "runtime/memory", "runtime/os", "runtime/base"],
    "runtime/cache": ["runtime/memory", "runtime/os", "runtime/base"],
    "runtime/recurrent": ["runtime/memory", "runtime/os", "runtime/base"],
    "runtime/backend": ["runtime/cache/kv_layout.h", "runtime/cache/kv_pool.h", "runtime/cache/observe.h",
                        "runtime/recurrent/recurrent_head.h", "runtime/memory", "runtime/model", "runtime/os", "runtime/base"],
    "runtime/backend/cpu": ["runtime/backend", "runtime/cache/hadamard.h", "runtime/cache/kv_layout.h",
                            "runtime/cache/kv_pool.h", "runtime/cache/observe.h", "runtime/cache/store_row.h",
                            "runtime/recurrent/recurrent_head.h", "runtime/memory", "runtime/model", "runtime/os", "runtime/base"],
    "runtime/backend/vulkan": ["runtime/backend", "runtime/cache/kv_layout.h", "runtime/cache/kv_pool.h", "runtime/cache/observe.h",
                               "runtime/recurrent/recurrent_head.h", "runtime/memory", "runtime/model", "runtime/os", "runtime/base"],
    "runtime/trace": ["runtime/cache", "runtime/model", "runtime/memory", "runtime/os", "runtime/base",
                      "schema/trace_generated.h"],
    "runtime/engine": ["runtime/trace", "runtime/cache", "runtime/recurrent", "runtime/backend", "runtime/backend/cpu",
                       "runtime/backend/vulkan", "runtime/text", "runtime/sample", "runtime/memory", "runtime/model",
                       "runtime/os", "runtime/base"],
    "runtime/c_api": ["runtime/include/lethe", "runtime/engine", "runtime/os", "runtime/base"],
    "platform": ["runtime/include/lethe"],
    "tools": ["runtime", "schema/model_generated.h", "schema/trace_generated.h"],  # "runtime" stands for every layer of it
}
# Includes that begin with one of these are the project's own; all others are libraries.
OWN_FOLDERS = ("runtime", "tools", "platform", "schema", "shaders", "tests")

CODE_SUFFIXES = {".c", ".cc", ".cpp", ".h", ".hpp", ".py", ".sh", ".comp", ".glsl", ".java", ".kt", ".swift", ".fbs"}
MAX_LINES = 800

# Highway includes a file once per instruction set through the macro.
INCLUDE = re.compile(r'^\s*#\s*(?:include|define\s+HWY_TARGET_INCLUDE)\s*["<]([^">]+)[">]')


def layer_of(path):
    """The layer that holds a file, or None: a file in a folder that the table does not know."""
    candidates = [layer for layer in EDGES if path.startswith(layer + "/")]
    # What lies right in runtime/ or in a folder of it that has no entry has no layer.
    return max(candidates, key=len, default=None)


def check_include(source, included):
    """Returns what is wrong with the file `source` including `included` (both relative to the root), or None."""
    if included.startswith("lethe/"):  # the include directory of the public headers
        included = "runtime/include/" + included
    if included.split("/")[0] not in OWN_FOLDERS:
        return None
    layer = layer_of(source)
    if layer is None:
        return "lies in a folder that the layer table does not know"
    if os.path.normpath(included) != included:
        return f"includes {included}: write the path from the root, without dots"
    target = layer_of(included)
    if target == layer or included in EDGES[layer] or target is not None and target in EDGES[layer]:
        return None
    if layer == "tools" and target is not None and target.startswith("runtime/"):
        return None
    return f"{layer} may not include {included}"


def includes_of(text):
    for number, line in enumerate(text.splitlines(), 1):
        if match := INCLUDE.match(line):
            yield number, match[1]


def code_files(root, *folders):
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix in CODE_SUFFIXES:
                yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")


def check_tree(root):
    problems, layers = [], set()
    for name, text in code_files(root, "runtime", "tools", "platform"):
        layer = layer_of(name)
        layers.add(layer)
        if layer is None:
            problems.append(f"{name}: lies in a folder that the layer table does not know")
        for number, included in includes_of(text):
            if problem := check_include(name, included):
                problems.append(f"{name}:{number}: {problem}")
            elif included.split("/")[0] not in OWN_FOLDERS and (root / name).parent.joinpath(included).is_file():
                problems.append(f"{name}:{number}: includes {included}: write the path from the root")
    for name, text in code_files(root, "runtime", "tools", "platform", "tests", "shaders"):
        lines = text.count("\n")
        if lines > MAX_LINES:
            problems.append(f"{name}: {lines} lines, more than {MAX_LINES}")
    if not {"runtime/base", "runtime/model", "runtime/engine"} <= layers:
        problems.append(f"{root}: not the repository's root, or whole layers are gone")
    return problems


# Edges that the table must refuse: upwards, sideways, past an interface, to or from nowhere.
FORBIDDEN = [
    ("runtime/base/a.h", "runtime/os/file.h"),
    ("runtime/base/a.h", "lethe/lethe.h"),
    ("runtime/os/a.cc", "runtime/memory/arena.h"),
    ("runtime/memory/a.h", "runtime/model/model.h"),
    ("runtime/model/a.cc", "runtime/text/tokenizer.h"),
    ("runtime/model/a.cc", "schema/other_generated.h"),
    ("runtime/engine/a.cc", "schema/model_generated.h"),
    ("runtime/engine/a.cc", "schema/trace_generated.h"),
    ("runtime/trace/a.cc", "schema/model_generated.h"),
    ("runtime/trace/a.cc", "runtime/engine/session.h"),
    ("runtime/cache/a.cc", "runtime/trace/trace_writer.h"),
    ("runtime/text/a.cc", "schema/model_generated.h"),
    ("runtime/text/a.cc", "runtime/cache/policy.h"),
    ("runtime/sample/a.cc", "runtime/model/model.h"),
    ("runtime/sample/a.cc", "runtime/text/tokenizer.h"),
    ("runtime/cache/a.h", "runtime/model/quant_format.h"),
    ("runtime/cache/policies/a.cc", "runtime/backend/cpu/kernels.h"),
    ("runtime/cache/a.cc", "runtime/engine/session.h"),
    ("runtime/recurrent/a.cc", "runtime/cache/kv_layout.h"),
    ("runtime/recurrent/a.cc", "runtime/backend/cpu/kernels.h"),
    ("runtime/backend/cpu/a.cc", "runtime/recurrent/recurrent_states.h"),
    ("runtime/backend/a.h", "runtime/cache/policy.h"),
    ("runtime/backend/a.h", "runtime/backend/cpu/kernels.h"),
    ("runtime/backend/cpu/a.cc", "runtime/cache/manager.h"),
    ("runtime/backend/cpu/a.cc", "runtime/backend/vulkan/device.h"),
    ("runtime/backend/vulkan/a.cc", "runtime/backend/cpu/kernels.h"),
    ("runtime/backend/cpu/a.cc", "runtime/engine/decoder.h"),
    ("runtime/engine/a.cc", "runtime/c_api/session.h"),
    ("runtime/engine/a.cc", "lethe/lethe.h"),
    ("runtime/c_api/a.cc", "runtime/cache/manager.h"),
    ("runtime/c_api/a.cc", "runtime/backend/cpu/kernels.h"),
    ("runtime/include/lethe/lethe.h", "runtime/base/status.h"),
    ("runtime/engine/a.cc", "tools/pack/pack.h"),
    ("runtime/engine/a.cc", "tests/support/model.h"),
    ("platform/android/a.cc", "runtime/engine/session.h"),
    ("platform/android/a.cc", "tools/pack/pack.h"),
    ("tools/cli/a.cc", "tests/support/model.h"),
    ("runtime/engine/a.cc", "runtime/newlayer/a.h"),
    ("runtime/engine/a.cc", "runtime/loose.h"),
    ("runtime/newlayer/a.cc", "runtime/base/status.h"),
    ("runtime/loose.h", "runtime/base/status.h"),
    ("runtime/base/a.cc", "runtime/base/../os/file.h"),
]
ALLOWED = [
    ("runtime/c_api/a.cc", "lethe/lethe.h"),
    ("runtime/c_api/a.cc", "runtime/engine/session.h"),
    ("runtime/engine/a.cc", "runtime/backend/cpu/kernels.h"),
    ("runtime/backend/cpu/a.cc", "runtime/cache/kv_layout.h"),
    ("runtime/backend/cpu/a.cc", "runtime/backend/program.h"),
    ("runtime/backend/cpu/a.cc", "runtime/recurrent/recurrent_head.h"),
    ("runtime/cache/policies/a.cc", "runtime/cache/policy.h"),
    ("runtime/model/a.cc", "schema/model_generated.h"),
    ("tools/pack/a.cc", "schema/model_generated.h"),
    ("tools/cli/a.cc", "runtime/backend/cpu/kernels.h"),
    ("tools/cli/a.cc", "lethe/lethe.h"),
    ("platform/android/a.cc", "lethe/lethe.h"),
    ("runtime/base/a.cc", "hwy/highway.h"),
]
PARSED = [
    ('#include "runtime/os/file.h"', "runtime/os/file.h"),
    ('  #  include "runtime/os/file.h"  // why', "runtime/os/file.h"),
    ("#include <lethe/lethe.h>", "lethe/lethe.h"),
    ('#define HWY_TARGET_INCLUDE "runtime/os/file.h"', "runtime/os/file.h"),
    ('// #include "runtime/os/file.h"', None),
]


def check_checker():
    """The checker must flag what it is there to flag."""
    for source, included in FORBIDDEN:
        if check_include(source, included) is None:
            yield f"self-test: {source} -> {included} passes, but must not"
    for source, included in ALLOWED:
        if problem := check_include(source, included):
            yield f"self-test: {source} -> {included} must pass, but: {problem}"
    for line, expected in PARSED:
        if [included for _, included in includes_of(line)] != ([expected] if expected else []):
            yield f"self-test: the line {line!r} is not read as {expected}"
    seen = {"runtime"}
    for layer, below in EDGES.items():
        for target in below:
            if target not in seen and "." not in target:
                yield f"self-test: {layer} names {target}, which is not below it in the table"
        seen.add(layer)


def main():
    root = pathlib.Path(sys.argv[1])
    problems = list(check_checker()) + check_tree(root)
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
