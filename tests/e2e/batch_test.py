"""ddbg -batch against gdb -batch on the same commands."""
import re
import signal
import subprocess
import unittest

from support import DDBG, GDB, ddbg, environment, gdb, normal, program


@unittest.skipUnless(GDB, "gdb is not installed")
class SameAsGdb(unittest.TestCase):
    maxDiff = None

    def same(self, commands, *command_line):
        ours, theirs = ddbg(commands, command_line), gdb(commands, command_line)
        self.assertEqual(normal(ours.out), normal(theirs.out), msg=ours.err)
        self.assertEqual(ours.status, theirs.status)

    def test_issues_first_line(self):
        self.same(["break main", "run", "bt", "continue"], program("steps"), "a", "b")

    def test_breakpoint_table_and_counts(self):
        self.same(["break add", "tbreak factorial", "run", "continue", "info breakpoints", "delete 1",
                   "continue", "bt", "info breakpoints", "continue"], program("steps"))

    def test_condition_and_ignore(self):
        self.same(["break add if b == 3", "break factorial", "ignore 2 3", "run", "print a",
                   "print b", "info breakpoints", "continue", "print n", "continue"],
                  program("steps"))

    def test_stepping(self):
        self.same(["break main", "run", "next", "next", "step", "step", "next", "finish", "next",
                   "next"], program("steps"))

    def test_instruction_steps(self):
        self.same(["break main", "run", "stepi", "stepi 3", "nexti", "info registers rip"],
                  program("steps"))

    def test_instruction_steps_in_optimized_code(self):
        self.same(["break main", "run"] + ["stepi"] * 8 + ["stepi 3", "bt", "nexti", "nexti"],
                  program("inlined"), "4")

    def test_step_through_a_jump_to_an_inlined_body(self):
        for commands in (["step"] * 6, ["step", "next", "next", "next"], ["next", "next"],
                         ["stepi", "stepi"], ["finish"]):
            self.same(["break jumps_on", "run", *commands], program("inlined"))

    def test_step_over_the_dynamic_linker(self):
        self.same(["break main", "run"] + ["next"] * 5, program("loads"))
        self.same(["break load", "run"] + ["next"] * 4, program("loads"))
        self.same(["break load", "run", "finish", "next", "step", "finish"], program("loads"))

    def test_step_into_library_functions(self):
        self.same(["break main", "run"] + ["step"] * 6, program("loads"))

    def test_next_over_exec(self):
        self.same(["break main", "break after", "run"] + ["next"] * 4 + ["info breakpoints", "next"],
                  program("execs"))

    def test_breakpoint_on_a_line_of_the_prologue(self):
        self.same([f"break {line}" for line in range(6, 30)] + ["info breakpoints"], program("steps"))

    def test_address_of_a_function_moves_with_the_program(self):
        self.same(["break *main", "break *main+4", "break *add", "info breakpoints", "run", "info breakpoints",
                   "continue", "continue", "bt"], program("steps"))

    def test_position_in_an_inlined_body(self):
        self.same(["break *scaled", "run", "step", "step"], program("inlined"))
        self.same([f"break {line}" for line in (6, 9, 10)] + ["run"] + ["continue"] * 3, program("inlined"))

    def test_until_passes_other_frames(self):
        self.same(["break factorial if n == 3", "run", "until factorial", "until 17"], program("steps"))
        self.same(["break main", "run", "until add", "next"], program("steps"))

    def test_no_breakpoint_at_all(self):
        outcome = ddbg(["run"], [program("inlined")])
        self.assertRegex(outcome.out, r"\[Inferior 1 \(process [1-9]\d*\) exited normally\]")

    def test_finish_until_advance(self):
        self.same(["break factorial if n == 2", "run", "bt", "finish", "finish", "up", "down"],
                  program("steps"))
        self.same(["break main", "run", "advance add", "until 12", "info locals", "info args"],
                  program("steps"))

    def test_watchpoint(self):
        self.same(["break main", "run", "watch counter", "continue", "continue", "delete",
                   "continue"], program("steps"))

    def test_read_and_access_watchpoints(self):
        for kind in ("rwatch", "awatch"):
            self.same(["break main", "run", f"{kind} counter"] + ["continue"] * 7 +
                      ["info watchpoints", "delete", "continue"], program("steps"))

    def test_watchpoints_of_one_access_are_one_stop(self):
        self.same(["break main", "run", "watch pair.first", "awatch pair.first", "watch *(char*)&pair", "watch pair.first if pair.second == 2"] +
                  ["continue"] * 5 + ["info watchpoints", "delete", "continue"], program("wide"))
        # Of the parts of an object, too, and that is one hit.
        for second in ("awatch pair.second", "rwatch pair.second"):
            self.same(["break main", "run", "watch pair", second, "ignore 2 1"] + ["continue"] * 5 + ["info watchpoints", "delete", "continue"], program("wide"))

    def test_watchpoint_at_a_location(self):
        self.same(["break main", "run", "watch -l counter", "rwatch -location argc", "info breakpoints", "continue", "continue", "info watchpoints"],
                  program("steps"))

    def test_fault(self):
        self.same(["run", "bt", "print nowhere", "print p", "continue", "bt"], program("steps"), "c")

    def test_print(self):
        self.same(["print counter", "print/x 255", "break add", "run", "print a + b * 2",
                   "print &counter", "print *&counter", "print $pc", "print $", "print $$3",
                   "output a", "echo \\n", "printf \"%d %s %c\\n\", a, \"abc\", 65", "ptype p",
                   "up", "ptype p", "whatis p", "print p", "set var p.y = 7", "print p.y",
                   "x/4xb &p", "x/2dw &p", "info symbol main", "print $nothing"], program("steps"))

    def test_type_with_an_enumeration_without_name(self):
        self.same(["ptype lamp", "whatis lamp.state", "print lamp"], program("execs"))

    def test_list(self):
        self.same(["list add", "list", "list -", "list 5,7", "list steps.c:1,3", "info line 10",
                   "list 500"], program("steps"))

    def test_info_line_and_address(self):
        self.same(["info address add", "info address counter", "info line 8", "break add", "run", "info line", "up",
                   "info line", "down", "info line"], program("steps"))

    def test_disassemble(self):
        self.same(["break add", "run", "disassemble", "x/3i $pc"], program("steps"))

    def test_breakpoint_set_where_the_program_stands_is_stepped_over(self):
        self.same(["break main", "run", "stepi", "break *$pc", "continue"], program("steps"))

    def test_breakpoint_on_the_first_instruction(self):
        self.same(["break *_start", "run", "info breakpoints", "stepi", "kill"], program("ledger"))
        self.same(["break *_start if $sp == 0", "tbreak *_start", "run", "info breakpoints", "kill"], program("ledger"))

    def test_breakpoint_set_on_the_first_instruction_is_stepped_over(self):
        self.same(["starti", "break *_start", "tbreak main", "continue", "kill"], program("ledger"))

    def test_errors(self):
        self.same(["nosuch", "info nosuch", "continue", "bt", "print nosuch", "break nosuch",
                   "break steps.c:9999", "delete 7", "frame", "x", "show nosuch", "finish"],
                  program("steps"))

    def test_thread_breakpoint_stops_in_a_thread(self):
        commands = ["break add_one", "run", "info threads", "delete", "continue"]
        ours = ddbg(commands, [program("threads")])
        self.assertIn("hit Breakpoint 1, add_one () at", ours.out, msg=ours.err)
        self.assertIn("[Switching to Thread", ours.out)
        self.assertIn("total=4000", ours.out)
        self.assertIn("exited normally]", ours.out)


