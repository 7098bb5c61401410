#!/usr/bin/env python3
"""What events cost in Dune mode, beside the same natively and under ptrace: `scripts/bench dune`. One script of commands runs here, where
/dev/kvm opens, and in one boot each of the emulated machine, by its clock and counting instructions. bench_library.py has the same for
programs that enter Dune mode by themselves. docs/performance.md has the results."""

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import bench_library
from bench_measures import Bench, Unavailable
from bench_places import DESCRIBE, described, emulator_and, in_one_unit, output_of_machine, print_line
from bench_run import machine

NUMBER = re.compile(r"^[0-9]+\.[0-9]+$")
MARK = "#row "
STEPS_BEYOND = 2000  # more than the clock's instructions, less than kSlack of floors.c


@dataclass
class Row:
    """An event, and the command that prints what it took, a number per run."""

    name: str
    title: str
    command: object  # of a Programs


@dataclass
class Programs:
    """Where things are in the place where the script runs, which is where they are here."""

    floors: Path
    raw: Path
    ddbg: Path
    cpu: int
    events: int
    runs: int

    def floor(self, event):
        return [self.floors, event, self.cpu, self.events, self.runs]

    def ptrace(self, event):
        return [self.raw, event, self.cpu, self.cpu, self.events, self.runs]

    def dune(self, event, *lines):
        commands = [word for line in lines or ("run",) for word in ("-ex", line)]
        return [self.ddbg, "-nx", "-q", "-batch", "--backend", "kvm", *commands, "--args", *self.floor(event)]

    def stepped(self):
        # The round that only warms is not stopped at.
        rounds = ["run", f"stepi {self.events + STEPS_BEYOND}"] + ["continue", f"stepi {self.events + STEPS_BEYOND}"] * (self.runs - 1)
        return self.dune("stepped", "break stepped_begin", "ignore 1 1", *rounds, "continue")


ROWS = [
    Row("call", "an empty call: the loop of most rows", lambda p: p.floor("call")),
    Row("getppid.native", "getppid", lambda p: p.floor("getppid")),
    Row("getppid.dune", "getppid, forwarded from the guest", lambda p: p.dune("getppid")),
    Row("fault.native", "first touch of a page", lambda p: p.floor("fault")),
    Row("fault.dune", "first touch of a page, guest", lambda p: p.dune("fault")),
    Row("fault16.native", "first touch, every 16th page", lambda p: p.floor("fault16")),
    Row("fault16.dune", "first touch, every 16th page, guest", lambda p: p.dune("fault16")),
    Row("hit.dune", "trap site, condition false, monitor",
        lambda p: p.dune("call", "break empty if handled == -1", "run")),
    Row("hit.host.dune", "the same settled on the host side (ignore)",
        lambda p: p.dune("call", "break empty", "ignore 1 1000000000", "run")),
    Row("hit.ptrace", "ptrace: int3 and continue, same core", lambda p: p.ptrace("continue")),
    Row("hit.signal", "int3, SIGTRAP, return", lambda p: p.floor("int3")),
    Row("step.dune", "stepi N, in the agent, guest", lambda p: p.stepped()),
    Row("step.ptrace", "ptrace: single step, same core", lambda p: p.ptrace("step")),
    Row("step.signal", "trap flag, SIGTRAP, return", lambda p: p.floor("step")),
    Row("watch.dune", "watch, condition false, guest", lambda p: p.dune("store", "watch watched if watched == -1", "run")),
    Row("watch.signal", "debug register, SIGTRAP, return", lambda p: p.floor("watch")),
]


@dataclass
class Ratio:
    title: str
    measure: str
    against: str
    at_most: float = None


RATIOS = [
    Ratio("trap site, condition false / ptrace int3", "hit.dune", "hit.ptrace", 1 / 100),
    Ratio("stepi N / ptrace step", "step.dune", "step.ptrace", 1 / 50),
    Ratio("trap site, condition false / SIGTRAP", "hit.dune", "hit.signal"),
    Ratio("getppid, forwarded / native", "getppid.dune", "getppid.native"),
    Ratio("first touch, guest / native", "fault.dune", "fault.native"),
]


# --- places -------------------------------------------------------------------------------------------------------------

