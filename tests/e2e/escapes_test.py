"""Steps over calls that end in longjmp or an exception stop where gdb stops. gdb needs the probes of libc and libgcc for that,
which Debian builds without: it gets copies that have them. ddbg is tried with the copies and with the libraries as they are."""
import os
import re
import shutil
import struct
import subprocess
import tempfile
import unittest

from support import GDB, ddbg, gdb, normal, program

LIBRARIES = "/lib/x86_64-linux-gnu/"


def instructions(path):
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, check=True).stdout.decode()
    return [(int(a, 16), re.sub(r"\s+", " ", i.strip())) for a, i in re.findall(r"^\s+([0-9a-f]+):\s+(.*)$", text, re.M)]


def after(path, *sequence):
    """The addresses behind each occurrence of these instructions."""
    all_of_it = instructions(path)
    texts = [text for _, text in all_of_it]
    return [all_of_it[i + len(sequence)][0] for i in range(len(texts) - len(sequence))
            if tuple(texts[i:i + len(sequence)]) == sequence]


def add_probes(source, target, provider, name, arguments, addresses):
    """<sys/sdt.h> as the assembler would have done it."""
    notes = b""
    for address in addresses:
        content = struct.pack("<QQQ", address, 0, 0) + b"".join(s.encode() + b"\0" for s in (provider, name, arguments))
        notes += struct.pack("<III", 8, len(content), 3) + b"stapsdt\0" + content + bytes(-len(content) % 4)
    for section, data in ((".note.stapsdt", notes), (".stapsdt.base", b"\0")):
        with open(target + section, "wb") as file:
            file.write(data)
    subprocess.run(["objcopy", "--add-section", f".note.stapsdt={target}.note.stapsdt", "--set-section-flags",
                    ".note.stapsdt=contents,readonly", "--add-section", f".stapsdt.base={target}.stapsdt.base",
                    source, target], check=True, capture_output=True)


def probed_libraries(folder):
    libc, libgcc = (os.path.join(folder, name) for name in ("libc.so.6", "libgcc_s.so.1"))
    add_probes(LIBRARIES + "libc.so.6", libc, "libc", "longjmp", "8@%rdi -4@%esi 8@%rdx",
               after(LIBRARIES + "libc.so.6", "mov 0x28(%rdi),%r15", "mov %esi,%eax"))
    add_probes(LIBRARIES + "libgcc_s.so.1", libgcc, "libgcc", "unwind", "8@%rsp 8@(%rsp)",
               after(LIBRARIES + "libgcc_s.so.1", "mov %rcx,%rsp"))


