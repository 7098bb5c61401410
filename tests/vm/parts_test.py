#!/usr/bin/env python3
"""The cache and the archive of scripts/vm, without starting a machine or downloading anything."""
import multiprocessing
import os
import stat
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, os.path.dirname(os.environ["DDBG_VM"]))
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
