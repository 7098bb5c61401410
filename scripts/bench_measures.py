"""What scripts/bench measures: one function per measure, each returns one value per run, nanoseconds per event unless its row
says otherwise. A measure that cannot be made raises Unavailable with the reason, which stands in the table in its place."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROUND = re.compile(r"([0-9.]+) ns a round")


class Unavailable(Exception):
    pass


@dataclass
class Bench:
    """One run of the bench: where things are, how much is done, and on which CPUs."""

    build: Path
    quick: bool
    work: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="ddbg-bench-")))

    def __post_init__(self):
        usable = sorted(os.sched_getaffinity(0))
        self.tracer_cpu, self.target_cpu = usable[0], usable[-1]
        self.two_cpus = len(usable) > 1
        self.runs = 3 if self.quick else 7
        self.ddbg = self.build / "dtrace-lite/ddbg/ddbg"
        self.raw = self.build / "dtrace-lite/baseline/ddbg-ptrace-raw"
        self.floors = self.compile("floors", "-O2")
        self.loop = self.compile("loop", "-O1")
        self.calls = self.compile("calls", "-O1")

    def close(self):
        shutil.rmtree(self.work, ignore_errors=True)

    def events(self, n):
        return max(n // 20, 50) if self.quick else n

    def compile(self, name, optimise):
        program = self.work / name
        subprocess.run([os.environ.get("CC", "cc"), optimise, "-g", "-fPIE", "-pie", "-o", program, HERE / "bench.d" / f"{name}.c"],
                       check=True)
        return program

    def run(self, command, pin=True, timeout=300):
        """Standard output and error of a command, on the target's CPU alone unless told otherwise."""
        cpus = {self.target_cpu} if pin else os.sched_getaffinity(0)
        try:
            done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=timeout, errors="replace",
                                  preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        except FileNotFoundError:
            raise Unavailable(f"{command[0]} is not there") from None
        except subprocess.TimeoutExpired:
            raise Unavailable(f"no end after {timeout} s") from None
        return done.stdout

    def rounds(self, command, pin=True):
        """What the loop says one of its rounds took, one value per run."""
        values = []
        for _ in range(self.runs):
            output = self.run(command, pin)
            found = ROUND.search(output)
            if not found:
                last = output.strip().splitlines()
                raise Unavailable("no result: " + (last[-1] if last else "nothing was printed"))
            values.append(float(found.group(1)))
        return values

    def numbers(self, command):
        output = self.run(command, pin=False)
        try:
            return [float(line) for line in output.split()]
        except ValueError:
            raise Unavailable(output.strip().splitlines()[-1]) from None


# --- floors and ptrace ----------------------------------------------------------------------------------------------------

def floor(event, events):
    return lambda b: b.numbers([b.floors, event, b.target_cpu, b.events(events), b.runs])


def ptrace(event, same_core, events):
    def measure(b):
        if not same_core and not b.two_cpus:
            raise Unavailable("only one CPU")
        tracer = b.target_cpu if same_core else b.tracer_cpu
        return b.numbers([b.raw, event, tracer, b.target_cpu, b.events(events), b.runs])

    return measure


# --- debuggers ------------------------------------------------------------------------------------------------------------

GDB = ["gdb", "-nx", "-q", "-batch"]


def commands(*lines):
    return [word for line in lines for word in ("-ex", line)]


def with_loop(debugger, events, *lines, pin=True):
    def measure(b):
        program = b.ddbg if debugger == "ddbg" else None
        start = [program, "-nx", "-q", "-batch"] if program else GDB
        return b.rounds([*start, *commands(*lines), "--args", b.loop, b.events(events)], pin)

    return measure


def call(kind, debugger=None):
    """System calls with nothing set; without a debugger natively."""

    def measure(b):
        program = [b.calls, kind, b.events(400_000)]
        return b.rounds([b.ddbg, "-nx", "-q", "-batch", *commands("run"), "--args", *program] if debugger else program)

    return measure


