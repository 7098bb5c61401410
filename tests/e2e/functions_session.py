"""One program of functions_test.py, run alone or under a debugger, which can be held while somebody else looks at the program."""
import contextlib
import os
import re
import shlex
import subprocess
import threading

import functions_elf as elf
from support import GDB, environment

TIMEOUT = 400
# A command of ddbg's: waits until the look of Session.debug has been taken.
LOOK = ["info proc", "shell read line < gate"]


class Session:
    """One program with its working folder; its output goes to files there."""

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
        os.mkfifo(self.file("gate"))

    def file(self, name):
        return os.path.join(self.folder, name)

    def outputs(self):
        return tuple(self.spec.filtered(open(self.file(n), "rb").read()) for n in ("out", "err"))

    @contextlib.contextmanager
    def driven(self):
        self.spec.prepare(self.folder)
        driver, ended = None, threading.Event()
        if self.spec.driver:
            driver = threading.Thread(target=self.spec.driver, args=(self.folder, ended))
            driver.start()
        try:
            yield
        finally:
            ended.set()
            if driver:
                driver.join()

    def native(self):
        # setarch -R: as under a debugger. The shell is what both debuggers use.
        with open(self.file("out"), "wb") as out, open(self.file("err"), "wb") as err, self.driven():
            done = subprocess.run(["setarch", "-R", *self.command], env=self.env, cwd=self.folder, timeout=TIMEOUT,
                                  stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        return done.returncode

    def debug(self, debugger, commands, look=None):
        """Output of the debugger, which carries the commands out at the start, where the libraries are mapped. At each LOOK in
        them look(process number, output so far) is called while the program stands still."""
        script = self.file("script")
        with open(script, "w") as file:
            file.write("\n".join([
                "set confirm off", "set pagination off", "set width 0", "set height 0", "set print thread-events off",
                # Arguments given to starti replace those of --args.
                f"starti {shlex.join(self.command[1:])} < /dev/null > out 2> err", f"tbreak *{self.start:#x}", "continue", *commands]) + "\n")
        text = ""
        # Opened for both, the gate holds nobody up who finds no other end.
        with self.driven(), open(self.file("gate"), "r+b", buffering=0) as gate, subprocess.Popen(
                [debugger, "-q", "-nx", "-batch", "-x", script, self.spec.path], env=self.env, cwd=self.folder, text=True,
                errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            deadline = threading.Timer(TIMEOUT, process.kill)
            deadline.start()
            try:
                for line in process.stdout:
                    text += line
                    found = re.fullmatch(r"process (\d+)\n", line)
                    if found and look:
                        look(int(found[1]), text)
                        gate.write(b"\n")
            except BaseException:
                process.kill()
                raise
            finally:
                deadline.cancel()
        return text

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
