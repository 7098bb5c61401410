#!/usr/bin/env python3
"""scripts/vm bochs: bytes, endings, failures, and what is in the machine. A start takes ten seconds of a processor, so one does for much."""
import os
import select
import signal
import sys

import machine

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from terminal import Terminal  # noqa: E402

PROGRAMS = os.environ["E2E_PROGRAMS"]


class BochsTest(machine.MachineTest):
    MACHINE = "bochs"
    PATIENCE = 850

    def patiently(self, *arguments, **keywords):
        return self.vm("--timeout", "840", *arguments, **keywords)


class Bytes(BochsTest):
    def test_input_output_and_errors_are_the_commands_alone(self):
        # More input than the receiver of the serial line holds, and more output than a pipe: a file that came along. No KVM in the way.
        data = os.urandom(2000) + bytes(range(256)) + b"no newline at the end"
        busybox = os.path.join(machine.CACHE, "busybox/busybox")
        with open(busybox, "rb") as file:
            content = file.read(200_000)
        script = """cat; head -c 200000 /elsewhere/file; cat /proc/cmdline >&2
            ls /dev/kvm >/dev/null 2>&1 && echo has kvm >&2; dd if=/dev/port bs=1 skip=888 count=1 >/dev/null 2>&1 || echo no ports >&2; exit 3"""
        done = self.patiently("--kvm", "off", "--add", f"{busybox}:/elsewhere/file", "--", "sh", "-c", script, input=data)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertEqual(done.stdout, data + content)
        self.assertRegex(done.stderr, rb"\A[^\n]*initcall_blacklist[^\n]*\n\Z")


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
        done = self.vm("--memory", "100000", "--", "true")
        self.assertEqual(done.returncode, 125)
        self.assertRegex(done.stderr, rb"\Avm: Bochs failed: .*memory.*\n\Z")

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
    def test_the_processor_and_kvm(self):
        script = """grep -m 1 vendor_id /proc/cpuinfo; for flag in vmx ept vpid; do grep -qw $flag /proc/cpuinfo && echo $flag; done
            test -c /dev/kvm && echo kvm; lsmod | grep -o '^kvm_[a-z]*'; uname -r; nproc"""
        done = self.patiently("--", "sh", "-c", script)
        self.assertRegex(done.stdout.decode(), r"\Avendor_id\t: GenuineIntel\nvmx\nept\nvpid\nkvm\nkvm_intel\n6\.1\.\S+\n1\n\Z", done.stderr)