def script(programs, rows):
    """Prints what the place is, and each row's values behind a line of its own."""
    lines = [DESCRIBE]
    for row in rows:
        lines += [f"echo '{MARK}{row.name}'", shlex.join(map(str, row.command(programs))) + " 2>&1"]
    return "\n".join([*lines, "true"])


def read_rows(output, rows, runs):
    """What the place says of itself, and a result for each row; what was said last is the reason of one that lacks values."""
    described, *sections = re.split(rf"^{MARK}(.*)\n", output, flags=re.M)
    said = dict(zip(sections[::2], sections[1::2]))
    results = {}
    for row in rows:
        lines = said.get(row.name, "").strip().splitlines()
        values = [float(line) for line in lines if NUMBER.match(line)]
        if len(values) == runs:
            results[row.name] = {"median": statistics.median(values), "least": min(values), "most": max(values),
                                 "runs": runs, "values": values}
        else:
            results[row.name] = {"unavailable": lines[-1] if lines else "nothing was printed"}
    return described, results


def need_kvm():
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise Unavailable(f"/dev/kvm does not open here: {error.strerror}") from None


class Here:
    name, counts = "native", False

    def __init__(self, bench):
        self.programs = Programs(bench.floors, bench.raw, bench.ddbg, bench.target_cpu, bench.events(2000), bench.runs)
        self.bench = bench

    def measure(self, rows):
        need_kvm()
        _, results = read_rows(self.bench.run(["sh", "-c", script(self.programs, rows)]), rows, self.programs.runs)
        told = machine()
        return [f"{told['cpu']}{' (virtual machine)' if told['hypervisor'] == 'yes' else ''}, Linux {told['kernel']}",
                f"mitigations {told['mitigations']}; load average {told['load']}"], results


class Emulated:
    """One boot of scripts/vm. By its clock, or counting its instructions: those of the whole machine, kernel and guest."""

    def __init__(self, bench, kernel, counting):
        self.name, self.counts = "instructions" if counting else "emulated", counting
        self.kernel, self.bench = kernel, bench
        for program in ("ddbg", "ddbg-keeper"):  # nine tenths are debug information, which would be in the machine's memory twice
            subprocess.run(["strip", "--strip-debug", "-o", bench.work / program, bench.ddbg.with_name(program)], check=True)
        self.programs = Programs(bench.floors, bench.raw, bench.work / "ddbg", 0, bench.events(2000), bench.runs)

    def measure(self, rows):
        p = self.programs
        said = output_of_machine(self.bench, "qemu", ["--kernel", self.kernel, *(["--icount"] if self.counts else []), "--timeout", "280"],
                                 (p.ddbg, p.ddbg.with_name("ddbg-keeper"), p.floors, p.raw), script(p, rows))
        about, results = read_rows(said, rows, p.runs)
        how = "-icount shift=0: instructions of the whole machine" if self.counts else "emulator time, which is no machine's"
        return described(emulator_and(how), about, "SVM", "kvm-amd"), results


# --- whole programs -----------------------------------------------------------------------------------------------------

PYTHON_LOOP = "x = 0\nfor i in range({}):\n    x += i * i\nprint(x)\n"


