#!/usr/bin/env python3
"""Looks at the linked agent: it is mapped into a stranger's process as it is, by a loader that only copies segments, and
runs where the program's vector state is live. So: no undefined symbol, no relocation left, no interpreter or dynamic
section, no segment both writable and executable, no vector or x87 instruction, and no more bytes than the limit."""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

VECTOR_OPERAND = re.compile(r"%([xyz]mm\d+|mm[0-7]|st\b|k[0-7]\b)")
# Vector and x87 mnemonics without such an operand. The save and restore instructions are the point of having none of the rest.
VECTOR_MNEMONIC = re.compile(r"\b(vzero(upper|all)|v?(ldmxcsr|stmxcsr)|emms|fwait|f(ld|st|ist|ild|bld|bst|add|sub|mul|div|com|"
                             r"n?init|n?clex|n?stenv|n?save|rstor|ucom|chs|abs|sqrt|rndint|scale|sin|cos|ptan|patan|prem|"
                             r"xch|xtract|yl2x|2xm1|tst|xam|n?op|free|incstp|decstp|cmov|iadd|isub|imul|idiv|icom)\w*)\b")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(.*)$")


def tool(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}).stdout


def undefined_symbols(image):
    for line in tool("readelf", "-sW", image).splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[0].rstrip(":").isdigit() and fields[6] == "UND" and fields[0] != "0:":
            yield f"undefined symbol {fields[7]}"


def relocations(image):
    out = tool("readelf", "-rW", image)
    if "There are no relocations in this file" not in out:
        count = sum(1 for line in out.splitlines() if re.match(r"[0-9a-f]{16} ", line))
        yield f"{count} relocations are left; the first: " + next(
            (line for line in out.splitlines() if re.match(r"[0-9a-f]{16} ", line)), "?")


def segments(image):
    """Findings about segments, and the size of what they map."""
    findings, size = [], 0
    for line in tool("readelf", "-lW", image).splitlines():
        match = re.match(r"\s+(\w+)\s+0x\w+ 0x\w+ 0x\w+ 0x(\w+) 0x(\w+) ([RWE ]{3}) ", line)
        if not match:
            continue
        kind, _, memory_size, flags = match.groups()
        if kind == "LOAD":
            size += int(memory_size, 16)
            if "W" in flags and "E" in flags:
                findings.append(f"a segment is writable and executable: {line.strip()}")
        elif kind in ("INTERP", "DYNAMIC"):
            findings.append(f"a {kind} segment: nobody in the target will read it")
        elif kind == "GNU_STACK" and "E" in flags:
            findings.append("asks for an executable stack")
    if size == 0:
        findings.append("no loadable segment")
    return findings, size


def vector_instructions(image):
    out = tool("objdump", "-d", "--no-show-raw-insn", image)
    function, seen = "?", 0
    for line in out.splitlines():
        if line.endswith(">:"):
            function = line.split("<")[1][:-2]
        match = INSTRUCTION.match(line)
        if not match:
            continue
        seen += 1
        address, text = match.groups()
        text = text.split("#")[0].split("<")[0]
        if VECTOR_OPERAND.search(text) or VECTOR_MNEMONIC.match(text):
            yield f"vector or x87 instruction in {function} at {address}: {text.strip()}"
    if not seen:
        yield "objdump shows no instruction at all"


def check(image, limit):
    image = str(image)
    findings = [*undefined_symbols(image), *relocations(image), *vector_instructions(image)]
    about_segments, size = segments(image)
    findings += about_segments
    if size > limit:
        findings.append(f"maps {size} bytes, the limit is {limit}")
    return findings, size


def self_test(folder):
    """Links images with one fault each."""
    clean = ("extern \"C\" void _start() { asm volatile(\"xsave64 (%%rsp)\\n\\tverw %%ax\\n\\tfxsave64 (%%rsp)\" ::: "
             "\"memory\"); }\n")
    link = ["-Wl,--build-id=none", "-Wl,-z,noexecstack", "-static"]
    cases = {
        "clean": (clean, link, None),
        "undefined": ("extern int gone(); extern \"C\" void _start() { gone(); }\n",
                      ["-shared", "-fPIC"], "undefined symbol"),
        "relocation": ("int x; int* p = &x; extern \"C\" int _start() { return *p; }\n", [*link, "-Wl,--emit-relocs"],
                       "relocations are left"),
        "dynamic": (clean, ["-Wl,--build-id=none", "-pie", "-fPIE"], "DYNAMIC"),
        "vector": ("extern \"C\" void _start() { asm volatile(\"movaps %xmm0, (%rsp)\"); }\n", link, "vector or x87"),
        "x87": ("extern \"C\" void _start() { asm volatile(\"fldz\"); }\n", link, "vector or x87"),
        "upper": ("extern \"C\" void _start() { asm volatile(\"vzeroupper\"); }\n", link, "vector or x87"),
        "writable": ("int x = 1; extern \"C\" int _start() { return x; }\n", [*link, "-Wl,-N"], "writable and executable"),
        "large": ("char x[1 << 20]; extern \"C\" char _start() { return x[0]; }\n", link, "the limit is"),
        "stack": (clean, ["-Wl,--build-id=none", "-Wl,-z,execstack", "-static"], "executable stack"),
    }
    for name, (source, options, expected) in cases.items():
        image = folder / name
        (folder / "case.cpp").write_text(source)
        subprocess.run(["g++", "-O1", "-ffreestanding", "-nostdlib", "-fno-asynchronous-unwind-tables", "-fno-pie", "-no-pie",
                        *options, "-o", image, folder / "case.cpp"], check=True, capture_output=True)
        findings, _ = check(image, 1 << 19)
        if expected is None and findings:
            sys.exit(f"self-test: {name}: unexpected findings {findings}")
        if expected is not None and not any(expected in finding for finding in findings):
            sys.exit(f"self-test: {name}: expected {expected!r}, got {findings}")
    print("self-test passed")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--limit", type=int, default=256 * 1024, help="bytes that the image may map")
    parser.add_argument("image", nargs="?", type=Path)
    arguments = parser.parse_args()
    if arguments.self_test:
        with tempfile.TemporaryDirectory() as folder:
            self_test(Path(folder))
        return 0
    if not arguments.image:
        parser.error("which image?")
    findings, size = check(arguments.image, arguments.limit)
    print(f"{arguments.image}: maps {size} bytes")
    print("\n".join(findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
