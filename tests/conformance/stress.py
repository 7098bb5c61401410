#!/usr/bin/env python3
"""Stressors of stress-ng with --verify and a fixed number of operations: three native runs say what is usual, and a run under ddbg has to end
in one of these ways. no_fork.c has the stressor run in the process that is debugged, not in a child of it."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import run


def read_stressors(names):
    for line in (run.FOLDER / "stressors.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, operations, *more = line.split()
            if not names or name in names:
                yield name, [f"--{name}", "1", f"--{name}-ops", operations, *more]


def outcome(runner, preload, stress_ng, arguments):
    with tempfile.TemporaryDirectory() as folder:
        command = [f"LD_PRELOAD={preload}", stress_ng, *arguments, "--verify", "--seed", "1", "--temp-path", folder]
        out, end = runner.run("/usr/bin/env", command)
    return f"{end}, {'failures' if ' fail: ' in out else 'no failures'}", out


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preload", required=True, help="no_fork.so")
    parser.add_argument("--ddbg", required=True)
    parser.add_argument("--backend", default="signal")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    stress_ng = shutil.which("stress-ng")
    if not stress_ng:
        print("skipped: stress-ng is not installed")
        sys.exit(77)
    stressors = list(read_stressors(options.names))
    exceptions = run.read_exceptions(run.FOLDER / "exceptions.txt", options.backend)
    failed = 0
    for name, arguments in stressors:
        usual = {outcome(run.Native(), options.preload, stress_ng, arguments)[0] for _ in range(3)}
        got, out = outcome(run.Ddbg(options.ddbg, options.backend), options.preload, stress_ng, arguments)
        good = not any(way.startswith("hung") for way in usual) and (got in usual) != (f"stress-ng.{name}" in exceptions)
        failed += not good
        print(f"{name}: {got}" + ("" if got in usual else f"; natively {', '.join(sorted(usual))}\n{out[-1500:]}"), flush=True)
    print(f"{len(stressors)} stressors, {failed} failures")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
