#!/usr/bin/env python3
"""The cache, the archive and Bochs' disk of scripts/vm, without starting a machine or downloading anything."""
import multiprocessing
import os
import stat
import struct
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, os.path.dirname(os.environ["DDBG_VM"]))
import vm_bochs  # noqa: E402
import vm_machine  # noqa: E402
import vm_parts  # noqa: E402
from vm_image import Image  # noqa: E402


def quiet(_):
    pass


def make_slowly(made, begun, go_on):
    def make(to):
        with made.get_lock():
            made.value += 1
        begun.set()
        go_on.wait(60)
        (to / "file").write_text("whole")

    vm_parts.Parts(quiet).part("thing", make)


class Cache(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name) / "cache"
        patch = mock.patch.dict(os.environ, {"DDBG_VM_CACHE": str(self.folder)})
        patch.start()
        self.addCleanup(patch.stop)
        os.environ.pop("DDBG_VM_CACHE_ONLY", None)

    def test_two_at_once_make_it_once(self):
        made, begun, go_on = multiprocessing.Value("i", 0), multiprocessing.Event(), multiprocessing.Event()
        both = [multiprocessing.Process(target=make_slowly, args=(made, begun, go_on)) for _ in range(2)]
        for process in both:
            process.start()
        self.assertTrue(begun.wait(60))
        self.assertFalse((self.folder / "thing").exists())
        go_on.set()
        for process in both:
            process.join(60)
        self.assertEqual(([process.exitcode for process in both], made.value), ([0, 0], 1))
        self.assertEqual((self.folder / "thing/file").read_text(), "whole")

    def test_what_a_killed_run_left_goes_away(self):
        (self.folder / ".new.left").mkdir(parents=True)
        vm_parts.Parts(quiet).part("thing", lambda to: (to / "file").touch())
        self.assertEqual(sorted(os.listdir(self.folder)), [".lock", "thing"])

    def test_a_reason_is_kept_until_it_is_gone(self):
        def cannot(_):
            raise vm_parts.NotAvailable("the network is down")

        for _ in range(2):
            with self.assertRaisesRegex(vm_parts.NotAvailable, "the network is down"):
                vm_parts.Parts(quiet).part("thing", cannot)
        with mock.patch.dict(os.environ, {"DDBG_VM_CACHE_ONLY": "1"}):
            with self.assertRaisesRegex(vm_parts.NotAvailable, "the network is down"):
                vm_parts.Parts(quiet).part("thing", self.fail)
        vm_parts.Parts(quiet).part("thing", lambda to: None)
        self.assertEqual(sorted(os.listdir(self.folder)), [".lock", "thing"])

    def test_versions_are_numbers(self):
        names = ["linux-image-6.1.0-9-cloud", "linux-image-6.1.0-56-cloud", "linux-image-6.1.0-47-cloud"]
        self.assertEqual(max(names, key=vm_parts.version_key), names[1])


class Modules(unittest.TestCase):
    def test_only_a_signature_is_cut_off(self):
        mark = b"~Module signature appended~\n"
        signed = b"a module" + b"its signature" + struct.pack(">8xI", 13) + mark
        self.assertEqual(vm_parts.without_signature(signed), b"a module")
        self.assertEqual(vm_parts.without_signature(b"a module"), b"a module")


