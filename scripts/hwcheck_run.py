#!/usr/bin/env python3
"""Runs dune.ko and what is made for it on this machine's own processor, and writes one report to send back. The machine is left as it was:
the module goes, also on Ctrl-C, and KVM comes back if it had to make room."""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PASSED, FAILED, NOT_AVAILABLE, INTERRUPTED = 0, 1, 77, 130
MODULE = "dune"

# Tests of tests/kmod that are not for a machine in use, and why.
LEFT_OUT = {
    "Kvm.*": "makes a virtual machine of KVM's beside ours",
    "Hotplug.*": "takes a processor off line, and what was bound to it does not come back",
    "Budget.*": "counts instructions, which takes an emulator",
}
# What hangs a processor or worse if it fails. --risky runs it last.
RISKY = {
    "Random.*": "runs whatever state chance makes",
    "Interruption.KilledProcessGoes": "a guest that spins with interrupts off",
    "Debug.BreakpointOnItsOwnStackHoldsNoProcessor": "exceptions within exceptions without end",
}
# The kernel's words for what must not happen.
COMPLAINTS = re.compile(r"WARNING:|BUG:|Oops|Call Trace|general protection|stack segment|soft lockup|hard LOCKUP|rcu:.*stall|dune: vm(read|write)", re.I)
TRACE_LINES = 60  # kept behind a complaint


class Suite(NamedTuple):
    name: str
    program: str  # in the build folder
    arguments: tuple
    limit: int  # seconds
    risky: bool = False
    optional: bool = False  # not every build has it


SUITES = [
    Suite("module", "tests/kmod/kmod_test", ("--gtest_filter=*-" + ":".join((*LEFT_OUT, *RISKY)),), 600),
    Suite("application", "tests/unit/application/application_test", (), 300),
    Suite("example", "libdune/examples/hello", (), 60),
    Suite("guests", "tests/unit/backend/backend_test", ("--gtest_filter=Guests/*/kmod",), 600),
    Suite("process", "tests/unit/process/process_test", ("--gtest_filter=Guests/*/kmod",), 600),
    Suite("costs.linux", "scripts/bench.d/dune-events", ("linux", "0", "1000", "5"), 300, optional=True),
    Suite("costs.dune", "scripts/bench.d/dune-events", ("kmod", "0", "1000", "5"), 300, optional=True),
    Suite("risky", "tests/kmod/kmod_test", ("--gtest_filter=" + ":".join(RISKY),), 600, risky=True),
]


class Stop(Exception):
    """With the exit status and the reason."""

    def __init__(self, status, reason):
        super().__init__(reason)
        self.status = status


class Interrupted(BaseException):
    pass


def interrupt(*_):
    raise Interrupted


class Report:
    """What is printed, and what only the file has; neither names the user, the machine or folders of theirs."""

    def __init__(self):
        names = [(str(ROOT), "CHECKOUT"), (os.path.expanduser("~"), "~"), (os.uname().nodename, "HOST"), (os.environ.get("USER", ""), "USER")]
        self.private = [(re.compile(rf"(?<![\w/]){re.escape(name)}(?!\w)" if name.startswith("/") else rf"\b{re.escape(name)}\b"), word)
                        for name, word in names if len(name) > 2 and name not in ("root", "localhost")]
        self.lines = []

    def add(self, text=""):
        for pattern, word in self.private:
            text = pattern.sub(word, text)
        self.lines += text.rstrip().splitlines() or [""]

    def say(self, text):
        self.add(text)
        print(f"hwcheck: {text}", flush=True)

    def write(self, path):
        path.write_text("\n".join(self.lines) + "\n")
        print(f"hwcheck: the report is in {path}; look at it before you send it", flush=True)


# --- looking ------------------------------------------------------------------------------------------------------------


def text_of(path, otherwise=""):
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return otherwise


def output(*command):
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def processor():
    """The fields of the first processor of /proc/cpuinfo."""
    return dict(re.findall(r"^(\w[\w ]*?)\s*: (.*)$", text_of("/proc/cpuinfo").split("\n\n")[0], re.M))


