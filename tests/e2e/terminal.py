"""A program on a terminal of its own."""
import os
import pty
import select
import signal
import tempfile
import time

PROMPT = "(ddbg) "
PATIENCE = 30  # seconds: a failure, not a pace


class Terminal:
    def __init__(self, command, env, user=None, patience=PATIENCE, term="dumb"):
        self.patience = patience
        self.home = tempfile.TemporaryDirectory()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            if user is not None:
                os.setuid(user)
            os.execve(command[0], command, dict(env, TERM=term, HOME=self.home.name, INPUTRC="/dev/null"))
        self.shown = ""

    def wait_for(self, text):
        """Returns what was shown up to and with `text`, and forgets it."""
        deadline = time.monotonic() + self.patience
        while text not in self.shown:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.fd], [], [], max(left, 0))
            if not ready:
                raise AssertionError("waited for %r, shown: %r" % (text, self.shown))
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""
            if not data:
                raise AssertionError("it ended; waited for %r, shown: %r" % (text, self.shown))
            self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        end = self.shown.index(text) + len(text)
        before, self.shown = self.shown[:end], self.shown[end:]
        return before

    def type(self, text):
        os.write(self.fd, text.encode())

    def command(self, line):
        self.type(line + "\n")
        return self.wait_for("\n" + PROMPT)

    def wait_for_end(self):
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.fd], [], [], 1)
            if ready:
                try:
                    if not os.read(self.fd, 4096):
                        break
                except OSError:
                    break

    def ended(self):
        self.wait_for_end()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self):
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(self.fd)
        self.home.cleanup()