def gdbserver_false(b):
    if not shutil.which("gdbserver"):
        raise Unavailable("gdbserver is not there")
    n = b.events(4000)
    return b.rounds([*GDB, *commands("set breakpoint condition-evaluation target",
                                     f"target remote | gdbserver --once - {b.loop} {n}", "break work if i == -1", "continue"),
                     b.loop])


def gdb_stepi(b):
    """The difference of two runs: starting gdb takes longer than the steps."""
    few, many = 100, max(b.events(4000), 500)
    values = []
    for _ in range(b.runs):
        took = []
        for n in (few, many):
            begin = time.monotonic()
            b.run([*GDB, *commands("break begin", "run", f"stepi {n}"), "--args", b.loop, "100000"])
            took.append(time.monotonic() - begin)
        values.append((took[1] - took[0]) * 1e9 / (many - few))
    return values


def latency(way, events, *options):
    """The medians that `ddbg latency` finds; a way without single events has its mean."""

    def measure(b):
        values = []
        n = b.events(events)
        for _ in range(b.runs):
            output = b.run([b.ddbg, "latency", "-n", n, "--against", "none", "--json", *options, b.loop, 4 * n], pin=False)
            try:
                rows = json.loads(output)["rows"]
            except ValueError:
                raise Unavailable(output.strip().splitlines()[0] if output.strip() else "nothing was printed") from None
            row = next(row for row in rows if row["way"] == way)
            values.append(row["median_ns"] if row["median_ns"] is not None else row["mean_ns"])
        return values

    return measure


# --- launch ---------------------------------------------------------------------------------------------------------------

# The peak of the debugger and of its helpers, read at the stop by a shell that the debugger starts.
PEAK = ("shell for p in $PPID $(cat /proc/$PPID/task/*/children); do "
        "case $(cat /proc/$p/comm) in gdb|ddbg|ddbg-keeper) sed -n 's/^VmHWM:[[:space:]]*/PEAK /p' /proc/$p/status;; esac; done")


def launched(b, debugger, program):
    start = [b.ddbg, "-nx", "-q", "-batch"] if debugger == "ddbg" else GDB
    path = {"tiny": b.loop, "python3": shutil.which("python3"), "dwarf": b.ddbg}[program]
    if not path:
        raise Unavailable(f"{program} is not there")
    arguments = {"tiny": ["10"], "python3": ["-c", "pass"], "dwarf": ["--version"]}[program]
    return lambda *more: b.run([*start, *commands("break main", "run", *more), "--args", path, *arguments], pin=False)


def launch_time(debugger, program):
    def measure(b):
        launch = launched(b, debugger, program)
        values = []
        for attempt in range(b.runs + 1):
            begin = time.monotonic()
            output = launch()
            took = (time.monotonic() - begin) * 1e9
            if not re.search(r"\bBreakpoint 1(\.1)?, ", output):
                raise Unavailable("no stop at main: " + (output.strip().splitlines() or ["nothing was printed"])[-1])
            if attempt:  # the first run fills the page cache
                values.append(took)
        return values

    return measure


def launch_memory(debugger, program):
    def measure(b):
        launch = launched(b, debugger, program)
        values = []
        for _ in range(min(b.runs, 3)):
            peaks = [int(kb) for kb in re.findall(r"PEAK (\d+) kB", launch(PEAK))]
            if not peaks:
                raise Unavailable("the peak could not be read")
            values.append(sum(peaks) * 1024.0)
        return values

    return measure


@dataclass
class Measure:
    name: str
    title: str
    run: object
    unit: str = "ns"  # or bytes


def launches():
    for program, title in (("tiny", "a tiny program"), ("python3", "python3"), ("dwarf", "ddbg itself, with its DWARF")):
        for debugger in ("gdb", "ddbg"):
            yield Measure(f"launch.{program}.{debugger}", f"{debugger}: launch to main, {title}", launch_time(debugger, program))
        for debugger in ("gdb", "ddbg"):
            yield Measure(f"launch.{program}.{debugger}.memory", f"{debugger}: peak memory, {title}",
                          launch_memory(debugger, program), "bytes")


