"""on_kvm.py SUITE: a suite of this folder with --backend kvm, less what cannot be there yet."""
import os
import sys
import unittest

EXCEPTIONS = {
    "attach_test.Rounds.test_read_while_others_are_hit": "no watchpoints in a guest yet",
    "batch_test.SameAsGdb.test_watchpoint": "no watchpoints in a guest yet",
    "batch_test.SameAsGdb.test_read_and_access_watchpoints": "no watchpoints in a guest yet",
    "batch_test.Signals.test_the_program_inherits_what_ddbg_did":
        "/proc/self/status shows the kick's signal blocked, which is what keeps it from ending system calls",
}


def cases(suite):
    for part in suite:
        yield from cases(part) if isinstance(part, unittest.TestSuite) else [part]


if not os.access("/dev/kvm", os.R_OK | os.W_OK):
    print("skipped: kvm is not there: /dev/kvm cannot be opened")
    sys.exit(77)
found = list(cases(unittest.defaultTestLoader.loadTestsFromName(sys.argv[1])))
wrong = [name for name in EXCEPTIONS if name.startswith(sys.argv[1] + ".") and name not in [case.id() for case in found]]
if wrong:
    sys.exit(f"no such test: {', '.join(wrong)}")
for case in found:
    if case.id() in EXCEPTIONS:
        print(f"not run: {case.id()}: {EXCEPTIONS[case.id()]}")
chosen = unittest.TestSuite(case for case in found if case.id() not in EXCEPTIONS)
sys.exit(not unittest.TextTestRunner(verbosity=2).run(chosen).wasSuccessful())
