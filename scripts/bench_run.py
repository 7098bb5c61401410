#!/usr/bin/env python3
"""Runs the measures of bench_measures.py in one go and prints a table; use scripts/bench, which builds first."""

import argparse
import glob
import json
import os
import platform
import statistics
import sys
from pathlib import Path

import bench_chart
from bench_measures import MEASURES, TARGETS, Bench, Unavailable


def machine():
    """Everything that the numbers depend on and that a reader cannot see from them."""
    info = Path("/proc/cpuinfo").read_text()

    def field(name):
        return next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith(name)), "unknown")

    mitigations = {}
    for path in sorted(glob.glob("/sys/devices/system/cpu/vulnerabilities/*")):
        state = Path(path).read_text().strip()
        if state != "Not affected":
            mitigations[os.path.basename(path)] = state
    command_line = Path("/proc/cmdline").read_text().split()
    return {
        "cpu": f"{os.cpu_count()} x {field('model name')}",
        "hypervisor": "yes" if " hypervisor" in field("flags") else "no",
        "kernel": f"{platform.release()} {platform.version()}",
        "mitigations": "off" if "mitigations=off" in command_line else "on",
        "vulnerabilities": mitigations,
        "load": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "pinning": "tracer and target pinned where a measure is of one or two threads",
    }


def shown(value, unit):
    if unit == "bytes":
        return f"{value / 2**20:.1f} MiB"
    for limit, divisor, suffix in ((1e3, 1, "ns"), (1e6, 1e3, "us"), (1e9, 1e6, "ms")):
        if value < limit:
            return f"{value / divisor:.2f} {suffix}"
    return f"{value / 1e9:.2f} s"


def summary(measure, values):
    return {"name": measure.name, "title": measure.title, "unit": measure.unit, "median": statistics.median(values),
            "least": min(values), "most": max(values), "runs": len(values), "values": values}


def judged(results):
    by_name = {r["name"]: r for r in results if "median" in r}
    for target in TARGETS:
        against = [by_name[name]["median"] for name in target.against if name in by_name]
        if target.measure not in by_name or not against:
            continue
        ratio = by_name[target.measure]["median"] / min(against)
        yield {"target": target.text, "ratio": ratio, "at_most": target.at_most, "met": ratio <= target.at_most}


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures ddbg against its floors and its peers.")
    parser.add_argument("--quick", action="store_true", help="few events and runs: whether it works, not how fast it is")
    parser.add_argument("--only", action="append", default=[], metavar="NAME",
                        help="only measures whose name begins so; may be given many times")
    parser.add_argument("--json", metavar="FILE", help="write the results there; - is standard output, without the table")
    parser.add_argument("--svg", metavar="FILE", help="write a chart there")
    parser.add_argument("--build", type=Path, help="measure this build folder instead of building")
    parser.add_argument("--list", action="store_true", help="print the names of the measures")
    arguments = parser.parse_args()
    if arguments.list:
        for measure in MEASURES:
            print(f"{measure.name:<28} {measure.title}")
        return 0
    wanted = [m for m in MEASURES if not arguments.only or any(m.name.startswith(name) for name in arguments.only)]
    if not wanted:
        parser.error("no measure has such a name; --list prints them")

    say = (lambda *_, **__: None) if arguments.json == "-" else print
    described = machine()
    say(f"{described['cpu']}{' (virtual machine)' if described['hypervisor'] == 'yes' else ''}, Linux {described['kernel']}")
    say(f"mitigations {described['mitigations']}; load average {described['load']}")
    for name, state in described["vulnerabilities"].items():
        say(f"  {name}: {state}")
    say(f"\n{'':<50} {'median':>11} {'least':>11} {'most':>11}  runs")
    results = []
    bench = Bench(arguments.build, arguments.quick)
    try:
        for measure in wanted:
            say(f"{measure.title:<50} ", end="", flush=True)
            try:
                result = summary(measure, measure.run(bench))
                say(" ".join(f"{shown(result[key], measure.unit):>11}" for key in ("median", "least", "most")),
                    f"{result['runs']:>5}")
            except Unavailable as reason:
                result = {"name": measure.name, "title": measure.title, "unavailable": str(reason)}
                say(f"unavailable: {reason}")
            results.append(result)
    finally:
        bench.close()
    described["load_at_end"] = " ".join(f"{value:.2f}" for value in os.getloadavg())

    verdicts = list(judged(results))
    if verdicts:
        say(f"\n{'target':<58} {'ratio':>8} {'at most':>8}")
    for v in verdicts:
        say(f"{v['target']:<58} {v['ratio']:>8.2f} {v['at_most']:>8.2f}  {'met' if v['met'] else 'missed'}")
    say(f"\nload average at the end {described['load_at_end']}")

    everything = {"machine": described, "quick": arguments.quick, "results": results, "targets": verdicts}
    if arguments.json == "-":
        json.dump(everything, sys.stdout, indent=2)
        print()
    elif arguments.json:
        Path(arguments.json).write_text(json.dumps(everything, indent=2) + "\n")
    if arguments.svg:
        Path(arguments.svg).write_text(bench_chart.svg(described, [r for r in results if r.get("unit") == "ns"]))
    return 0 if any("median" in r for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
