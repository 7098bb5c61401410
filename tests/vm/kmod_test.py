#!/usr/bin/env python3
"""dune.ko, built for the machine's kernel: it is loaded, tests/kmod runs, it is unloaded, and the kernel has nothing to complain of."""
import os
import re

import machine

TEST = os.environ["KMOD_TEST"]
EVENTS = os.environ["DUNE_EVENTS"]
# Of a program that enters Dune mode by itself: how often an event leaves the guest, and how many instructions it may take.
OF_APPLICATIONS = {"getppid": (1, 1625), "trap": (0, 120), "vectors": (0, 200), "step": (0, 125), "refused": (0, 225), "answered": (0, 170),
                   "interposed": (1, 1850), "appel1": (0, 980), "appel2": (0, 690)}
IN_THE_KERNEL = {"getppid": (1, 650), "interposed": (1, 750)}
# QEMU's VMRUN loads DR7 and does not act on it, and its processor checks no alignment. Bochs has both.
SKIPPED_THERE = ["Debug.WatchedWriteReachesTheGuestsHandler", "Debug.WatchedWriteEndsTheRunIfAskedFor",
                 "Debug.BreakpointOnItsOwnStackHoldsNoProcessor", "AlignmentCheck.GoesThroughToTheGuest",
                 "AlignmentCheck.LoopOfThemHoldsNoProcessor", *(f"NotedDebug.{name}" for name in (
                     "StatusIsOfThisOneOnly", "BothWordsOfOneInstruction", "Ring0IsNotTold", "StepInRing0IsToldWithoutWhatItAccesses",
                     "RepeatedInstructionTrapsBehindItsAccess", "InstructionThatRaisesItIsDone", "StatusThatCannotBeWrittenWaits"))]
# Its kernel starts without what the function tracer needs (vm_bochs.py), and warns when that is used.
NOT_IN_BOCHS = "Host.GuestThatComputesHoldsNobodyUp"
# The kernel's words for what must not happen.
COMPLAINTS = re.compile(r"WARNING:|BUG:|Oops|Call Trace|general protection|stack segment|soft lockup|rcu:.*stall|dune: vm(read|write)"
                        r"|KASAN|UBSAN|ODEBUG|INFO: (possible|inconsistent|task)|kmemleak: .*suspected", re.I)
MARK = "dune.ko goes in here"
BESIDE_KVM = f"""
{TEST} --gtest_filter='Kvm.*' || exit 91
rmmod kvm_amd || exit 92
"""
# In Bochs not beside KVM, which takes long there; its processor has what a kernel without mitigations is warned of, and nothing to steal.
COMMANDS = f"""
echo '{MARK}' > /dev/kmsg
insmod /dune.ko %s || exit 90
%s
{TEST} --gtest_filter='-Kvm.*:Dispatch.*%s' || exit 93
rmmod dune || exit 94
test ! -e /dev/dune || exit 95
insmod /dune.ko %s dispatch=1 || exit 96
{TEST} --gtest_filter='Dispatch.*' || exit 97
rmmod dune || exit 98
echo; echo '{MARK}'
dmesg
"""


# What is there before it is loaded is not its own; what is younger than five seconds is not looked at.
LEAKS_BEFORE = """
mount -t debugfs none /sys/kernel/debug && test -e /sys/kernel/debug/kmemleak || exit 80
echo scan > /sys/kernel/debug/kmemleak; echo clear > /sys/kernel/debug/kmemleak
"""
LEAKS_BEHIND = """
for i in 1 2; do sleep 6; echo scan > /sys/kernel/debug/kmemleak; done
cat /sys/kernel/debug/kmemleak > /dev/kmsg
"""
AT_RANDOM = f"""
echo '{MARK}' > /dev/kmsg
insmod /dune.ko dispatch=1 || exit 90
KMOD_TEST_SECONDS=%d {TEST} --gtest_filter='Random.*' || exit 91
rmmod dune || exit 92
%s
echo; echo '{MARK}'
dmesg
"""


