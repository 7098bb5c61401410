#!/usr/bin/env python3
"""Shows that the conformance cases look at what they are about, and the policy's rows matter: with a row of libdune/process/calls.h broken in
the agent's image, the cases about its call have to differ from the native run. No rebuild: a copy of the keeper has the broken row.

A row is broken to `absent` (ENOSYS, not made), to `silent` (0, not made) and to `pass` (made whatever it does to the guest). The programs
are linked statically, so that they come to their cases with most calls broken. broken_rows.txt has what cannot differ, with the reason."""

import argparse
import fnmatch
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import run

KINDS = ("absent", "silent", "pass")
# What becomes of an exception goes through these.
OF_EXCEPTIONS = ("rt_sigaction", "rt_sigreturn")
PATIENCE = 15  # seconds, as in run.py
NOT_HERE = "not here: "  # what a case says that has nothing to try on this machine


class Row:
    def __init__(self, name, effect, intact, broken):
        self.name, self.effect, self.intact, self.broken = name, effect, intact, broken

    @property
    def call(self):
        return self.name.partition(":")[0]


def read_rows(printer):
    listed = subprocess.run([printer], capture_output=True, text=True, check=True)
    rows = []
    for line in listed.stdout.splitlines():
        name, effect, intact, *broken = line.split("\t")
        rows.append(Row(name, effect, bytes.fromhex(intact), dict(zip(KINDS, map(bytes.fromhex, broken)))))
    return rows


