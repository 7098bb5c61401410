"""Where scripts/bench dune measures: one start of an emulated machine for a script of commands, and what it is; lines of a table."""

import statistics
import subprocess
import sys
from pathlib import Path

from bench_measures import Unavailable

HERE = Path(__file__).resolve().parent
WIDTH = 44  # of the first column
# What a script in the machine has to print first, for described().
DESCRIBE = "uname -rv; cat /proc/cmdline; grep -m1 'model name' /proc/cpuinfo; grep . /sys/devices/system/cpu/vulnerabilities/*"


def output_of_machine(bench, machine, options, added, script):
    """What the script prints in one start of scripts/vm; `added`: files, or pairs of one and its path there."""
    words = [word for file in added for word in ("--add", ":".join(map(str, file)) if isinstance(file, tuple) else file)]
    command = [sys.executable, "-B", HERE / "vm_run.py", "--build", bench.build, machine, *options, *words, "--", "sh", "-c", script]
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise Unavailable((done.stderr.strip().splitlines() or [f"scripts/vm ended with {done.returncode}"])[-1])
    return done.stdout


def emulator_and(how):
    """QEMU's version, and what its clock tells."""
    said = subprocess.run(["qemu-system-x86_64", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[0]
    return f"{said}, TCG: {how}"


def described(first_line, said, virtualisation, modules):
    """Lines about a machine from what DESCRIBE has printed there, and who makes guests in it."""
    release, command_line, model, *vulnerable = said.strip().splitlines()
    off = "mitigations=off" in command_line.split()
    states = [line.rsplit("/", 1)[1].split(":")[0] for line in vulnerable if "Vulnerable" in line]
    return [first_line, f"one processor ({model.split(':')[1].strip()}, {virtualisation}), Linux {release}, {modules}",
            f"mitigations {'off' if off else 'on'}; vulnerable: {', '.join(states) or 'nothing'}"]


def print_line(title, cells, *more, cell=30):
    print(f"{title:<{WIDTH}}" + "".join(f"{text:>{cell}}" for text in cells) + "".join(f"{text:>10}" for text in more), flush=True)


def in_one_unit(values, counts=False):
    """The median with least and most."""
    median = statistics.median(values)
    if counts:
        return f"{median:.0f} ({min(values):.0f} - {max(values):.0f})"
    divisor, unit = next((d, u) for d, u in ((1, "ns"), (1e3, "us"), (1e6, "ms"), (1e9, "s")) if median < 1e3 * d or u == "s")
    return f"{median / divisor:.2f} {unit} ({min(values) / divisor:.2f} - {max(values) / divisor:.2f})"
