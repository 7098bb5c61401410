#!/usr/bin/env python3
"""ddbg as one would use it, with the backend that it chooses by itself, which has to be dune.ko where that is loaded: breakpoints,
conditions, watchpoints, steps, threads, signals, children, Ctrl-C, attach, detach, kill -9, on busybox (static, without symbols), a
static C++ program and a dynamically linked python3. In one start of the machine; gdb, on this machine, says what is to be seen."""
import glob
import os
import re
import shlex
import sys
import tempfile

import machine

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
os.environ["DDBG"] = machine.DDBG
from support import comparable, gdb  # noqa: E402
from terminal import PROMPT, Terminal  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
LEDGER = os.path.join(os.environ["E2E_PROGRAMS"], "ledger")
LEDGER_SOURCE = os.path.normpath(os.path.join(HERE, "../e2e/programs/ledger.cpp"))
BOOK = os.path.normpath(os.path.join(HERE, "../e2e/programs/book.py"))
PYTHON = "/usr/bin/python3"
# What it starts with beside what is compiled into it, and of lib-dynload something.
PYTHON_NEEDS = [f"{folder}/{name}" for folder in glob.glob("/usr/lib/python3.*[0-9]") for name in ("encodings", "os.py")] + sorted(
    glob.glob("/usr/lib/python3.*/lib-dynload/_*.so"), key=os.path.getsize)[:1]
SCRIPT = """trap 'echo got it' USR1; i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo $i >/dev/null; done
ls /proc/self/exe; kill -USR1 $$; exit 5"""
# Counted where a static program has no names: glibc's write(2), up to and with its system call.
MARK = "the watched one"
WRITE = b"\xb8\x01\x00\x00\x00\x0f\x05"
CHOSEN = "In use: kmod (it is there for this, and four traps save more than a call costs; "


def address_of_write(program):
    """In a static program that is not position-independent, whose first segments lie in the file as in memory."""
    with open(program, "rb") as file:
        return 0x400000 + file.read().index(WRITE)