class Kmod(machine.MachineTest):
    def test_events_cost_no_more_than_they_may(self):
        """In instructions, which are this machine's nanoseconds."""
        done = self.vm("--kernel", OPTIONS.kernel, "--icount", "--timeout", "270", "--add", f"{machine.MODULE}:/dune.ko", *machine.adding(TEST, EVENTS),
                       "--", "sh", "-c", f"rmmod kvm_amd; insmod /dune.ko && {EVENTS} kmod 0 500 3 {' '.join(OF_APPLICATIONS)} && echo '{MARK}'"
                       f" && rmmod dune && insmod /dune.ko dispatch=1 && {EVENTS} dispatch 0 500 3 {' '.join(IN_THE_KERNEL)}"
                       f" && KMOD_TEST_BUDGET=1 {TEST} --gtest_filter='Budget.*'")
        out = done.stdout.decode(errors="replace")
        self.assertEqual(done.returncode, 0, out + done.stderr.decode(errors="replace"))
        self.assertEqual(len(re.findall(r"^budget .* [1-9]\d*$", out, re.M)), 6, out)
        bounced, _, in_the_kernel = out.partition(f"{MARK}\n")
        self.within(OF_APPLICATIONS, bounced)
        self.within(IN_THE_KERNEL, in_the_kernel)
        print(out)

    def within(self, limits, out):
        """The run that fewest ticks of the kernel's came into."""
        events = {}
        for name, ticks, exits in re.findall(r"^(\w+) ([0-9.]+) [0-9.]+ ([0-9.]+) [0-9.]+$", out, re.M):
            events.setdefault(name, []).append((float(ticks), float(exits)))
        self.assertEqual(set(events), set(limits), out)
        for name, (wanted, instructions) in limits.items():
            least, exits = min(events[name])
            self.assertAlmostEqual(exits, wanted, delta=0.02, msg=f"{name}: exits\n{out}")
            self.assertLessEqual(least, instructions, f"{name}: instructions\n{out}")

    def test_loads_works_and_unloads(self):
        in_qemu, debug = OPTIONS.machine == "qemu", OPTIONS.kernel == "debug"
        self.MACHINE, patience = OPTIONS.machine, 840 if debug or not in_qemu else 270
        self.PATIENCE = patience + 10
        there = ["--la57", OPTIONS.la57] if in_qemu else ["--kvm", "off"]
        commands = COMMANDS % (("", BESIDE_KVM, "", "") if in_qemu else ("unsafe_cpu=1", "", f":{NOT_IN_BOCHS}", "unsafe_cpu=1"))
        if debug:
            commands = LEAKS_BEFORE + commands.replace("\necho; echo", f"{LEAKS_BEHIND}\necho; echo")
        done = self.vm("--kernel", OPTIONS.kernel, *there, "--smp", str(OPTIONS.smp), "--mitigations", OPTIONS.mitigations, "--timeout", str(patience),
                       "--add", f"{machine.MODULE}:/dune.ko", "--add", TEST, "--", "sh", "-c", commands)
        tests, log = self.tests_and_log(done)
        self.assertRegex(log, f"dune: {'SVM' if in_qemu else 'VMX'}, {5 if OPTIONS.la57 == 'on' else 4} levels")
        self.only_declared_skips(tests)

    def test_at_random(self):
        """States, registers and calls for --random seconds."""
        self.PATIENCE = OPTIONS.random + 600
        leaks = (LEAKS_BEFORE, LEAKS_BEHIND) if OPTIONS.kernel == "debug" else ("", "")
        done = self.vm("--kernel", OPTIONS.kernel, "--kvm", "off", "--la57", OPTIONS.la57, "--smp", str(OPTIONS.smp), "--timeout", str(OPTIONS.random + 590),
                       "--add", f"{machine.MODULE}:/dune.ko", "--add", TEST, "--", "sh", "-c", leaks[0] + AT_RANDOM % (OPTIONS.random / 2, leaks[1]))
        tests, _ = self.tests_and_log(done)
        self.assertRegex(tests, r"\[  PASSED  \] 2 tests")
        print(*re.findall(r"^(?:seeds|\d+ children) .*", tests, re.M), sep="\n")

    def tests_and_log(self, done):
        """What the tests said, and the kernel since the module went in, which complains of nothing."""
        out = done.stdout.decode(errors="replace")
        told = f"{out}\n{done.stderr.decode(errors='replace')}"
        self.assertEqual(done.returncode, 0, told)
        tests, _, log = out.rpartition(f"\n{MARK}\n")
        log = log[log.index(MARK):]
        self.assertEqual([line for line in log.splitlines() if COMPLAINTS.search(line)], [], log)
        return tests, log

    def only_declared_skips(self, out):
        suites = re.findall(r"^\[==========\] (\d+) tests? from .* ran\.", out, re.M)
        self.assertEqual(len(suites), 4 if OPTIONS.machine == "qemu" else 3, out)  # KVM's, the others, within these the new image, and those of calls in the kernel
        passed = sum(int(number) for number in re.findall(r"^\[  PASSED  \] (\d+) test", out, re.M))
        skipped = set(re.findall(r"^\[  SKIPPED \] (\w+\.\w+)(?: \(|$)", out, re.M))
        allowed = {"Budget.OfEvents", *(SKIPPED_THERE if OPTIONS.machine == "qemu" else [])}
        if OPTIONS.kernel != "6.1":
            allowed.add("Kvm.AndWeExcludeEachOther")  # KVM has the processors as long as it is loaded
            allowed.add("OldCgroup.GoesWithAGuestThatHasExhaustedIt")  # Debian's has no such limits any more
        if OPTIONS.smp == 1:
            allowed.add("Hotplug.GuestGoesOnWhereverItIs")
        self.assertEqual(skipped - allowed, set(), out)
        self.assertEqual(passed + len(skipped), sum(map(int, suites)), out)
        self.assertGreater(passed, 45, out)


if __name__ == "__main__":
    parser = machine.guest_options("kmod")
    parser.add_argument("--random", type=int, default=60, metavar="SECONDS")
    parser.add_argument("--mitigations", default="off")
    OPTIONS = machine.arguments_of(parser)
    machine.guest_main(OPTIONS)
