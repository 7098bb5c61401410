#!/usr/bin/env python3
"""clang-format has nothing to change in C++. Not asked: kmod/, which is kernel style, and the programs that tests debug, whose
lines are numbered."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import tree

# The layout that .clang-format asks for is the one of this major version; others differ in details.
VERSION = 14


def formatter():
    for name in (f"clang-format-{VERSION}", "clang-format"):
        path = shutil.which(name)
        if path and f"version {VERSION}." in subprocess.run([path, "--version"], capture_output=True, text=True).stdout:
            return path
    print(f"clang-format {VERSION} not found")
    sys.exit(77)


def check(root):
    paths = [str(p) for p in tree.files(root, (".h", ".c", ".cpp"), ("libdune", "dtrace-lite", "disasm", "tests"))
             if not {"programs", "targets"} & set(p.parts)]
    if not paths:
        return []
    result = subprocess.run([formatter(), "--dry-run", "--style=file", *paths], cwd=root, capture_output=True, text=True)
    places = {}
    for path, line in re.findall(r"^(.*?):(\d+):\d+: warning: code should be clang-formatted", result.stderr, re.MULTILINE):
        places.setdefault(path, line)
    if result.returncode != 0:
        return [f"clang-format:0: failed: {result.stderr.strip()}"]
    return [f"{path}:{line}: run clang-format -i on this file" for path, line in places.items()]


def self_test(root):
    config = Path(__file__).resolve().parents[2] / ".clang-format"
    tree.write_tree(root, {
        ".clang-format": config.read_text(),
        "libdune/base/good.h": "int f(int* p);\n",
        "tests/unit/expr/programs/a.c": "int  g ( int *p );\n",
        "libdune/base/bad.h": "int f(int* p);\nint  g ( int *p );\n",
    })
    tree.expect(check(root), [("libdune/base/bad.h:2", "clang-format -i")])


if __name__ == "__main__":
    tree.main(check, self_test)
