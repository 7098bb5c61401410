#!/usr/bin/env python3
"""Builds dune.ko for the kernels of scripts/vm with Debian's headers, and prints where it is, a line for each. A module that does not
compile, or not without warnings, is a failure; headers that cannot be had are none (status 77)."""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from vm_parts import BUILT_KERNELS, KERNELS, NotAvailable, Parts

SOURCES = Path(__file__).resolve().parent.parent / "kmod"
NOT_AVAILABLE = 77
WARNINGS = ("W=1",)  # all of those count


def say(text):
    print(f"vm: {text}", file=sys.stderr, flush=True)


class DoesNotBuild(Exception):
    """With what the compiler says."""


def source_files():
    return sorted(path for path in SOURCES.glob("**/*") if path.suffix in (".c", ".h", ".S") or path.name in ("Kbuild", "Makefile"))


def build(headers, to, options):
    """dune.ko without its debug information, built from a copy: the tree stays clean."""
    with tempfile.TemporaryDirectory(prefix="ddbg-kmod.") as scratch:
        for path in source_files():
            copy = Path(scratch) / path.relative_to(SOURCES)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        done = subprocess.run(["make", "-s", "-C", scratch, f"KDIR={headers}", *options], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        # What make says of the headers' own compiler, and of a vmlinux that is not there, is about neither.
        warnings = [line for line in done.stdout.splitlines() if "warning:" in line or "error:" in line]
        if done.returncode != 0 or warnings:
            raise DoesNotBuild(done.stdout)
        subprocess.run(["strip", "--strip-debug", "-o", to, Path(scratch) / "dune.ko"], check=True)


def module(parts, series, options=WARNINGS):
    """Its path: in the cache, by the sources it is made of. Whatever is older goes."""
    headers = parts.headers(series)
    what = hashlib.sha256(b"".join(path.read_bytes() for path in source_files()) + " ".join(options).encode()).hexdigest()[:16]
    folder = parts.folder / f"dune-{headers.resolve().name if series in KERNELS else headers.parent.name}"
    path = folder / f"{what}.ko"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        for old in sorted(folder.glob("*.ko"), key=os.path.getmtime)[:-16]:
            old.unlink(missing_ok=True)
        new = folder / f".{what}.{os.getpid()}"
        try:
            build(headers, new, options)
            new.rename(path)
        finally:
            new.unlink(missing_ok=True)
    return path


def main():
    parser = argparse.ArgumentParser(prog="scripts/vm_module.py", description=__doc__)
    parser.add_argument("--kernel", choices=[*KERNELS, *BUILT_KERNELS], action="append")
    parser.add_argument("options", nargs="*", metavar="W=1", help="for make")
    arguments = parser.parse_args()
    parts = Parts(say)
    try:
        for series in arguments.kernel or KERNELS:
            print(module(parts, series, arguments.options or WARNINGS), flush=True)
    except NotAvailable as error:
        say(f"not available here: {error}")
        return NOT_AVAILABLE
    except DoesNotBuild as error:
        say(f"kmod does not build for {series}:\n{error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
