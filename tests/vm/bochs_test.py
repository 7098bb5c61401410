#!/usr/bin/env python3
"""scripts/vm bochs: bytes, endings, failures, and what is in the machine. A start takes seconds of a processor, so one does for much."""
import os
import signal

import machine


class BochsTest(machine.MachineTest):
    MACHINE = "bochs"


class Bytes(BochsTest):
    def test_input_output_and_errors_are_the_commands_alone(self):
        # More input than the receiver of the serial line holds, more output than a pipe does, and a file that came along.
        data = os.urandom(2000) + bytes(range(256)) + b"no newline at the end"
        added = os.path.join(self.scratch.name, "added")
        with open(added, "wb") as file:
            file.write(os.urandom(100_000))
        with open(added, "rb") as file:
            content = file.read()
        script = 'cat; cat /elsewhere/file; cat /proc/cmdline >&2; grep -c processor /proc/cpuinfo >&2; exit 3'
        done = self.vm("--add", f"{added}:/elsewhere/file", "--", "sh", "-c", script, input=data, keep=["added"])
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertEqual(done.stdout, data + content)
        self.assertRegex(done.stderr, rb"\A[^\n]*initcall_blacklist[^\n]*\n1\n\Z")