class Disk(unittest.TestCase):
    """What the loader makes of disk and table, by a loader of a few lines, and what the kernel finds then."""

    MEMORY = 64 << 20
    CONTENT = bytes(range(256)) * 5 + b"odd"
    ARCHIVE = b"archive" * 1000

    def setUp(self):
        headers = struct.pack("<IIQQQQQQ", 1, 5, 176, 0, 0x1000000, len(self.CONTENT), 5000, 0)
        note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", 0x1000040)
        other = struct.pack("<III4sI", 4, 4, 5, b"Xen\0", 7)
        headers += struct.pack("<IIQQQQQQ", 4, 4, 176 + len(self.CONTENT), 0, 0, len(other + note), 0, 0)
        head = b"\x7fELF".ljust(32, b"\0") + struct.pack("<Q", 64)
        self.kernel = (head.ljust(54, b"\0") + struct.pack("<HH", 56, 2)).ljust(64, b"\0") + headers + self.CONTENT + other + note

    def test_everything_is_where_the_table_says(self):
        with tempfile.TemporaryFile() as file:
            table = vm_bochs.write_disk(file.fileno(), self.kernel, self.ARCHIVE, self.MEMORY, "one two=3")
            file.seek(0)
            disk = file.read()
        self.assertEqual(len(disk) % (16 * 63 * 512), 0)
        memory = bytearray(self.MEMORY)
        *pieces, (info, entry, end) = struct.iter_unpack("<3I", table)
        for sector, address, sectors in pieces:
            memory[address:address + sectors * 512] = disk[sector * 512:(sector + sectors) * 512]
        self.assertEqual((entry, end), (0x1000040, 0))
        self.assertEqual(memory[0x1000000:0x1000000 + 5000], self.CONTENT.ljust(5000, b"\0"))
        magic, version, _, modules, module, command_line, _, areas, count, _ = struct.unpack_from("<4I4Q2I", memory, info)
        self.assertEqual((magic, version, modules), (0x336EC578, 1, 1))
        at, size = struct.unpack_from("<2Q", memory, module)
        self.assertEqual(memory[at:at + size], self.ARCHIVE)
        self.assertEqual(memory[command_line:command_line + 10], b"one two=3\0")
        usable = [(start, start + length) for start, length, kind, _ in struct.iter_unpack("<2Q2I", memory[areas:areas + 24 * count]) if kind == 1]
        for start, stop in (0x1000000, 0x1000000 + 5000), (at, at + size), (info, command_line + 10):
            self.assertTrue(any(low <= start and stop <= high for low, high in usable), (start, stop, usable))

    def test_what_does_not_fit_is_refused(self):
        with tempfile.TemporaryFile() as file, self.assertRaisesRegex(vm_machine.Failure, "17 MB are too few .*--memory"):
            vm_bochs.write_disk(file.fileno(), self.kernel, bytes(2 << 20), 17 << 20, "")

    def test_a_rom_is_one(self):
        for size in 1, 510, 511, 512, 1000:
            rom = vm_bochs.make_rom(b"\x55\xaa\0" + b"x" * (size - 3 if size > 3 else 0))
            self.assertEqual((len(rom), sum(rom) % 256, rom[:2]), (512 * rom[2], 0, b"\x55\xaa"))
            self.assertGreater(len(rom), size)


class Archive(unittest.TestCase):
    def test_links_on_the_way_come_along(self):
        with tempfile.TemporaryDirectory() as scratch:
            scratch = Path(os.path.realpath(scratch))
            (scratch / "real").mkdir()
            (scratch / "real/program").write_text("#!/bin/sh\n")
            (scratch / "real/program").chmod(0o755)
            (scratch / "folder").symlink_to("real")
            (scratch / "folder/name").symlink_to(scratch / "real/program")
            image = Image()
            image.add_file(str(scratch / "folder/name"))
        at = str(scratch)[1:]
        self.assertEqual(image.entries[f"{at}/folder"], (stat.S_IFLNK | 0o777, b"real"))
        self.assertEqual(image.entries[f"{at}/real/name"], (stat.S_IFLNK | 0o777, f"/{at}/real/program".encode()))
        self.assertEqual(image.entries[f"{at}/real/program"], (stat.S_IFREG | 0o755, b"#!/bin/sh\n"))
        self.assertTrue(any(name.endswith("/ld-linux-x86-64.so.2") for name in image.entries), "its interpreter's loader")


if __name__ == "__main__":
    unittest.main(verbosity=2)
