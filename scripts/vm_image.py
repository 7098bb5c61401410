"""The files that a machine of scripts/vm starts with, as a cpio archive: what the kernel unpacks into memory."""

import os
import re
import stat
import subprocess
import tempfile
from pathlib import Path


class Image:
    """Places are the host's: a program lies in the machine where it lies here, with the symbolic links on the way."""

    def __init__(self):
        self.entries = {}  # path without the leading slash -> (mode, content)
        self.add_folder("/dev")
        self.entries["dev/console"] = (stat.S_IFCHR | 0o600, b"")

    def size(self):
        return sum(len(content) for _, content in self.entries.values())

    def add_folder(self, path):
        """A folder and those above it, as they are here or as ordinary ones."""
        self._walk(path + "/.")

    def add_content(self, path, content, mode=0o755):
        self.entries[self._walk(path)] = (stat.S_IFREG | mode, content)

    def add_link(self, path, target):
        """Unless something is there already."""
        self.entries.setdefault(self._walk(os.path.dirname(path)) + "/" + os.path.basename(path),
                                (stat.S_IFLNK | 0o777, target.encode()))

    def add_file(self, source, path=None, stripped=False):
        """A file or folder of this machine, with what its programs cannot start without."""
        source = os.path.abspath(source)
        path = path or source
        if os.path.isdir(source):
            self.add_folder(path)
            for name in sorted(os.listdir(source)):
                self.add_file(os.path.join(source, name), os.path.join(path, name))
            return
        if self.entries.get(self._walk(path), (0,))[0] & 0o170000 == stat.S_IFREG:
            return
        content = Path(source).read_bytes()
        for needed in needs(source, content):
            self.add_file(needed)
        if stripped and content.startswith(b"\x7fELF"):
            content = without_debug_information(source, content)
        self.add_content(path, content, os.stat(source).st_mode & 0o7777)

    def _walk(self, path):
        """Adds the folders and links on the way to a path; the name of what it leads to in the end."""
        todo, done, links = path.split("/")[::-1], "", 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = os.path.dirname(done)
                continue
            here = f"{done}/{part}" if done else part
            if os.path.islink("/" + here) and links < 40:
                links += 1
                target = os.readlink("/" + here)
                self.entries.setdefault(here, (stat.S_IFLNK | 0o777, target.encode()))
                todo += target.split("/")[::-1]
                if target.startswith("/"):
                    done = ""
                continue
            if todo:  # a folder, even if what follows is only "."
                self.entries.setdefault(here, (stat.S_IFDIR | 0o755, b""))
            done = here
        return done

    def archive(self):
        """In the format newc of cpio(5)."""
        out = bytearray()
        devices = {"dev/console": (5, 1)}

        def add(number, name, mode, content):
            major, minor = devices.get(name, (0, 0))
            fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name.encode()) + 1, 0)
            out.extend(b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0")
            out.extend(bytes(-len(out) % 4))
            out.extend(content)
            out.extend(bytes(-len(out) % 4))

        # A folder comes before what is in it.
        for number, name in enumerate(sorted(self.entries), 1):
            add(number, name, *self.entries[name])
        add(0, "TRAILER!!!", 0, b"")
        return out


def needs(path, content):
    """What a program cannot start without: the loader and its libraries, or the interpreter of a script."""
    script = re.match(rb"#! *(\S+)", content[:256])
    if script:  # whose interpreter may be missing: then it does not start here either
        return [name for name in (os.fsdecode(script[1]),) if os.path.isfile(name)]
    loader = interpreter(content)
    if not loader:
        return []
    listed = subprocess.run([loader, "--list", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True, check=False).stdout
    return [loader, *(found for found in re.findall(r"(/\S+) \(0x", listed) if os.path.isfile(found))]


def interpreter(content):
    """The path in an ELF file's PT_INTERP."""
    if content[:5] != b"\x7fELF\x02":
        return None
    number = lambda at, size: int.from_bytes(content[at:at + size], "little")
    start, size, count = number(32, 8), number(54, 2), number(56, 2)
    for header in (start + i * size for i in range(count)):
        if number(header, 4) == 3:  # PT_INTERP
            at, length = number(header + 8, 8), number(header + 32, 8)
            return os.fsdecode(content[at:at + length].rstrip(b"\0"))
    return None


def without_debug_information(path, content):
    """Nine tenths of our programs: they would be in the machine's memory twice."""
    with tempfile.NamedTemporaryFile(prefix="ddbg-vm.") as file:
        try:
            done = subprocess.run(["strip", "--strip-debug", "-o", file.name, path], stderr=subprocess.DEVNULL, check=False)
        except FileNotFoundError:
            return content
        return Path(file.name).read_bytes() if done.returncode == 0 else content
