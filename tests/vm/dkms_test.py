#!/usr/bin/env python3
"""kmod/dkms.conf: DKMS takes the sources, builds them for a kernel whose headers are there and installs the module, which that kernel
loads. All of it in folders of the test's, where /usr/src, /var/lib/dkms and /lib/modules would be."""
import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import machine

sys.path.insert(0, os.path.dirname(os.environ["DDBG_VM"]))
from vm_parts import NotAvailable, Parts  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


class Dkms(machine.MachineTest):
    def dkms(self, *words):
        places = [word for name in ("source", "dkms", "install") for word in (f"--{name}tree", self.scratch.name + "/" + name)]
        done = subprocess.run([*AS_ROOT, DKMS, *map(str, words), *places, "--no-depmod"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def test_builds_what_the_kernel_loads(self):
        release = re.search(r'UTS_RELEASE "(.*)"', (HEADERS / "include/generated/utsrelease.h").read_text())[1]
        for folder in "source", "dkms", f"install/{release}":
            os.makedirs(f"{self.scratch.name}/{folder}")
        version = re.search(r"^project\(ddbg VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text(), re.M)[1]
        module, kernel = f"dune/{version}", ("-k", release, "-a", "x86_64")
        self.dkms("add", ROOT / "kmod")
        self.assertEqual(sorted(os.listdir(f"{self.scratch.name}/source/dune-{version}")), sorted(os.listdir(ROOT / "kmod")))
        self.dkms("build", module, *kernel, "--kernelsourcedir", HEADERS, "-j", "1")
        self.dkms("install", module, *kernel, "--kernelsourcedir", HEADERS)
        self.assertIn(f"dune/{version}, {release}, x86_64: installed", self.dkms("status"))
        (built,) = Path(self.scratch.name).glob("install/**/dune.ko*")
        done = subprocess.run([*machine.VM, "qemu", "--kernel", OPTIONS.kernel, "--kvm", "off", "--add", f"{built}:/{built.name}", "--", "sh", "-c",
                               f"insmod /{built.name} && ls /dev/dune && rmmod dune"], env=self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=machine.PATIENCE, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, "/dev/dune\n"), done.stderr)
        self.dkms("remove", module, "--all")
        self.assertEqual(list(Path(self.scratch.name).glob("install/**/dune.ko*")), [])


if __name__ == "__main__":
    AS_ROOT = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
    if AS_ROOT and subprocess.run([*AS_ROOT, "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        print("vm: not available here: dkms runs as root only, and this user may not make a user namespace")
        sys.exit(machine.NOT_AVAILABLE)
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernel", required=True)
    OPTIONS = machine.arguments_of(parser)
    try:
        parts = Parts(lambda text: print(f"vm: {text}", file=sys.stderr, flush=True))
        DKMS, HEADERS = parts.dkms(), parts.headers(OPTIONS.kernel)
    except NotAvailable as error:
        print(f"vm: not available here: {error}")
        sys.exit(machine.NOT_AVAILABLE)
    machine.main(OPTIONS.kernel)
