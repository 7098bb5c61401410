"""Backtraces of functions_test.py: gdb's view of a stop, of its own or of ddbg's, in a form that can be compared."""
import re
import subprocess

from support import GDB

# gdb makes up frames for calls that were jumps, from DWARF's call sites; ddbg shows what is on the stack. A word of the stack
# that leads to no code ends a backtrace for ddbg; gdb calls it by the data symbol that it finds there, and goes on.
# So gdb is asked for more frames than are compared.
MOST, MADE_UP = 40, 20
LIST_TAIL_FRAMES = f"""python
def tails():
    try: frame, level = gdb.newest_frame(), 0
    except gdb.error: return
    maps = [line.split() for line in open("/proc/%d/maps" % gdb.selected_inferior().pid)]
    code = [tuple(int(a, 16) for a in m[0].split("-")) for m in maps if "x" in m[1]]
    while frame and level < {MOST + MADE_UP}:
        if frame.type() == gdb.TAILCALL_FRAME: print("TAIL %d" % level)
        if not any(begin <= frame.pc() < end for begin, end in code): print("DATA %d" % level)
        frame, level = frame.older(), level + 1
end
define list-tail-frames
python tails()
end"""

HEADING = "echo BACKTRACE\\n"
BACKTRACE = [HEADING, f"bt {MOST}"]
GDB_BACKTRACE = [HEADING, f"bt {MOST + MADE_UP}", "list-tail-frames"]
GAVE_UP = "(gdb gave up)"


def frames(text):
    """What each backtrace leads through, by name or, in a stripped file, by address; up to where gdb has nothing to go by."""
    result = []
    for block in text.split("BACKTRACE\n")[1:]:
        names = []
        tails = set(re.findall(r"^TAIL (\d+)$", block, re.M))
        data = set(re.findall(r"^DATA (\d+)$", block, re.M))
        for level, address, name in re.findall(r"^#(\d+)\s+(?:(0x[0-9a-f]+) in )?(.*?)(?: \(| at | from |$)", block, re.M):
            if level in data:
                names.append(GAVE_UP)
                break
            if name == "??":
                names.append(address)
            elif level not in tails:
                # gdb shows the hashes that rustc appends to a legacy symbol and puts into a crate's name.
                names.append(re.sub(r"::h[0-9a-f]{16}$|\[[0-9a-f]{16}\]", "", name))
        if "Backtrace stopped:" in block and names[-1:] != [GAVE_UP]:
            names.append(GAVE_UP)
        result.append(names[:MOST])
    return result


def agree(their, our, may_give_up):
    """Where gdb may give up, ddbg may go on. What calls __cxa_finalize (crtstuff's code of a stripped program) nobody describes."""
    if (may_give_up or their[:1] == ["__cxa_finalize"]) and GAVE_UP in their:
        their = their[:-1]
        our = our[:len(their)]
    return their == our and GAVE_UP not in their


# Of ddbg, at the stop that gdb is to look at.
DESCRIBE_STOP = [*BACKTRACE, "info registers", "info threads"]


def gdb_at_stop(pid, text, folder):
    """gdb's output about the stop that ddbg has described at the end of the text. The thread is parked in the agent: gdb gets the
    registers that ddbg shows, which ends the program."""
    stop = text[text.rindex("BACKTRACE\n"):]
    thread = re.search(r"^\* \d+ .*?LWP (\d+)", stop, re.M)[1]
    registers = re.findall(r"^(r[a-z0-9]{1,2}|eflags) +(0x[0-9a-f]+) ", stop, re.M)
    assert len(registers) == 18, stop
    script = f"{folder}/gdb_script"
    with open(script, "w") as file:
        file.write("\n".join([
            "set confirm off", "set pagination off", "set width 0", "set height 0", LIST_TAIL_FRAMES,
            f"python next(t for t in gdb.selected_inferior().threads() if t.ptid[1] == {thread}).switch()",
            *(f"set var ${name} = {value}" for name, value in registers), *GDB_BACKTRACE, "kill"]) + "\n")
    done = subprocess.run([GDB, "-q", "-nx", "-batch", "-p", str(pid), "-x", script], stdin=subprocess.DEVNULL, text=True,
                          errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100)
    assert "BACKTRACE\n" in done.stdout, done.stdout
    return done.stdout
