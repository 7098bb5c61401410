#!/usr/bin/env python3
"""The conformance cases, natively and under ddbg: what a case says has to be the same, and natively nothing may fail.

Cases that can share a process do: where one ends or hangs the process, that is its result, and the others go on in another. A case
that has a process to itself is judged by the process's end, too."""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

AREAS = ("faults", "instructions", "memory", "pointers", "processes", "restarts", "signals", "state", "threads")
PATIENCE = 30  # seconds for the cases of an area: a hang, not a pace
STOPPED_AT_FAILURE = "exit 102"  # of programs that were told to (--stop-at-failure)
FOLDER = Path(__file__).resolve().parent


class Case:
    def __init__(self, area, name, alone, about):
        self.area, self.name, self.alone, self.about = area, name, alone, about

    def of(self, about):
        return Case(self.area, self.name, self.alone, about)


def read_cases(programs, areas):
    found = []
    for area in areas:
        listed = subprocess.run([programs / area, "--list"], capture_output=True, text=True, check=True, timeout=PATIENCE)
        for line in listed.stdout.splitlines():
            name, kind, about = line.split("\t")
            found.append(Case(area, name, kind == "alone", about.split()))
    return found


class WrittenException:
    def __init__(self, reason, everywhere):
        self.reason, self.everywhere = reason, everywhere


def read_exceptions(path, backend):
    found = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, of_backend, reason = line.split(None, 2)
            if of_backend.removesuffix("?") == backend:
                found[name] = WrittenException(reason, not of_backend.endswith("?"))
    return found


def skip_if_absent(backend):
    if backend == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("skipped: kvm is not there: /dev/kvm cannot be opened")
        sys.exit(77)


def kill_all_of(first, mark):
    """Everything that was started with a command: its descendants, and what has its mark in the environment. A ddbg that is killed lets its
    target go, and a target may have written over its environment. First may be None. No session of their own: orphaned, they would not be stopped by SIGTSTP."""
    parents, marked = {}, {first}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                if mark.encode() in (process / "environ").read_bytes():
                    marked.add(int(process.name))
            except OSError:
                pass  # gone, or not ours
    for pid in parents:
        above = pid
        while above and above not in marked:
            above = parents.get(above)
        if above:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass  # gone meanwhile


def run(command, more=None, patience=PATIENCE):
    """Output and exit status of a command, with more in its environment; the status is None if it did not end."""
    mark = f"CONFORMANCE_RUN={uuid.uuid4().hex}"
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "HOME": os.environ.get("HOME", "/"),
                   "TMPDIR": os.environ.get("TMPDIR", "/tmp"), "DEBUGINFOD_URLS": "", **(more or {})}
    environment.update([mark.split("=")])
    # A group of its own, with a parent outside: in an orphaned one SIGTSTP stops nobody.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=environment, process_group=0)
    try:
        out, _ = process.communicate(timeout=patience)
        return out.decode(errors="replace"), process.returncode
    except subprocess.TimeoutExpired:
        kill_all_of(process.pid, mark)
        out, _ = process.communicate()
        return out.decode(errors="replace"), None


class Native:
    """`execute` is run(), here or elsewhere."""
    name = "native"

    def __init__(self, execute=run):
        self.execute = execute

    def run(self, program, arguments):
        out, status = self.execute([program, *arguments])
        if status is None:
            return out, "hung"
        return out, f"exit {status}" if status >= 0 else f"signal {-status}"


class Ddbg:
    HANDLE = ("handle all nostop noprint pass", "handle SIGINT nostop noprint pass", "handle SIGTRAP nostop noprint pass")

    def __init__(self, ddbg, backend, execute=run):
        self.name, self.ddbg, self.execute = backend, ddbg, execute

    def run(self, program, arguments):
        command = [self.ddbg, "--backend", self.name, "-q", "-nx", "-batch"]
        for line in (*self.HANDLE, "run"):
            command += ["-ex", line]
        out, status = self.execute([*command, "--args", program, *arguments])
        if status is None:
            return out, "hung"
        if re.search(r"^\[Inferior 1 \(process \d+\) exited normally\]$", out, re.MULTILINE):
            return out, "exit 0"
        if match := re.search(r"^\[Inferior 1 \(process \d+\) exited with code (\d+)\]$", out, re.MULTILINE):
            return out, f"exit {int(match[1], 8)}"
        if match := re.search(r"^Program terminated with signal (\w+), ", out, re.MULTILINE):
            return out, f"signal {signal_number(match[1])}"
        return out, "lost: " + out.strip()[-300:]


def signal_number(name):
    if name in signal.Signals.__members__:
        return int(signal.Signals[name])
    return int(name.removeprefix("SIG"))  # real-time ones are SIG34 to SIG64


def results_of(runner, programs, cases):
    results = {}
    for area in dict.fromkeys(case.area for case in cases):
        rest = [case.name for case in cases if case.area == area and not case.alone]
        while rest:
            out, end = runner.run(programs / area, rest)
            said = dict(re.findall(r"^(\w+\.\w+): (.*)$", out, re.MULTILINE))
            for name in rest:
                if name not in said:
                    if not said or end != STOPPED_AT_FAILURE:
                        results[name] = end
                    break
                results[name] = said[name]
            rest = [name for name in rest if name not in results]
        for case in cases:
            if case.area == area and case.alone:
                out, end = runner.run(programs / area, [case.name])
                said = dict(re.findall(r"^(\w+\.\w+): (.*)$", out, re.MULTILINE))
                results[case.name] = f"{said.get(case.name, 'nothing said')}; {end}"
    return results


def native_failures(native):
    for name, result in native.items():
        if "FAILED" in result or result.startswith(("hung", "signal")):
            yield f"{name}: natively: {result}"


def differences(native, other, backend, exceptions):
    for name in native:
        same = native[name] == other[name]
        if not same and name not in exceptions:
            yield f"{name}: {backend}: {other[name]}\n    natively: {native[name]}"
        if same and name in exceptions and exceptions[name].everywhere:
            yield f"{name}: {backend}: as natively, but in exceptions.txt: {exceptions[name].reason}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=Path, required=True, help="the folder of the built programs")
    parser.add_argument("--ddbg", help="without it, native runs only")
    parser.add_argument("--backend", default="signal")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--about", help="only the cases about this system call (or exception: #PF)")
    parser.add_argument("--list", action="store_true", help="the cases and what they are about")
    parser.add_argument("names", nargs="*", help="areas or cases; all by default")
    options = parser.parse_args()
    cases = [case for case in read_cases(options.programs, AREAS)
             if (not options.names or case.area in options.names or case.name in options.names)
             and (not options.about or options.about in case.about)]
    if not cases:
        sys.exit("no such cases")
    if options.list:
        for case in cases:
            print(case.name, *case.about)
        return
    backend = options.backend if options.ddbg else None
    skip_if_absent(backend)
    exceptions = read_exceptions(FOLDER / "exceptions.txt", backend)
    failed = 0
    for _ in range(options.times):
        begin = time.monotonic()
        native = results_of(Native(), options.programs, cases)
        failures = list(native_failures(native))
        if backend:
            failures += differences(native, results_of(Ddbg(options.ddbg, backend), options.programs, cases), backend, exceptions)
        failed += len(failures)
        for failure in failures:
            print(failure)
        print(f"{len(cases)} cases, natively{f' and under {backend}' if backend else ''}: {len(failures)} failures, "
              f"{time.monotonic() - begin:.1f} s")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