class Core(machine.ShellTest):
    def setUp(self):
        super().setUp()
        self.busybox = os.path.join(machine.CACHE, "busybox/busybox")
        self.cases = self.enterContext(tempfile.TemporaryDirectory(prefix="ddbg-core."))
        # Lines of a terminal have an end: what is long comes as a file.
        with open(os.path.join(self.cases, "script"), "w", encoding="utf-8") as file:
            file.write(SCRIPT)

    def boot_for(self, *cases):
        for name, commands in cases:
            with open(os.path.join(self.cases, name), "w", encoding="utf-8") as file:
                file.write("\n".join(commands) + "\n")
        self.boot(*self.for_guests(OPTIONS), *(["--memory", "512"] if OPTIONS.machine == "bochs" else []),
                  *machine.adding(machine.DDBG, LEDGER, LEDGER_SOURCE, PYTHON, BOOK, *PYTHON_NEEDS, self.busybox, self.cases))

    def ddbg(self, *arguments):
        return self.shell(shlex.join([machine.DDBG, "-q", "-nx", "-batch", *arguments]) + " </dev/null 2>&1 | cat")

    def run_case(self, name, *program):
        return self.ddbg("-x", os.path.join(self.cases, name), "--args", *program)

    def run_gdb(self, name, *program):
        return gdb([], program, options=["-x", os.path.join(self.cases, name)]).out

    # --- what is seen of a program ----------------------------------------------------------------------------------------

    LEDGER_CASE = ("ledger", [
        "break Limited::add if amount == 4", "run", "backtrace", "info args", "print *this", "step", "step", "print balance_", "finish",
        "watch total", "continue", "continue", "delete", "next", "next", "print signals", "break keep_books if 0", "continue"])
    THREADS_CASE = ("threads", [
        "handle SIGUSR1 nostop noprint", "break Account::add if amount == 150", "ignore 1 2", "run", "info backend", "info threads", "thread apply all backtrace 1",
        "stepi 10", "continue", "info breakpoints"])

    # A fifth watchpoint has no debug register.
    WATCHES_CASE = ("watches", [
        "handle SIGUSR1 nostop noprint", "break main", "run", *["watch total"] * 4, "watch signals", *[f"ignore {number} 1000" for number in range(2, 7)],
        "break puts", "continue", "info watchpoints", "delete", "continue"])

    def stepped(self, *commands):
        """Over a system call, where that is possible."""
        return ["stepi"] if "Core.StepOverASystemCall" in machine.left_out(OPTIONS) else commands

    def book_case(self):
        return ("book", [
            "break Py_BytesMain", "run", "break umask if $edi == 5", "ignore 2 5", "continue", "backtrace 1", "info threads", *self.stepped("stepi 3"),
            "ignore 2 100000", "continue", "info breakpoints", "continue"])

    def busybox_case(self):
        write = hex(address_of_write(self.busybox))
        return ("busybox", [
            f"break *{write} if $rdi == 1", "ignore 1 49", "run", "x/i $pc", "print $rdx", *self.stepped("stepi 2", "x/i $pc", "stepi 3"),
            "ignore 1 100000", "continue", "info breakpoints", "continue", f"echo {MARK}\\n", "ignore 1 49", "run", "watch -l *(int *) $rsi", "continue", "kill"])

    def sees_the_ledger(self):
        out = self.run_case("ledger", LEDGER, "once")
        self.assertEqual(comparable(out), comparable(self.run_gdb("ledger", LEDGER, "once")), out)
        self.assertIn("Old value = 6\nNew value = 10\n", out)
        self.assertIn("received signal SIGUSR1", out)

    def sees_threads(self):
        out = self.run_case("threads", LEDGER, "once")
        self.assertRegex(out, r"(?m)hit Breakpoint 1, Account::add \(this=0x[0-9a-f]+, amount=150\)", out)
        self.assertIn(CHOSEN, out)
        self.assertRegex(out, r"(?m)^\* +[2-4] +Thread ", out)
        # The third of three threads that come there; and all the calls that the program makes: 4 are in main.
        self.assertIn(f"condition evaluated in the target {3 * 200 + 4} times\n\tbreakpoint already hit 3 times\n", out)

    def sees_watches(self):
        out = self.run_case("watches", LEDGER, "once")
        page = "\tby page protection: each access to its page costs a fault\n"
        register = "" if OPTIONS.machine == "bochs" else page  # QEMU ignores a guest's
        watches = re.findall(rf"(?m)^\d+ +hw watchpoint .* (\w+)\n({page})?\tbreakpoint already hit (\d+) times?\n", out)
        self.assertEqual(watches, [("total", register, "6")] * 4 + [("signals", page, "1")], out)

    def sees_the_book(self):
        out = self.run_case("book", PYTHON, "-I", "-S", BOOK)
        told = self.run_gdb("book", PYTHON, "-I", "-S", BOOK)
        for text in out, told:
            self.assertIn("breakpoint already hit 12 times\n", text)
            self.assertIn("received signal SIGUSR1", text)
            self.assertIn("signals 1 child 3\n", text)
            self.assertRegex(text, r"Breakpoint 2, .*umask \(\)|Breakpoint 2, .*umask at", text)
        self.assertIn("condition evaluated in the target 600 times\n", out)

    def sees_busybox(self):
        command = (self.busybox, "sh", os.path.join(self.cases, "script"))
        out = self.run_case("busybox", *command)
        told = self.run_gdb("busybox", *command)
        self.assertEqual(comparable(out.partition(MARK)[0]), comparable(told.partition(MARK)[0]), out)
        self.assertIn("breakpoint already hit 100 times\n", out)
        self.assertIn("received signal SIGUSR1", out)
        for text in out, told:  # in memory there was "50\\n\\0"; what comes then, and by which instruction, is the processor's and the kernel's to say
            self.assertEqual(re.findall("Old value = (.*)", text), [str(int.from_bytes(b"50\n\0", "little"))], text)

    # --- a program that goes on ---------------------------------------------------------------------------------------------

    def is_interrupted(self, place, *program):
        """Typed at a terminal: Ctrl-C, and again, and what there is then."""
        t = self.terminal
        t.type(shlex.join([machine.DDBG, "-q", "-nx", "-iex", "set confirm off", "-iex", "handle SIGUSR1 nostop noprint", "--args", *program]) + "\n")
        t.wait_for(PROMPT)
        t.type(f"break {place}\nrun\n")
        t.wait_for("Breakpoint 1, ")
        t.wait_for(PROMPT)
        self.assertIn(CHOSEN, t.command("info backend"))
        t.command("delete")
        for _ in range(2):
            t.type("continue\n")
            t.wait_for("Continuing.\n")
            t.type("\x03")
            self.assertIn("received signal SIGINT, Interrupt.", t.wait_for(PROMPT))
        self.assertRegex(t.command("stepi"), r"0x|\d+\t")
        t.command("kill")
        t.type("quit\n")
        t.wait_for("# ")

    def is_left_alone(self, place, *program):
        """Attached to and detached from, twice; killed are ddbgs that have it stopped, and that have it run."""
        self.shell(f"{shlex.join(program)} >/tmp/out 2>&1 & p=$!")
        for _ in range(2):
            out = self.ddbg_of_p("handle SIGUSR1 nostop noprint", f"break {place}", "continue", "stepi", "info backend", "detach")
            self.assertRegex(out, r"(?s)Breakpoint 1, .*In use: kmod \(.*process \d+\) detached", out)
            self.was_left_alone()
        self.assertIn("Breakpoint 1, ", self.ddbg_of_p("handle SIGUSR1 nostop noprint", f"break {place}", "continue", "shell kill -9 $PPID"))
        self.was_left_alone()
        self.ddbg_of_p("handle SIGUSR1 nostop noprint", f"break {place} if 0", "shell kill -9 $PPID &", "continue")
        self.was_left_alone()
        self.assertRegex(self.shell("kill $p; wait $p; echo $?"), r"(?m)^143$")

    def ddbg_of_p(self, *commands):
        words = " ".join(f"-ex {shlex.quote(command)}" for command in commands)
        return self.shell(f"{machine.DDBG} -q -nx -batch -p $p {words} </dev/null 2>&1 | cat")

    def was_left_alone(self):
        """The keeper goes when the program is as it was; then it runs on."""
        self.shell("while pidof ddbg-keeper; do sleep 0.01; done >/dev/null")
        self.assertEqual(self.shell("grep -c memfd:ddbg- /proc/$p/maps; grep Tracer /proc/$p/status"), "0\nTracerPid:\t0\n")
        self.assertNotIn(self.shell("cut -d ' ' -f 3 /proc/$p/stat"), ("T\n", "t\n", "Z\n"))
        self.shell("a=$(cut -d ' ' -f 14,15 /proc/$p/stat); while [ \"$a\" = \"$(cut -d ' ' -f 14,15 /proc/$p/stat)\" ]; do sleep 0.01; done")

    # ------------------------------------------------------------------------------------------------------------------------

    def test_quick(self):
        self.boot_for(self.LEDGER_CASE, self.WATCHES_CASE, self.book_case(), self.busybox_case())
        self.sees_the_ledger()
        self.sees_watches()
        self.sees_the_book()
        self.sees_busybox()
        self.is_left_alone("Account::add if amount == 7", LEDGER, "on")
        self.end_shell()

    def test_all(self):
        self.boot_for(self.LEDGER_CASE, self.THREADS_CASE, self.WATCHES_CASE, self.book_case(), self.busybox_case())
        self.sees_the_ledger()
        self.sees_watches()
        self.sees_threads()
        self.sees_the_book()
        self.sees_busybox()
        loop = (self.busybox, "sh", "-c", "while :; do echo >/dev/null; done")
        write = f"*{hex(address_of_write(self.busybox))}"
        for first, place, *program in (("main", "Account::add if amount == 7", LEDGER, "on"), ("Py_BytesMain", "umask", PYTHON, "-I", "-S", BOOK, "on"),
                                       (write, write, *loop)):
            with self.subTest(program):
                self.is_left_alone(place, *program)
                self.is_interrupted(first, *program)
        self.end_shell()


if __name__ == "__main__":
    OPTIONS = machine.arguments_of(machine.guest_options("kmod"))
    machine.guest_main(OPTIONS)
