#!/usr/bin/env python3
"""scripts/vm: bytes, endings, failures, the terminal, and that nothing is left behind."""
import fcntl
import os
import re
import select
import signal
import struct
import sys
import termios
import time

import machine

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from terminal import Terminal  # noqa: E402


class Bytes(machine.MachineTest):
    def test_input_output_and_errors_are_the_commands_alone(self):
        data = os.urandom(300_000) + bytes(range(256)) + b"no newline at the end"
        done = self.vm("--", "sh", "-c", "cat; cat /proc/cmdline >&2; exit 3", input=data)
        self.assertEqual(done.stdout, data)
        self.assertRegex(done.stderr, rb"\A[^\n]*initcall_blacklist[^\n]*\n\Z")
        self.assertEqual(done.returncode, 3)

    def test_input_arrives_when_it_comes(self):
        with self.start("sh", "-c", "echo ready; read a; echo got $a; read b; echo end") as process:
            self.assertEqual(process.stdout.readline(), b"ready\n")
            process.stdin.write(b"one\n")
            self.assertEqual(process.stdout.readline(), b"got one\n")
            process.stdin.close()
            self.assertEqual(process.stdout.readline(), b"end\n")
        self.assertEqual(process.returncode, 0)
        self.nothing_is_left()

    def test_files_are_where_they_are_here(self):
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)))
        done = self.vm("--add", "machine.py:/elsewhere/added", "--", "sh", "-c", 'pwd; cmp "$0" /elsewhere/added && echo same',
                       "machine.py", cwd=folder)
        self.assertEqual((done.stdout.decode(), done.returncode), (f"{folder}\nsame\n", 0), done.stderr)

    def test_its_clock_goes_as_ours_however_busy_we_are(self):
        """Its kernel has measured nothing, and is right."""
        with self.start("sh", "-c", "cat /proc/cmdline; grep MHz /proc/cpuinfo; echo; read a; cat /proc/uptime; read a; cat /proc/uptime") as process:
            told = b"".join(iter(process.stdout.readline, b"\n")).decode()
            spans, readings = [], []
            for pause in 0, 3:
                time.sleep(pause)
                begin = time.monotonic()
                process.stdin.write(b"\n")
                readings.append(float(process.stdout.readline().split()[0]))
                spans.append((begin, time.monotonic()))
        given, used = int(re.search(r" tsc_early_khz=(\d+)", told)[1]), float(re.search(r"MHz\s*: (\S+)", told)[1])
        self.assertAlmostEqual(used * 1000, given, delta=given / 100, msg=told)
        elapsed = readings[1] - readings[0]
        self.assertGreater(elapsed, (spans[1][0] - spans[0][1]) * 0.98 - 0.1)
        self.assertLess(elapsed, (spans[1][1] - spans[0][0]) * 1.02 + 0.1)
        self.nothing_is_left()


