#!/usr/bin/env python3
"""Builds the libFuzzer targets and runs them, each for some seconds from its seeds, and says how far they came.

    tests/fuzz/run.py [--seconds N] [--corpus FOLDER] [TARGET...]     all targets without a name

What was found lies in FOLDER/TARGET.findings: an input that crashes, hangs or grows. `build/fuzz/tests/fuzz/.../TARGET FILE` runs
one again. The corpus of a run is kept in FOLDER and the next run goes on from it; the seeds in the tree are only read.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/fuzz"

# target: where its seeds are under tests/fuzz, and what libFuzzer has to know of it. The first word is its folder.
TARGETS = {
    "engine_session_fuzz": ("engine/seeds", ["-max_len=512"]),
    "symbols_elf_fuzz": ("symbols/seeds", ["-max_len=40000"]),
    "expr_dwarf_fuzz": ("symbols/seeds", ["-max_len=40000"]),
    "ddbg_commands_fuzz": ("ddbg/seeds", ["-max_len=2000"]),
    "ddbg_options_fuzz": ("ddbg/seeds_options", ["-max_len=500"]),
    "expr_parse_fuzz": ("expr/seeds", ["-max_len=1000"]),
    "disasm_relocate_fuzz": ("disasm/seeds", ["-max_len=200"]),
}
COMMON = ["-timeout=120", "-rss_limit_mb=3000", "-print_final_stats=1"]


def build():
    if not (BUILD / "build.ninja").exists():
        subprocess.run(["cmake", "--preset", "fuzz"], cwd=ROOT, check=True)
    subprocess.run(["ninja", "-C", BUILD, "fuzz_targets"], check=True)


class Run:
    """One target's, over as many processes as its findings take."""

    def __init__(self, target, seconds, folder, binaries):
        seeds, options = TARGETS[target]
        self.target, self.seconds = target, seconds
        self.corpus, self.findings = folder / target, folder / f"{target}.findings"
        self.corpus.mkdir(parents=True, exist_ok=True)
        self.findings.mkdir(exist_ok=True)
        binary = binaries / target if binaries else BUILD / "tests/fuzz" / target.split("_")[0] / target
        self.command = [binary, *COMMON, *options, f"-artifact_prefix={self.findings}/"]
        self.inputs = [self.corpus, ROOT / "tests/fuzz" / seeds]
        self.executions = self.covered = self.edges = self.features = 0

    def go(self):
        begin = time.monotonic()
        end = begin + self.seconds
        with open(self.corpus.with_suffix(".log"), "wb") as log:
            while (left := int(end - time.monotonic())) > 0:
                process = subprocess.Popen([*self.command, f"-max_total_time={left}", *self.inputs], stdout=subprocess.DEVNULL,
                                           stderr=subprocess.PIPE, cwd=self.findings)
                executed = 0
                for line in process.stderr:
                    log.write(line)
                    executed = max(executed, self.note(line.decode(errors="replace")))
                self.executions += executed
                if process.wait() == 0:
                    break
        self.took = time.monotonic() - begin

    def note(self, line):
        if loaded := re.search(r"Loaded \d+ modules\s+\((\d+) inline", line):
            self.edges = int(loaded[1])
        if state := re.match(r"#(\d+)\s.*cov: (\d+) ft: (\d+)", line):
            self.covered, self.features = max(self.covered, int(state[2])), max(self.features, int(state[3]))
            return int(state[1])
        if final := re.match(r"stat::number_of_executed_units:\s*(\d+)", line):
            return int(final[1])
        return 0

    def found(self):
        # An input that is slow is one on a busy machine: -timeout says what hangs.
        return [f for f in self.findings.iterdir() if not f.name.startswith("slow-unit-")]

    def row(self):
        return (f"{self.target:22} {self.took:8.0f} {self.executions:12,} {self.covered:8,} of {self.edges:7,} "
                f"{self.features:10,} {len(self.found()):9}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--corpus", type=Path, default=ROOT / "build/fuzz/corpus", metavar="FOLDER")
    parser.add_argument("--binaries", type=Path, metavar="FOLDER", help="built before: build nothing")
    parser.add_argument("targets", nargs="*", metavar="TARGET", default=list(TARGETS))
    arguments = parser.parse_args()
    for name in arguments.targets:
        if name not in TARGETS:
            parser.error(f"{name}: the targets are {', '.join(TARGETS)}")
    if not arguments.binaries:
        build()
    print(f"{'target':22} {'seconds':>8} {'executions':>12} {'edges covered':>19} {'features':>10} {'findings':>9}")
    found = 0
    for name in arguments.targets:
        run = Run(name, arguments.seconds, arguments.corpus.resolve(), arguments.binaries and arguments.binaries.resolve())
        run.go()
        print(run.row(), flush=True)
        found += len(run.found())
    return found != 0


if __name__ == "__main__":
    os.environ.setdefault("ASAN_OPTIONS", "allocator_may_return_null=0:detect_leaks=1")
    sys.exit(main())
