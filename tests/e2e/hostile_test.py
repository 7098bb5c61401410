"""A target that writes over its session while ddbg works on it (tests/targets/hostile.cpp says where): ddbg has to end with a
message or to carry on. It must not crash, hang, leave anything behind, or touch a process that is not the target's.

    hostile_test.py [--rounds N] [--seed N] [MODE...]      a failure names its seed; DDBG and HOSTILE are the programs
"""
import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

from support import environment, skip_without_kvm

DDBG = os.environ["DDBG"]
HOSTILE = os.environ["HOSTILE"]
MODES = ("session", "slots", "header", "records", "agent", "code", "forge", "unmap", "replace")

# A stop that never comes is given up after twenty seconds, and a sanitized build on a busy machine is slow.
LIMIT = 100
# Longer than the target lives.
BORED = 12

# The first stop is before the scribbling begins, the second is not.
BEGINNINGS = [
    ["break work", "run", "continue"],
    ["break inner", "run", "continue 3"],
    ["tbreak work", "run", "watch counter", "continue 3"],
    ["break inner if n > 3", "run"],
]
MIDDLE = ["continue", "continue", "continue 20", "next 3", "bt", "info threads", "next", "step", "stepi 5", "finish", "continue", "info registers", "thread apply all bt",
          "break inner", "delete 1", "watch counter", "x/4xg $sp", "print counter", "info breakpoints", "until", "p $xmm0",
          "handle SIGUSR1 nostop", "disable", "enable", "print $_exitcode", "thread 2", "up", "ignore 1 2"]
ENDS = [["kill"], ["detach"], []]


def status(pid, field):
    try:
        with open(f"/proc/{pid}/status") as file:
            return re.search(rf"^{field}:\s*(\S+)", file.read(), re.M).group(1)
    except (OSError, AttributeError):
        return None


def session_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rsplit(")", 1)[1].split()[3])
    except OSError:
        return None


def members(session):
    return [int(p) for p in os.listdir("/proc") if p.isdigit() and session_of(p) == session and status(p, "State") != "Z"]


def wait_until(condition, seconds, pause=0.02):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


def program_of(pid):
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return None


class Round:
    def __init__(self, mode, seed):
        self.mode, self.seed = mode, seed
        draw = random.Random(seed)
        self.commands = [*draw.choice(BEGINNINGS), *draw.choices(MIDDLE, k=draw.randrange(5, 20)), *draw.choice(ENDS)]
        self.problems, self.where = [], ""

    def expect(self, condition, what):
        if not condition:
            self.problems.append(what)

    # Where everybody is, of a run that hangs.
    def stacks(self, session):
        return "".join(subprocess.run(["gdb", "-nx", "-q", "-batch", "-p", str(pid), "-ex", "thread apply all bt 12"],
                                      capture_output=True, text=True, env=environment()).stdout[-4000:] for pid in members(session))

    def run(self):
        # Whom a forged thread number may hit: a process of the same user, in the middle of nothing.
        with subprocess.Popen(["sleep", "1000"], start_new_session=True) as bystander:
            try:
                self.run_beside(bystander)
            finally:
                bystander.kill()
        return self.problems

    def run_beside(self, bystander):
        arguments = [DDBG, "-q", "-nx", "-batch"]
        for command in self.commands:
            arguments += ["-ex", command]
        arguments += ["--args", HOSTILE, self.mode, str(self.seed), str(bystander.pid)]
        with tempfile.TemporaryFile() as output:
            ddbg = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment(),
                                    start_new_session=True)
            # A target that never stops and never ends, by its own doing, is stopped as a person stops it.
            if not wait_until(lambda: ddbg.poll() is not None, BORED):
                wait_until(lambda: ddbg.poll() is not None or os.kill(ddbg.pid, signal.SIGINT) or False, LIMIT, 1)
            if ddbg.poll() is None:
                self.problems.append(f"ddbg did not end within {LIMIT} s")
                self.where = self.stacks(ddbg.pid)
                os.kill(ddbg.pid, signal.SIGKILL)
                ddbg.wait()
            output.seek(0)
            self.text = output.read().decode(errors="replace")
        self.expect(ddbg.returncode >= 0, f"ddbg died of signal {-ddbg.returncode}")
        for word in ("Sanitizer", "runtime error", "Assertion", "terminate called"):
            self.expect(word not in self.text, f"{word} in the output")

        left = lambda: [p for p in members(ddbg.pid) if program_of(p) != "hostile"]
        self.expect(wait_until(lambda: not left(), 20), f"left behind: {[program_of(p) for p in left()]}")
        # What was let go must run, by itself, to its end; what was killed must be gone.
        for pid in members(ddbg.pid):
            self.expect(status(pid, "TracerPid") in ("0", None), "the target is still traced")
        if not wait_until(lambda: not members(ddbg.pid), 20):
            self.problems.append(f"the target did not end: {[(p, status(p, 'State')) for p in members(ddbg.pid)]}")
            for pid in members(ddbg.pid):
                os.kill(pid, signal.SIGKILL)
        self.expect(bystander.poll() is None, "the bystander was killed")
        self.expect(status(bystander.pid, "TracerPid") == "0", "the bystander is traced")
        self.expect(status(bystander.pid, "State") == "S", "the bystander was stopped")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("modes", nargs="*", default=MODES)
    arguments = parser.parse_args()
    skip_without_kvm()
    failed = 0
    endings = {}
    for number in range(arguments.rounds):
        for mode in arguments.modes:
            one = Round(mode, arguments.seed + number)
            begin = time.monotonic()
            problems = one.run()
            ending = re.search(r"^The target .*|^Program terminated with .*|^During startup .*", one.text, re.M)
            ending = re.sub(r" \(0x[0-9a-f]+\)", "", ending[0]) if ending else "carried on"
            endings[ending] = endings.get(ending, 0) + 1
            print(f"{'FAILED' if problems else 'ok':6} {mode} --seed {one.seed}: {time.monotonic() - begin:.1f} s, {ending}", flush=True)
            if problems:
                failed += 1
                print("   ", "; ".join(problems), "\n    commands:", one.commands, "\n" + one.text[-6000:], one.where, flush=True)
    for ending, count in sorted(endings.items(), key=lambda e: -e[1]):
        print(f"{count:5} {ending}")
    print(f"{arguments.rounds * len(arguments.modes)} rounds, {failed} failed, seeds from {arguments.seed}")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
