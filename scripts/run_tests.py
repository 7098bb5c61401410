#!/usr/bin/env python3
"""Runs CTest over a build folder and judges the outcome: every test is expected to be reported, and a skip is allowed only
if tests/declared_skips.txt says so. scripts/test calls it after building."""

import argparse
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

VM = Path(__file__).resolve().parent / "vm_run.py"


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True, type=Path)
    parser.add_argument("--declared", required=True, type=Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--require-vm", action="store_true")
    parser.add_argument("--user")
    parser.add_argument("--only", action="append", default=[])
    return parser.parse_args()


def read_declared(path):
    """Lines `REGEX -- why`; the regex is looked for in "test name: printed reason"."""
    declared = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        pattern, separator, why = line.partition(" -- ")
        if not separator or not why.strip():
            sys.exit(f"{path}:{number}: expected `REGEX -- why`")
        declared.append(re.compile(pattern.strip()))
    return declared


def environment(scratch, account):
    """The tests' environment: a home of their own, so that nobody's ~/.gdbinit or history matters, and no debuginfod."""
    env = dict(os.environ)
    for name in ("DEBUGINFOD_URLS", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        env.pop(name, None)
    if account:
        env.update(USER=account.pw_name, LOGNAME=account.pw_name, SHELL="/bin/sh",
                   PATH="/usr/local/bin:/usr/bin:/bin")
    else:
        # rustup's proxies look below the real home.
        for name, folder in (("RUSTUP_HOME", ".rustup"), ("CARGO_HOME", ".cargo")):
            real = Path.home() / folder
            if name not in env and real.is_dir():
                env[name] = str(real)
    env.update(HOME=str(scratch / "home"), TMPDIR=str(scratch / "tmp"), LC_ALL="C.UTF-8")
    return env


class Ctest:
    """CTest on a build folder that need not be writable: it runs in a scratch folder that refers to the build's tests."""

    def __init__(self, arguments, scratch):
        self.scratch = scratch
        self.prefix = []
        self.account = self.switch_to(arguments.user) if arguments.user else None
        self.env = environment(scratch, self.account)
        if arguments.require_vm:
            self.env["DDBG_REQUIRE_VM"] = "1"
        scratch.chmod(0o755)  # tests that become another user pass through it
        for folder in ("home", "tmp", "run"):
            (scratch / folder).mkdir()
            (scratch / folder).chmod(0o755)
        (scratch / "run/CTestTestfile.cmake").write_text(f'subdirs("{arguments.build}")\n')
        if self.account:
            self.hand_over(scratch)
            if self.run(["test", "-r", str(arguments.build / "CTestTestfile.cmake")]).returncode != 0:
                sys.exit(f"test: {arguments.user} cannot read {arguments.build}")
        self.selection = [] if arguments.all else ["-LE", "^slow$"]
        if arguments.only:
            self.selection += ["-R", "|".join(arguments.only)]

    def switch_to(self, user):
        if os.geteuid() != 0:
            sys.exit("test: --user needs root")
        try:
            account = pwd.getpwnam(user)
        except KeyError:
            sys.exit(f"test: there is no user {user}")
        self.prefix = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}",
                       "--init-groups", "--inh-caps=-all"]
        return account

    def hand_over(self, folder):
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def run(self, command, **keywords):
        return subprocess.run(self.prefix + command, cwd=self.scratch / "run", env=self.env,
                              stdin=subprocess.DEVNULL, **keywords)

    def list(self):
        """Name -> labels of the selected tests, and how often each name occurs."""
        out = self.run(["ctest", "--show-only=json-v1", *self.selection], stdout=subprocess.PIPE, check=True).stdout
        labels, names = {}, Counter()
        for test in json.loads(out)["tests"]:
            properties = {p["name"]: p["value"] for p in test.get("properties", [])}
            labels.setdefault(test["name"], set()).update(properties.get("LABELS", []))
            names[test["name"]] += 1
        return labels, names

    def prepare_machines(self, build):
        """Guest tests use what is in the cache: a download takes as long as it takes, which is no test's affair."""
        done = subprocess.run([sys.executable, "-B", VM, "--build", build, "prepare"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, text=True, check=False)
        cache = Path(done.stdout.strip() or self.scratch / "nowhere")
        if self.account and cache.is_dir():  # which may lie where only its owner comes
            ours, cache = cache, self.scratch / "vm"
            shutil.copytree(ours, cache, symlinks=True)
            self.hand_over(cache)
        self.env.update(DDBG_VM_CACHE=str(cache), DDBG_VM_CACHE_ONLY="1")

    def execute(self):
        """Runs the selected tests; the report as a list of (name, outcome, output)."""
        jobs = min(2, len(os.sched_getaffinity(0)))
        # Passed tests' output is cut at 1 KiB by default, and the reason of a skip with it.
        command = ["ctest", f"-j{jobs}", "--output-on-failure", "--timeout", "300", "--no-tests=error",
                   "--test-output-size-passed", "4000000", "--output-junit", "report.xml", *self.selection]
        if sys.stdout.isatty():
            command.append("--progress")
        self.run(command)
        try:
            report = ElementTree.parse(self.scratch / "run/report.xml").getroot()
        except (OSError, ElementTree.ParseError) as error:
            print(f"test: ctest left no usable report: {error}")
            return []
        return [judge(case) for case in report.iter("testcase")]


def judge(case):
    """(name, "passed" | "failed" | "skipped", output or reason) of one JUnit test case."""
    name, status = case.get("name"), case.get("status")
    output = case.findtext("system-out") or ""
    if status == "run":
        return name, "passed", output
    if status == "disabled":
        return name, "skipped", "disabled"
    message = case.find("skipped").get("message", "") if case.find("skipped") is not None else ""
    # CTest also reports what it could not start as not run, and a GoogleTest case may fail before it skips.
    if status == "notrun" and message.startswith("SKIP_") and "[  FAILED  ]" not in output:
        return name, "skipped", skip_reason(output)
    return name, "failed", output


def skip_reason(output):
    """GoogleTest prints "FILE:LINE: Skipped" and then the reason; anything else says it in its last line."""
    found = re.search(r": Skipped\n(.*?)\n*\[  SKIPPED \]", output, re.DOTALL)
    if found:
        return " ".join(found[1].split())
    lines = output.strip().splitlines()
    return "" if "[  SKIPPED ]" in output or not lines else lines[-1].strip()


def main():
    arguments = parse_arguments()
    declared = read_declared(arguments.declared)
    scratch = Path(tempfile.mkdtemp(prefix="ddbg-test."))
    try:
        ctest = Ctest(arguments, scratch)
        labels, expected = ctest.list()
        if any("vm" in names for names in labels.values()):
            ctest.prepare_machines(arguments.build)
        results = ctest.execute() if expected else []
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

    problems, skips, passed = [], [], 0
    for name, outcome, text in results:
        if outcome == "passed":
            passed += 1
        elif outcome == "failed":
            problems.append(name)
        elif not text:
            problems.append(f"{name}: skipped without a reason")
        elif arguments.require_vm and "vm" in labels.get(name, ()):
            problems.append(f"{name}: skipped, but guest tests are required: {text}")
        elif not any(pattern.search(f"{name}: {text}") for pattern in declared):
            problems.append(f"{name}: undeclared skip: {text}")
        else:
            skips.append(f"{name}: {text}")
    for name in (expected - Counter(name for name, _, _ in results)).elements():
        problems.append(f"{name}: not reported by ctest")
    if not expected:
        problems.append("no test was selected")

    print()
    for line in skips:
        print(f"skipped: {line}")
    for line in problems:
        print(f"failed: {line}")
    print(f"{passed} passed, {len(problems)} failed" + (f", {len(skips)} skipped" if skips else ""))
    return 1 if problems or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
