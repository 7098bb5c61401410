#!/usr/bin/env python3
"""Looks at the linked agent: it is mapped into a stranger's process as it is, at any address, by a loader that only copies it,
and runs where the program's vector state is live. So: no undefined symbol, no address in need of relocation, no interpreter or dynamic
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
# Relocations relative to their own place; the GOT's are turned into such ones by the linker, or leave a .got.
RELATIVE = {f"R_X86_64_{kind}" for kind in ("NONE", "PC8", "PC16", "PC32", "PC64", "PLT32", "GOTPCREL", "GOTPCRELX",
                                            "REX_GOTPCRELX")}
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(.*)$")


def tool(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}).stdout


def undefined_symbols(image):
    for line in tool("readelf", "-sW", image).splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[0].rstrip(":").isdigit() and fields[6] == "UND" and fields[0] != "0:":
            yield f"undefined symbol {fields[7]}"


def relocations(image):
    """The image is linked at 0 and mapped anywhere, so whatever refers to an address has to be relative to itself. Only the
    header holds offsets from the image's start. --emit-relocs lets us see which references there were."""
    loaded = set()
    for line in tool("readelf", "-SW", image).splitlines():
        match = re.match(r"\s*\[ *\d+\] (\S+)\s+(\S+)\s+\w{16} \w+ (\w+) \w+ +(\w*)", line)
        if match and "A" in match[4]:
            loaded.add(match[1])
            if match[1].startswith(".got") and int(match[3], 16):
                yield f"{match[1]} holds addresses that nobody relocates"
    section, seen = None, False
    for line in tool("readelf", "-rW", image).splitlines():
        heading = re.match(r"Relocation section '\.rel[ar]?(\S*)'", line)
        if heading:
            section = heading[1]
            if section in (".dyn", ".plt", ".relr.dyn"):
                yield f"dynamic relocations in .rela{section}: nobody in the target will apply them"
        entry = re.match(r"[0-9a-f]{16} +[0-9a-f]{16} (R_X86_64_\w+) +(.*)", line)
        if entry and section in loaded:
            seen = True
            if section != ".header" and entry[1] not in RELATIVE:
                yield f"{section} at {line[:16]} holds an absolute address: {entry[1]} {entry[2].split(' ', 1)[-1].strip()}"
    if not seen:
        yield "no relocation was kept (--emit-relocs), so absolute addresses cannot be seen"


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
    call = "extern \"C\" void helper() { asm(\"\"); }\n"
    clean = (call + "asm(\".section .header, \\\"a\\\"\\n.quad _start\\n.text\");\n"
             "extern \"C\" void _start() { helper(); asm(\"xsave64 (%rsp)\\n verw %ax\\n fxsave64 (%rsp)\"); }\n")
    start = "extern \"C\" void helper(); extern \"C\" void _start() { helper(); asm(\"BODY\"); }\n" + call
    static = ["-static", "-Wl,-z,noexecstack"]
    link = [*static, "-Wl,--emit-relocs"]
    cases = {
        "clean": (clean, link, None),
        "blind": (clean, static, "no relocation was kept"),
        "undefined": ("extern int gone(); extern \"C\" void _start() { gone(); }\n", ["-shared", "-fPIC"], "undefined symbol"),
        "absolute": ("int x; int* p = &x; extern \"C\" int _start() { return *p; }\n", link, "absolute address: R_X86_64_64"),
        "got": (start.replace("BODY", "push helper@GOTPCREL(%rip)"), link, ".got holds addresses"),
        "dynamic": ("int x; int* p = &x; extern \"C\" int _start() { return *p; }\n", ["-pie", "-fPIE"], "dynamic relocations"),
        "interpreter": (clean, ["-pie", "-fPIE"], "DYNAMIC"),
        "vector": (start.replace("BODY", "movaps %xmm0, (%rsp)"), link, "vector or x87"),
        "mask": (start.replace("BODY", "kmovd %eax, %k1"), link, "vector or x87"),
        "x87": (start.replace("BODY", "fldz"), link, "vector or x87"),
        "upper": (start.replace("BODY", "vzeroupper"), link, "vector or x87"),
        "writable": ("int x = 1; extern \"C\" int _start() { return x; }\n", [*link, "-Wl,-N"], "writable and executable"),
        "large": ("char x[1 << 20]; extern \"C\" char _start() { return x[0]; }\n", link, "the limit is"),
        "stack": (clean, ["-static", "-Wl,--emit-relocs", "-Wl,-z,execstack"], "executable stack"),
    }
    for name, (source, options, expected) in cases.items():
        image = folder / name
        (folder / "case.cpp").write_text(source)
        subprocess.run(["g++", "-O1", "-ffreestanding", "-nostdlib", "-fno-asynchronous-unwind-tables", "-fno-pie", "-no-pie",
                        "-Wl,--build-id=none", *options, "-o", image, folder / "case.cpp"], check=True, capture_output=True)
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
