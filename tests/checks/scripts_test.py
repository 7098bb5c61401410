#!/usr/bin/env python3
"""scripts/ddbg, scripts/test and scripts/run_tests.py on checkouts of a few lines, with a stand-in for apt."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

# A project whose "compiler" copies a shell script, and fails on one that says so.
CMAKE = """cmake_minimum_required(VERSION 3.25)
project(mini NONE)
set(out ${CMAKE_BINARY_DIR}/dtrace-lite/ddbg/ddbg)
add_custom_command(OUTPUT ${out} DEPENDS ${CMAKE_SOURCE_DIR}/dtrace-lite/main.sh VERBATIM
  COMMAND sh -c "if grep -n broken '${CMAKE_SOURCE_DIR}/dtrace-lite/main.sh'; then exit 1; fi"
  COMMAND cmake -E make_directory ${CMAKE_BINARY_DIR}/dtrace-lite/ddbg
  COMMAND cmake -E copy ${CMAKE_SOURCE_DIR}/dtrace-lite/main.sh ${out})
add_custom_target(ddbg DEPENDS ${out})
"""
PRESETS = """{ "version": 4, "configurePresets": [
  { "name": "release", "generator": "Ninja", "binaryDir": "${sourceDir}/build/release" } ] }
"""
PROGRAM = '#!/bin/sh\nprintf "<%s>" "$@"\ncat\nexit 3\n'


class Checkout(unittest.TestCase):
    def setUp(self):
        self.scratch = Path(tempfile.mkdtemp(prefix="ddbg scripts "))
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)
        self.root = self.scratch / "a checkout"
        (self.root / "dtrace-lite").mkdir(parents=True)
        (self.root / "scripts").mkdir()
        for name in ("ddbg", "test", "house.sh", "run_tests.py"):
            shutil.copy(SCRIPTS / name, self.root / "scripts")
        (self.root / "scripts/packages.txt").write_text("[build]\nlibpresent-dev\n[test]\nlibtest-dev\n")
        (self.root / "CMakeLists.txt").write_text(CMAKE)
        (self.root / "CMakePresets.json").write_text(PRESETS)
        self.program = self.root / "dtrace-lite/main.sh"
        self.program.write_text(PROGRAM)
        self.program.chmod(0o755)
        self.bin = self.scratch / "bin"
        self.bin.mkdir()
        self.tool("dpkg-query", 'echo "libpresent-dev installed"; echo "libtest-dev installed"')
        self.tool("apt-get", 'echo "apt-get was not expected: $*" >&2; exit 99')
        self.env = dict(os.environ, PATH=f"{self.bin}:{os.environ['PATH']}", HOME=str(self.scratch / "home"))
        self.env.pop("XDG_CACHE_HOME", None)
        self.env.pop("DDBG_NO_APT", None)

    def tool(self, name, body):
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def start(self, *arguments, script=None, prefix=(), **keywords):
        return subprocess.Popen([*prefix, script or self.root / "scripts/ddbg", *arguments], cwd="/", env=self.env, text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **keywords)

    def ddbg(self, *arguments, stdin="", **keywords):
        process = self.start(*arguments, **keywords)
        out, err = process.communicate(stdin)
        return process.returncode, out, err

    def edit(self, text):
        before = self.program.stat().st_mtime_ns
        while self.program.stat().st_mtime_ns == before:  # file times advance in steps
            self.program.write_text(text)


class Ddbg(Checkout):
    def test_builds_and_passes_everything_through(self):
        link = self.scratch / "link"
        link.symlink_to(self.root / "scripts/ddbg")
        status, out, err = self.ddbg("-q", "a b", "", stdin="input", script=link)
        self.assertEqual((status, out), (3, "<-q><a b><>input"), err)

    def test_starts_without_ninja_when_nothing_changed(self):
        self.ddbg()
        self.tool("ninja", "exit 1")
        self.tool("cmake", "exit 1")
        self.assertEqual(self.ddbg("x"), (3, "<x>", ""))

    def test_rebuilds_after_a_change(self):
        self.ddbg()
        self.edit(PROGRAM.replace("<", "["))
        self.assertEqual(self.ddbg("x")[:2], (3, "[x>"))

    def test_shows_a_failing_build_and_tries_again(self):
        self.edit("broken\n")
        for _ in range(2):
            status, out, err = self.ddbg("x")
            self.assertEqual((status, out), (1, ""))
            self.assertIn("1:broken", err)
        self.edit(PROGRAM)
        self.assertEqual(self.ddbg("x")[:2], (3, "<x>"))

    def test_two_at_once_both_work(self):
        processes = [self.start(str(i)) for i in range(4)]
        for i, process in enumerate(processes):
            out, err = process.communicate("")
            self.assertEqual((process.returncode, out), (3, f"<{i}>"), err)

    def test_starts_anew_in_a_moved_checkout(self):
        self.ddbg()
        self.root = self.root.rename(self.scratch / "elsewhere")
        self.program = self.root / "dtrace-lite/main.sh"
        self.edit(PROGRAM.replace("<", "["))
        self.assertEqual(self.ddbg("x")[:2], (3, "[x>"))

    def test_builds_in_the_cache_when_the_checkout_is_not_ours(self):
        prefix = ()
        if os.geteuid() == 0:  # root may write anywhere: be someone else
            prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
            self.scratch.chmod(0o755)
        else:
            self.root.chmod(0o555)
            self.addCleanup(self.root.chmod, 0o755)
        home = Path(self.env["HOME"])
        home.mkdir()
        home.chmod(0o777)
        status, out, err = self.ddbg("x", prefix=prefix)
        self.assertEqual((status, out), (3, "<x>"), err)
        self.assertFalse((self.root / "build").exists())
        self.assertEqual(len(list(home.glob(".cache/ddbg/*/release/dtrace-lite/ddbg/ddbg"))), 1)


class Packages(Checkout):
    def setUp(self):
        super().setUp()
        self.log = self.scratch / "apt.log"
        self.tool("dpkg-query", f"[ -e '{self.scratch}/installed' ] && echo 'libpresent-dev installed'")
        self.tool("apt-get", f"""echo "$DEBIAN_FRONTEND $*" >>'{self.log}'
