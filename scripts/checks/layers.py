#!/usr/bin/env python3
"""The layer check: which folder may include what, and who may name a backend (docs/architecture.md, "Folders and layers")."""

import re

import tree

# Addresses, results, registers: the vocabulary that every user-space folder shares.
VOCABULARY = ("libdune/base", "libdune/arch")

# Diagnostics, the type of what a person typed wrong, are the vocabulary of everything in dtrace-lite.
DIAGNOSTICS = "dtrace-lite/symbols/diagnostic.h"

# Single headers that a folder needs of one that it does not include otherwise.
CONTRACTS = {
    # The shape of the image that these two load.
    "libdune/agent/image.h": ("dtrace-lite/keeper", "libdune/application"),
}

# One row per folder, the innermost row that matches a file counts. A folder may include itself, the vocabulary, and these.
LAYERS = {
    "libdune/include/dune/base": (),  # of the vocabulary what the public headers need
    "libdune/base": ("libdune/include/dune/base",),
    "libdune/arch": ("libdune/base",),
    "libdune/session": (),
    "libdune/backend": ("kmod/uapi", "libdune/session"),  # a probe answers in the session's capability bits
    "libdune/process": ("libdune/backend",),
    "libdune/agent": ("libdune",),
    "libdune/include/dune": (),
    "libdune/application": ("libdune/include/dune", "libdune/backend", "libdune/session"),
    "libdune/examples": ("libdune/include/dune",),
    "disasm": (),
    "dtrace-lite/keeper": ("libdune/session", "libdune/backend"),  # the keeper probes and chooses
    "dtrace-lite/baseline": (),
    "dtrace-lite/symbols": (),
    "dtrace-lite/expr": ("dtrace-lite/symbols", "disasm"),
    "dtrace-lite/engine": ("dtrace-lite/keeper", "dtrace-lite/symbols", "dtrace-lite/expr", "disasm", "libdune/session"),
    "dtrace-lite/trace": ("dtrace-lite/engine", "dtrace-lite/expr"),
    # Printing values, types and instructions is the front end's work: it takes our own headers for that, and none of the
    # libraries behind them (RESERVED_HEADERS).
    "dtrace-lite/ddbg": ("dtrace-lite/engine", "dtrace-lite/trace", "dtrace-lite/baseline", "dtrace-lite/expr",
                         "dtrace-lite/symbols", "disasm"),
    "dtrace-lite/rsp": ("dtrace-lite/engine",),
    "dtrace-lite/dap": ("dtrace-lite/engine",),
}

# Installed: nothing of the checkout is beside them then.
PUBLIC = "libdune/include/dune"

# Headers of a library, and the only folders that include them.
RESERVED_HEADERS = (
    (r"(capstone|Zydis|Zycore|asmjit)(/|\.h)", ("disasm",)),
    (r"(libelf|gelf|libdw|libdwfl|dwarf)\.h|elfutils/", ("dtrace-lite/symbols",)),
    (r"sys/ptrace\.h|linux/ptrace\.h", ("dtrace-lite/keeper", "dtrace-lite/baseline")),
    (r"readline(/|\.h)", ("dtrace-lite/ddbg",)),
    (r"linux/kvm\.h", ("libdune/backend", "libdune/process")),
)

# What runs without a libc includes only what the language and the kernel define. GCC compiles any header with -ffreestanding,
# so this list is the check.
FREESTANDING = ("libdune/include/dune/base", "libdune/base", "libdune/arch", "libdune/session", "libdune/backend", "libdune/process",
                "libdune/agent")
FREESTANDING_HEADER = re.compile(
    r"(array|atomic|bit|compare|concepts|cfloat|climits|cstdarg|cstddef|cstdint|initializer_list|limits|new|optional"
    r"|source_location|span|tuple|type_traits|utility|version|(cpuid|immintrin|x86intrin)\.h|elf\.h|(linux|asm|asm-generic|dune/base)/.*)")
# Their hosted halves: what ends in _hosted, the wrappers of descriptors and mappings, programs that print assembly offsets.
HOSTED_FILE = re.compile(r".*_hosted\.(h|cpp)|libdune/base/file\.h|.*/offsets\.cpp")

# Words in the text (comments apart), and the only folders that use them.
RESERVED_WORDS = (
    (r"\bptrace\s*\(|\bPTRACE_[A-Z]+\b|\b__NR_ptrace\b|\bSYS_ptrace\b", "ptrace",
     ("dtrace-lite/keeper", "dtrace-lite/baseline")),
)

# Above keeper/ a backend is a set of capabilities and a name that came from below.
NAMELESS = ("dtrace-lite/engine", "dtrace-lite/expr", "dtrace-lite/trace", "dtrace-lite/ddbg", "dtrace-lite/rsp",
            "dtrace-lite/dap")