# (program, case, commands after stopping in the case)
N, S, F = "next", "step", "finish"
CASES = [
    ("jumps", "same_frame", [N] * 8),
    ("jumps", "same_frame", [S] * 14),
    ("jumps", "same_frame", ["next 3", "next 2"]),
    ("jumps", "same_frame", ["break leaf", N, N, N, F, N]),
    ("jumps", "same_frame", ["break leaf", N, N, N, "delete", N, N, N]),
    ("jumps", "same_frame", ["break leaf", "continue", "up", F, N]),
    ("jumps", "same_frame", ["tbreak middle", "continue", N, "until", "until", N]),
    ("jumps", "same_frame", ["tbreak leaf", "continue", "advance same_frame", N, N]),
    ("jumps", "same_frame", ["until middle", N, N, N]),
    ("jumps", "same_frame", ["advance middle", N, N, N]),
    ("jumps", "same_frame", ["advance 32", N, N]),
    ("jumps", "same_frame", ["tbreak middle", "continue", "break 33", N, N, N]),
    ("jumps", "beneath", [N] * 9),
    ("jumps", "beneath", [S, S, S, S, S, S, S]),
    ("jumps", "beneath", [N, "nexti 4", N]),
    ("jumps", "beneath", ["tbreak caught_inside", "continue", F, N]),
    ("jumps", "beneath", ["tbreak leaf", "continue", F, N, N]),
    ("jumps", "beneath", ["tbreak leaf", "continue", "advance beneath", N, N]),
    ("jumps", "beneath", ["tbreak leaf", "continue", "until beneath", N, N]),
    ("jumps", "recursion", [N, N, N]),
    ("jumps", "recursion", ["break recurse if n == 1", "continue", N, N, N, N, N, N]),
    ("jumps", "recursion", ["break recurse if n == 3", "continue", N, N, N, N, N, N]),
    ("jumps", "recursion", ["break recurse if n == 5", "continue", N, N, N, N, N, N]),
    ("jumps", "recursion", ["break recurse if n == 0", "continue", F, N, N]),
    ("jumps", "out_of_handler", ["handle SIGUSR1 nostop noprint", N, N, N, N, N]),
    ("jumps", "out_of_handler", ["handle SIGUSR1 nostop noprint", "break handler", N, N, N, N, N, N, N]),
    ("jumps", "out_of_handler", ["handle SIGUSR1 nostop noprint", "break handler", N, N, N, S, S]),
    ("jumps", "out_of_handler", ["handle SIGUSR1 nostop noprint", "break handler", "continue", F, N, N]),
    ("jumps", "on_other_stack", ["handle SIGUSR2 nostop noprint", N, N, N, N, N, N, N, N]),
    ("jumps", "on_other_stack", ["handle SIGUSR2 nostop noprint", "break handler", "continue", N, N, N, N, N]),
    ("jumps", "other_thread", [N] * 7),
    ("jumps", "through_outer", [N] * 3),
    ("jumps", "through_outer", ["tbreak leaf", "continue", F, F, N, N]),
    ("throws", "same_function", [N] * 6),
    ("throws", "same_function", [S] * 6),
    ("throws", "same_function", [N, "nexti 12", N]),
    ("throws", "in_caller", [N] * 8),
    ("throws", "in_caller", [S] * 12),
    ("throws", "in_caller", ["next 4", "next 2"]),
    ("throws", "in_caller", ["tbreak leaf", "continue", N, N, N, N]),
    ("throws", "in_caller", ["tbreak leaf", "continue", F, N]),
    ("throws", "in_caller", ["tbreak leaf", "continue", "up", F, N]),
    ("throws", "in_caller", ["tbreak middle", "continue", "until", N, N]),
    ("throws", "in_caller", ["tbreak middle", "continue", "advance same_function", N, N]),
    ("throws", "in_caller", ["tbreak middle", "continue", "until in_caller", N, N]),
    ("throws", "in_caller", ["tbreak middle", "continue", "break 53", N, N, N]),
    ("throws", "with_guard", [N] * 8),
    ("throws", "with_guard", [S] * 16),
    ("throws", "with_guard", ["break Guard::~Guard", N, N, N, N, N, F, N, N]),
    ("throws", "with_guard", ["tbreak guarded", "continue", N, N, N, N, N]),
    ("throws", "with_guard", ["tbreak guarded", "continue", F, N, N, N]),
    ("throws", "rethrow", [N] * 6),
    ("throws", "rethrow", [S] * 18),
    ("throws", "rethrow", ["tbreak again", "continue", N, N, N, N, N, N]),
    ("throws", "rethrow", ["tbreak again", "continue", F, N, N]),
    ("throws", "rethrow", ["tbreak leaf", "continue", F, F, N]),
    ("throws", "nested", [N] * 12),
    ("throws", "nested", ["tbreak middle", "continue", N, N, N, N, N, N, N]),
    ("throws", "beneath", [N] * 9),
    ("throws", "beneath", [S] * 24),
    ("throws", "beneath", ["tbreak caught_inside", "continue", N, N, N, N, N]),
    ("throws", "beneath", ["tbreak leaf", "continue", "advance beneath", N, N, N]),
    ("throws", "recursion", [N] * 4),
    ("throws", "recursion", ["break recurse if n == 1", "continue", N, N, N, N, N]),
    ("throws", "recursion", ["break recurse if n == 3", "continue", N, N, N, N, N, N]),
    ("throws", "recursion", ["break recurse if n == 5", "continue", N, N, N, N, N, N]),
    ("throws", "recursion", ["break recurse if n == 0", "continue", F, N, N]),
    ("throws", "other_thread", [N] * 7),
]


# Without lines: what can be stepped there is a function, to its end.
PERL = ["-e", "eval { die qq(x\\n) }; print qq(after $@)"]
REAL_PROGRAMS = [
    ("/usr/bin/perl", PERL, ["break Perl_die_unwind", "run", "finish", "bt"]),
    ("/usr/bin/perl", PERL, ["break Perl_die_unwind", "run", "up 2", "finish", "bt"]),
    ("/usr/bin/perl", PERL, ["break Perl_die_unwind", "run", "next", "bt"]),
    ("/usr/bin/perl", PERL, ["break Perl_pp_die", "run", "advance Perl_my_exit", "bt"]),
    ("/bin/bash", ["-c", "echo ${x?bad}; echo no"], ["break jump_to_top_level", "run", "finish", "bt", "finish", "bt"]),
    ("/bin/bash", ["-c", "echo ${x?bad}; echo no"], ["break report_error", "run", "up 2", "next", "bt"]),
]


def with_libraries(libraries, commands):
    return [f"set environment LD_LIBRARY_PATH {libraries}", *commands] if libraries else commands


def stepped(debugger, name, case, commands, libraries):
    return debugger(with_libraries(libraries, ["break " + case, "run", *commands, "info breakpoints"]),
                    [program(name), case], timeout=120)


@unittest.skipUnless(GDB, "gdb is not installed")
@unittest.skipUnless(shutil.which("objcopy"), "objcopy is not installed")
class Escapes(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        probed_libraries(cls.folder.name)

    def test_stops_where_gdb_stops(self):
        for name, case, commands in CASES:
            theirs = stepped(gdb, name, case, commands, self.folder.name)
            for libraries in (self.folder.name, None):
                with self.subTest(case=case, commands=commands, probes=bool(libraries)):
                    ours = stepped(ddbg, name, case, commands, libraries)
                    self.assertEqual(normal(ours.out), normal(theirs.out), msg=ours.err)

    def test_real_programs(self):
        for path, arguments, commands in REAL_PROGRAMS:
            if not os.path.exists(path):
                print("not installed, skipped:", path)
                continue
            theirs = gdb(with_libraries(self.folder.name, commands), [path, *arguments])
            for libraries in (self.folder.name, None):
                with self.subTest(program=path, commands=commands, probes=bool(libraries)):
                    ours = ddbg(with_libraries(libraries, commands), [path, *arguments])
                    self.assertEqual(normal(ours.out), normal(theirs.out), msg=ours.err)


if __name__ == "__main__":
    unittest.main()
