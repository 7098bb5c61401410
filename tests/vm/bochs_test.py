#!/usr/bin/env python3
"""scripts/vm bochs: bytes, endings, failures, and what is in the machine. A start takes ten seconds of a processor, so one does for much."""
import fcntl
import glob
import os
import select
import signal
import struct
import sys
import termios

import machine

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from terminal import Terminal  # noqa: E402

PROGRAMS = os.environ["E2E_PROGRAMS"]
QUICK_GUESTS = ":".join(f"Guests/Guests.{name}/kvm" for name in (
    "SystemCallComesOutBehindTheInstruction", "TrapComesOutWithTheRegistersItFound", "HandledTrapsDoNotComeOut", "PageFaultSaysWhere",
    "RightsTakenAwayAreGone"))


class BochsTest(machine.MachineTest):
    MACHINE = "bochs"
    PATIENCE = 850

    def patiently(self, *arguments, **keywords):
        return self.vm("--timeout", "840", *arguments, **keywords)


class Bytes(BochsTest):
    def test_input_output_and_errors_are_the_commands_alone(self):
        # More input than the receiver of the serial line holds, and more output than a pipe: a file that came along. A module came, too.
        data = os.urandom(2000) + bytes(range(256)) + b"no newline at the end"
        busybox = os.path.join(machine.CACHE, "busybox/busybox")
        with open(busybox, "rb") as file:
            content = file.read(200_000)
        module = sorted(glob.glob(f"{machine.CACHE}/linux-6.1.*/modules/kvm-intel/00-irqbypass.ko"))[-1]
        script = """cat; head -c 200000 /elsewhere/file; cat /proc/cmdline >&2
            test -e /dev/kvm && echo kvm >&2; insmod /elsewhere/module.ko; cut -d ' ' -f 1 /proc/modules >&2; exit 3"""
        done = self.patiently("--kvm", "off", "--add", f"{busybox}:/elsewhere/file", "--add", f"{module}:/elsewhere/module.ko",
                              "--", "sh", "-c", script, input=data)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertEqual(done.stdout, data + content)
        self.assertRegex(done.stderr, rb"\A[^\n]*initcall_blacklist[^\n]*\nirqbypass\n\Z")


class Endings(BochsTest):
    def test_a_kernel_that_panics(self):
        done = self.patiently("--kvm", "off", "--", "sh", "-c", "echo before; echo c >/proc/sysrq-trigger")
        self.assertEqual((done.stdout, done.returncode), (b"before\n", 125))
        self.assertIn(b"sysrq triggered crash", done.stderr)
        self.assertTrue(done.stderr.endswith(b"vm: the machine's kernel panicked\n"), done.stderr)

    def test_a_machine_that_takes_too_long(self):
        done = self.vm("--timeout", "0.5", "--", "true")
        self.assertEqual((done.returncode, done.stderr), (124, b"vm: the machine did not start the command within 0.5 s\n"))

    def test_too_little_memory(self):
        done = self.vm("--memory", "64", "--", "true")
        self.assertEqual((done.returncode, done.stderr), (125, b"vm: 64 MB are too few for the kernel and the files that go in (--memory)\n"))

    def test_what_bochs_refuses(self):
        done = self.vm("--smp", "1000", "--", "true")
        self.assertEqual(done.returncode, 125)
        self.assertRegex(done.stderr, rb"\Avm: Bochs failed: .*'n_processors' was set to 1000.*\n\Z")

    def test_who_is_killed_takes_the_machine_along(self):
        for number in signal.SIGTERM, signal.SIGKILL:
            with self.start("cat") as process:
                handle = self.handle_of_bochs(process)
                process.send_signal(number)
                self.assertEqual(select.select([handle], [], [], machine.PATIENCE)[0], [handle])
                os.close(handle)
            self.assertEqual(process.returncode, 128 + number if number == signal.SIGTERM else -number)
            self.nothing_is_left()

    def test_a_killed_bochs(self):
        with self.start("cat") as process:
            handle = self.handle_of_bochs(process)
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
            self.assertEqual(process.stderr.read(), b"vm: Bochs was killed by signal 9\n")
        self.assertEqual(process.returncode, 125)
        self.nothing_is_left()

    def handle_of_bochs(self, process):
        while not (bochs := self.processes("bochs-bin")):
            self.assertIsNone(process.poll())
        return os.pidfd_open(bochs[0])