@unittest.skipUnless(GDB, "gdb is not installed")
class BlockedThread(unittest.TestCase):
    def test_steps_go_on_where_its_call_returns(self):
        steps = ["stepi", "stepi 3", "nexti"]
        words = [word for step in ["x/i $pc", *(c for s in steps for c in (s, "x/i $pc"))] for word in ("-ex", step)]
        # Longer than a debugger takes to the first step: what returns before it is not in its call any more.
        sleeper = "import time\nprint(flush=True)\nwhile True: time.sleep(3)"
        with subprocess.Popen(["/usr/bin/python3", "-c", sleeper], stdout=subprocess.PIPE) as process:
            try:
                process.stdout.readline()
                ours, theirs = ([line for line in subprocess.run(
                    [debugger, "-q", "-nx", "-batch", *words, "-p", str(process.pid)], stdin=subprocess.DEVNULL,
                    capture_output=True, env=environment(), text=True, timeout=60).stdout.splitlines() if line.startswith("=>")]
                    for debugger in (DDBG, GDB))
                self.assertEqual(len(ours), 1 + len(steps))
                self.assertEqual(*([re.search("0x[0-9a-f]+", line)[0] for line in lines] for lines in (ours, theirs)))
            finally:
                process.kill()


class Signals(unittest.TestCase):
    def test_the_program_inherits_what_ddbg_did(self):
        def dispose():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGRTMAX})

        command = ["/usr/bin/grep", "^Sig[BI]", "/proc/self/status"]
        expected = subprocess.run(command, preexec_fn=dispose, capture_output=True, check=True).stdout.decode()
        outcome = ddbg(["run"], command, preexec_fn=dispose)
        self.assertTrue(outcome.out.startswith(expected), msg=expected + outcome.out + outcome.err)


class ExitStatus(unittest.TestCase):
    def test_last_command_decides(self):
        self.assertEqual(ddbg(["nosuch", "print 1"], [program("steps")]).status, 0)
        self.assertEqual(ddbg(["print 1", "nosuch"], [program("steps")]).status, 1)

    def test_child_result(self):
        outcome = ddbg(["run"], [program("steps")], options=["-return-child-result"])
        self.assertEqual(outcome.status, 2)

    def test_quit_with_status(self):
        self.assertEqual(ddbg(["quit 3"], [program("steps")]).status, 3)

    def test_missing_program(self):
        outcome = ddbg([], ["./nonexistent"])
        self.assertEqual(outcome.status, 1)
        self.assertIn("./nonexistent: No such file or directory.", outcome.err)