class Reasons:
    """Lines of broken_rows.txt: PATTERN REASON, for rows that no case notices when they pass, and for cases that no row decides."""

    def __init__(self, path):
        self.lines = [line.split(None, 1) for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
        self.used = set()

    def has(self, name):
        for pattern, _ in self.lines:
            if fnmatch.fnmatchcase(name, pattern):
                self.used.add(pattern)
                return True
        return False

    def unused(self):
        return [pattern for pattern, _ in self.lines if pattern not in self.used]


class BrokenDdbg(run.Ddbg):
    def __init__(self, ddbg, backend, keeper):
        super().__init__(ddbg, backend, lambda command: run.run(command, {"DDBG_KEEPER": str(keeper)}, PATIENCE))
        self.keeper = keeper

    def run(self, program, arguments):
        result = super().run(program, ["--stop-at-failure", *arguments])
        run.kill_all_of(None, f"DDBG_KEEPER={self.keeper}")  # children of cases that stopped
        return result


class Bench:
    """Runs cases with a row broken."""

    def __init__(self, options, folder):
        self.ddbg, self.backend, self.programs = options.ddbg, options.backend, options.programs
        self.keeper = options.keeper.read_bytes()
        self.copy = Path(folder) / "ddbg-keeper"

    def results(self, cases, row, kind):
        if self.keeper.count(row.intact) != 1:
            sys.exit(f"{row.name}: {self.keeper.count(row.intact)} rows in the keeper look like this")
        self.copy.unlink(missing_ok=True)
        self.copy.write_bytes(self.keeper.replace(row.intact, row.broken[kind]))
        self.copy.chmod(0o755)
        return run.results_of(BrokenDdbg(self.ddbg, self.backend, self.copy), self.programs, cases)


def says_something(result):
    """Whether it comes from the case and not from the process's end."""
    return not result.startswith(("exit ", "signal ", "hung", "lost", "nothing said"))


def breakings_of(name, rows):
    """By which rows the call, or what an exception goes through, can be broken."""
    calls = OF_EXCEPTIONS if name.startswith("#") else (name,)
    for row in rows:
        if row.call in calls:
            for kind in KINDS:
                if row.broken[kind] != row.intact and not (kind == "pass" and row.effect == "pass"):
                    yield row, kind


class Notice:
    def __init__(self, row, kind, result):
        self.row, self.kind, self.result = row, kind, result


def notices(bench, name, cases, expected, rows):
    """By case, the first breaking that it notices; one in which it says what it saw is preferred to one that ends the process."""
    found = {}
    for row, kind in breakings_of(name, rows):
        open_cases = [case for case in cases if case.name not in found or found[case.name].result.startswith(("exit ", "signal "))]
        if not open_cases:
            break
        for case_name, result in bench.results(open_cases, row, kind).items():
            if result != expected[case_name] and (case_name not in found or says_something(result)):
                found[case_name] = Notice(row, kind, result)
    return found


def show(case, name, notice):
    how = "differs" if says_something(notice.result) else "process ended"
    return f"{case.name}, {name}: {how} with {notice.row.name} {notice.kind}: {notice.result[:150]}"


def check_cases(bench, cases, expected, rows, reasons, verbose):
    failures, ended = [], 0
    names = dict.fromkeys(name for case in cases for name in case.about)
    calls = {row.call for row in rows}
    judged = set()
    for name in names:
        about = [case for case in cases if name in case.about]
        if not name.startswith("#") and name not in calls:
            continue  # an instruction
        found = notices(bench, name, about, expected, rows)
        for case in about:
            judged.add(case.name)
            if notice := found.get(case.name):
                ended += not says_something(notice.result)
                if verbose:
                    print(show(case, name, notice), flush=True)
            elif expected[case.name].startswith(NOT_HERE):
                print(f"{case.name}: {expected[case.name]}", flush=True)
            elif not reasons.has(f"{case.name}/{name}"):
                failures.append(f"{case.name}: as natively with {name} broken")
    for case in cases:
        if case.name not in judged and not reasons.has(f"{case.name}/{case.about[0]}"):
            failures.append(f"{case.name}: is about no system call or exception")
    pairs = sum(len(case.about) for case in cases)
    print(f"{len(cases)} cases, about {pairs} calls and exceptions in all; {ended} of these noticed only by the process's end")
    return failures


def check_rows(bench, cases, expected, rows, reasons, verbose):
    """Which rows with an effect no case notices when they pass."""
    failures, count, explained = [], 0, 0
    for row in rows:
        if row.effect == "pass":
            continue
        count += 1
        if reasons.has(row.name):
            explained += 1
            continue
        near = [case for case in cases if row.call in case.about]
        noticed = None
        for some in (near, *([case for case in cases if case.area == area and case not in near] for area in run.AREAS)):
            results = bench.results(some, row, "pass") if some else {}
            differing = [name for name, result in results.items() if result != expected[name]]
            if differing:
                noticed = differing
                break
        if noticed and verbose:
            print(f"{row.name} passes: {', '.join(noticed[:4])}: {results[noticed[0]][:120]}", flush=True)
        if not noticed:
            failures.append(f"{row.name}: no case notices that it passes instead of {row.effect}")
    print(f"{count} rows and operations have an effect, {explained} of them one that no case can see")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="the folder of the static programs")
    parser.add_argument("--ddbg", required=True)
    parser.add_argument("--keeper", type=Path, required=True)
    parser.add_argument("--rows", required=True, help="the program that prints the rows")
    parser.add_argument("--backend", default="kvm")
    parser.add_argument("--verbose", action="store_true", help="by what each case notices each of its calls")
    parser.add_argument("--what", choices=("cases", "rows"), action="append", help="only one of the two questions")
    parser.add_argument("--case", default="*", help="only these cases (patterns with commas between)")
    parser.add_argument("names", nargs="*", help="only these calls, exceptions and rows (or patterns)")
    options = parser.parse_args()

    def chosen(name):
        return not options.names or any(fnmatch.fnmatchcase(name, pattern) for pattern in options.names)
    run.skip_if_absent(options.backend)
    begin = time.monotonic()
    what = options.what or ("cases", "rows")
    cases = [case for case in run.read_cases(options.programs, run.AREAS)
             if any(fnmatch.fnmatchcase(case.name, pattern) for pattern in options.case.split(","))
             and ("rows" in what or any(map(chosen, case.about)))]
    rows = read_rows(options.rows)
    reasons = Reasons(run.FOLDER / "broken_rows.txt")
    expected = run.results_of(run.Native(), options.programs, cases)
    intact = run.results_of(run.Ddbg(options.ddbg, options.backend), options.programs, cases)
    # What differs anyway is compared with the row as it is.
    written = run.read_exceptions(run.FOLDER / "exceptions.txt", options.backend)
    expected.update((name, intact[name]) for name in written if name in intact)
    failures = [f"{name}: with no row broken: {intact[name]}" for name in intact if intact[name] != expected[name]]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, folder)
        if "cases" in what:
            of_names = [case.of([name for name in case.about if chosen(name)]) for case in cases]
            failures += check_cases(bench, [case for case in of_names if case.about], expected, rows, reasons, options.verbose)
        if "rows" in what:
            failures += check_rows(bench, cases, expected, [row for row in rows if chosen(row.name)], reasons, options.verbose)
    if not options.names and not options.what and options.case == "*":
        failures += [f"broken_rows.txt: {pattern}: not needed" for pattern in reasons.unused()]
    for failure in failures:
        print(failure)
    print(f"{len(failures)} failures, {time.monotonic() - begin:.0f} s")
    sys.exit(failures != [])


if __name__ == "__main__":
    main()
