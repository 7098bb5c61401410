"""ddbg on a terminal: Tab, Enter, Ctrl-C, the pager, the question at quit. Waits for what the
terminal shows, never for time to pass."""
import os
import re
import signal
import time
import unittest

from support import DDBG, environment, program
from terminal import PROMPT, Terminal


class DdbgTerminal(Terminal):
    def __init__(self, *arguments, **keywords):
        super().__init__([DDBG, "-q", "-nx", *arguments], environment(), **keywords)


class Interactive(unittest.TestCase):
    def start(self, *arguments, **keywords):
        terminal = DdbgTerminal(*arguments, **keywords)
        self.addCleanup(terminal.close)
        terminal.wait_for(PROMPT)
        return terminal

    def test_tab_completes_commands_and_functions(self):
        t = self.start(program("steps"))
        t.type("disass\t")
        t.wait_for("disassemble ")
        t.type("factor\t\n")
        t.wait_for("Dump of assembler code for function factorial:")
        t.wait_for(PROMPT)

    def test_enter_repeats(self):
        t = self.start(program("steps"))
        t.command("list 1,3")
        self.assertIn("4\tstruct point", t.command(""))
        t.command("print 41")
        self.assertIn("$2 = 41", t.command(""))

    def test_control_c_forgets_the_line(self):
        for term in "dumb", "xterm":
            with self.subTest(term):
                t = self.start(program("steps"), term=term)
                t.type("print 12")
                t.wait_for("print 12")
                t.type("\x03")
                self.assertEqual(t.wait_for("Quit\n"), "Quit\n")
                t.wait_for(PROMPT)
                t.type("print 7\n")
                t.wait_for("$1 = 7")

    def test_control_c_forgets_a_command_of_several_lines(self):
        t = self.start(program("steps"))
        t.type("define twice\n")
        t.wait_for("\n>")
        t.type("print 2\n")
        t.wait_for("\n>")
        t.type("\x03")
        self.assertEqual(t.wait_for(PROMPT), "Quit\n" + PROMPT)
        self.assertIn('Undefined command: "twice"', t.command("twice"))

    def test_program_that_is_started_again_has_the_terminal(self):
        t = self.start("--args", "/usr/bin/stty", "sane")
        t.command("starti")
        t.type("run\n")
        t.wait_for("(y or n) ")
        t.type("y\n")
        self.assertIn("exited normally", t.wait_for("]\n" + PROMPT))

    def test_what_stops_the_program_is_a_stop_of_ours(self):
        def go_on():
            t.type("continue\n")
            t.wait_for("Continuing.")
            until(lambda: os.tcgetpgrp(t.fd) == pid)

        def until(condition):
            while not condition():
                time.sleep(0.001)

        def state():
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                return file.read().rpartition(") ")[2][0]

        t = self.start(program("spin"))
        t.type("run\n")
        t.wait_for("spinning")
        t.type("\x1a")
        self.assertIn("received signal SIGTSTP, Stopped (user).", t.wait_for(PROMPT))
        self.assertIn("main ()", t.command("backtrace"))
        pid = int(re.search(r"process (\d+)", t.command("info proc"))[1])
        go_on()
        t.type("\x1a")
        self.assertIn("received signal SIGTSTP, Stopped (user).", t.wait_for(PROMPT))
        go_on()
        os.kill(pid, signal.SIGSTOP)
        self.assertIn("received signal SIGSTOP, Stopped (signal).", t.wait_for(PROMPT))
        t.command("handle SIGSTOP nostop")
        go_on()
        os.kill(pid, signal.SIGSTOP)
        until(lambda: state() == "T")
        os.kill(pid, signal.SIGCONT)
        until(lambda: state() != "T")
        t.type("\x03")
        self.assertIn("received signal SIGINT, Interrupt.", t.wait_for(PROMPT))
        t.type("kill\n")
        t.type("y\n")
        t.wait_for("killed]\n" + PROMPT)

    def test_questions_want_an_answer(self):
        t = self.start(program("steps"))
        t.command("start")
        t.type("kill\n")
        for answer in "perhaps\n", "\n":
            t.wait_for("(y or n) ")
            t.type(answer)
            t.wait_for("Please answer y or n.\n")
        t.wait_for("(y or n) ")
        t.type("\x03")
        t.wait_for("\nNot confirmed.\n" + PROMPT)
        t.type("break nosuch\n")
        t.wait_for("(y or [n]) ")
        t.type("perhaps\n")
        t.wait_for("Please answer y or [n].\n")
        t.wait_for("(y or [n]) ")
        t.type("\n")
        t.wait_for("\n" + PROMPT)
        self.assertNotIn("nosuch", t.command("info breakpoints"))

    def test_control_c_stops_a_spinning_target(self):
        t = self.start(program("spin"))
        t.type("run\n")
        t.wait_for("spinning")
        t.type("\x03")
        shown = t.wait_for(PROMPT)
        self.assertIn("received signal SIGINT, Interrupt.", shown)
        # It may still be on its way out of the write that said so.
        self.assertIn("main ()", t.command("backtrace"))
        t.type("continue\n")
        t.wait_for("Continuing.")
        t.type("\x03")
        self.assertIn("received signal SIGINT, Interrupt.", t.wait_for(PROMPT))
        # It would run on for ever without a ddbg.
        t.type("kill\n")
        t.wait_for("(y or n) ")
        t.type("y\n")
        self.assertIn("killed]", t.wait_for(PROMPT))

    def test_control_c_is_not_the_program_s(self):
        t = self.start(program("spin"))
        t.type("run\n")
        t.wait_for("spinning")
        t.type("\x03")
        t.wait_for(PROMPT)
        pid = int(re.search(r"process (\d+)", t.command("detach"))[1])
        self.addCleanup(os.kill, pid, signal.SIGKILL)

        def ticks():
            with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
                return int(stat.read().rsplit(")", 1)[1].split()[11])

        before = ticks()
        while ticks() < before + 10: # it goes on, and does not end
            with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
                self.assertNotIn(") Z", stat.read())

    def test_quit_asks_while_the_target_lives(self):
        t = self.start(program("steps"))
        t.command("break main")
        t.command("run")
        t.type("quit\n")
        t.wait_for("Quit anyway? (y or n) ")
        t.type("n\n")
        t.wait_for(PROMPT)
        t.type("\x04")
        t.wait_for("Quit anyway? (y or n) ")
        t.type("y\n")
        self.assertEqual(t.ended(), 0)

    def test_pager_asks_and_quits(self):
        t = self.start(program("steps"))
        t.command("set height 5")
        t.type("help all\n")
        t.wait_for("--Type <RET> for more, q to quit, c to continue without paging--")
        t.type("\n")
        t.wait_for("--Type <RET> for more, q to quit, c to continue without paging--")
        t.type("q\n")
        t.wait_for(PROMPT)

    def test_history_is_kept_and_private(self):
        t = self.start(program("steps"))
        t.command("print 77")
        t.type("quit\n")
        self.assertEqual(t.ended(), 0)
        path = os.path.join(t.home.name, ".ddbg_history")
        with open(path) as file:
            self.assertIn("print 77", file.read())
        self.assertEqual(os.stat(path).st_mode & 0o077, 0)


if __name__ == "__main__":
    unittest.main()
