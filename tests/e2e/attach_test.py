"""attach and detach, over and over: the process and what it does are as if nobody had been there.
DDBG_TEST_ROUNDS says how often; by hand: attach_test.py Rounds.test_read."""
import os
import time
import unittest

import process_state
from support import ATTACHED, GOROUTINES, PATIENCE, Target, attach

ROUNDS = int(os.environ.get("DDBG_TEST_ROUNDS", "6"))


# What happens between attach and detach: commands, and what ddbg's output has to show.
HIT_A = (["break hit_a", "continue", "continue", "bt"], r"hit Breakpoint 1.*hit Breakpoint 1")
HIT_B = (["break hit_b", "continue", "stepi 3", "delete", "info threads"], r"hit Breakpoint 1, ")
COUNT = (["break hit_a", "ignore 1 20", "continue", "info breakpoints"],
         r"already hit 21 times")
FALSE = (["break hit_a if counted_a < 0", "tbreak hit_b", "continue"], r"hit Temporary breakpoint 2")
WATCH = (["watch counted_a", "continue", "continue"], r"Hardware watchpoint 1: counted_a.*New value")
GENERIC = (["break *generic_mov", "continue", "delete", "break *generic_syscall", "continue", "continue", "bt 1"],
           r"reakpoint 1,.*reakpoint 2,.*reakpoint 2,")
NOTHING = ([], r"$")
LOOK = (["info threads", "thread apply all bt 2"], r"Thread \d")

# Debian's own: one built elsewhere need not have the symbols.
PYTHON = "/usr/bin/python3"
PYTHON_PROGRAM = """
import hashlib, queue, sys, threading, time
ends, wrong, rounds = False, [], [0] * 4
to, back = queue.Queue(), queue.Queue()
def hashing(i):
    while not ends:
        if hashlib.sha256(b"x" * 100000).hexdigest()[:8] != "d69e6898": wrong.append("hash")
        rounds[i] += 1
def sleeping(i):
    while not ends:
        begin = time.monotonic()
        time.sleep(0.01)
        if time.monotonic() - begin < 0.01: wrong.append("sleep")
        rounds[i] += 1
def asking(i):
    while not ends:
        to.put(rounds[i])
        if back.get(timeout=60) != rounds[i] + 1: wrong.append("answer")
        rounds[i] += 1
    to.put(None)
def answering(i):
    for number in iter(to.get, None):
        back.put(number + 1)
        rounds[i] += 1
threads = [threading.Thread(target=f, args=(i,)) for i, f in enumerate((hashing, sleeping, asking, answering))]
for t in threads: t.start()
while min(rounds) < 20: time.sleep(0.001)
print("started", flush=True)
line = sys.stdin.readline()
ends = True
for t in threads: t.join()
print(repr(line), wrong or "nothing wrong")
sys.exit(7)
"""
SLEEP = (["break clock_nanosleep", "continue", "continue", "bt 1"], r"reakpoint 1,.*reakpoint 1,")
TRANSFER = (["break main.transfer", "continue", "continue", "delete", "info threads"], r"reakpoint 1, .*reakpoint 1, .*Thread \d")
WRITE = (["break pthread_cond_signal if $rsp == 0", "tbreak clock_nanosleep", "continue"],
         r"Temporary breakpoint 2")


class Rounds(unittest.TestCase):
    def rounds(self, cases, kinds, stable=True):
        target = Target([ATTACHED, *cases])
        self.attach_and_detach(target, kinds, stable)
        out, status = target.ended()
        expected = "".join(f"{case}: as it should be\n" for case in cases)
        self.assertEqual((out, status), (expected + "main: read returned 1, no error\n", 6))

    def assert_becomes(self, pid, stable, before, told):
        """Not at once: a running program's signals pend for moments of their own, and a wait for some opens its mask."""
        end = time.monotonic() + PATIENCE
        while (now := process_state.state(pid, stable)) != before and time.monotonic() < end:
            pass
        self.assertEqual(now, before, msg=told)

    def attach_and_detach(self, target, kinds, stable):
        self.addCleanup(target.close)
        before = process_state.state(target.pid, stable)
        self.assert_becomes(target.pid, stable, before, "it does not come back to the state it had before we came")
        self.assertEqual(before["text"], [])
        for round in range(ROUNDS):
            commands, shown = kinds[round % len(kinds)]
            outcome = attach(target.pid, commands)
            told = f"round {round}, {commands}:\n{outcome.stdout}"
            self.assertRegex(outcome.stdout.replace("\n", " "), shown, msg=told)
            self.assertEqual(outcome.returncode, 0, msg=told)
            self.assertIsNone(target.process.poll(), msg=told)
            self.assert_becomes(target.pid, stable, before, told)

    def test_read(self):
        self.rounds(["read", "futex", "epoll"], [NOTHING, LOOK])

    def test_read_while_others_are_hit(self):
        self.rounds(["read", "tick", "vdso"], [NOTHING, HIT_A, HIT_B, COUNT, FALSE, WATCH, LOOK])

    def test_time_limits(self):
        # A sleep that ends while the program is stopped takes as long as the stop; how long that is on a machine with
        # more to do than it can is not the debugger's affair.
        busy = os.getloadavg()[0] > os.cpu_count()
        os.environ["ATTACHED_LATE_US"] = "60000000" if busy else "250000"
        self.rounds(["sleeps", "condition", "sigtimedwait", "receive"], [NOTHING, LOOK])

    def test_generic_calls(self):
        self.rounds(["generic", "generic_read"], [NOTHING, GENERIC, LOOK])

    def test_handler_that_blocks(self):
        self.rounds(["handler_read", "handler_same_stack"], [NOTHING, LOOK])

    def test_handler(self):
        self.rounds(["handler_tick", "handler_spin"], [NOTHING, HIT_A, HIT_B, COUNT, FALSE, LOOK])

    def test_handlers_entered_and_left(self):
        self.rounds(["handler_again", "handler_again"], [NOTHING, HIT_A, COUNT, LOOK], stable=False)

    def test_all_signals_blocked(self):
        self.rounds(["masked_read", "masked_pending", "masked_spin"],
                    [NOTHING, HIT_A, HIT_B, COUNT, FALSE, LOOK])

    def test_vdso(self):
        self.rounds(["vdso", "vdso"], [NOTHING, HIT_B, LOOK])

    def test_threads_come_and_go(self):
        self.rounds(["churn", "churn", "tick"], [NOTHING, HIT_A, COUNT, LOOK], stable=False)

    def test_processes_come_and_go(self):
        self.rounds(["spawn", "vfork", "tick"], [NOTHING, HIT_A, COUNT, LOOK], stable=False)

    def test_python_with_threads(self):
        target = Target([PYTHON, "-c", PYTHON_PROGRAM])
        self.attach_and_detach(target, [NOTHING, SLEEP, LOOK, WRITE], stable=True)
        out, status = target.ended()
        self.assertEqual((out, status), ("'\\n' nothing wrong\n", 7))

    @unittest.skipUnless(os.path.exists(GOROUTINES), "go is not installed")
    def test_go(self):
        target = Target([GOROUTINES, "attached"])
        self.attach_and_detach(target, [NOTHING, LOOK, TRANSFER], stable=False)
        self.assertEqual(target.ended(), ("ended\n", 0))


if __name__ == "__main__":
    unittest.main()