case $* in
  *update*) touch '{self.scratch}/lists' ;;
  *) [ -e '{self.scratch}/lists' ] || {{ echo E: no lists; exit 100; }}; touch '{self.scratch}/installed' ;;
esac""")

    def be(self, uid):
        self.tool("id", f"echo {uid}")
        self.tool("sudo", "exit 1")

    def test_root_installs_and_fetches_lists_when_needed(self):
        self.be(0)
        status, out, err = self.ddbg("x")
        self.assertEqual((status, out), (3, "<x>"), err)
        self.assertIn("installing with apt-get: libpresent-dev", err)
        calls = self.log.read_text().splitlines()
        self.assertEqual(len(calls), 3, calls)
        self.assertIn("update", calls[1])
        self.assertRegex(calls[2], "^noninteractive install -y --no-install-recommends .*libpresent-dev$")
        self.assertEqual(calls[0], calls[2])

    def test_others_are_told_the_one_line(self):
        self.be(1000)
        status, out, err = self.ddbg("x")
        self.assertEqual((status, out), (1, ""))
        self.assertEqual(err.splitlines()[-1], "apt-get install -y --no-install-recommends libpresent-dev")
        self.assertFalse(self.log.exists())

    def test_sudo_without_a_password_serves(self):
        self.be(1000)
        self.tool("sudo", 'shift; exec "$@"')
        self.assertEqual(self.ddbg("x")[:2], (3, "<x>"))

    def test_a_failing_apt_is_shown(self):
        self.be(0)
        self.tool("apt-get", "echo E: the mirror is on fire; exit 100")
        status, out, err = self.ddbg("x")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("the mirror is on fire", err)

    def test_a_command_does_as_well(self):
        self.be(1000)
        (self.root / "scripts/packages.txt").write_text("[build]\nlibpresent-dev  sh\n[test]\nlibother-dev\n")
        self.assertEqual(self.ddbg("x")[:2], (3, "<x>"))


class Runner(unittest.TestCase):
    """run_tests.py on a folder with tests written by hand."""

    PASS = 'add_test(good "true")\n'
    FAIL = 'add_test(bad "sh" "-c" "echo the reason it broke; exit 1")\n'
    SKIP = 'add_test(maybe "sh" "-c" "echo no such device; exit 77")\nset_tests_properties(maybe PROPERTIES SKIP_RETURN_CODE 77 LABELS vm)\n'
    SLOW = 'add_test(long "true")\nset_tests_properties(long PROPERTIES LABELS slow)\n'
    GONE = 'add_test(gone "/nonexistent/program")\n'
    OFF = 'add_test(off "true")\nset_tests_properties(off PROPERTIES DISABLED TRUE)\n'
    # GoogleTest's own way of skipping; the second case failed first.
    GTEST = ('add_test(Case.{0} "printf" "{1}t.cpp:3: Skipped\\\\nno such device\\\\n\\\\n[  SKIPPED ] Case.{0}\\\\n")\n'
             'set_tests_properties(Case.{0} PROPERTIES SKIP_REGULAR_EXPRESSION "\\\\[  SKIPPED \\\\]")\n')

    def run_tests(self, tests, *arguments, declared="^maybe: no such device -- has none\n"):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "CTestTestfile.cmake").write_text(tests)
            (folder / "declared.txt").write_text(declared)
            env = dict(os.environ, DDBG_VM_CACHE=str(folder / "vm"), DDBG_VM_CACHE_ONLY="1")  # nothing is downloaded for a guest test
            result = subprocess.run([SCRIPTS / "run_tests.py", "--build", folder, "--declared", folder / "declared.txt",
                                     *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env)
        lines = result.stdout.strip().splitlines()
        return result.returncode, lines[-1] if lines else "", result.stdout + result.stderr

    def test_counts_and_passes(self):
        self.assertEqual(self.run_tests(self.PASS + self.SKIP)[:2], (0, "1 passed, 0 failed, 1 skipped"))

    def test_a_failure_fails_and_is_shown(self):
        status, last, output = self.run_tests(self.PASS + self.FAIL)
        self.assertEqual((status, last), (1, "1 passed, 1 failed"))
        self.assertIn("the reason it broke", output)

    def test_no_test_at_all_fails(self):
        self.assertEqual(self.run_tests("")[:2], (1, "0 passed, 1 failed"))
        self.assertEqual(self.run_tests(self.PASS, "--only", "nothing_like_it")[:2], (1, "0 passed, 1 failed"))

    def test_only_skips_is_not_a_pass(self):
        self.assertEqual(self.run_tests(self.SKIP)[:2], (1, "0 passed, 0 failed, 1 skipped"))

    def test_an_undeclared_skip_fails(self):
        status, last, output = self.run_tests(self.PASS + self.SKIP, declared="^maybe: other reason -- no\n")
        self.assertEqual((status, last), (1, "1 passed, 1 failed"))
        self.assertIn("undeclared skip: no such device", output)

    def test_a_disabled_test_is_a_skip_to_declare(self):
        self.assertEqual(self.run_tests(self.PASS + self.OFF)[:2], (1, "1 passed, 1 failed"))

    def test_reads_the_reason_of_googletest(self):
        declared = "^Case.A: no such device$ -- has none\n"
        self.assertEqual(self.run_tests(self.PASS + self.GTEST.format("A", ""), declared=declared)[:2],
                         (0, "1 passed, 0 failed, 1 skipped"))

    def test_a_case_that_failed_before_it_skipped_failed(self):
        declared = "^Case.A: -- any\n"
        self.assertEqual(self.run_tests(self.PASS + self.GTEST.format("A", "[  FAILED  ] "), declared=declared)[:2],
                         (1, "1 passed, 1 failed"))

    def test_what_cannot_be_started_failed(self):
        self.assertEqual(self.run_tests(self.PASS + self.GONE)[:2], (1, "1 passed, 1 failed"))

    def test_slow_tests_run_on_request(self):
        self.assertEqual(self.run_tests(self.PASS + self.SLOW)[:2], (0, "1 passed, 0 failed"))
        self.assertEqual(self.run_tests(self.PASS + self.SLOW, "--all")[:2], (0, "2 passed, 0 failed"))

    def test_a_required_guest_test_may_not_skip(self):
        self.assertEqual(self.run_tests(self.PASS + self.SKIP, "--require-vm")[:2], (1, "1 passed, 1 failed"))

    def test_runs_as_an_ordinary_user(self):
        if os.geteuid() != 0:
            self.skipTest("only root can become someone else")
        # The cache of machines is the caller's, and may lie where nobody else comes.
        tests = ('add_test(who "sh" "-c" "test $(id -un) = nobody && test -w $HOME && test -w $TMPDIR && '
                 'test -n $DDBG_VM_CACHE_ONLY && cat $DDBG_VM_CACHE/part/file")\n'
                 'set_tests_properties(who PROPERTIES LABELS vm)\n')
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
            os.chmod(folder, 0o755)
            (Path(cache) / "part").mkdir()
            (Path(cache) / "part/file").write_text("")
            (Path(folder) / "CTestTestfile.cmake").write_text(tests)
            (Path(folder) / "declared.txt").write_text("")
            result = subprocess.run([SCRIPTS / "run_tests.py", "--build", folder, "--declared", f"{folder}/declared.txt",
                                     "--user", "nobody"], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                    env=dict(os.environ, DDBG_VM_CACHE=cache, DDBG_VM_CACHE_ONLY="1"))
        self.assertTrue(re.search(r"^1 passed, 0 failed$", result.stdout, re.MULTILINE), result.stdout + result.stderr)


if __name__ == "__main__":
    unittest.main()