class Kvm(BochsTest):
    def test_the_processor_and_a_guest(self):
        tests = f"{os.environ['BACKEND_TEST']}/backend_test"
        script = f"""grep -m 1 vendor_id /proc/cpuinfo; for flag in vmx ept vpid; do grep -qw $flag /proc/cpuinfo && echo $flag; done
            cat /sys/module/kvm_intel/parameters/ept; uname -r; nproc
            exec {tests} --gtest_brief=1 --gtest_filter='{QUICK_GUESTS}'"""
        done = self.patiently("--add", tests, "--", "sh", "-c", script)
        told = done.stdout + done.stderr
        self.assertRegex(done.stdout.decode(), r"\Avendor_id\t: GenuineIntel\nvmx\nept\nvpid\nY\n6\.1\.\S+\n1\n", told)
        self.assertRegex(done.stdout.decode(), r"\[  PASSED  \] 5 tests\.\n\Z", told)
        self.assertNotIn(b"SKIPPED", done.stdout)
        self.assertEqual(done.returncode, 0, told)


class Slowly(BochsTest):
    def test_a_signal_is_told_and_children_do_not_keep_the_machine(self):
        done = self.patiently("--kvm", "off", "--", "sh", "-c", "yes | head -c 1000000; sleep 1000 & echo end; kill -SEGV $$")
        self.assertEqual((done.stdout[-8:], len(done.stdout), done.returncode), (b"y\ny\nend\n", 1_000_004, 128 + signal.SIGSEGV))
        self.assertEqual(done.stderr, b"vm: the command was killed by signal 11 (Segmentation fault)\n")

    def test_restart_and_triple_fault(self):
        for command, why in (("reboot -f", b"the machine stopped by itself"), ("poweroff -f", b"the machine stopped by itself"),
                             ("echo b >/proc/sysrq-trigger", b"the machine's processor shut down")):
            with self.subTest(command):
                done = self.patiently("--kvm", "off", "--", "sh", "-c", f"{command}; sleep 1000")
                self.assertEqual(done.returncode, 125, done.stderr)
                self.assertIn(b"vm: " + why, done.stderr.splitlines(keepends=True)[-1])

    def test_a_command_that_does_not_end(self):
        done = self.vm("--kvm", "off", "--timeout", "60", "--", "sh", "-c", "echo begun; while :; do :; done")
        self.assertEqual(done.returncode, 124)
        self.assertRegex(done.stderr, rb"\Avm: the (command did not end|machine did not start the command) within 60 s\n\Z")

    def test_who_is_killed_takes_the_running_machine_along(self):
        with self.start("cat") as process:
            process.stdin.write(b"here\n")
            self.assertEqual(process.stdout.readline(), b"here\n")
            process.send_signal(signal.SIGINT)
        self.assertEqual(process.returncode, 128 + signal.SIGINT)
        self.nothing_is_left()

    def test_a_terminal(self):
        command = [*machine.VM, "bochs", "--kvm", "off", "--", "sh", "-c", "stty size; trap 'stty size; exit 5' INT; read a; echo got $a; while :; do sleep 1; done"]
        t = Terminal(command, self.env, patience=self.PATIENCE)
        self.addCleanup(t.close)
        fcntl.ioctl(t.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 37, 101, 0, 0))
        t.wait_for("37 101\n")
        fcntl.ioctl(t.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
        t.type("a line longer than a frame\n")
        t.wait_for("got a line longer than a frame\n")
        t.type("\x03")
        t.wait_for("20 60\n")
        self.assertEqual(t.ended(), 5)
        self.nothing_is_left()

    def test_dune_mode_on_every_kernel_and_number_of_processors(self):
        for kernel in "6.1", "6.12":
            for smp in "1", "2":
                with self.subTest(kernel=kernel, smp=smp):
                    done = self.patiently("--kernel", kernel, "--smp", smp, "--", "ddbg", "-batch", "--backend", "kvm", "-ex", "break add if a == 4",
                                          "-ex", "run", "-ex", "info backend", "-ex", "stepi", "-ex", "finish", "-ex", "continue",
                                          "--args", os.path.join(PROGRAMS, "steps"))
                    out = done.stdout.decode()
                    self.assertRegex(out, r"Breakpoint 1, add \(a=4, b=3\)", done.stderr)
                    self.assertIn("In use: kvm (asked for)", out)
                    self.assertIn("Value returned is $1 = 7", out)
                    self.assertIn("x=11 f=120\n[Inferior 1 (process ", out)


if __name__ == "__main__":
    machine.main(*(["6.1", "6.12"] if "Slowly" in sys.argv else ["6.1"]), machine="bochs")