MEASURES = [
    Measure("floors.int3", "int3, SIGTRAP, return", floor("int3", 200_000)),
    Measure("floors.step", "trap flag, SIGTRAP, return", floor("step", 40_000)),
    Measure("floors.watch", "perf_event sigtrap, return", floor("watch", 40_000)),
    Measure("ptrace.continue.same", "ptrace: int3 and continue, same core", ptrace("continue", True, 20_000)),
    Measure("ptrace.continue.other", "ptrace: int3 and continue, other core", ptrace("continue", False, 10_000)),
    Measure("ptrace.registers.same", "ptrace: the same with GETREGS, same core", ptrace("registers", True, 20_000)),
    Measure("ptrace.registers.other", "ptrace: the same with GETREGS, other core", ptrace("registers", False, 10_000)),
    Measure("ptrace.stepover.same", "ptrace: breakpoint hit and passed, same core", ptrace("stepover", True, 10_000)),
    Measure("ptrace.stepover.other", "ptrace: breakpoint hit and passed, other core", ptrace("stepover", False, 5_000)),
    Measure("ptrace.step.same", "ptrace: single step, same core", ptrace("step", True, 20_000)),
    Measure("ptrace.step.other", "ptrace: single step, other core", ptrace("step", False, 10_000)),
    Measure("false.gdb", "gdb: condition false", with_loop("gdb", 4_000, "break work if i == -1", "run")),
    Measure("false.gdbserver", "gdbserver: condition false, in the target's stub", gdbserver_false),
    Measure("false.ddbg", "ddbg: condition false", with_loop("ddbg", 200_000, "break work if i == -1", "run")),
    Measure("ignore.gdb", "gdb: ignore count", with_loop("gdb", 4_000, "break work", "ignore 1 1000000000", "run")),
    Measure("ignore.ddbg", "ddbg: ignore count", with_loop("ddbg", 200_000, "break work", "ignore 1 1000000000", "run")),
    Measure("stop.ddbg", "ddbg: stop, front end decides, resume", latency("stop and resume", 20_000, "-b", "work")),
    Measure("stepi.gdb", "gdb: stepi N", gdb_stepi),
    Measure("stepi.ddbg", "ddbg: stepi N, in the agent", latency("in the agent", 40_000, "--step")),
    Measure("watch.gdb", "gdb: hardware watchpoint, condition false",
            with_loop("gdb", 4_000, "break begin", "run", "watch word if word == -1", "continue")),
    Measure("watch.ddbg", "ddbg: hardware watchpoint, condition false",
            with_loop("ddbg", 40_000, "break begin", "run", "watch word if word == -1", "continue")),
    Measure("call.mask.native", "sigprocmask, natively", call("mask")),
    Measure("call.mask.ddbg", "sigprocmask, under ddbg with nothing set", call("mask", "ddbg")),
    Measure("call.number.native", "syscall(getppid), natively", call("number")),
    Measure("call.number.ddbg", "syscall(getppid), under ddbg with nothing set", call("number", "ddbg")),
    Measure("call.generic.native", "the same call as Go makes it, natively", call("generic")),
    Measure("call.generic.ddbg", "the same call as Go makes it, under ddbg", call("generic", "ddbg")),
    *launches(),
]


@dataclass
class Target:
    """A line of the targets: one measure over another (the best, where there are several), and what is aimed at."""

    text: str
    measure: str
    against: tuple
    at_most: float


TARGETS = [
    Target("false condition / bare int3+SIGTRAP", "false.ddbg", ("floors.int3",), 1.2),
    Target("stop and resume / ptrace's best int3+continue", "stop.ddbg", ("ptrace.continue.same", "ptrace.continue.other"), 0.5),
    Target("stepi N / bare TF+SIGTRAP", "stepi.ddbg", ("floors.step",), 1.2),
    Target("hardware watch, condition false / bare perf sigtrap", "watch.ddbg", ("floors.watch",), 1.2),
    *(Target(f"launch to main, {p} / gdb", f"launch.{p}.ddbg", (f"launch.{p}.gdb",), 0.25) for p in ("tiny", "python3", "dwarf")),
    *(Target(f"memory at main, {p} / gdb", f"launch.{p}.ddbg.memory", (f"launch.{p}.gdb.memory",), 0.25)
      for p in ("tiny", "python3", "dwarf")),
]