def whole_programs(bench):
    """Title -> mode -> times in ns; the modes take turns, so that what else the machine does meets all."""
    need_kvm()
    data = bench.work / "data"
    data.write_bytes(bench.ddbg.read_bytes()[:(1 if bench.quick else 24) << 20])
    python = "/usr/bin/python3"  # the system's, and no wrapper of another that may be in PATH
    commands = {"true": ["true"], "python3, a loop": [python, "-S", "-c", PYTHON_LOOP.format(bench.events(10_000_000))],
                "gzip -c": ["gzip", "-c", data]}
    modes = {"native": [], **{b: [bench.ddbg, "-nx", "-q", "-batch", "--backend", b, "-ex", "run", "--args"] for b in ("signal", "kvm")}}
    times = {}
    for title, (program, *arguments) in commands.items():
        path = shutil.which(program)
        if not path:
            raise Unavailable(f"{program} is not there")
        for run in range(bench.runs + 1):  # the first fills the page cache
            for mode, before in modes.items():
                begin = time.monotonic()
                subprocess.run([str(word) for word in (*before, path, *arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               check=True, preexec_fn=lambda: os.sched_setaffinity(0, {bench.target_cpu}))
                took = time.monotonic() - begin
                if run:
                    times.setdefault(title, {}).setdefault(mode, []).append(took * 1e9)
    return times


def print_programs(times):
    print_line("whole runs from start to end, native", times["true"])
    for title, modes in times.items():
        print_line(title, [in_one_unit(values) for values in modes.values()])
        print_line("", ["", *(f"{min(modes[mode]) / min(modes['native']):.2f}x" for mode in ("signal", "kvm"))])
    print("The ratios are of the shortest runs, which what else the machine does disturbs least.")


# --- the table ----------------------------------------------------------------------------------------------------------


def ratio_of(ratio, results):
    pair = [results.get(name, {}).get("median") for name in (ratio.measure, ratio.against)]
    return pair[0] / pair[1] if None not in pair else None


def print_tables(places, rows, measured):
    print()
    print_line("median (least - most)", [place.name for place in places])
    for row in rows:
        results = [measured[place.name][row.name] for place in places]
        print_line(row.title, [in_one_unit(result["values"], place.counts) if "values" in result else "unavailable"
                               for place, result in zip(places, results)])
        for place, result in zip(places, results):
            if "unavailable" in result:
                print(f"  {place.name}: {result['unavailable']}")
    print()
    print_line("ratio of medians (the limit is for emulated)", [place.name for place in places], "at most")
    for ratio in RATIOS:
        found = [ratio_of(ratio, measured[place.name]) for place in places]
        print_line(ratio.title, ["-" if r is None else f"{r:.4f}" for r in found],
                   *([] if ratio.at_most is None else [f"{ratio.at_most:.2f}"]))


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench dune", description="Measures Dune mode beside the kernel and ptrace.")
    parser.add_argument("--quick", action="store_true", help="few events and runs: whether it works, not how fast it is")
    libraries = [place.name for place in bench_library.PLACES]
    parser.add_argument("--where", choices=("native", "emulated", "instructions", "programs", "library", *libraries), action="append",
                        help="only there; may be given many times. library: all of programs that enter by themselves")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only rows of ddbg's whose name begins so")
    parser.add_argument("--kernel", default="6.1", help="of the emulated machine (6.1)")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    parser.add_argument("--build", type=Path, required=True, help="the folder with what is measured")
    arguments = parser.parse_args()
    rows = [row for row in ROWS if not arguments.only or any(row.name.startswith(name) for name in arguments.only)]
    if not rows:
        parser.error("no row has such a name: " + " ".join(row.name for row in ROWS))

    wanted = arguments.where or ["native", "emulated", "instructions", *([] if arguments.only else ["programs", "library"])]
    everything = {"quick": arguments.quick, "places": {}}
    with contextlib.closing(Bench(arguments.build.resolve(), arguments.quick)) as bench:
        makers = {"native": lambda: Here(bench), "emulated": lambda: Emulated(bench, arguments.kernel, False),
                  "instructions": lambda: Emulated(bench, arguments.kernel, True)}
        places, measured = [], {}
        for place in (make() for name, make in makers.items() if name in wanted):
            try:
                about, results = place.measure(rows)
            except Unavailable as reason:
                print(f"{place.name}: unavailable: {reason}", flush=True)
                continue
            print(f"{place.name}: " + f"\n{'':<{len(place.name)}}  ".join(about), flush=True)
            places.append(place)
            measured[place.name] = results
            everything["places"][place.name] = {"described": about, "rows": results}
        if places:
            print_tables(places, rows, measured)
        if "programs" in wanted:
            try:
                everything["programs"] = whole_programs(bench)
                print()
                print_programs(everything["programs"])
            except Unavailable as reason:
                print(f"programs: unavailable: {reason}", flush=True)
        names = libraries if "library" in wanted else [name for name in libraries if name in wanted]
        if names:
            everything["library"] = bench_library.bench(bench, arguments.kernel, names)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(everything, indent=2) + "\n")
    return 0 if everything["places"] or "programs" in everything or everything.get("library") else 1


if __name__ == "__main__":
    sys.exit(main())