class CommandLine(unittest.TestCase):
    def on(self, *words):
        return subprocess.run([DDBG, "-q", "-nx", "-batch", *words], capture_output=True,
                              stdin=subprocess.DEVNULL, env=environment(), text=True, timeout=60)

    def test_what_follows_the_program_is_its_own(self):
        self.assertTrue(self.on("-ex", "run", "/bin/echo", "-e", "a", "-ex").stdout
                        .startswith("a -ex\n"))
        self.assertTrue(self.on("/bin/echo", "-ex", "run", "5").stdout.startswith("5\n"))

    def test_a_process_of_the_program_is_attached_to(self):
        with subprocess.Popen([program("spin")], stdout=subprocess.DEVNULL) as spins:
            try:
                words = program("spin"), "-ex", "info proc", str(spins.pid)
                self.assertIn(f"process {spins.pid}\n", self.on(*words).stdout)
                other = self.on("/bin/echo", "-ex", "run", str(spins.pid))
                self.assertTrue(other.stdout.startswith(f"{spins.pid}\n"))
            finally:
                spins.kill()


class Notices(unittest.TestCase):
    def test_threads_and_children_are_told_in_order(self):
        outcome = ddbg(["run"], [program("children")])
        told = re.findall(r"^\[(New LWP|LWP|Detaching after fork from child process) (\d+)",
                          outcome.out, re.M)
        self.assertEqual([kind for kind, _ in told],
                         ["New LWP", "LWP"] * 2 + ["Detaching after fork from child process"],
                         msg=outcome.out + outcome.err)
        numbers = [number for _, number in told]
        self.assertEqual(numbers[0:4:2], numbers[1:4:2])


class Counts(unittest.TestCase):
    def test_hits_and_evaluations_are_exact_with_four_threads(self):
        outcome = ddbg(["break add_one if total < 0", "run", "info breakpoints"],
                       [program("threads")])
        self.assertIn("condition evaluated in the target 4000 times", outcome.out, msg=outcome.err)


    def test_nor_does_a_sanitizer_change_that(self):
        for sanitizer in "thread", "address":
            with self.subTest(sanitizer):
                outcome = ddbg(["break add_one if total < 0", "run", "info breakpoints"], [program(f"threads_{sanitizer}")])
                self.assertIn("condition evaluated in the target 4000 times", outcome.out, msg=outcome.out + outcome.err)
                self.assertIn("total=4000\n", outcome.out)


class Damage(unittest.TestCase):
    def test_a_value_larger_than_memory_is_an_error(self):
        ours = ddbg(["break f", "run", "print h", "info locals", "continue"], [program("huge")])
        self.assertIn("value requires 1099511627776 bytes", ours.out + ours.err)
        self.assertIn("exited normally", ours.out)


class Watchpoints(unittest.TestCase):
    WRITES = 800

    def counted(self, kind, how, expected):
        outcome = ddbg(["break main", "run", f"{kind} page.watched", "ignore 2 100000", "break printf", "continue",
                        "info watchpoints", "delete", "continue"], [program("watched"), how])
        self.assertRegex(outcome.out, f"breakpoint already hit {expected} times", msg=outcome.out + outcome.err)
        self.assertRegex(outcome.out, f"(?m)^{self.WRITES}$")

    def test_each_change_counts_once(self):
        self.counted("watch", "locked", self.WRITES)

    def test_each_access_counts_once(self):
        self.counted("awatch", "free", self.WRITES + 1)  # main reads it

    @unittest.skipUnless(DDBG.endswith("ddbg_on_kvm"), "by signal two writes that come together count once")
    def test_changes_that_come_together_count_each(self):
        self.counted("watch", "free", self.WRITES)

    def test_each_stop_tells_its_own_change(self):
        outcome = ddbg(["break main", "run", "watch page.watched", *["continue"] * 40, "delete", "continue"],
                       [program("watched"), "locked"])
        values = re.findall(r"Old value = (\d+)\nNew value = (\d+)\n(?:.* in )?write_it ", outcome.out)
        self.assertEqual(values, [(str(i), str(i + 1)) for i in range(40)], msg=outcome.out + outcome.err)
        self.assertRegex(outcome.out, f"(?m)^{self.WRITES}$")


class SparseMemory(unittest.TestCase):
    REGIONS = 17000

    def whole(self, threads, place, seen):
        outcome = ddbg([place, "run", "continue", "info breakpoints", "continue"], [program("sparse"), str(threads)], timeout=110)
        for text in (*seen, f"kept {self.REGIONS}, came and went {self.REGIONS}\n", "exited normally"):
            self.assertIn(text, outcome.out, msg=outcome.err)

    def test_a_condition_all_the_way(self):
        last = self.REGIONS - 1
        self.whole(1, f"break use if i == {last}", [f"use (i={last})", f"evaluated in the target {2 * self.REGIONS} times"])

    def test_threads_and_a_watchpoint(self):
        self.whole(3, "watch rounds_of_main", ["Old value = 0\nNew value = 1\n", "Old value = 1\nNew value = 2\n"])


if __name__ == "__main__":
    unittest.main()
