"""kill -9 of ddbg, of the keeper, of both, at random moments: the program goes on as if nothing had been. Without ddbg its
text is its own again within a second; without the keeper it may keep the agent. DDBG_TEST_SEED repeats a run, DDBG_TEST_ROUNDS
says how many kills of each kind."""
import ctypes
import os
import random
import signal
import subprocess
import tempfile
import time
import unittest

import process_state
from support import ATTACHED, DDBG, PATIENCE, Target, environment

ROUNDS = int(os.environ.get("DDBG_TEST_ROUNDS", "2"))
SEED = int(os.environ.get("DDBG_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
CASES = ["read", "tick", "vdso", "handler_read", "handler_again", "masked_read", "masked_pending", "futex", "condition",
         "churn", "generic", "generic_read"]
# ptrace ends these with EINTR, in the kernel; the keeper makes it undone some microseconds later, if it lives.
ENDED_BY_PTRACE = ["epoll", "receive", "sigtimedwait"]
# Not beside those: fork blocks the signals in its thread, and the SIGCHLD that comes then ends calls of other threads with
# EINTR, without any debugger too.
WITH_CHILDREN = ["spawn"]
QUIET = ["handle SIGUSR1 nostop noprint", "set confirm off", "set pagination off"]

# A program whose debugger was killed has a new parent: us, who know its exit status then.
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid):
    try:
        return [int(child) for tid in process_state.threads(pid)
                for child in process_state.read(f"/proc/{pid}/task/{tid}/children").split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def name(pid):
    try:
        return process_state.read(f"/proc/{pid}/comm").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_until(what, condition, seconds=PATIENCE, pause=0.005):
    """Returns what the condition did, and how long that took."""
    begin = time.monotonic()
    while True:
        result = condition()
        took = time.monotonic() - begin
        if result or took > seconds:
            return result, took
        time.sleep(pause)


def caught_by_program(pid, number):
    caught = process_state.fields(f"/proc/{pid}/status", ["SigCgt"])["SigCgt"]
    return int(caught, 16) >> (number - 1) & 1


def patching_of(pid):
    """Waits for the keeper's first write into the program's libraries; it has many to make."""
    texts = [(begin, end - begin) for begin, end, protection, _, path in process_state.mappings(pid)
             if "x" in protection and "/lib" in path]

    def now():
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            return [os.pread(memory.fileno(), size, begin) for begin, size in texts]

    before = now()
    return lambda: wait_until("a write", lambda: now() != before, pause=0)


class Session:
    """A ddbg that reads commands; the program it launches, if any, has the same standard output."""

    def __init__(self, options, commands, stdin=subprocess.PIPE):
        arguments = [DDBG, "-q", "-nx", *(word for line in QUIET for word in ("-iex", line))]
        for command in commands:
            arguments += ["-ex", command]
        self.process = subprocess.Popen([*arguments, *options], stdin=stdin, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, env=environment())
        self.pid = self.process.pid
        self.output = b""
        os.set_blocking(self.process.stdout.fileno(), False)

    def keeper(self):
        return next((child for child in children(self.pid) if name(child) == "ddbg-keeper"), None)

    def shown(self):
        self.output += self.process.stdout.read() or b""
        return self.output.decode(errors="replace")

    def kill(self, victims):
        """In the order given."""
        pids = {"ddbg": self.pid, "keeper": self.keeper()}
        for victim in victims:
            if pids[victim]:
                os.kill(pids[victim], signal.SIGKILL)

    def let_quit(self):
        """A ddbg that is left quits at the end of its commands, and lets the program go."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass # it was killed before it had read them all

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin:
            self.let_quit()
        self.process.stdout.close()


def expected(cases):
    return sorted([f"{case}: as it should be" for case in cases] + ["main: read returned 1, no error"])


# Of our own: other tests run meanwhile.
SCRATCH = tempfile.TemporaryDirectory()
os.environ["TMPDIR"] = SCRATCH.name


def at_home():
    """What a killed debugger could leave behind outside of processes."""
    return sorted(os.listdir("/dev/shm")), sorted(os.listdir(SCRATCH.name))


class Kills(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.random = random.Random(f"{SEED} {self.id()}")
        print(f"DDBG_TEST_SEED={SEED}", flush=True)

    def each(self, one):
        for round in range(ROUNDS):
            for victims in (["ddbg"], ["keeper"], ["ddbg", "keeper"], ["keeper", "ddbg"]):
                with self.subTest(seed=SEED, round=round, victims=victims):
                    before = at_home()
                    one(victims)
                    self.assertEqual(at_home(), before)
                if not self._outcome.success:
                    return

    def check_text(self, pid, victims):
        if victims != ["ddbg"]:
            return
        clean, took = wait_until("clean text", lambda: process_state.changed_text(pid) == [])
        self.assertTrue(clean, msg=process_state.changed_text(pid))
        if os.getloadavg()[0] <= 2 * os.cpu_count(): # else it is the other programs' time
            self.assertLess(took, 1)
        gone, _ = wait_until("no agent", lambda: not process_state.left_behind(pid))
        self.assertTrue(gone)

    # ddbg attaches to a program of ours.
    def attached(self, commands, least, most, beginning_of=lambda pid: lambda: None):
        def one(victims):
            cases = CASES + (ENDED_BY_PTRACE if victims == ["ddbg"] else WITH_CHILDREN)
            target = Target([ATTACHED, *cases])
            wait_for_beginning = beginning_of(target.pid)
            session = Session(["-p", str(target.pid)], [])
            try:
                os.write(session.process.stdin.fileno(),
                         "".join(f"{c}\n" for c in commands(target.pid)).encode())
                wait_for_beginning()
                time.sleep(self.random.uniform(least, most))
                session.kill(victims)
                self.check_text(target.pid, victims)
                session.let_quit()
                out, status = target.ended()
                self.assertEqual((sorted(out.splitlines()), status), (expected(cases), 6), msg=session.shown())
            finally:
                session.close()
                target.close()
            self.nobody_left()
        self.each(one)

    # ddbg starts it: what is killed before the program has begun may take it along.
    def launched(self, command_line, commands, least, most):
        def one(victims):
            session = Session(["--args", *command_line], [*commands, "run", "quit"])
            try:
                time.sleep(self.random.uniform(least, most))
                program = next((pid for pid in children(session.keeper() or 0) if name(pid) == "attached"), None)
                session.kill(victims)
                if program is None:
                    return
                self.check_text_of_launched(program, victims)
                session.process.stdin.write(b"\n")
                session.let_quit()
                status = self.status_of(program, session)
                if "started" in session.shown():
                    lines = session.shown().split("started\n")[-1].splitlines()
                    for line in expected(CASES):
                        self.assertIn(line, lines, msg=session.shown())
                    if status is not None:
                        self.assertEqual(status, 6)
                else: # not through its execve yet, and traced with it
                    self.assertIn(status, (None, -signal.SIGKILL), msg=session.shown())
            finally:
                session.process.stdin = None
                session.close()
            self.nobody_left()
        self.each(one)

    def check_text_of_launched(self, program, victims):
        try:
            self.check_text(program, victims)
        except (FileNotFoundError, ProcessLookupError):
            pass # it has ended: its output and status are looked at

    def status_of(self, program, session):
        """None: ddbg had it, who does not tell."""
        def has_ended():
            session.shown() # a full pipe would hold it
            return (not os.path.exists(f"/proc/{program}")
                    or process_state.fields(f"/proc/{program}/status", ["State"])["State"][0] == "Z")

        ended, _ = wait_until("the program's end", has_ended)
        self.assertTrue(ended, msg=session.shown())
        try:
            return os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        except ChildProcessError:
            return None

    def nobody_left(self):
        """Of ddbg and keeper; whoever lost a parent is our child now."""
        def only_zombies():
            left = [pid for pid in children(os.getpid()) if name(pid) in ("ddbg", "ddbg-keeper", "attached")]
            for pid in left:
                os.waitpid(pid, os.WNOHANG)
            return not left
        self.assertTrue(wait_until("no process", only_zombies)[0])

    def test_stopped(self):
        self.attached(lambda pid: ["break hit_a", "continue"], 0.1, 0.4)

    def test_running(self):
        self.attached(lambda pid: ["continue"], 0.1, 0.4)

    def test_conditions(self):
        self.attached(lambda pid: ["break hit_a if counted_a < 0", "break hit_b", "ignore 2 1000000000", "continue"],
                      0.1, 0.5)

    def test_breakpoint_storm(self):
        self.attached(lambda pid: ["break hit_a", "commands", "silent", "continue", "end", "break hit_b", "commands",
                                   "silent", "continue", "end", "continue"], 0.1, 0.6)

    def test_stepping(self):
        self.attached(lambda pid: ["tbreak hit_b", "continue", "stepi 100000000"], 0.1, 0.5)

    def test_watchpoint(self):
        self.attached(lambda pid: ["watch counted_a if counted_a < 0", "continue"], 0.1, 0.5)

    def test_patching(self):
        self.attached(lambda pid: ["continue"], 0.0, 0.003, beginning_of=patching_of)

    def test_launching(self):
        self.launched([ATTACHED, *CASES], [], 0.0, 0.15)

    def test_launched(self):
        self.launched([ATTACHED, *CASES], ["break hit_a if counted_a < 0"], 0.2, 0.5)

    def test_exec(self):
        self.launched([ATTACHED, "again", "60", *CASES], ["break hit_a if counted_a < 0"], 0.1, 1.5)

    def test_attaching(self):
        """While the program's only thread, whose sleep the kernel goes on with by restart_syscall, sets up the agent."""
        def one(victims):
            target = Target(["perl", "-e", '$| = 1; print "started\\n"; print "all of it\\n" if sleep 2 >= 2'])
            session = Session(["-p", str(target.pid)], [])
            try:
                begun, _ = wait_until("the agent", lambda: caught_by_program(target.pid, signal.SIGTRAP), pause=0)
                session.kill(victims)
                self.assertTrue(begun)
                session.let_quit()
                self.assertEqual(target.ended(), ("all of it\n", 0), msg=session.shown())
            finally:
                session.close()
                target.close()
            self.nobody_left()
        self.each(one)

    def test_attaching_and_detaching(self):
        self.attached(lambda pid: ["detach", *[f"attach {pid}", "detach"] * 40], 0.02, 0.6)

    def test_target(self):
        """The program itself, while ddbg comes and leaves: all threads end at once, some in the keeper's hands."""
        for _ in range(10 * ROUNDS):
            with self.subTest(seed=SEED):
                target = Target([ATTACHED, *CASES])
                session = Session(["-batch", "-p", str(target.pid)], ["detach"], subprocess.DEVNULL)
                try:
                    time.sleep(self.random.uniform(0, 0.1))
                    os.kill(target.pid, signal.SIGKILL)
                    session.process.wait(10)  # a stop that does not come is given up after twenty
                finally:
                    session.close()
                    target.close()
        self.nobody_left()


if __name__ == "__main__":
    unittest.main()
