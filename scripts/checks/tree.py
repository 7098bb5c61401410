"""What the checks of this folder share: the files of a checkout, C++ text without comments, and how a check runs.

A check is a function from the root of a checkout to a list of findings "path:line: what is wrong". Each has a self-test that
gives it a small tree with known faults, so that a check that has stopped finding anything fails."""

import argparse
import re
import sys
import tempfile
from pathlib import Path

TOP_FOLDERS = ("kmod", "libdune", "dtrace-lite", "disasm", "scripts", "tests", ".ci")
CXX_SUFFIXES = (".h", ".c", ".cpp", ".S")


def files(root, suffixes=None, folders=TOP_FOLDERS):
    """Paths relative to root, sorted; generated and hidden folders left out."""
    found = []
    for folder in folders:
        for path in (root / folder).rglob("*"):
            relative = path.relative_to(root)
            if any(part == "__pycache__" or part.startswith("build") for part in relative.parts):
                continue
            if path.is_file() and (suffixes is None or path.suffix in suffixes):
                found.append(relative)
    return sorted(found)


COMMENT_OR_STRING = re.compile(
    r"""//[^\n]*|/\*.*?\*/|R"(?P<mark>[^(\s]*)\(.*?\)(?P=mark)"|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])+'""", re.DOTALL)


def without_comments(text):
    """C++ text with comments blanked; strings and line numbers stay as they are."""

    def blank(match):
        token = match.group()
        return re.sub(r"[^\n]", " ", token) if token.startswith(("//", "/*")) else token

    # A quote between digits separates them (1'000) and does not open a character.
    return COMMENT_OR_STRING.sub(blank, re.sub(r"(?<=[0-9A-Fa-f])'(?=[0-9A-Fa-f])", "_", text))


def write_tree(root, contents):
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def expect(findings, expected):
    """The self-tests' comparison: each expected pair (path:line, part of the message) is found, and nothing else."""
    unmatched = list(findings)
    for place, part in expected:
        hits = [f for f in unmatched if f.startswith(place + ":") and part in f]
        if not hits:
            sys.exit(f"self-test: expected a finding at {place} about {part!r}, got {findings}")
        unmatched.remove(hits[0])
    if unmatched:
        sys.exit(f"self-test: unexpected findings {unmatched}")


def main(check, self_test):
    parser = argparse.ArgumentParser()
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    arguments = parser.parse_args()
    if arguments.self_test:
        with tempfile.TemporaryDirectory() as folder:
            self_test(Path(folder))
        print("self-test passed")
        return
    findings = check(arguments.root)
    print("\n".join(findings) if findings else "nothing found")
    sys.exit(1 if findings else 0)