BACKEND_NAME = re.compile(
    r"\bBackend\w*::k(Signal|Kvm|Kmod)\b|\bkBackend(Signal|Kvm|Kmod)\b|\bk(Signal|Kvm|Kmod)Backend\b|\bk(Kvm|Kmod)\b"
    r"|\"(signal|kvm|kmod)\"|\"[^\"\n]*(/dev/kvm|/dev/dune|\b(kvm|kmod)\b)[^\"\n]*\"")
# `handle SIG`, `info signals`: the word alone is also a command's, so a file that needs it there has a row here.
NAMES_ALLOWED = {
    # path: regex of the lines that may
    "dtrace-lite/ddbg/command_table.cpp": r'^\s*\{"signal", "',
}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def inside(path, folder):
    return path == folder or path.startswith(folder + "/")


def layer_of(path):
    rows = [folder for folder in LAYERS if inside(path, folder)]
    return max(rows, key=len) if rows else None


def check_includes(root, path, text):
    layer = layer_of(path)
    allowed = (layer, *VOCABULARY[: 0 if layer == "libdune/base" else 1 if layer == "libdune/arch" else 2], *LAYERS[layer])
    if layer.startswith(PUBLIC) or layer == "libdune/examples":
        allowed = (layer, *LAYERS[layer])
    for match in INCLUDE.finditer(text):
        place = f"{path}:{text.count(chr(10), 0, match.start()) + 1}"
        quoted, angled = match.groups()
        header = quoted or angled
        if quoted and layer.startswith(PUBLIC):
            yield f"{place}: a public header includes <dune/...>, as it does where it is installed"
        elif quoted:
            if re.fullmatch(r"\w+_offsets\.h", header):
                continue  # generated for assembly into the build folder
            if header == DIAGNOSTICS and path.startswith("dtrace-lite/"):
                continue
            if layer in CONTRACTS.get(header, ()):
                continue
            if not header.startswith(("kmod/", "libdune/", "disasm/", "dtrace-lite/")):
                yield f"{place}: {header} is not rooted at the checkout"
            elif not any(inside(header, folder) for folder in allowed):
                yield f"{place}: {layer} must not include {header}"
        elif angled.startswith("dune/") and not any(inside(f"libdune/include/{angled}", folder) for folder in allowed):
            yield f"{place}: {layer} must not include {header}"
        if angled and layer in FREESTANDING and not (FREESTANDING_HEADER.fullmatch(header) or HOSTED_FILE.fullmatch(path)):
            yield f"{place}: {layer} runs without a libc and must not include <{header}>"
        for pattern, owners in RESERVED_HEADERS:
            if re.match(pattern, header) and layer not in owners:
                yield f"{place}: only {' and '.join(owners)} may include {header}"


def check_words(path, text):
    layer = layer_of(path)
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, word, owners in RESERVED_WORDS:
            if layer not in owners and re.search(pattern, line):
                yield f"{path}:{number}: only {' and '.join(owners)} may use {word}"
        if layer in NAMELESS and BACKEND_NAME.search(line):
            exception = NAMES_ALLOWED.get(path)
            if not exception or not re.search(exception, line):
                yield f"{path}:{number}: {layer} names a backend; ask for a capability"


def check(root):
    findings = []
    for relative in tree.files(root, tree.CXX_SUFFIXES, ("libdune", "disasm", "dtrace-lite")):
        path = str(relative)
        if layer_of(path) is None:
            findings.append(f"{path}:1: no layer has this file; scripts/checks/layers.py has one row per folder")
            continue
        text = tree.without_comments((root / relative).read_text(errors="replace"))
        findings += check_includes(root, path, text)
        findings += check_words(path, text)
    return findings


