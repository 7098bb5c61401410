"""Candidates for breakpoints: the functions of an ELF file, also of a stripped one, and instruction boundaries in them."""
import re
import subprocess


def text_of(*command):
    return subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace")


def is_position_independent(path):
    return "DYN (" in text_of("readelf", "-hW", path)


def entry_point(path):
    return int(re.search(r"Entry point address:\s+0x([0-9a-f]+)", text_of("readelf", "-hW", path))[1], 16)


def function_named(path, pattern):
    for line in text_of("readelf", "-sW", path).splitlines():
        field = line.split()
        if len(field) >= 8 and field[3] == "FUNC" and re.search(pattern, field[7]):
            return int(field[1], 16)
    raise ValueError(f"{path}: no function {pattern}")


def functions(path):
    """{link-time address: size}: .symtab or .dynsym, and where neither says much the ranges of .eh_frame."""
    found = {}
    for line in text_of("readelf", "-sW", path).splitlines():
        field = line.split()
        # Num: Value Size Type Bind Vis Ndx Name
        if len(field) >= 8 and field[3] == "FUNC" and field[6] != "UND":
            size = int(field[2], 0)
            if size >= 4:
                found[int(field[1], 16)] = size
    if len(found) >= 100:
        return found
    for begin, end in re.findall(r"^[0-9a-f]+ .* FDE .*pc=([0-9a-f]+)\.\.([0-9a-f]+)",
                                 text_of("readelf", "--debug-dump=frames-interp", path), re.M):
        begin, end = int(begin, 16), int(end, 16)
        # .plt has one range of its own: its stubs are not functions.
        if 4 <= end - begin and begin not in found:
            found[begin] = end - begin
    plt = [(int(a, 16), int(s, 16)) for a, s in
           re.findall(r"\.plt\S*\s+PROGBITS\s+([0-9a-f]+) [0-9a-f]+ ([0-9a-f]+)", text_of("readelf", "-SW", path))]
    return {a: s for a, s in found.items() if not any(p <= a < p + n for p, n in plt)}


LONGEST = 15  # bytes of an instruction


def instructions(path, begin, size):
    """Link-time addresses of the instructions that begin in the first `size` bytes of a function, by objdump. Without repeated
    string instructions: gdb steps over a breakpoint on one, so it counts every iteration, and ddbg counts the instruction."""
    # objdump shows an instruction that its stop address cuts as bytes and shorter instructions.
    listing = text_of("objdump", "-d", "-z", "--no-show-raw-insn", f"--start-address={begin:#x}",
                      f"--stop-address={begin + size + LONGEST:#x}", path)
    found = [int(a, 16) for a in re.findall(r"^\s*([0-9a-f]+):\t(?!\(bad\)|\.byte|rep)", listing, re.M)]
    return [a for a in found if a < begin + size]