def loaded(module):
    """How many use it, or None."""
    found = re.search(rf"^{module} \d+ (\d+) ", text_of("/proc/modules"), re.M)
    return int(found[1]) if found else None


def kvm_modules():
    return [name for name in ("kvm_intel", "kvm_amd") if os.path.isdir(f"/sys/module/{name}")]


def kvm_has_the_processor():
    """Up to 6.11 while a virtual machine runs, since then as long as it is loaded, unless it was told otherwise."""
    at_load = text_of("/sys/module/kvm/parameters/enable_virt_at_load", "N") in ("Y", "1")
    return any(at_load or loaded(name) for name in kvm_modules())


def look(report):
    cpu = processor()
    flags = cpu.get("flags", "").split()
    extension = next((flag for flag in ("vmx", "svm") if flag in flags), None)
    levels = "5 levels possible" if "la57" in flags else "4 levels"
    report.say(f"{cpu.get('model name', 'unknown processor')}; family {cpu.get('cpu family')}, model {cpu.get('model')}, stepping "
               f"{cpu.get('stepping')}, microcode {cpu.get('microcode', 'unknown')}; {os.cpu_count()} processors, {levels}")
    report.say(f"Linux {os.uname().release} {os.uname().version}")
    report.say(f"virtualisation: {extension or 'none'}{', in a virtual machine' if 'hypervisor' in flags else ''}; "
               f"KVM: {', '.join(kvm_modules()) or 'not loaded'}")
    report.add(f"sources: {output('git', '-C', str(ROOT), 'describe', '--always', '--dirty') or 'not a checkout of git'}")
    for path in sorted(Path("/sys/devices/system/cpu/vulnerabilities").glob("*")):
        report.add(f"{path.name}: {text_of(path)}")
    if not extension:
        raise Stop(NOT_AVAILABLE, "the processor shows neither VT-x nor SVM: switched off in the firmware, or a virtual machine without nesting")
    if "[none]" not in text_of("/sys/kernel/security/lockdown", "[none]"):
        raise Stop(NOT_AVAILABLE, "the kernel is locked down (secure boot) and loads signed modules only; README.md says how to sign one")
    if loaded(MODULE) is not None:
        raise Stop(NOT_AVAILABLE, "dune.ko is loaded already, and may be in use: unload it first (rmmod dune)")


# --- doing --------------------------------------------------------------------------------------------------------------