def self_test(root):
    tree.write_tree(root, {
        "libdune/base/good.h": "#include <cstdint>\n#include \"libdune/base/types.h\"\n",
        "libdune/base/result.h": '#include "libdune/include/dune/base/result.h"\n',
        "libdune/include/dune/base/result.h": "#include <dune/base/assert.h>\n#include <string>\n",
        "libdune/include/dune/base/high.h": "#include <dune/enter.h>\n",
        "libdune/include/dune/enter.h": '#include <dune/base/result.h>\n#include "libdune/base/result.h"\n',
        "libdune/base/up.h": '#include "libdune/arch/registers.h"\n',
        "libdune/arch/good.h": '#include "libdune/base/types.h"\n',
        "libdune/session/layout.h": '// #include "dtrace-lite/engine/x.h"\n#include "libdune/arch/registers.h"\n',
        "libdune/backend/kvm.cpp": '#include <linux/kvm.h>\n#include "kmod/uapi/dune.h"\n#include "kmod/vm.h"\n',
        "libdune/agent/good.S": '#include "libdune/process/process.h"\n',
        "libdune/examples/gc.cpp": '#include <dune/dune.h>\n#include "libdune/process/map.h"\n',
        "libdune/newcomer/x.h": "",
        "disasm/decode.cpp": "#include <capstone/capstone.h>\n#include <Zydis/Zydis.h>\n#include <asmjit/x86.h>\n",
        "disasm/up.cpp": '#include "dtrace-lite/expr/x.h"\n',
        "dtrace-lite/keeper/keeper.cpp": "#include <sys/ptrace.h>\nvoid f() { ptrace(PTRACE_CONT, 1, 0, 0); }\n",
        "dtrace-lite/symbols/elf.cpp": "#include <libelf.h>\n#include <elfutils/libdw.h>\n",
        "dtrace-lite/expr/compile.cpp": "#include <asmjit/x86.h>\n",
        "dtrace-lite/engine/a.cpp": '#include "dtrace-lite/ddbg/command.h"\n#include "stops.h"\n#include <gelf.h>\n'
                                    "int x = 1'000; /* ptrace(\n */ long y = ptrace(0);\n",
        "dtrace-lite/engine/b.cpp": 'if (kind == BackendKind::kSignal) f();\n// kvm is slow\nf("kvm");\nf("needs /dev/kvm");\n'
                                    "reason = StopReason::kSignal;\ncase kKmod:\n",
        "dtrace-lite/ddbg/main.cpp": '#include <readline/readline.h>\n#include "dtrace-lite/engine/engine.h"\n',
        "dtrace-lite/trace/run.cpp": "#include <readline/history.h>\n",
        "dtrace-lite/keeper/client.h": '#include "dtrace-lite/symbols/diagnostic.h"\n#include "dtrace-lite/symbols/elf.h"\n',
        "dtrace-lite/keeper/inject.cpp": '#include "libdune/agent/image.h"\n#include "libdune/agent/agent.h"\n',
        "dtrace-lite/engine/kick.cpp": '#include "libdune/agent/image.h"\n',
        "dtrace-lite/ddbg/command_table.cpp": '    {"signal", "", f},\nf("signal");\n',
        "libdune/agent/heap.cpp": "#include <atomic>\n#include <linux/futex.h>\n#include <vector>\n#include <unistd.h>\n",
        "libdune/base/assert_hosted.cpp": "#include <cstdio>\n",
        "libdune/agent/entry.S": '#include "agent_offsets.h"\n#include "offsets.h"\n',
    })
    tree.expect(check(root), [
        ("libdune/include/dune/base/result.h:2", "without a libc"),
        ("libdune/include/dune/base/high.h:1", "must not include dune/enter.h"),
        ("libdune/include/dune/base/high.h:1", "without a libc"),
        ("libdune/include/dune/enter.h:2", "a public header"),
        ("libdune/base/up.h:1", "must not include libdune/arch"),
        ("libdune/backend/kvm.cpp:3", "must not include kmod/vm.h"),
        ("libdune/examples/gc.cpp:2", "must not include libdune/process"),
        ("libdune/newcomer/x.h:1", "no layer"),
        ("disasm/up.cpp:1", "must not include dtrace-lite/expr"),
        ("dtrace-lite/expr/compile.cpp:1", "only disasm"),
        ("dtrace-lite/engine/a.cpp:1", "must not include dtrace-lite/ddbg"),
        ("dtrace-lite/engine/a.cpp:2", "not rooted"),
        ("dtrace-lite/engine/a.cpp:3", "only dtrace-lite/symbols"),
        ("dtrace-lite/engine/a.cpp:5", "may use ptrace"),
        ("dtrace-lite/engine/b.cpp:1", "names a backend"),
        ("dtrace-lite/engine/b.cpp:3", "names a backend"),
        ("dtrace-lite/engine/b.cpp:4", "names a backend"),
        ("dtrace-lite/engine/b.cpp:6", "names a backend"),
        ("dtrace-lite/trace/run.cpp:1", "only dtrace-lite/ddbg"),
        ("dtrace-lite/keeper/client.h:2", "must not include dtrace-lite/symbols/elf.h"),
        ("dtrace-lite/keeper/inject.cpp:2", "must not include libdune/agent/agent.h"),
        ("dtrace-lite/engine/kick.cpp:1", "must not include libdune/agent/image.h"),
        ("dtrace-lite/ddbg/command_table.cpp:2", "names a backend"),
        ("libdune/agent/heap.cpp:3", "without a libc"),
        ("libdune/agent/heap.cpp:4", "without a libc"),
        ("libdune/agent/entry.S:2", "not rooted"),
    ])


if __name__ == "__main__":
    tree.main(check, self_test)
