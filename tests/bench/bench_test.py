#!/usr/bin/env python3
"""bench_test.py BUILD: `ddbg latency` counts right and scripts/bench runs; no time is judged, a busy machine passes too."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import bench_library  # noqa: E402

BUILD = Path(sys.argv.pop())
DDBG = BUILD / "dtrace-lite/ddbg/ddbg"
CALLS = 300


def output_of(*command, status=0):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    if done.returncode != status:
        raise AssertionError(f"exit status {done.returncode} instead of {status}\n{done.stdout}\n{done.stderr}")
    return done.stdout + (done.stderr if status else "")


class Latency(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.loop = Path(cls.folder.name) / "loop"
        source = ROOT / "scripts/bench.d/loop.c"
        subprocess.run([os.environ.get("CC", "cc"), "-O1", "-g", "-fPIE", "-pie", "-o", cls.loop, source], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def rows(self, *options):
        report = json.loads(output_of(DDBG, "latency", "--json", *options, self.loop, CALLS))
        self.assertEqual(report["program"], str(self.loop))
        rows = {(row["tracer"].split(",")[0], row["way"]): row for row in report["rows"]}
        for row in report["rows"]:
            self.assertGreaterEqual(row["mean_ns"], 0)
        return rows

    def test_breakpoint_hits_are_the_calls(self):
        rows = self.rows("-n", 1000, "-b", "work")
        for key in (("ddbg", "condition false"), ("ddbg", "stop and resume"), ("ptrace", "stop and resume")):
            self.assertEqual(rows[key]["hits"], CALLS, key)
            self.assertTrue(rows[key]["ended"])

    def test_watchpoint_hits_are_the_stores(self):
        rows = self.rows("-n", 1000, "-w", "word")
        for key in (("ddbg", "condition false"), ("ddbg", "stop and resume"), ("ptrace", "stop and resume")):
            self.assertEqual(rows[key]["hits"], CALLS, key)

    def test_n_bounds_the_stops_and_not_the_conditions(self):
        rows = self.rows("-n", 20, "--against", "none", "-b", "work")
        self.assertEqual(rows["ddbg", "stop and resume"]["hits"], 20)
        self.assertEqual(rows["ddbg", "condition false"]["hits"], CALLS)
        self.assertNotIn(("ptrace", "stop and resume"), rows)

    def test_steps_are_as_many_as_asked_for(self):
        rows = self.rows("-n", 250, "--step")
        self.assertEqual(rows["ddbg", "in the agent"]["hits"], 250)
        self.assertEqual(rows["ptrace", "stop and resume"]["hits"], 250)

    def test_chart_is_well_formed(self):
        chart = Path(self.folder.name) / "chart.svg"
        output_of(DDBG, "latency", "-n", 10, "--svg", chart, "-b", "work", self.loop, CALLS)
        ElementTree.parse(chart)

    def test_mistakes_are_named(self):
        self.assertIn('Function "nowhere" not defined.', output_of(DDBG, "latency", "-b", "nowhere", self.loop, status=1))
        self.assertIn("no option --fast", output_of(DDBG, "latency", "--fast", "-b", "work", self.loop, status=1))
        self.assertIn("What event?", output_of(DDBG, "latency", self.loop, status=1))


class Bench(unittest.TestCase):
    def test_floors_are_measured(self):
        report = json.loads(output_of(ROOT / "scripts/bench", "--build", BUILD, "--quick", "--only", "floors", "--json", "-"))
        floors = {result["name"]: result for result in report["results"]}
        self.assertEqual(set(floors), {"floors.int3", "floors.step", "floors.watch"})
        self.assertIn("mitigations", report["machine"])
        for name in ("floors.int3", "floors.step"):  # watchpoints may be forbidden in a container
            self.assertGreater(floors[name]["median"], 0)
            self.assertEqual(floors[name]["runs"], len(floors[name]["values"]))

    def test_dune_mode_is_measured_where_it_is(self):
        try:
            os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
            status = 0
        except OSError:
            status = 1
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "dune.json"
            shown = output_of(ROOT / "scripts/bench", "dune", "--build", BUILD, "--quick", "--where", "native", "--json", report,
                              status=status)
            places = json.loads(report.read_text())["places"]
        if status:
            self.assertIn("native: unavailable: /dev/kvm does not open here", shown)
            return
        rows = places["native"]["rows"]
        self.assertIn("hit.dune", rows)
        for name, row in rows.items():
            self.assertGreater(row.get("median", 0), 0, f"{name}: {row}")
            self.assertEqual(row["runs"], 3, name)

    def test_library_is_measured_beside_linux_and_ptrace(self):
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "dune.json"
            shown = output_of(ROOT / "scripts/bench", "dune", "--build", BUILD, "--quick", "--where", "library.native", "--json", report)
            columns = json.loads(report.read_text())["library"]["library.native"]["columns"]
        self.assertEqual(set(columns["linux"]), {"getppid", "touch", "walk", "trap", "step", "refused", "appel1", "appel2"})
        self.assertEqual(set(columns["ptrace"]), {"trap", "step", "interposed"})
        for by in ("linux", "ptrace"):
            for name, row in columns[by].items():
                self.assertEqual(len(row["ticks"]), 3, name)
                self.assertGreater(min(row["ticks"]), 0, name)
        for by in ("kmod", "kvm"):
            if "unavailable" in columns[by]:
                self.assertIn(f"unavailable: {columns[by]['unavailable']}", shown)
            else:
                self.assertEqual(set(columns[by]), {row.name for row in bench_library.ROWS})

    def test_targets_of_the_library_are_judged(self):
        def columns(trap):
            return {"ptrace": {"trap": {"ticks": [1000, 10000, 20000]}}, "kmod": {"trap": {"ticks": [1, trap, 9999], "exits": [0, 0, 0]}}}
        target = next(target for target in bench_library.TARGETS if target.row == "trap")
        self.assertEqual(bench_library.judged(target, columns(100), "ticks"), {"kmod": (0.01, True)})
        self.assertEqual(bench_library.judged(target, columns(101), "ticks"), {"kmod": (0.0101, False)})

    def test_a_name_that_is_not_there_is_refused(self):
        self.assertIn("no measure", output_of(ROOT / "scripts/bench", "--build", BUILD, "--only", "nothing", status=2))


if __name__ == "__main__":
    unittest.main()
