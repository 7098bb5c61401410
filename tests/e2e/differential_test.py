"""Debian's own programs, without debug information: the same stops and backtraces as gdb."""
import os
import re
import unittest

from support import GDB, backtrace_functions, ddbg, gdb

CASES = [
    ("/usr/bin/gzip", ["-V"], "write"),
    ("/usr/bin/perl", ["-e", "print 6*7, qq(\\n)"], "perl_run"),
    ("/bin/bash", ["-c", "echo hello"], "execute_command"),
    ("/usr/bin/sqlite3", [":memory:", "select 6*7;"], "sqlite3_step"),
    ("/usr/bin/python3.11", ["-S", "-c", "print(6*7)"], "PyRun_SimpleStringFlags"),
]


def stops(text):
    return len(re.findall(r"^(?:Thread \d+ \".*\" hit )?Breakpoint \d+, ", text, re.M))


@unittest.skipUnless(GDB, "gdb is not installed")
class RealPrograms(unittest.TestCase):
    maxDiff = None

    def test_stops_backtraces_and_output(self):
        tried = 0
        for path, arguments, function in CASES:
            if not os.path.exists(path):
                print("not installed, skipped:", path)
                continue
            tried += 1
            with self.subTest(program=path):
                commands = ["set breakpoint pending on", "break " + function, "run", "bt", "delete",
                            "continue"]
                ours = ddbg(commands, [path, *arguments])
                theirs = gdb(commands, [path, *arguments])
                self.assertEqual(stops(ours.out), stops(theirs.out), msg=ours.out + ours.err)
                self.assertEqual(backtrace_functions(ours.out), backtrace_functions(theirs.out))
                ending = r"\[Inferior 1 \(process \d+\) (exited .*)\]"
                self.assertEqual(re.findall(ending, ours.out), re.findall(ending, theirs.out))
        self.assertGreater(tried, 0)


if __name__ == "__main__":
    unittest.main()
