#!/usr/bin/env python3
"""Things about files as text: notes to self are issues and not code; a long file says at its top why it is long; lines end
as they should."""

import re

import tree

# Spelled in two halves: this file is looked at too.
NOTE_TO_SELF = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
LIMIT = 800
# What a long file says within its first lines.
EXCUSE = re.compile(r"\blong (because|on purpose|since|:)|\b(this file|it) is long\b", re.IGNORECASE)
CODE = (".h", ".c", ".cpp", ".S", ".ld", ".lds", ".py", ".sh", ".cmake", "")
TEXTS = ("CMakeLists.txt", "packages.txt", "declared_skips.txt")  # other .txt files are test data


def check(root):
    findings = []
    for path in tree.files(root):
        if path.suffix not in CODE and path.name not in TEXTS or path.parts[:2] in (("tests", "targets"), ("tests", "fuzz")):
            continue
        try:
            text = (root / path).read_text()
        except UnicodeDecodeError:
            continue  # test data
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            if NOTE_TO_SELF.search(line):
                findings.append(f"{path}:{number}: a note to self: do it, or open an issue")
            if line.endswith((" ", "\t", "\r")):
                findings.append(f"{path}:{number}: white space at the end of the line")
        if path.suffix in tree.CXX_SUFFIXES + (".py",) and len(lines) > LIMIT and not EXCUSE.search("\n".join(lines[:12])):
            findings.append(f"{path}:1: {len(lines)} lines, and its top does not say why it is long")
        if text and not text.endswith("\n"):
            findings.append(f"{path}:{len(lines)}: no newline at the end of the file")
    return findings


def self_test(root):
    note = "TO" + "DO"
    tree.write_tree(root, {
        "libdune/base/good.h": "// mktemp XX" + "XXXX\nint x;\n",
        "libdune/base/note.h": f"int x;\n// {note}: later\n",
        "scripts/tool": f"# {note}\n",
        "disasm/white.cpp": "int x; \nint y;",
        "disasm/long.cpp": "int x;\n" * (LIMIT + 1),
        "disasm/excused.cpp": "// One table, long because the manual's is.\n" + "int x;\n" * LIMIT,
        "disasm/limit.cpp": "int x;\n" * LIMIT,
    })
    tree.expect(check(root), [
        ("libdune/base/note.h:2", "note to self"),
        ("scripts/tool:1", "note to self"),
        ("disasm/white.cpp:1", "white space"),
        ("disasm/white.cpp:2", "no newline"),
        ("disasm/long.cpp:1", "801 lines"),
    ])


if __name__ == "__main__":
    tree.main(check, self_test)