class Endings(machine.MachineTest):
    def test_a_signal_is_told(self):
        done = self.vm("--", "sh", "-c", "kill -SEGV $$")
        self.assertEqual(done.returncode, 128 + signal.SIGSEGV)
        self.assertEqual(done.stderr, b"vm: the command was killed by signal 11 (Segmentation fault)\n")

    def test_output_written_before_the_end_arrives_and_children_do_not_keep_the_machine(self):
        done = self.vm("--", "sh", "-c", "yes | head -c 1000000; sleep 1000 & echo end")
        self.assertEqual((done.stdout[-8:], len(done.stdout), done.returncode), (b"y\ny\nend\n", 1_000_004, 0))

    def test_a_program_that_is_not_there(self):
        done = self.vm("--", "no_such_program")
        self.assertEqual(done.returncode, 127)
        self.assertIn(b"there is no program no_such_program", done.stderr)

    def test_a_file_that_is_no_program(self):
        done = self.vm("--", os.path.abspath(__file__).replace("vm_test.py", "CMakeLists.txt"))
        self.assertEqual(done.returncode, 126)
        self.assertIn(b"is not executable", done.stderr)

    def test_a_command_that_does_not_end(self):
        done = self.vm("--timeout", "10", "--", "sh", "-c", "echo begun; exec sleep 1000")
        self.assertEqual(done.returncode, 124)
        self.assertRegex(done.stderr, rb"vm: .* within 10 s\n\Z")

    def test_a_kernel_that_panics(self):
        with self.start("sh", "-c", "echo before; read a; echo c >/proc/sysrq-trigger") as process:
            self.assertEqual(process.stdout.readline(), b"before\n")
            out, err = process.communicate(b"now\n", timeout=machine.PATIENCE)
        self.assertEqual((out, process.returncode), (b"", 125))
        self.assertIn(b"sysrq triggered crash", err)
        self.assertTrue(err.endswith(b"vm: the machine's kernel panicked\n"), err)
        self.nothing_is_left()

    def test_no_kernel_in_the_cache(self):
        self.env.update(DDBG_VM_CACHE=os.path.join(self.scratch.name, "none"), DDBG_VM_CACHE_ONLY="1")
        done = self.vm("--", "true")
        self.assertEqual(done.returncode, machine.NOT_AVAILABLE)
        self.assertRegex(done.stderr, rb"\Avm: not available here: .*scripts/vm prepare makes it\n\Z")

    def test_who_is_killed_takes_the_machine_along(self):
        # Once it runs the command, and as soon as it exists: then nobody in it would notice that we are gone.
        for number, early in ((signal.SIGTERM, False), (signal.SIGKILL, False), (signal.SIGKILL, True)):
            with self.start("cat") as process:
                if not early:
                    process.stdin.write(b"here\n")
                    self.assertEqual(process.stdout.readline(), b"here\n")
                while not (qemu := self.processes("qemu")):
                    self.assertIsNone(process.poll())
                handle = os.pidfd_open(qemu[0])
                process.send_signal(number)
                self.assertEqual(select.select([handle], [], [], machine.PATIENCE)[0], [handle])
                os.close(handle)
            self.assertEqual(process.returncode, 128 + number if number == signal.SIGTERM else -number)
            self.nothing_is_left()


class OnATerminal(machine.MachineTest):
    def open(self, *command):
        terminal = Terminal([*machine.VM, "qemu", *(["--", *command] if command else [])], self.env, patience=machine.PATIENCE)
        self.addCleanup(terminal.close)
        self.resize(terminal, 37, 101)
        self.before = termios.tcgetattr(terminal.fd)
        return terminal

    @staticmethod
    def resize(terminal, rows, columns):
        fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def test_size_echo_and_restoring(self):
        t = self.open("sh", "-c", "stty size; while read line; do stty size; done; exit 4")
        t.wait_for("37 101\n")
        self.assertNotEqual(termios.tcgetattr(t.fd), self.before)
        self.resize(t, 20, 60)
        shown, deadline = "", time.monotonic() + machine.PATIENCE
        while shown != "20 60\n":  # the signal that tells of the new size may come after what is typed next
            t.type("line\n")
            t.wait_for("line\n")
            shown = t.wait_for("\n")
            self.assertLess(time.monotonic(), deadline, shown)
        t.type("\x04")
        t.wait_for_end()
        self.assertEqual(termios.tcgetattr(t.fd), self.before)
        self.assertEqual(t.ended(), 4)
        self.nothing_is_left()

    def test_control_c_is_the_commands(self):
        t = self.open("sh", "-c", "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 1; done")
        t.wait_for("ready\n")
        t.type("\x03")
        t.wait_for("interrupted\n")
        self.assertEqual(t.ended(), 5)
        self.nothing_is_left()

    def test_a_killed_machine_gives_the_terminal_back(self):
        t = self.open("cat")
        t.type("here\n")
        t.wait_for("here\nhere\n")
        (qemu,) = self.processes("qemu")
        os.kill(qemu, signal.SIGKILL)
        t.wait_for("vm: QEMU was killed by signal 9\n")
        t.wait_for_end()
        self.assertEqual(termios.tcgetattr(t.fd), self.before)
        self.assertEqual(t.ended(), 125)
        self.nothing_is_left()

    def test_a_shell_without_a_command(self):
        t = self.open()
        t.wait_for("# ")
        t.type("echo $((6 * 7)) on $(tty)\n")
        t.wait_for("42 on /dev/pts/0\n")
        t.type("exit 6\n")
        self.assertEqual(t.ended(), 6)


if __name__ == "__main__":
    machine.main("6.1")
