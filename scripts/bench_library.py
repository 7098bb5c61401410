"""What events cost a program that enters Dune mode by itself (libdune/include/dune), beside the same without and under ptrace: the
microbenchmarks of the paper, part of `scripts/bench dune`. docs/performance.md has the results."""

import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench_measures import Unavailable
from bench_places import DESCRIBE, HERE, described, emulator_and, in_one_unit, output_of_machine, print_line
from bench_run import machine

MARK = "#by "
EVENT = re.compile(r"^(\w+) ([0-9.]+) ([0-9.]+) ([-0-9.]+) ([-0-9.]+)$", re.M)  # of dune-events
PTRACE_EVENT = re.compile(r"^(\w+) ([0-9.]+)$", re.M)
CELL = 29
DISPATCH = "/sys/module/dune/parameters/dispatch"  # Y: dune.ko makes some calls itself

COLUMNS = {"linux": "Linux", "ptrace": "ptrace", "kmod": "Dune, kmod", "kvm": "Dune, kvm", "dispatch": "kmod, in the kernel"}


@dataclass
class Row:
    """An event: of dune-events, and of ddbg-ptrace-raw what compares with it."""

    name: str
    title: str
    ptrace: str = None


ROWS = [
    Row("getppid", "getppid"),
    Row("touch", "first touch of a page"),
    Row("walk", "load with a TLB miss"),
    Row("trap", "trap: int3, handler, back", "continue"),
    Row("vectors", "the same, vector registers saved"),
    Row("step", "trap flag: an instruction, handler, back", "step"),
    Row("refused", "page fault: store, handler, on behind it"),
    Row("answered", "call of ring 3, answered by a handler"),
    Row("interposed", "the same, and made by it", "syscall"),
    Row("appel1", "appel1 (PROT1, TRAP, UNPROT), a page"),
    Row("appel2", "appel2 (PROTN, TRAP, UNPROT), a page"),
]


@dataclass
class Target:
    """One measure over another of the same place, which has to be at most `at_most`."""

    title: str
    row: str
    against: str  # a column
    at_most: float
    columns: tuple = ("kmod", "kvm")


TARGETS = [
    Target("trap / ptrace's int3 and continue", "trap", "ptrace", 1 / 100),
    Target("step / ptrace's", "step", "ptrace", 1 / 50),
    Target("interposed call / PTRACE_SYSCALL twice", "interposed", "ptrace", 1 / 25),
    Target("appel1 / mprotect and SIGSEGV", "appel1", "linux", 1 / 7),
    Target("appel2 / mprotect and SIGSEGV", "appel2", "linux", 1 / 7),
    Target("getppid / Linux", "getppid", "linux", 5),
    Target("getppid / Linux, in the kernel", "getppid", "linux", 2, columns=("dispatch",)),
    Target("interposed call, in the kernel", "interposed", "ptrace", 1 / 25, columns=("dispatch",)),
]
NO_EXIT = ("trap", "step")  # of kmod's, by the issue


# --- places -------------------------------------------------------------------------------------------------------------


def commands(by, programs, events, runs, cpu=0, rows=""):
    """Shell lines that measure for one column."""
    program, raw = programs
    if by == "ptrace":
        lines = [f"{raw} {row.ptrace} {cpu} {cpu} {events} {runs} 2>&1 | sed 's/^/{row.name} /'" for row in ROWS if row.ptrace]
    else:
        lines = [f"{program} {by} {cpu} {events} {runs} {rows} 2>&1"]
    return "\n".join([f"echo '{MARK}{by}'", *lines])


def read(output):
    """What was said first, and column -> row -> values of ticks, ns, exits and faults; or the reason why there are none."""
    first, *sections = re.split(rf"^{MARK}(.*)\n", output, flags=re.M)
    columns = {}
    for by, said in zip(sections[::2], sections[1::2]):
        rows = read_ptrace(said, columns.get("linux", {})) if by == "ptrace" else read_events(said)
        columns[by] = rows or {"unavailable": (said.strip().splitlines() or ["nothing was printed"])[-1]}
    return first, columns


def read_events(said):
    rows = {}
    for name, *values in EVENT.findall(said):
        for what, value in zip(("ticks", "ns", "exits", "faults"), values):
            rows.setdefault(name, {}).setdefault(what, []).append(None if value == "-" else float(value))
    return rows


