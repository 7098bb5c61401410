"""What can be seen of a process from outside, to compare before and after a debugger was there."""
import contextlib
import hashlib
import os
import re

THREAD_FIELDS = ("SigBlk", "SigPnd", "NoNewPrivs", "Seccomp")
PROCESS_FIELDS = ("SigCgt", "SigIgn", "ShdPnd", "TracerPid", "Threads")


def read(path, mode="r"):
    with open(path, mode) as file:
        return file.read()


def mappings(pid):
    """[(begin, end, protection, offset, path)] of /proc/PID/maps."""
    found = []
    for line in read(f"/proc/{pid}/maps").splitlines():
        m = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) \S+ \d+\s*(.*)", line)
        found.append((int(m[1], 16), int(m[2], 16), m[3], int(m[4], 16), m[5]))
    return found


def threads(pid):
    return sorted(int(tid) for tid in os.listdir(f"/proc/{pid}/task"))


def fields(path, names):
    status = dict(line.split(":", 1) for line in read(path).splitlines() if ":" in line)
    return {name: status[name].strip() for name in names if name in status}


def signals(pid):
    return {tid: fields(f"/proc/{pid}/task/{tid}/status", THREAD_FIELDS) for tid in threads(pid)}


def descriptors(pid):
    folder = f"/proc/{pid}/fd"
    found = {}
    for fd in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found[fd] = os.readlink(f"{folder}/{fd}")
    return found


def changed_text(pid):
    """Where the text of a module differs from its file: ["PATH+OFFSET"]."""
    differences = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for begin, end, protection, offset, path in mappings(pid):
            if "x" not in protection or not path.startswith("/") or not os.path.exists(path):
                continue
            memory.seek(begin)
            there = memory.read(end - begin)
            with open(path, "rb") as file:
                file.seek(offset)
                in_file = file.read(end - begin)
            if there[:len(in_file)] != in_file:
                differences += [f"{path}+{offset + i:#x}" for i, (a, b) in
                                enumerate(zip(there, in_file)) if a != b]
    return differences


def vdso(pid):
    """Of the code in it: the kernel fills the rest of the page with nothing."""
    for begin, end, _, _, path in mappings(pid):
        if path == "[vdso]":
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                memory.seek(begin)
                return hashlib.sha256(memory.read(end - begin)).hexdigest()
    return None


def left_behind(pid):
    """The mappings of ours that are in a process."""
    return [m for m in mappings(pid) if m[4].startswith("/memfd:ddbg")]


def state(pid, stable=True):
    """`stable`: no thread comes or goes, and none changes its mask or its memory."""
    result = {"process": fields(f"/proc/{pid}/status", PROCESS_FIELDS), "text": changed_text(pid),
              "vdso": vdso(pid), "ours": left_behind(pid), "descriptors": descriptors(pid)}
    if stable:
        result.update(mappings=mappings(pid), threads=threads(pid), signals=signals(pid))
    else:
        del result["process"]["Threads"]
        del result["descriptors"]
    return result
