"""Differential test against gdb: functions and interior instructions of real programs, drawn at random from those that a run
executes (DDBG_TEST_SEED repeats a draw). Same hit counts, output and exit status; same backtraces at random hits.

Some programs do not execute the same twice (Spec.races). There ddbg's own run is looked at by others: the processor counts the
executions, and gdb says where the stops are. In a guest (DDBG_TEST_IN_A_GUEST) the processor's breakpoints do not hold, and
nobody counts their executions.

functions_test.py [-v] PROGRAM...    the names are the rows of PROGRAMS; exit status 77: a program is not installed."""
import os
import random
import re
import sys
import tempfile
import time

import functions_elf as elf
import functions_processor as processor
from functions_frames import BACKTRACE, DESCRIBE_STOP, GDB_BACKTRACE, LIST_TAIL_FRAMES, agree, frames, gdb_at_stop
from functions_programs import PROGRAMS, Missing
from functions_session import LOOK, Session
from support import DDBG, GDB, IN_A_GUEST, skip_without_kvm

FUNCTIONS = 50  # hit, per program
UNHIT = 5       # not hit as ddbg sees it: gdb must agree
INTERIOR = 20
BACKTRACES = 8
CANDIDATES = 1200  # per file, in the run that finds what is executed
MOST_HITS = 400   # of one address: gdb needs 100 to 300 us for each
IGNORED = 1000000000


def counting(addresses):
    lines = []
    for number, address in enumerate(addresses, 2):  # the first one is that of the entry point
        lines += [f"break *{address:#x}", f"ignore {number} {IGNORED}"]
    return lines


def parse_counts(text, addresses):
    """{address: hits} from `info breakpoints`; {} if it did not list every one."""
    counts = {}
    for block in re.split(r"\n(?=\d+\s+breakpoint)", text):
        head = re.match(r"(\d+)\s+breakpoint\s+keep\s+y\s+0x([0-9a-f]+)", block)
        if head:
            hit = re.search(r"breakpoint already hit (\d+) time", block)
            counts[int(head[2], 16)] = int(hit[1]) if hit else 0
    return counts if set(addresses) <= set(counts) else {}


def ending(text):
    return re.findall(r"\[Inferior 1 \(process \d+\) (exited .*)\]|Program (terminated with .*)", text)