class Machine:
    """What is changed of it, and back."""

    def __init__(self, report, options):
        self.report, self.options = report, options
        self.root = [] if os.geteuid() == 0 else ["sudo"]
        self.removed = []  # of KVM's modules
        self.inserted = False
        self.running = None
        self.mark = f"hwcheck {os.getpid()} {int(time.time())}"

    def as_root(self, *command, given=""):
        return subprocess.run([*self.root, *command], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", check=False)

    def kernel_log(self):
        """From our mark on; all of it if that is lost."""
        return self.as_root("dmesg").stdout.rpartition(self.mark)[2].splitlines()[1:]

    def complaints(self):
        log = self.kernel_log()
        found = [number for number, line in enumerate(log) if COMPLAINTS.search(line)]
        kept = sorted({number for at in found for number in range(at, min(at + TRACE_LINES, len(log)))})
        return [log[number] for number in kept]

    def make_room(self):
        if not kvm_has_the_processor():
            return
        for name in kvm_modules():
            if loaded(name) is None:
                raise Stop(NOT_AVAILABLE, "KVM has the processor and is part of this kernel: start it with kvm.enable_virt_at_load=0, and end its virtual machines")
            if loaded(name):
                raise Stop(NOT_AVAILABLE, "KVM has the processor, and virtual machines use it: end them first")
            if self.as_root("modprobe", "-n", name).returncode != 0:
                raise Stop(NOT_AVAILABLE, f"KVM has the processor, and modprobe could not load {name} again: rmmod {name} yourself")
        self.ask(f"KVM has the processor and nobody uses it. Unload {', '.join(kvm_modules())} until we are done?")
        for name in kvm_modules():
            self.removed.append(name)  # loading what is loaded does nothing
            done = self.as_root("rmmod", name)
            if done.returncode != 0:
                raise Stop(NOT_AVAILABLE, f"cannot unload {name}: {done.stdout.strip()}")

    def ask(self, question):
        if self.options.yes:
            return
        if not sys.stdin.isatty():
            raise Stop(NOT_AVAILABLE, "there is nobody to ask; --yes answers all questions")
        if input(f"hwcheck: {question} [y/N] ").strip().lower() not in ("y", "yes"):
            raise Stop(NOT_AVAILABLE, "not wanted")

    def build(self):
        """dune.ko for the running kernel, from a copy in the build folder."""
        headers = Path(f"/lib/modules/{os.uname().release}/build")
        if not headers.is_dir():
            raise Stop(NOT_AVAILABLE, f"{headers} is not there: install the headers of this kernel (Debian: linux-headers-{os.uname().release})")
        to = self.options.build / "hwcheck/kmod"
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(ROOT / "kmod", to, ignore=shutil.ignore_patterns("*.o", "*.ko", "*.mod*", ".*", "Module.symvers", "modules.order"))
        done = subprocess.run(["make", "-s", "-C", to, f"KDIR={headers}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0 or not (to / "dune.ko").exists():
            self.report.add(done.stdout)
            raise Stop(FAILED, "the module does not build for this kernel; the report has what the compiler says")
        self.report.say(f"built dune.ko with {len(re.findall('warning:', done.stdout))} warnings")
        self.report.add("\n".join(line for line in done.stdout.splitlines() if "warning:" in line))
        return to / "dune.ko"

    def load(self, path):
        words = ["unsafe_cpu=1"] if self.options.unsafe_cpu else []
        self.ask(f"Load {path} into the running kernel{' although the processor has faults that it does not mitigate' if words else ''}, for some "
                 "minutes? Until the next start the kernel says that it had a module from outside its tree")
        self.as_root("tee", "/dev/kmsg", given=self.mark + "\n")
        self.inserted = True  # from here on it may be there
        done = self.as_root("insmod", str(path), *words)
        if done.returncode != 0:
            self.inserted = False
            self.report.add("\n".join(self.kernel_log()[-5:]))
            raise Stop(FAILED, f"the kernel does not take the module: {done.stdout.strip()}; {(self.kernel_log() or ['it does not say why'])[-1]}")
        said = [line for line in self.kernel_log() if "dune:" in line]
        self.report.say(f"loaded: {said[-1] if said else 'without a word'}")

    def run(self, suite, program):
        """Whether it passed; its output is in the report as far as it did not."""
        if self.root:
            subprocess.run([*self.root, "-v"], check=False)  # may ask for a password, which a suite could not
        begin = time.monotonic()
        # A group of its own: Ctrl-C is ours, and we end all of it.
        self.running = subprocess.Popen([*self.root, program, *suite.arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, errors="replace", process_group=0)
        try:
            out = self.running.communicate(timeout=suite.limit)[0]
            status = self.running.returncode
        except subprocess.TimeoutExpired:
            out, status = self.stop_running() or "", None
        self.running = None
        told = [f"{number} {word}" for word, number in (("passed", counted("PASSED ", out)), ("skipped", counted("SKIPPED", out)), ("failed", counted("FAILED ", out))) if number]
        ended = "did not end" if status is None else "ok" if status == 0 else f"failed with {status}"
        self.report.say(f"{suite.name}: {ended}{', ' if told else ''}{', '.join(told)}; {time.monotonic() - begin:.0f} s")
        if status == 0 and "[==========]" in out:
            out = "\n".join(f"{test} skipped: {reason}" for reason, test in re.findall(r": Skipped\n(.*)\n\s*\[  SKIPPED \] (\S+) \(", out))
        for line in out.splitlines():
            self.report.add("    " + line)
        return status == 0

    def stop_running(self):
        """Its output, when all of it has ended."""
        for word in "-TERM", "-KILL":
            self.as_root("kill", word, "--", f"-{self.running.pid}")
            try:
                return self.running.communicate(timeout=5)[0]
            except subprocess.TimeoutExpired:
                continue
        return None

    def restore(self):
        """Whether all is as it was. Not to be interrupted."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if self.running:
            self.stop_running()
        done = True
        if self.inserted:
            for _ in range(50):  # processes that have been killed may still be going
                left = self.as_root("rmmod", MODULE)
                if loaded(MODULE) is None:
                    break
                time.sleep(0.2)
            done = loaded(MODULE) is None
            self.report.say("unloaded" if done else f"dune.ko does not go: {left.stdout.strip()}; rmmod dune when nothing uses it any more")
        for name in self.removed:
            back = self.as_root("modprobe", name)
            if back.returncode != 0:
                done = False
                self.report.say(f"KVM does not come back: {back.stdout.strip()}; modprobe {name}")
        return done


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def counted(word, text):
    """What GoogleTest says at its very end: a test may have run another of its kind."""
    found = re.findall(rf"^\[  {word} \] (\d+) test", text, re.M)
    return int(found[-1]) if found else 0


def run_suites(machine, report, options):
    """The names of those that failed."""
    failed, ran = [], 0
    for suite in SUITES:
        if options.only and suite.name not in options.only or suite.risky and not options.risky:
            continue
        program = options.build / suite.program
        if not program.exists():
            if not suite.optional:
                raise Stop(FAILED, f"{program} is not there: scripts/hwcheck without --build makes it")
            continue
        if suite.risky:
            machine.ask("Run what may hang the machine if it fails? Save your work first")
            os.sync()
        ran += 1
        if not machine.run(suite, program):
            failed.append(suite.name)
        if complaints := machine.complaints():
            report.add("\n".join(complaints))
            raise Stop(FAILED, f"the kernel complains (in the report), so no more is run; {suite.name} was the last")
    if not ran:
        raise Stop(FAILED, "no suite of that name")
    return failed


def check(report, options):
    look(report)
    if options.look:
        return PASSED
    machine = Machine(report, options)
    status = FAILED
    try:
        machine.make_room()
        machine.load(options.module or machine.build())
        failed = run_suites(machine, report, options)
        status = FAILED if failed else PASSED
        report.say(f"failed: {', '.join(failed)}" if failed else "all passed")
    finally:
        if not machine.restore():
            status = FAILED
    return status


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/hwcheck", description=__doc__)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--look", action="store_true", help="only say what this machine is, and load nothing")
    parser.add_argument("--yes", action="store_true", help="answer every question so")
    parser.add_argument("--risky", action="store_true", help="also what hangs the machine if it fails, at the end")
    parser.add_argument("--unsafe-cpu", action="store_true", help="load on a processor with faults that the module does not mitigate")
    parser.add_argument("--only", action="append", choices=[suite.name for suite in SUITES], help="this part (may be repeated)")
    parser.add_argument("--module", type=Path, metavar="FILE", help="a dune.ko that is built already")
    parser.add_argument("--report", type=Path, metavar="FILE", default=Path("hwcheck.txt"), help="(hwcheck.txt)")
    options = parser.parse_args()
    if not options.look and not options.build:
        parser.error("scripts/hwcheck builds the tests; --build says where they are")
    if options.module and not options.module.is_file():
        parser.error(f"{options.module} is not there")
    return options


def main():
    options = parse_arguments()
    for number in SIGNALS:
        signal.signal(number, interrupt)
    report = Report()
    try:
        status = check(report, options)
    except Stop as stop:
        status = stop.status
        report.say(str(stop))
    except Interrupted:
        status = INTERRUPTED
        report.say("interrupted")
    report.write(options.report)
    return status


if __name__ == "__main__":
    sys.exit(main())
