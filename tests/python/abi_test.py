"""The structs, functions and names of lethe._abi against lethe.h, as a C compiler sees it."""

import ctypes
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from lethe import _abi

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADER = (ROOT / "runtime/include/lethe/lethe.h").read_text()
CODE = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL)

STRUCTS = {
    "lethe_error": _abi.RawError, "lethe_model_info": _abi.ModelInfo, "lethe_session_params": _abi.SessionParams,
    "lethe_memory": _abi.Memory, "lethe_message": _abi.Message, "lethe_sampling": _abi.Sampling,
    "lethe_generate_params": _abi.GenerateParams, "lethe_stats": _abi.Stats,
    "lethe_trace_params": _abi.TraceParams,
}
C_TYPES = {
    ctypes.c_int32: "int32_t", ctypes.c_uint32: "uint32_t", ctypes.c_uint64: "uint64_t", ctypes.c_float: "float",
    ctypes.c_char_p: "const char*", ctypes.c_char * 252: "char[252]", ctypes.c_uint64 * 32: "uint64_t[32]",
    ctypes.POINTER(ctypes.c_char_p): "const char* const*", _abi.OnPiece: "lethe_on_piece", None: "void",
}
# ctypes has one type for each of these pairs: size_t is uint64_t, and a void* may be const.
FIELD_TYPES = {"struct_size": "size_t", "stop_count": "size_t", "namm_bytes": "size_t", "namm": "const void*", "user": "void*"}
ENUMS = {"kv_type": "LETHE_KV_", "positions": "LETHE_POSITIONS_", "budget": "LETHE_BUDGET_", "pool": "LETHE_POOL_",
         "hand_over": "LETHE_HAND_OVER_", "stop": "LETHE_STOP_"}


def checks():
    """Lines of C, each with a fact that must hold."""
    for name, struct in STRUCTS.items():
        yield f"_Static_assert(sizeof({name}) == {ctypes.sizeof(struct)}, \"size of {name}\");"
        for field, kind in struct._fields_:
            offset = getattr(struct, field).offset
            kind = FIELD_TYPES.get(field) or C_TYPES[kind]
            yield f"_Static_assert(offsetof({name}, {field}) == {offset}, \"offset of {name}.{field}\");"
            yield (f"_Static_assert(__builtin_types_compatible_p(__typeof__((({name}*)0)->{field}), {kind}),"
                   f" \"type of {name}.{field}\");")
    for option, prefix in ENUMS.items():
        for number, value in enumerate(_abi.NAMES[option]):
            yield f"_Static_assert({prefix}{value.upper()} == {number}, \"{option} {value}\");"
    yield f"_Static_assert(LETHE_MEMORY_TAGS == {_abi.MEMORY_TAGS}, \"tags\");"
    yield f"_Static_assert(LETHE_TEXT_SPECIAL == {_abi.TEXT_SPECIAL} && LETHE_TEXT_BOS == {_abi.TEXT_BOS}, \"flags\");"
    yield f"_Static_assert(LETHE_ALL_SO_FAR == {_abi.ALL_SO_FAR}ull, \"LETHE_ALL_SO_FAR\");"
    yield f"_Static_assert(LETHE_ERROR_PROMPT_TOO_LONG == {_abi.PROMPT_TOO_LONG}, \"PROMPT_TOO_LONG\");"


def compiles(lines):
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "abi.c")
        source.write_text("\n".join(["#include <stddef.h>", "#include <lethe/lethe.h>", *lines, ""]))
        command = [os.environ["CC"], "-std=gnu11", "-fsyntax-only", "-I", ROOT / "runtime/include", source]
        return subprocess.run(command, capture_output=True, text=True)


class AbiTest(unittest.TestCase):
    def test_structs_and_numbers_are_those_of_the_header(self):
        lines = list(checks())
        self.assertGreater(len(lines), 150)
        compiled = compiles(lines)
        self.assertEqual(compiled.returncode, 0, compiled.stderr)

    def test_the_compiler_would_say_so(self):
        compiled = compiles(["_Static_assert(offsetof(lethe_stats, position) == 0, \"wrong on purpose\");"])
        self.assertIn("wrong on purpose", compiled.stderr)

    def test_every_struct_and_option_of_the_header_is_known(self):
        self.assertEqual(set(re.findall(r"typedef struct (\w+) \{", CODE)), set(STRUCTS))
        for option, prefix in ENUMS.items():
            names = {name for name in re.findall(rf"\b{prefix}(\w+) =", CODE) if name != "ERROR"}
            self.assertEqual(names, {value.upper() for value in _abi.NAMES[option]})

    def test_functions_are_those_of_the_header(self):
        declared = {
            name: (result.strip(), 0 if arguments == "void" else arguments.count(",") + 1)
            for result, name, arguments in re.findall(r"LETHE_API ([\w\s*]+?)\b(lethe_\w+)\(([^)]*)\)", CODE)}
        results = {**C_TYPES, ctypes.c_int32: "lethe_code"}
        self.assertEqual(declared, {name: (results[result], len(arguments))
                                    for name, (result, arguments) in _abi.FUNCTIONS.items()})

    def test_the_version_is_that_of_the_header(self):
        numbers = dict(re.findall(r"#define LETHE_VERSION_(\w+) (\d+)", CODE))
        self.assertEqual(_abi.VERSION, f"{numbers['MAJOR']}.{numbers['MINOR']}.{numbers['PATCH']}")
        self.assertEqual(_abi.library.lethe_version().decode(), _abi.VERSION)


if __name__ == "__main__":
    unittest.main()
