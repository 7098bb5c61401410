"""Attaching to processes that are not ordinary: stopped, in namespaces, dead, somebody else's, confined. Each ends as it would
have without ddbg, and what cannot be debugged is said with its reason."""
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import process_state
from interactive_test import DdbgTerminal
from support import DDBG, IN_A_GUEST, PATIENCE, Target, attach, ddbg, environment, program

ODD = program("odd")


def state(pid):
    return process_state.fields(f"/proc/{pid}/status", ["State"])["State"][0]


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it does not happen")
        time.sleep(0.002)


class Odd(unittest.TestCase):
    def start(self, mode, prefix=()):
        # A group of its own, with a parent outside: in an orphaned one SIGTSTP stops nobody.
        target = Target([*prefix, ODD, mode], process_group=0)
        self.addCleanup(target.close)
        self.assertEqual(target.first_line, "started\n")
        return target

    def attach(self, pid, commands, *shown):
        outcome = attach(pid, commands)
        for pattern in shown:
            self.assertRegex(outcome.stdout, pattern)
        return outcome

    def attached(self, target):
        terminal = DdbgTerminal("-p", str(target.pid))
        self.addCleanup(terminal.close)
        terminal.wait_for("(ddbg) ")
        return terminal

    def untouched(self, pid):
        self.assertEqual(process_state.left_behind(pid), [])
        self.assertEqual(process_state.changed_text(pid), [])
        self.assertEqual(process_state.fields(f"/proc/{pid}/status", ["TracerPid"])["TracerPid"], "0")

    def ends_well(self, target):
        self.assertEqual(target.ended(), ("ended\n", 3))


class Stopped(Odd):
    """By SIGSTOP or its like, before ddbg came or while it was there."""
    MODES = ["plain", "spin", "handler", "handler spin"]

    def stopped(self, mode):
        target = self.start(mode)
        os.kill(target.pid, signal.SIGSTOP)
        wait_until(lambda: state(target.pid) == "T")
        return target

    def stays_stopped(self, target):
        wait_until(lambda: state(target.pid) == "T")
        self.untouched(target.pid)
        os.kill(target.pid, signal.SIGCONT)
        self.ends_well(target)

    def test_detach_leaves_it_stopped(self):
        for mode in self.MODES:
            with self.subTest(mode):
                target = self.stopped(mode)
                self.attach(target.pid, ["info threads", "print continued"], r"had been stopped by a signal",
                            r"\$1 = 0")
                self.stays_stopped(target)

    def test_continue_lets_it_run(self):
        for mode in self.MODES:
            with self.subTest(mode):
                target = self.stopped(mode)
                # The signal's handler runs in another thread than the one that is hit.
                handled = ["condition 1 continued > 0"] if "handler" in mode else []
                self.attach(target.pid, ["handle SIGCONT nostop noprint", "break tick", "continue", *handled, "continue",
                                         "print continued"],
                            r"hit Breakpoint 1|Breakpoint 1, ", r"\$1 = %d" % ("handler" in mode))
                wait_until(lambda: state(target.pid) in "RS")
                self.untouched(target.pid)
                self.ends_well(target)

    def test_step_lets_it_run(self):
        target = self.stopped("plain")
        self.attach(target.pid, ["stepi", "info registers rip"], r"rip ")
        wait_until(lambda: state(target.pid) in "RS")
        self.ends_well(target)

    def test_killed_debugger_leaves_it_stopped(self):
        target = self.stopped("spin")
        terminal = self.attached(target)
        os.kill(terminal.pid, signal.SIGKILL)
        wait_until(lambda: state(target.pid) == "T" and not process_state.left_behind(target.pid))
        self.untouched(target.pid)
        os.kill(target.pid, signal.SIGCONT)
        self.ends_well(target)

    def stopped_while_attached(self, mode, number):
        target = self.start(mode)
        terminal = self.attached(target)
        terminal.type("continue\n")
        terminal.wait_for("Continuing.")
        os.kill(target.pid, number)
        wait_until(lambda: state(target.pid) == "T")
        terminal.type("\x03")
        terminal.wait_for("had been stopped by a signal")
        terminal.wait_for("(ddbg) ")
        return target, terminal

    def test_stopped_while_attached(self):
        for number in (signal.SIGSTOP, signal.SIGTSTP):
            for mode in ("plain", "spin"):
                with self.subTest(mode, number=number):
                    target, terminal = self.stopped_while_attached(mode, number)
                    terminal.command("detach")
                    self.stays_stopped(target)

    def test_stopped_while_attached_goes_on(self):
        target, terminal = self.stopped_while_attached("spin", signal.SIGSTOP)
        terminal.command("tbreak tick")
        self.assertIn("Temporary breakpoint 1, tick", terminal.command("continue"))
        terminal.command("detach")
        self.ends_well(target)

    def test_stopped_while_parked(self):
        target = self.start("spin")
        terminal = self.attached(target)
        os.kill(target.pid, signal.SIGSTOP)
        wait_until(lambda: state(target.pid) == "T")
        terminal.command("detach")
        self.stays_stopped(target)

    def test_thread_born_while_the_agent_leaves(self):
        target = self.start("births")
        terminal = self.attached(target)
        # Parked before the call, and stopped there: it is made when detach brings the thread out.
        terminal.command("set pagination off")
        call = re.search(r"(0x[0-9a-f]+) .*\bsyscall", terminal.command("disassemble clone3"))
        terminal.command(f"break *{call[1]}")
        self.assertIn("Breakpoint 1, ", terminal.command("continue"))
        os.kill(target.pid, signal.SIGSTOP)
        wait_until(lambda: state(target.pid) == "T")
        terminal.command("detach")
        self.untouched(target.pid)
        os.kill(target.pid, signal.SIGCONT)
        self.ends_well(target)


