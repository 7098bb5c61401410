"""Running ddbg and gdb, and making their outputs comparable."""
import os
import re
import shutil
import subprocess
import sys

DDBG = os.environ["DDBG"]
PROGRAMS = os.environ["E2E_PROGRAMS"]
GDB = shutil.which("gdb")
ATTACHED = os.path.join(os.environ.get("DDBG_TEST_TARGETS", ""), "attached")
GOROUTINES = os.path.join(os.environ.get("DDBG_TEST_TARGETS", ""), "goroutines_go")
IN_A_GUEST = bool(os.environ.get("DDBG_TEST_IN_A_GUEST"))
PATIENCE = 60  # seconds: a failure, not a pace


def skip_without_kvm():
    """Ends the test, if it is to run in a guest of /dev/kvm and cannot."""
    if IN_A_GUEST and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("skipped: kvm is not there: /dev/kvm cannot be opened")
        sys.exit(77)


def program(name):
    return os.path.join(PROGRAMS, name)


def environment():
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DDBG", "E2E", "LD_"))}
    # The same length under both debuggers, so that the stack's addresses are the same too.
    env.update(LINES="24", COLUMNS="80", LC_ALL="C", SHELL="/bin/sh", DEBUGINFOD_URLS="")
    return env


class Outcome:
    def __init__(self, completed):
        self.status = completed.returncode
        self.out = completed.stdout.decode(errors="replace")
        self.err = completed.stderr.decode(errors="replace")


def run(debugger, commands, command_line, options=(), timeout=60, stdin=b"", **more):
    arguments = [debugger, "-q", "-nx", "-batch", *options]
    for command in commands:
        arguments += ["-ex", command]
    arguments += ["--args", *command_line]
    return Outcome(subprocess.run(arguments, input=stdin, capture_output=True, env=environment(),
                                  timeout=timeout, **more))


def ddbg(commands, command_line, **more):
    return run(DDBG, commands, command_line, **more)


def gdb(commands, command_line, **more):
    # Values at a function's entry come from its callers' call sites, which ddbg does not read.
    return run(GDB, ["set print entry-values no", *commands], command_line, **more)


def attach(pid, commands, timeout=PATIENCE):
    arguments = [DDBG, "-q", "-nx", "-batch", "-iex", "handle SIGUSR1 nostop noprint",
                 "-p", str(pid)]
    for command in commands:
        arguments += ["-ex", command]
    return subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=environment(), text=True, timeout=timeout)


class Target:
    """A program that says when it has started and goes on until its standard input ends."""

    def __init__(self, arguments, **more):
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, bufsize=1, **more)
        self.pid = self.process.pid
        self.first_line = self.process.stdout.readline()

    def ended(self):
        """Output after the first line, exit status."""
        out, _ = self.process.communicate("\n", timeout=PATIENCE)
        return out, self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


# What differs for a reason: libthread_db's greeting, process numbers, stack addresses (the
# environment's size), our lines about conditions and watched pages, the progress of reading symbols.
DROPPED = [
    r"\[Thread debugging using libthread_db enabled\]\n",
    r"Using host libthread_db library .*\n",
    r"Reading symbols from .*\n",
    r"\tcondition evaluated .*\n",
    r"\tby page protection: .*\n",
    r"warning: Error disabling address space randomization.*\n",
    r"\[New Thread .*\]\n",
    r"\[Thread .* exited\]\n",
    r"\[New LWP \d+\]\n",
    r"\[LWP \d+ exited\]\n",
]
REPLACED = [
    (r"\(process \d+\)", "(process N)"),
    (r"\[process \d+\]", "[process N]"),
    (r"process \d+ is", "process N is"),
    (r"\(LWP \d+\)", "(LWP N)"),
    (r"0x0*7ff[0-9a-f]{9}", "STACK-OR-LIBRARY"),
    (r"Thread 0x[0-9a-f]+", "Thread T"),
]


def normal(text):
    for pattern in DROPPED:
        text = re.sub(pattern, "", text)
    for pattern, replacement in REPLACED:
        text = re.sub(pattern, replacement, text)
    return text


# Both say it in their own words.
NAMED_THREAD = re.compile(r'^Thread \d+ "[^"]+" (hit |received )', re.M)
CHILDREN_AND_FILES = re.compile(r"^\[(Detaching after fork from child|Inferior 1 \().*\n|^\S+: No such file or directory\.\n", re.M)
HEAP = re.compile(r"\bthis(=| = )0x[0-9a-f]+")


def comparable(text):
    """The same of two runs in different machines."""
    text = NAMED_THREAD.sub(lambda m: "" if m[1] == "hit " else "Program received ", CHILDREN_AND_FILES.sub("", normal(text)))
    return HEAP.sub(r"this\1HEAP", text)


def backtrace_functions(text):
    """[(level, function)] of the frames in a backtrace."""
    return re.findall(r"^#(\d+)\s+(?:0x[0-9a-f]+ in )?([^ (]+)", text, re.M)
