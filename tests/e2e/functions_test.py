"""Differential test against gdb: functions and interior instructions of real programs, drawn at random from those that a run
executes (DDBG_TEST_SEED repeats a draw). Same hit counts, output and exit status; same backtraces at random hits.

functions_test.py [-v] PROGRAM...    the names are the rows of PROGRAMS; exit status 77: a program is not installed."""
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time

import functions_elf as elf
from functions_programs import PROGRAMS, Missing
from support import DDBG, GDB, environment

FUNCTIONS = 50  # hit, per program
UNHIT = 5       # not hit as ddbg sees it: gdb must agree
INTERIOR = 20
BACKTRACES = 8
CANDIDATES = 1200  # per file, in the run that finds what is executed
MOST_HITS = 400   # of one address: gdb needs 100 to 300 us for each
IGNORED = 1000000000
TIMEOUT = 400


class Session:
    """One program with its working folder, run natively or under a debugger with its output redirected to files."""

    def __init__(self, spec, folder):
        self.spec = spec
        self.folder = folder
        self.env = {**environment(), **spec.env, "HOME": folder}
        self.command = [spec.path, *(a.replace("@DIR@", folder) for a in spec.arguments)]
        entry = elf.entry_point(spec.path)
        # Randomisation is off: the kernel puts a position independent program here.
        self.base = 0x555555554000 if elf.is_position_independent(spec.path) else 0
        # Where the breakpoints are set.
        self.start = self.base + (elf.function_named(spec.path, spec.start) if spec.start else entry)

    def file(self, name):
        return os.path.join(self.folder, name)

    def outputs(self):
        return tuple(self.spec.filtered(open(self.file(n), "rb").read()) for n in ("out", "err"))

    def execute(self, command, **more):
        self.spec.prepare(self.folder)
        driver, ended = None, threading.Event()
        if self.spec.driver:
            driver = threading.Thread(target=self.spec.driver, args=(self.folder, ended))
            driver.start()
        try:
            return subprocess.run(command, env=self.env, cwd=self.folder, timeout=TIMEOUT, **more)
        finally:
            ended.set()
            if driver:
                driver.join()

    def native(self):
        # setarch -R: as under a debugger. The shell is what both debuggers use.
        with open(self.file("out"), "wb") as out, open(self.file("err"), "wb") as err:
            done = self.execute(["setarch", "-R", *self.command], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        return done.returncode

    def debug(self, debugger, at_entry, after=()):
        """To the start, where the libraries are mapped; there at_entry, then `after`."""
        script = self.file("script")
        with open(script, "w") as file:
            file.write("\n".join([
                "set confirm off", "set pagination off", "set width 0", "set height 0", "set print thread-events off",
                # Arguments given to starti replace those of --args.
                f"starti {shlex.join(self.command[1:])} < /dev/null > out 2> err", f"tbreak *{self.start:#x}", "continue", *at_entry, *after]) + "\n")
        done = self.execute([debugger, "-q", "-nx", "-batch", "-x", script, self.spec.path],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.stdout.decode(errors="replace")

    def modules(self):
        """[(path, base)] of the program and the libraries wanted, from gdb's view at the entry point."""
        text = self.debug(GDB, ["info proc mappings", "kill"])
        bases = {}
        for start, path in re.findall(r"^\s+0x([0-9a-f]+)\s+0x[0-9a-f]+\s+0x[0-9a-f]+\s+0x[0-9a-f]+\s+\S+\s+(/\S+)", text, re.M):
            bases.setdefault(path, int(start, 16))
        real = os.path.realpath(self.spec.path)
        wanted = [(p, b) for p, b in bases.items() if p != real and re.search(self.spec.libraries, p)]
        assert self.base == 0 or bases.get(real) == self.base, text
        return [(real, self.base), *wanted]


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


# gdb makes up frames for calls that were jumps, from DWARF's call sites; ddbg shows what is on the stack. A word of the stack
# that leads to no code ends a backtrace for ddbg; gdb calls it by the data symbol that it finds there, and goes on.
LIST_TAIL_FRAMES = """python
def tails():
    try: frame, level = gdb.newest_frame(), 0
    except gdb.error: return
    maps = [line.split() for line in open("/proc/%d/maps" % gdb.selected_inferior().pid)]
    code = [tuple(int(a, 16) for a in m[0].split("-")) for m in maps if "x" in m[1]]
    while frame and level < 40:
        if frame.type() == gdb.TAILCALL_FRAME: print("TAIL %d" % level)
        if not any(begin <= frame.pc() < end for begin, end in code): print("DATA %d" % level)
        frame, level = frame.older(), level + 1
end
define list-tail-frames
python tails()
end"""


GAVE_UP = "(gdb gave up)"


def ending(text):
    return re.findall(r"\[Inferior 1 \(process \d+\) (exited .*)\]|Program (terminated with .*)", text)


def frames(text):
    """Function names of each backtrace up to the first unknown one."""
    result = []
    for block in text.split("BACKTRACE\n")[1:]:
        names = []
        tails = set(re.findall(r"^TAIL (\d+)$", block, re.M))
        data = set(re.findall(r"^DATA (\d+)$", block, re.M))
        for level, name in re.findall(r"^#(\d+)\s+(?:0x[0-9a-f]+ in )?(.*?)(?: \(| at | from |$)", block, re.M):
            if name == "??" or level in data:
                names.append(GAVE_UP)
                break
            if level not in tails:
                # gdb shows the hashes that rustc appends to a legacy symbol and puts into a crate's name.
                names.append(re.sub(r"::h[0-9a-f]{16}$|\[[0-9a-f]{16}\]", "", name))
        if "Backtrace stopped:" in block and names[-1:] != [GAVE_UP]:
            names.append(GAVE_UP)
        result.append(names)
    return result


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
        self.functions = len(chosen)
        return sorted({*chosen, *inside, *self.random.sample(unhit, min(UNHIT, len(unhit)))})

    def counts(self, session, addresses):
        script = counting(addresses) + ["continue", "info breakpoints"]
        seen, ends, outputs = {}, {}, {}
        for which, debugger in (("gdb", GDB), ("gdb again", GDB), ("ddbg", DDBG)):
            began = time.monotonic()
            text = session.debug(debugger, script)
            for _ in range(3):  # gdb loses races with threads of Go that end
                if debugger == GDB and "Couldn't read debug register: No such process" in text:
                    text = session.debug(debugger, script)
            seen[which], ends[which], outputs[which] = parse_counts(text, addresses), ending(text), session.outputs()
            self.took[which] = time.monotonic() - began
            if not seen[which]:
                self.fault(f"{which} ended without counts:\n{text[-2000:]}")
                return []
        stable = [a for a in addresses if seen["gdb"][a] == seen["gdb again"][a]]
        self.dropped = len(addresses) - len(stable)
        self.hits = sum(seen["ddbg"][a] for a in stable)
        if session.spec.threaded:
            stable = self.without_races(session, script, stable, seen)
            self.dropped = len(addresses) - len(stable)
        for address in stable:
            if seen["ddbg"][address] != seen["gdb"][address]:
                self.fault(f"{self.where(address)}: gdb {seen['gdb'][address]} hits, ddbg {seen['ddbg'][address]}")
        if ends["ddbg"] != ends["gdb"]:
            self.fault(f"end: gdb {ends['gdb']}, ddbg {ends['ddbg']}")
        status = session.native()
        native = session.outputs()
        ended = "exited normally" if status == 0 else f"exited with code 0{status:o}"
        if [e for e, _ in ends["ddbg"]] != [ended]:
            self.fault(f"exit status: native {status}, ddbg {ends['ddbg']}")
        if outputs["ddbg"] != native:
            self.fault(f"output: native {native!r:.1000}\n    ddbg {outputs['ddbg']!r:.1000}")
        return [(a, seen["gdb"][a]) for a in stable if seen["gdb"][a] > 0]

    def without_races(self, session, script, stable, seen):
        """Which thread comes first decides some counts (who builds a cache, who finds a lock taken), rarely enough that two
        runs of gdb agree: where ddbg differs, more runs of gdb may show that its own count varies."""
        for _ in range(6):
            if all(seen["ddbg"][a] == seen["gdb"][a] for a in stable):
                break
            more = parse_counts(session.debug(GDB, script), stable)
            stable = [a for a in stable if more.get(a) == seen["gdb"][a]]
        return stable

    def backtraces(self, session, counted):
        sample = self.random.sample(counted, min(BACKTRACES, len(counted)))
        lines = []
        for number, (address, hits) in enumerate(sample, 2):
            lines += [f"tbreak *{address:#x}", f"ignore {number} {self.random.randrange(min(hits, 100))}"]
        for _ in sample:
            lines += ["continue", "echo BACKTRACE\\n", "bt 40"]
        with_tails = [LIST_TAIL_FRAMES] + [part for line in lines for part in
                                           ([line, "list-tail-frames"] if line == "bt 40" else [line])]
        theirs, again = (frames(session.debug(GDB, with_tails, ["kill"])) for _ in range(2))
        text = session.debug(DDBG, lines, ["kill"])
        ours = frames(text)
        if len(ours) != len(theirs):  # a program that ends early leaves empty ones
            self.fault(f"{len(theirs)} stops under gdb, {len(ours)} under ddbg:\n{text[-1500:]}")
        for number, (their, their_again, our) in enumerate(zip(theirs, again, ours)):
            if their != their_again:
                continue
            self.compared += 1
            # Where gdb gives up (V8's generated code has no CFI, frame pointers lead through it), ddbg may go on.
            our = [name for name in our if name != GAVE_UP]
            if their[-1:] == [GAVE_UP]:
                their = their[:-1]
                our = our[:len(their)]
            if their != our:
                self.fault(f"backtrace {number}:\n    gdb  {their}\n    ddbg {our}")

    def run(self):
        self.took, self.compared = {}, 0
        with tempfile.TemporaryDirectory(prefix="ddbg-") as folder:
            session = Session(PROGRAMS[self.name](folder), folder)
            addresses = self.draw(session)
            if addresses:
                counted = self.counts(session, addresses)
                if self.took.get("ddbg"):
                    if not self.faults or counted:
                        self.backtraces(session, counted)
                    print(f"{self.name}: {self.functions} functions of {self.executed} executed, {len(addresses)} addresses, "
                          f"{self.dropped} not deterministic under gdb, {self.hits} hits, {self.compared} backtraces, "
                          f"gdb {self.took['gdb']:.1f} s, ddbg {self.took['ddbg']:.1f} s, "
                          f"{len(self.faults)} mismatches", flush=True)
            if addresses and self.functions < FUNCTIONS:
                print(f"  only {self.functions} functions are executed", flush=True)
        return not self.faults


def main(names):
    if not GDB:
        print("skipped: gdb is not installed")
        return 77
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