class Comparison:
    def __init__(self, name, seed):
        self.name, self.seed = name, seed
        self.random = random.Random(f"{seed} {name}")
        self.faults = []
        self.owner = {}  # address -> file and link-time address, for the messages
        self.base_of = {}

    def fault(self, text):
        self.faults.append(text)
        print(f"  MISMATCH {text}", flush=True)

    def where(self, address):
        path, link = self.owner[address]
        return f"{address:#x} ({path} + {link:#x})"

    def candidates(self, session):
        drawn, sizes = [], {}
        for path, base in session.modules():
            self.base_of[path] = base
            table = elf.functions(path)
            for link in self.random.sample(sorted(table), min(len(table), CANDIDATES)):
                address = base + link
                self.owner[address] = (path, link)
                sizes[address] = table[link]
                drawn.append(address)
        return drawn, sizes

    def draw(self, session):
        """Addresses: functions that ddbg finds executed, a few that it does not, and instructions inside."""
        drawn, sizes = self.candidates(session)
        text = session.debug(DDBG, counting(drawn) + ["continue", "info breakpoints"])
        found = parse_counts(text, drawn)
        if not found:
            self.fault("ddbg's first run ended without counts:\n" + text[-2000:])
            return []
        hit = [a for a in drawn if 0 < found[a] <= MOST_HITS and a != session.start]
        unhit = [a for a in drawn if found[a] == 0]
        self.executed = len(hit)
        chosen = self.random.sample(hit, min(FUNCTIONS, len(hit)))
        inside = []
        for address in chosen[:INTERIOR]:
            path, link = self.owner[address]
            places = [p for p in elf.instructions(path, link, min(sizes[address], 400)) if p != link]
            if places:
                place = self.random.choice(places)
                self.owner[place - link + address] = (path, place)
                inside.append(place - link + address)
        inside = self.without_hot_loops(session, inside)
        self.functions = len(chosen)
        return sorted({*chosen, *inside, *self.random.sample(unhit, min(UNHIT, len(unhit)))})

    def without_hot_loops(self, session, inside):
        found = parse_counts(session.debug(DDBG, counting(inside) + ["continue", "info breakpoints"]), inside)
        return [a for a in inside if found.get(a, 0) <= MOST_HITS]

    def counts(self, session, addresses):
        script = counting(addresses) + ["continue", "info breakpoints"]
        seen, ends = {}, {}
        for which, debugger in [("ddbg", DDBG)] if session.spec.races else [("gdb", GDB), ("ddbg", DDBG)]:
            began = time.monotonic()
            text = session.debug(debugger, script)
            seen[which], ends[which] = parse_counts(text, addresses), ending(text)
            self.took.append(f"{which} {time.monotonic() - began:.1f} s")
            if not seen[which]:
                self.fault(f"{which} ended without counts:\n{text[-2000:]}")
                return []
        self.hits = sum(seen["ddbg"].values())
        if session.spec.races and not IN_A_GUEST:
            self.executions(session, addresses, script)
        elif not session.spec.races:
            for address in addresses:
                if seen["ddbg"][address] != seen["gdb"][address]:
                    self.fault(f"{self.where(address)}: gdb {seen['gdb'][address]} hits, ddbg {seen['ddbg'][address]}")
            if ends["ddbg"] != ends["gdb"]:
                self.fault(f"end: gdb {ends['gdb']}, ddbg {ends['ddbg']}")
        output = session.outputs()  # ddbg's run was the last
        status = session.native()
        native = session.outputs()
        ended = "exited normally" if status == 0 else f"exited with code 0{status:o}"
        if [e for e, _ in ends["ddbg"]] != [ended]:
            self.fault(f"exit status: native {status}, ddbg {ends['ddbg']}")
        if output != native:
            self.fault(f"output: native {native!r:.1000}\n    ddbg {output!r:.1000}")
        return [(a, hits) for a, hits in seen["ddbg"].items() if hits > 0]

    def executions(self, session, addresses, script):
        """All breakpoints are set in every run, and the processor counts a few of them."""
        for first in range(0, len(addresses), processor.AT_ONCE):
            some = addresses[first:first + processor.AT_ONCE]
            counters = []
            text = session.debug(DDBG, LOOK + script, lambda pid, _: counters.append(processor.Counters(pid, some)))
            seen = parse_counts(text, addresses)
            if not seen or not counters:
                self.fault(f"ddbg ended without counts:\n{text[-2000:]}")
                return
            executed = counters[0].close()
            for address in some:
                if not 0 <= executed[address] - seen[address] <= session.spec.cut_off:
                    self.fault(f"{self.where(address)}: executed {executed[address]} times, ddbg {seen[address]} hits")

    def backtraces(self, session, counted):
        sample = self.random.sample(counted, min(BACKTRACES, len(counted)))
        stops = [(address, self.random.randrange(min(hits, 100))) for address, hits in sample]
        for pair in self.seen_by_gdb(session, stops) if session.spec.races else self.of_two_runs(session, stops):
            self.compared += 1
            if not agree(*pair, session.spec.gives_up):
                self.fault("backtrace:\n    gdb  {}\n    ddbg {}".format(*pair))
        if not self.compared:
            self.fault("no backtraces")

    def of_two_runs(self, session, stops):
        lines = []
        for number, (address, ignored) in enumerate(stops, 2):
            lines += [f"tbreak *{address:#x}", f"ignore {number} {ignored}"]
        theirs = frames(session.debug(GDB, [LIST_TAIL_FRAMES, *lines, *["continue", *GDB_BACKTRACE] * len(stops), "kill"]))
        text = session.debug(DDBG, [*lines, *["continue", *BACKTRACE] * len(stops), "kill"])
        ours = frames(text)
        if len(ours) != len(theirs):  # a program that ends early leaves empty ones
            self.fault(f"{len(theirs)} stops under gdb, {len(ours)} under ddbg:\n{text[-1500:]}")
        return zip(theirs, ours)

    def seen_by_gdb(self, session, stops):
        pairs = []

        def look(pid, text):
            pairs.append((frames(gdb_at_stop(pid, text, session.folder))[0], frames(text)[0]))

        for address, ignored in stops:
            before = len(pairs)
            text = session.debug(DDBG, [f"tbreak *{address:#x}", f"ignore 2 {ignored}", "continue", *DESCRIBE_STOP, *LOOK, "kill"], look)
            # In this run the hit may not have come.
            if len(pairs) == before and not ending(text):
                self.fault(f"neither a stop nor an end:\n{text[-1500:]}")
        return pairs

    def run(self):
        self.took, self.compared = [], 0
        with tempfile.TemporaryDirectory(prefix="ddbg-") as folder:
            spec = PROGRAMS[self.name](folder)
            if spec.races and not IN_A_GUEST and processor.why_not():
                raise Missing(f"racing programs need the processor's counts: {processor.why_not()}")
            session = Session(spec, folder)
            addresses = self.draw(session)
            counted = self.counts(session, addresses) if addresses else []
            if counted:
                self.backtraces(session, counted)
                print(f"{self.name}: {self.functions} functions of {self.executed} executed, {len(addresses)} addresses, "
                      f"{self.hits} hits, {self.compared} backtraces, {', '.join(self.took)}, {len(self.faults)} mismatches", flush=True)
            if addresses and self.functions < FUNCTIONS:
                print(f"  only {self.functions} functions are executed", flush=True)
        return not self.faults


def main(names):
    if not GDB:
        print("skipped: gdb is not installed")
        return 77
    skip_without_kvm()
    seed = int(os.environ.get("DDBG_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    print(f"DDBG_TEST_SEED={seed}", flush=True)
    passed, missing = True, False
    for name in names:
        try:
            passed = Comparison(name, seed).run() and passed
        except Missing as reason:
            print(f"skipped: {name}: {reason}", flush=True)
            missing = True
    return 1 if not passed else 77 if missing else 0


if __name__ == "__main__":
    sys.exit(main([a for a in sys.argv[1:] if not a.startswith("-")] or list(PROGRAMS)))
