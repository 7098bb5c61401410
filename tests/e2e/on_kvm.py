"""on_kvm.py SUITE: a suite of this folder with --backend kvm, less what cannot be there yet."""
import sys
import unittest

from support import skip_without_kvm

EXCEPTIONS = {
    "batch_test.Signals.test_the_program_inherits_what_ddbg_did":
        "/proc/self/status shows the kick's signal blocked, which is what keeps it from ending system calls",
    **{f"odd_processes_test.Container.{name}": "there is no /dev/kvm in the container" for name in (
        "test_breakpoints_and_steps", "test_interrupt", "test_stopped", "test_threads_come_and_go")},
    **{f"odd_processes_test.Rights.{name}": "the other user may not open /dev/kvm, which is said first" for name in (
        "test_asked_not_to_be_debugged", "test_foreign_process", "test_set_user_id", "test_unreadable_file")},
}


def cases(suite):
    for part in suite:
        yield from cases(part) if isinstance(part, unittest.TestSuite) else [part]


skip_without_kvm()
found = list(cases(unittest.defaultTestLoader.loadTestsFromName(sys.argv[1])))
wrong = [name for name in EXCEPTIONS if name.startswith(sys.argv[1] + ".") and name not in [case.id() for case in found]]
if wrong:
    sys.exit(f"no such test: {', '.join(wrong)}")
for case in found:
    if case.id() in EXCEPTIONS:
        print(f"not run: {case.id()}: {EXCEPTIONS[case.id()]}")
chosen = unittest.TestSuite(case for case in found if case.id() not in EXCEPTIONS)
sys.exit(not unittest.TextTestRunner(verbosity=2).run(chosen).wasSuccessful())
