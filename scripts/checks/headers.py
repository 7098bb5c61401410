#!/usr/bin/env python3
"""Every header compiles on its own, as C++20 with the tree's warnings; what runs without a libc also with -ffreestanding."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import tree

FREESTANDING = ("libdune/include/dune/base", "libdune/base", "libdune/arch", "libdune/session", "libdune/backend", "libdune/process",
                "libdune/agent")
# Vocabulary for hosted code only: descriptors and mappings of the C library.
HOSTED_ONLY = ("libdune/base/file.h",)

HOSTED_FLAGS = ["-std=gnu++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wundef", "-Werror"]
FREESTANDING_FLAGS = ["-ffreestanding", "-fno-exceptions", "-fno-rtti", "-mgeneral-regs-only"]


def compile_header(root, path, flags):
    compiler = os.environ.get("CXX", "g++")
    command = [compiler, *HOSTED_FLAGS, *flags, f"-I{root}", f"-I{root}/libdune/include", "-x", "c++", "-"]
    # Twice, so that a missing #pragma once shows.
    source = f'#include "{path}"\n#include "{path}"\n'
    result = subprocess.run(command, input=source, capture_output=True, text=True)
    if result.returncode == 0:
        return []
    how = "freestanding" if flags else "hosted"
    return [f"{path}:1: does not compile alone, {how}:\n{result.stderr.rstrip()}"]


def jobs(root):
    for path in tree.files(root, (".h",), ("libdune", "disasm", "dtrace-lite")):
        yield path, []
        if str(path).startswith(tuple(f + "/" for f in FREESTANDING)) and str(path) not in HOSTED_ONLY:
            yield path, FREESTANDING_FLAGS


def check(root):
    with ThreadPoolExecutor(min(2, len(os.sched_getaffinity(0)))) as pool:
        results = list(pool.map(lambda job: compile_header(root, *job), jobs(root)))
    return [finding for findings in results for finding in findings]


def self_test(root):
    tree.write_tree(root, {
        "libdune/arch/good.h": "#pragma once\n#include <cstdint>\nstruct A { uint64_t x; };\n",
        "libdune/include/dune/base/good.h": "#pragma once\nenum class Good {};\n",
        "libdune/include/dune/good.h": "#pragma once\n#include <dune/base/good.h>\nGood f();\n",
        "libdune/include/dune/base/libc.h": "#pragma once\n#if !__STDC_HOSTED__\n#error needs a libc\n#endif\n",
        "libdune/arch/needs.h": "#pragma once\ninline uint64_t f() { return 0; }\n",
        "libdune/session/libc.h": "#pragma once\n#if !__STDC_HOSTED__\n#error needs a libc\n#endif\n",
        "dtrace-lite/engine/hosted.h": "#pragma once\n#include <string>\ninline double f(double x) { return x * 2; }\n",
        "dtrace-lite/engine/twice.h": "struct Twice {};\n",
        "disasm/warns.h": "#pragma once\ninline int f(int unused) { return 0; }\n",
    })
    tree.expect(check(root), [
        ("libdune/arch/needs.h:1", "hosted"),
        ("libdune/arch/needs.h:1", "freestanding"),
        ("libdune/include/dune/base/libc.h:1", "freestanding"),
        ("libdune/session/libc.h:1", "freestanding"),
        ("dtrace-lite/engine/twice.h:1", "redefinition"),
        ("disasm/warns.h:1", "unused"),
    ])


if __name__ == "__main__":
    sys.exit(tree.main(check, self_test))