class KernelWorker(Odd):
    """A thread of the kernel's that io_uring has made for the program: it can be neither traced nor entered."""

    def test_attach_step_detach(self):
        target = Target([ODD, "worker"])
        self.addCleanup(target.close)
        if target.first_line == "no io_uring\n":
            self.skipTest("io_uring is not permitted here")
        wait_until(lambda: len(process_state.threads(target.pid)) == 2)
        shown = self.attach(target.pid, ["info threads", "break tick", "continue", "next", "info threads"],
                            r"hit Breakpoint 1|Breakpoint 1, ").stdout
        self.assertEqual(shown.count("LWP"), 2 + shown.count("[New"), shown)
        self.untouched(target.pid)
        self.ends_well(target)


# The program on a file system of its own, in namespaces of its own: neither its numbers nor its files are ours.
CONTAINER = """
set -e
mount -t tmpfs none "$1"
cd "$1"
mkdir proc bin
cp "$2" bin/contained
ldd "$2" | grep -o '/[^ ]*' | while read -r file; do mkdir -p ".$(dirname "$file")"; cp "$file" ".$file"; done
mount -t proc none proc
exec /usr/sbin/chroot . /bin/contained "$3"
"""


class Container(Odd):
    PREFIX = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount"]

    def setUp(self):
        if subprocess.run([*self.PREFIX, "true"], capture_output=True).returncode:
            self.skipTest("namespaces are not permitted here")

    def contained(self, mode):
        room = tempfile.TemporaryDirectory()
        self.addCleanup(room.cleanup)
        target = Target([*self.PREFIX, "sh", "-c", CONTAINER, "sh", room.name, ODD, mode])
        self.addCleanup(target.close)
        self.assertEqual(target.first_line, "started\n")
        target.pid = int(process_state.read(f"/proc/{target.pid}/task/{target.pid}/children").split()[0])
        numbers = process_state.fields(f"/proc/{target.pid}/status", ["NSpid"])["NSpid"].split()
        self.assertEqual((numbers[0], numbers[-1]), (str(target.pid), "1"))
        return target

    def test_breakpoints_and_steps(self):
        target = self.contained("plain")
        self.attach(target.pid, ["break tick", "continue", "bt", "finish", "next", "stepi"],
                    r"Breakpoint 1, tick \(\) at ", r"#1 .* in main \(argc=2", r"main \(argc=2")
        self.untouched(target.pid)
        self.ends_well(target)

    def test_threads_come_and_go(self):
        target = self.contained("spin births")
        out = self.attach(target.pid, ["tbreak short_lived", "continue", "info threads", "break births if 0",
                                       "break tick thread 2", "continue", "continue", "delete",
                                       "watch births", "continue", "info threads"],
                          r"Temporary breakpoint 1, short_lived", r"Hardware watchpoint \d+: births").stdout
        lwps = {int(lwp) for lwp in re.findall(r"\(?LWP (\d+)", out)}
        self.assertIn(target.pid, lwps)
        self.assertGreater(min(lwps), 100, out)
        self.assertEqual(out.count('Thread 2 "contained" hit Breakpoint'), 2, out)
        self.untouched(target.pid)
        self.ends_well(target)

    def test_interrupt(self):
        target = self.contained("spin births")
        terminal = self.attached(target)
        for _ in range(3):
            terminal.type("continue\n")
            terminal.wait_for("Continuing.")
            terminal.type("\x03")
            self.assertIn("received signal SIGINT", terminal.wait_for("(ddbg) "))
            self.assertIn(f"LWP {target.pid}", terminal.command("info threads"))
        terminal.command("detach")
        self.untouched(target.pid)
        self.ends_well(target)

    def test_stopped(self):
        target = self.contained("spin")
        os.kill(target.pid, signal.SIGSTOP)
        wait_until(lambda: state(target.pid) == "T")
        self.attach(target.pid, ["info threads"], r"had been stopped")
        wait_until(lambda: state(target.pid) == "T")
        os.kill(target.pid, signal.SIGCONT)
        self.ends_well(target)