def read_ptrace(said, linux):
    """Its program has one clock; how the other goes beside it the rows of Linux say."""
    if "trap" not in linux:
        return {}
    ns_per_tick = statistics.median(linux["trap"]["ns"]) / statistics.median(linux["trap"]["ticks"])
    rows = {}
    for name, value in PTRACE_EVENT.findall(said):
        row = rows.setdefault(name, {"ns": [], "ticks": []})
        row["ns"].append(float(value))
        row["ticks"].append(float(value) / ns_per_tick)
    return rows


def in_hundreds(bench, events):
    return max(bench.events(events) // 100 * 100, 100)


class Here:
    """This machine, with whatever of /dev/dune and /dev/kvm it has: on hardware, by its time stamp counter."""

    name, unit, what = "library.native", "ticks", "cycles of the time stamp counter"

    def __init__(self, bench, _):
        self.bench = bench
        self.programs = (bench.build / "scripts/bench.d/dune-events", bench.raw)

    def measure(self):
        bench, dispatches = self.bench, Path(DISPATCH).exists() and Path(DISPATCH).read_text().strip() == "Y"
        wanted = ["linux", "ptrace", "kmod", *(["dispatch"] if dispatches else []), "kvm"]
        output = bench.run(["sh", "-c", "\n".join(commands(by, self.programs, in_hundreds(bench, 20_000), bench.runs, bench.target_cpu)
                                                  for by in wanted)])
        told = machine()
        about = [f"{told['cpu']}{' (virtual machine)' if told['hypervisor'] == 'yes' else ''}, Linux {told['kernel']}",
                 f"mitigations {told['mitigations']}; load average {told['load']}"]
        return about, read(output)[1]


class InMachine:
    """One start of scripts/vm."""

    def __init__(self, bench, kernel):
        self.bench, self.kernel = bench, kernel
        self.programs = (bench.build / "scripts/bench.d/dune-events", bench.raw)

    def module(self):
        done = subprocess.run([sys.executable, "-B", HERE / "vm_module.py", "--kernel", self.kernel], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise Unavailable((done.stderr.strip().splitlines() or ["dune.ko does not build"])[-1])
        return done.stdout.strip()

    def script(self, wanted, events, insmod):
        there = ("/dune-events", "/ddbg-ptrace-raw")
        dispatched = commands("dispatch", there, events, self.bench.runs, rows="getppid interposed")
        return "\n".join([DESCRIBE, "mount -t debugfs none /sys/kernel/debug", insmod,
                          *(commands(by, there, events, self.bench.runs) for by in wanted),
                          f"if test -e {DISPATCH}; then rmmod dune; {insmod} dispatch=1; {dispatched}; fi", "true"])

    def run(self, machine_name, options, wanted, events, insmod):
        added = [(self.module(), "/dune.ko"), *zip(self.programs, ("/dune-events", "/ddbg-ptrace-raw"))]
        return read(output_of_machine(self.bench, machine_name, ["--kernel", self.kernel, *options], added,
                                      self.script(wanted, events, insmod)))


class Svm(InMachine):
    name, unit, what = "library.svm", "ns", "emulator time, which is no machine's"
    options, events = [], 2000

    def measure(self):
        wanted = ["linux", "ptrace", "kmod", *(["kvm"] if self.kernel == "6.1" else [])]  # later ones keep others off the processor
        said, columns = self.run("qemu", [*self.options, "--timeout", "600"], wanted, in_hundreds(self.bench, self.events),
                                 "insmod /dune.ko")
        return described(emulator_and(self.what), said, "SVM", "dune.ko and kvm-amd"), columns


class SvmCounted(Svm):
    name, unit, what = "library.svm.counted", "ticks", "-icount shift=0: instructions of the whole machine"
    options, events = ["--icount"], 500


class Vmx(InMachine):
    name, unit, what = "library.vmx", "ticks", "its time stamp counter: instructions of the whole machine"

    def measure(self):
        said, columns = self.run("bochs", ["--kvm", "off", "--timeout", "1500"], ["linux", "ptrace", "kmod"],
                                 in_hundreds(self.bench, 500), "insmod /dune.ko unsafe_cpu=1")
        return described(f"Bochs: {self.what}", said, "VMX", "dune.ko"), columns


PLACES = (Here, Svm, SvmCounted, Vmx)


# --- the table ----------------------------------------------------------------------------------------------------------


def values_of(columns, by, row, what):
    return columns.get(by, {}).get(row, {}).get(what) if "unavailable" not in columns.get(by, {}) else None


def median_of(columns, by, row, what):
    values = values_of(columns, by, row, what)
    return statistics.median(values) if values and values[0] is not None else None


def exits_of(columns, by, row):
    exits, faults = (median_of(columns, by, row, what) for what in ("exits", "faults"))
    if exits is None:
        return "-"
    return f"{exits:.2f}" + (f" ({faults:.2f})" if faults is not None else "")


def print_place(place, columns):
    there = [by for by in COLUMNS if by in columns and "unavailable" not in columns[by]]
    guests = [by for by in there if by not in ("linux", "ptrace")]
    print_line(f"{place.name}: median (least - most)", [COLUMNS[by] for by in there], cell=CELL)
    for row in ROWS:
        cells = [values_of(columns, by, row.name, place.unit) for by in there]
        if any(cells):
            print_line(row.title, [in_one_unit(values, place.unit == "ticks") if values else "-" for values in cells], cell=CELL)
    for by, rows in columns.items():
        if "unavailable" in rows:
            print(f"{COLUMNS[by]}: unavailable: {rows['unavailable']}")
    if not guests:
        return
    print_line("exits from the guest (of them faults)", [COLUMNS[by] for by in guests], cell=CELL)
    for row in ROWS:
        print_line(row.title, [exits_of(columns, by, row.name) if values_of(columns, by, row.name, "ticks") else "" for by in guests], cell=CELL)
    print_line("beyond Linux, for each exit", [COLUMNS[by] for by in guests], cell=CELL)
    for row in ROWS:
        costs = [per_exit(columns, by, row, place.unit) for by in guests]
        if any(costs):
            print_line(row.title, [in_one_unit([cost], place.unit == "ticks").split(" (")[0] if cost else "" for cost in costs], cell=CELL)


def per_exit(columns, by, row, unit):
    """What the event takes more than without Dune mode, by its exits, if those are what it takes."""
    exits = median_of(columns, by, row.name, "exits")
    native = median_of(columns, "linux", row.name if row.name != "interposed" else "getppid", unit)
    if not exits or exits < 0.5 or native is None or row.name in ("trap", "vectors", "step"):
        return None
    return (median_of(columns, by, row.name, unit) - native) / exits


def judged(target, columns, unit):
    """Column -> (ratio, whether it is met), where it was measured."""
    against = median_of(columns, target.against, target.row, unit)
    found = {}
    for by in target.columns:
        value = median_of(columns, by, target.row, unit)
        if value is not None and against:
            found[by] = (value / against, value / against <= target.at_most)
    return found


def ratio_text(ratio):
    return f"1/{1 / ratio:.1f}" if ratio < 1 else f"{ratio:.2f}"


def print_targets(measured):
    """`measured`: place -> columns."""
    heads = [(place, by) for place, columns in measured.items() for by in ("kmod", "kvm")
             if any(by in judged(target, columns, place.unit) for target in TARGETS)]
    if not heads:
        return
    print()
    print_line("targets", ["at most", *(f"{place.name.removeprefix('library.')}, {by}" for place, by in heads)], cell=20)
    for target in TARGETS:
        cells = []
        for place, by in heads:
            found = judged(target, measured[place], place.unit)
            wanted = target.columns[0] if len(target.columns) == 1 and by == "kmod" else by
            ratio, met = found.get(wanted, (None, None))
            cells.append("-" if ratio is None else f"{ratio_text(ratio)} {'met' if met else 'missed'}")
        print_line(target.title, [ratio_text(target.at_most), *cells], cell=20)
    for name in NO_EXIT:
        cells = []
        for place, by in heads:
            exits = median_of(measured[place], by, name, "exits")
            cells.append("-" if exits is None else f"{exits:.2f} {'met' if exits < 0.005 else 'missed'}")
        print_line(f"exits of a {name}", ["0", *cells], cell=20)


def bench(bench_there, kernel, wanted):
    """Measures in the places whose names are wanted; returns what goes into the report."""
    measured, report = {}, {}
    for place in (make(bench_there, kernel) for make in PLACES if make.name in wanted):
        try:
            about, columns = place.measure()
        except Unavailable as reason:
            print(f"{place.name}: unavailable: {reason}", flush=True)
            continue
        print(f"{place.name}: " + f"\n{'':<{len(place.name)}}  ".join(about), flush=True)
        measured[place] = columns
        report[place.name] = {"described": about, "unit": place.what, "columns": columns}
    for place, columns in measured.items():
        print()
        print_place(place, columns)
    print_targets(measured)
    return report
