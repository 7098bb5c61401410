#!/usr/bin/env python3
"""The storms, natively and under ddbg: each checks itself, and says the same in both."""

import argparse
import sys
from pathlib import Path

import run

# name: count of the quick version, of the full one
STORMS = {"signal_storm": (20_000, 1_000_000), "memory_storm": (10_000, 200_000), "thread_storm": (1_000, 100_000)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--ddbg", help="without it, native runs only")
    parser.add_argument("--backend", default="signal")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("storms", nargs="*")
    options = parser.parse_args()
    run.skip_if_absent(options.backend if options.ddbg else None)
    run.PATIENCE = 600 if options.full else 60
    runners = [run.Native()] + ([run.Ddbg(options.ddbg, options.backend)] if options.ddbg else [])
    failed = 0
    for name in options.storms or STORMS:
        for runner in runners * options.times:
            out, end = runner.run(options.programs / name, [str(STORMS[name][options.full])])
            said = [line for line in out.splitlines() if line.startswith("errors ")]
            good = end == "exit 0" and len(said) == 1
            failed += not good
            print(f"{name}, {runner.name}: {said[0] if good else end + ': ' + out[-2000:]}", flush=True)
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
