#!/usr/bin/env python3
"""The toolchain files of Android's ABIs, over a stand-in for the NDK: there is none to test with.

Usage: android_toolchains_test.py REPOSITORY_ROOT CMAKE
"""

import os
import pathlib
import subprocess
import sys
import tempfile

# What the NDK's own file would be told.
STAND_IN = """
foreach(name ANDROID_ABI ANDROID_PLATFORM ANDROID_STL ANDROID_SUPPORT_FLEXIBLE_PAGE_SIZES CMAKE_SHARED_LINKER_FLAGS_INIT
        CMAKE_TRY_COMPILE_PLATFORM_VARIABLES)
  message("${name}=${${name}}")
endforeach()
"""


def run(cmake, toolchain, *options, **environment):
    env = {name: value for name, value in os.environ.items() if name != "ANDROID_NDK"}
    return subprocess.run([cmake, *options, "-P", toolchain], capture_output=True, text=True, env={**env, **environment})


def main():
    root, cmake = pathlib.Path(sys.argv[1]), sys.argv[2]
    failures = []
    with tempfile.TemporaryDirectory() as ndk:
        stand_in = pathlib.Path(ndk, "build/cmake/android.toolchain.cmake")
        stand_in.parent.mkdir(parents=True)
        stand_in.write_text(STAND_IN)
        for abi in ("arm64-v8a", "armeabi-v7a", "x86_64"):
            toolchain = root / f"toolchains/android-{abi}.cmake"
            expected = [f"ANDROID_ABI={abi}", "ANDROID_PLATFORM=android-28", "ANDROID_STL=c++_static",
                        "ANDROID_SUPPORT_FLEXIBLE_PAGE_SIZES=ON",
                        "CMAKE_SHARED_LINKER_FLAGS_INIT=-Wl,-z,max-page-size=16384",
                        "CMAKE_TRY_COMPILE_PLATFORM_VARIABLES=ANDROID_NDK"]
            for how in (run(cmake, toolchain, f"-DANDROID_NDK={ndk}"), run(cmake, toolchain, ANDROID_NDK=ndk)):
                if how.returncode != 0 or how.stderr.split("\n")[:-1] != expected:
                    failures.append(f"{abi}: {how.stderr}")
            for how in (run(cmake, toolchain), run(cmake, toolchain, ANDROID_NDK="/no/such/folder")):
                if how.returncode == 0 or "ANDROID_NDK must name the folder" not in how.stderr:
                    failures.append(f"{abi} without an NDK: {how.stderr}")
    for failure in failures:
        print(failure)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