def run_as(user, *arguments):
    """By nobody when we are root: ddbg's output."""
    completed = subprocess.run([DDBG, "-q", "-nx", "-batch", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, user=user,
                               env={**environment(), "HOME": "/nonexistent"})
    return completed.stdout


# Denies one call that nobody makes, as a container's filter does, then runs a program and ddbg on it.
CONTAINED_PAIR = """
import ctypes, struct, subprocess, sys
code = b"".join(struct.pack("HBBI", *i) for i in ((0x20, 0, 0, 0), (0x15, 0, 1, 246), (6, 0, 0, 0x50001), (6, 0, 0, 0x7fff0000)))
buffer = ctypes.create_string_buffer(code)
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack("HxxxxxxQ", 4, ctypes.addressof(buffer)), 0, 0) == 0
target = subprocess.Popen([sys.argv[1], "spin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
target.stdout.readline()
subprocess.run([sys.argv[2], "-q", "-nx", "-batch", "-p", str(target.pid), "-ex", "break tick", "-ex", "continue"],
               stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
target.communicate(b"\\n")
print("ended with", target.returncode)
"""


class Refused(Odd):
    """What cannot be attached to, and says why; nothing is left on it."""

    def refused(self, pid, why, hint):
        outcome = attach(pid, [])
        self.assertEqual(outcome.returncode, 1)
        self.assertRegex(outcome.stdout, f"(?s)^{why}.*{hint}")

    def test_no_process(self):
        self.refused(2**30, r"There is no process 1073741824\.", "Check the number with ps")

    def test_zombie(self):
        process = subprocess.Popen(["true"])
        self.addCleanup(process.wait)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        self.refused(process.pid, rf"Process {process.pid} has ended", f"parent, process {os.getpid()}")

    def test_main_thread_ended(self):
        target = self.start("spin leave")
        wait_until(lambda: state(target.pid) == "Z")
        self.refused(target.pid, f"The main thread of process {target.pid} has ended", "only")

    def test_kernel_thread(self):
        if not os.path.exists("/proc/2/status") or process_state.fields("/proc/2/status", ["PPid"])["PPid"] != "0":
            self.skipTest("the kernel's threads are not to be seen")
        self.refused(2, "Process 2 is a part of the kernel", "programs")

    def test_thread(self):
        target = self.start("spin")
        thread = process_state.threads(target.pid)[1]
        self.refused(thread, f"{thread} is a thread of process {target.pid}", f'"attach {target.pid}"')

    def test_traced(self):
        for tracer in (["strace", "-o", "/dev/null", "-p"], ["gdb", "-q", "-nx", "-p"]):
            if not shutil.which(tracer[0]):
                continue
            with self.subTest(tracer[0]):
                target = self.start("spin")
                process = subprocess.Popen([*tracer, str(target.pid)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                           stderr=subprocess.DEVNULL)
                traced = lambda: process_state.fields(f"/proc/{target.pid}/status", ["TracerPid"])["TracerPid"]
                wait_until(lambda: traced() == str(process.pid))
                self.refused(target.pid, f"Process {target.pid} is already traced by process {process.pid}", tracer[0])
                self.assertEqual(traced(), str(process.pid))
                process.terminate()
                process.stdin.close()
                process.wait()
                wait_until(lambda: traced() == "0")
                self.ends_well(target)

    def test_debugged_by_another_ddbg(self):
        target = self.start("spin")
        terminal = self.attached(target)
        self.refused(target.pid, f"Process {target.pid} is already being debugged by a ddbg", "Detach")
        self.assertIn("LWP", terminal.command("info threads"))
        terminal.command("detach")
        self.untouched(target.pid)
        self.ends_well(target)

    def test_itself(self):
        terminal = DdbgTerminal()
        self.addCleanup(terminal.close)
        terminal.wait_for("(ddbg) ")
        self.assertIn("I refuse to debug myself", terminal.command(f"attach {terminal.pid}"))

    def test_32_bit(self):
        with tempfile.TemporaryDirectory() as room:
            with open(f"{room}/a.s", "w") as file:
                file.write(".globl _start\n_start: jmp _start\n")
            try:
                subprocess.run(["as", "--32", "-o", "a.o", "a.s"], cwd=room, check=True, capture_output=True)
                subprocess.run(["ld", "-m", "elf_i386", "-o", "a", "a.o"], cwd=room, check=True, capture_output=True)
                process = subprocess.Popen([f"{room}/a"])
            except (OSError, subprocess.CalledProcessError):
                self.skipTest("no 32-bit program can be made or run here")
            self.refused(process.pid, f"Process {process.pid} is not an x86-64 program", "32-bit")
            process.kill()
            process.wait()
            self.assertIn("is a 32-bit program", run_as(None, f"{room}/a"))


class Rights(Odd):
    """Between users. As root they are root and nobody; without it, other processes than ours are."""

    def setUp(self):
        self.user = "nobody" if os.geteuid() == 0 else None
        if self.user and subprocess.run([DDBG, "--version"], user=self.user, capture_output=True).returncode:
            self.skipTest("nobody may not run this build")

    def test_foreign_process(self):
        pid = self.start("plain").pid if self.user else 1
        if os.stat(f"/proc/{pid}").st_uid == os.geteuid() and not self.user:
            self.skipTest("every process is ours")
        self.assertRegex(run_as(self.user, "-p", str(pid)), r"(?s)Operation not permitted.*another user \(uid \d+\): try as root")

    def copy(self, mode, owner=-1):
        room = tempfile.TemporaryDirectory()
        self.addCleanup(room.cleanup)
        os.chmod(room.name, 0o755)
        file = shutil.copy(ODD, f"{room.name}/copy")
        os.chown(file, owner, -1)
        os.chmod(file, mode)
        return file

    def needs_root(self):
        if not self.user:
            self.skipTest("needs root")

    def test_unreadable_file(self):
        self.needs_root()
        file = self.copy(0o711)
        target = Target([file, "spin"], user="nobody")
        self.addCleanup(target.close)
        self.assertRegex(run_as("nobody", "-p", str(target.pid)), r"(?s)Operation not permitted.*file is not readable")
        self.attach(target.pid, ["tbreak tick", "continue"], "Temporary breakpoint 1, tick")
        self.untouched(target.pid)
        self.ends_well(target)
        self.assertRegex(run_as("nobody", file), r"(?s)copy: Permission denied.*readable")

    def test_set_user_id(self):
        self.needs_root()
        file = self.copy(0o4755, owner=1)
        target = Target([file, "spin"], user="nobody")
        self.addCleanup(target.close)
        self.assertEqual(target.first_line, "started\n")
        self.assertRegex(run_as("nobody", "-p", str(target.pid)), r"(?s)Operation not permitted.*another user \(uid 1\)")
        self.attach(target.pid, ["tbreak tick", "continue", "info threads"], "Temporary breakpoint 1, tick")
        self.untouched(target.pid)
        self.ends_well(target)
        self.assertRegex(run_as("nobody", "-ex", "run", file),
                         "(?s)set-user-ID and set-group-ID bits have no effect.*exited with code 03")

    def test_asked_not_to_be_debugged(self):
        target = Target([ODD, "protected"], user=self.user)
        self.addCleanup(target.close)
        self.assertRegex(run_as(self.user, "-p", str(target.pid)), "(?s)Operation not permitted.*PR_SET_DUMPABLE")
        self.ends_well(target)


class CallOf32Bits(Odd):
    """Its number means another call in the native table."""

    def test_attached_to_in_it(self):
        for commands in [], ["info registers rip"]:
            with self.subTest(commands):
                target = self.start("int80")
                wait_until(lambda: state(target.pid) == "S")
                self.attach(target.pid, commands)
                self.untouched(target.pid)
                self.ends_well(target)

    def test_stepped(self):
        target = self.start("int80")
        wait_until(lambda: state(target.pid) == "S")
        terminal = self.attached(target)
        terminal.type("stepi\n")
        terminal.wait_for("stepi")
        target.process.stdin.write("\n")
        target.process.stdin.flush()
        terminal.wait_for("(ddbg) ")
        terminal.command("detach")
        self.ends_well(target)


class Confined(Odd):
    """By seccomp, before ddbg comes (confined_test.py: while it is there). Nothing may kill the program but its own doing."""

    def can_read_filters(self):
        return os.geteuid() == 0 and process_state.fields("/proc/self/status", ["Seccomp"])["Seccomp"] == "0"

    def test_filter_without_what_ddbg_needs(self):
        needed = {mode: "may not call rt_sigreturn" for mode in ("kill", "trap", "errno")}
        if IN_A_GUEST:
            needed["open errno"] = "(?s)may not call ioctl.*--backend signal"
        for mode, refusal in needed.items():
            with self.subTest(mode):
                target = self.start(mode)
                self.attach(target.pid, [], f"^Process {target.pid} is confined by seccomp, and ",
                            refusal if self.can_read_filters() else "Root can")
                self.untouched(target.pid)
                self.assertIn(state(target.pid), "RS")
                self.ends_well(target)

    def test_filter_with_what_ddbg_needs(self):
        target = self.start("guest errno" if IN_A_GUEST else "open errno")
        commands = ["break tick", "continue", "continue", "stepi", "info threads"]
        if self.can_read_filters():
            self.attach(target.pid, commands, "Breakpoint 1, tick")
        else:
            self.attach(target.pid, commands, "Root can")
        self.untouched(target.pid)
        self.ends_well(target)

    def test_strict(self):
        target = self.start("strict")
        self.attach(target.pid, [], "is confined by seccomp to read, write and exit", "Use gdb")
        self.untouched(target.pid)
        self.assertEqual(target.ended(), ("", 3))

    def test_filter_of_ours(self):
        """A container's: ddbg is under the same."""
        for user in {os.geteuid(), 65534 if os.geteuid() == 0 and not IN_A_GUEST else os.geteuid()}:  # nobody has no /dev/kvm
            with self.subTest(user=user), tempfile.TemporaryDirectory() as room:
                os.chmod(room, 0o755)
                script = f"{room}/container.py"
                with open(script, "w") as file:
                    file.write(CONTAINED_PAIR)
                completed = subprocess.run(["/usr/bin/python3", script, ODD, DDBG], capture_output=True, text=True,
                                           timeout=PATIENCE, user=user, env={**environment(), "HOME": room})
                self.assertRegex(completed.stdout, "(?s)Breakpoint 1, tick.*ended with 3", completed.stderr)


if __name__ == "__main__":
    unittest.main()
