#!/usr/bin/env python3
"""libdune and ddbg are installed into a folder of the test's; what is there is enough for a project that knows nothing else."""
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

CMAKE, CXX, BUILD = os.environ["CMAKE"], os.environ["CXX"], os.environ["DDBG_BUILD"]
SOURCE, LIBRARIES = Path(os.environ["DDBG_SOURCE"]), os.environ["LIBRARY_FOLDER"]
HELLO = SOURCE / "libdune/examples/hello"


def run(*command, **keywords):
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False, **keywords)


class Installed(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="ddbg install ")
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)
        self.prefix = self.scratch / "there"

    def done(self, *command, **keywords):
        result = run(*command, **keywords)
        self.assertEqual(result.returncode, 0, f"{command}:\n{result.stdout}")
        return result.stdout

    def install(self, component, prefix=None, **environment):
        self.done(CMAKE, "--install", BUILD, "--component", component, "--prefix", prefix or self.prefix,
                  env=dict(os.environ, **environment))

    def pkg_config(self, *options):
        folder = self.prefix / LIBRARIES / "pkgconfig"
        return shlex.split(self.done("pkg-config", *options, "dune", env=dict(os.environ, PKG_CONFIG_PATH=str(folder))))


class Library(Installed):
    def setUp(self):
        super().setUp()
        self.install("libdune")
        self.project = self.scratch / "project"

    def check_program(self, path, needs_library):
        """It starts, finds its library, and is in Dune mode or says why not."""
        needed = self.done("readelf", "-d", path)
        self.assertEqual("libdune.so." in needed, needs_library, needed)
        ran = run(path, env=dict(os.environ, LD_LIBRARY_PATH=str(self.prefix / LIBRARIES)))
        self.assertIn(ran.returncode, (0, 77), ran.stdout)
        self.assertRegex(ran.stdout, r"\Ahello: cannot enter Dune mode: \S.*\n\Z" if ran.returncode else "\nthread: in ring 0")

    def test_find_package(self):
        for library, options in ("dune::dune", []), ("dune::dune_static", ["-DCMAKE_EXE_LINKER_FLAGS=-static"]):
            with self.subTest(library):
                shutil.rmtree(self.project, ignore_errors=True)
                shutil.copytree(HELLO, self.project)
                lists = self.project / "CMakeLists.txt"
                lists.write_text(lists.read_text().replace("PRIVATE dune::dune)", f"PRIVATE {library})"))
                self.done(CMAKE, "-S", self.project, "-B", self.project / "build", f"-DCMAKE_PREFIX_PATH={self.prefix}",
                          f"-DCMAKE_CXX_COMPILER={CXX}", *options)
                self.done(CMAKE, "--build", self.project / "build")
                self.check_program(self.project / "build/hello", library == "dune::dune")

    def test_pkg_config(self):
        self.project.mkdir()
        for static in [], ["-static"]:
            with self.subTest(static):
                flags = self.pkg_config("--cflags", "--libs", *(["--static"] if static else []))
                self.done(CXX, "-std=c++20", *static, HELLO / "hello.cpp", *flags, "-o", self.project / "hello")
                self.check_program(self.project / "hello", not static)

    def test_headers_need_nothing_else(self):
        headers = sorted(path.relative_to(self.prefix / "include") for path in self.prefix.glob("include/dune/**/*.h"))
        self.assertGreater(len(headers), 4)
        self.project.mkdir()
        for header in headers:
            (self.project / "one.cpp").write_text(f"#include <{header}>\n#include <{header}>\n")
            opened = self.done(CXX, "-std=c++20", "-Wall", "-Wextra", "-Werror", "-M", self.project / "one.cpp", *self.pkg_config("--cflags"))
            self.assertNotIn(str(SOURCE), opened)
            self.done(CXX, "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", self.project / "one.cpp",
                      *self.pkg_config("--cflags"))
        for path in [p for p in self.prefix.rglob("*") if p.suffix in (".h", ".cmake", ".pc")]:
            self.assertNotIn(str(SOURCE), path.read_text(), path)

    def visible(self, path, table, kind, binding):
        """Demangled names with their parameters, of what is visible outside of what is linked together."""
        symbols = self.done("readelf", "-W", "--demangle", table, path)
        return set(re.findall(rf"^ *\d+: +[0-9a-f]+ +\d+ {kind} +{binding} +DEFAULT +\d+ (.*?)(?:@@.*)?$", symbols, re.M))

    def test_shared_library_shows_what_the_headers_declare(self):
        folder = self.prefix / LIBRARIES
        # Whatever is in namespace dune itself, or in a class there, is public; what is not has a namespace of its own.
        public = {name for name in self.visible(folder / "libdune.a", "--syms", "FUNC", "GLOBAL")
                  if re.match(r"dune::(detail::|[A-Z]\w*::)*(operator\W+|~?\w+)\(", name)}
        self.assertIn("dune::enter(dune::EnterOptions const&)", public)
        self.assertEqual(self.visible(folder / "libdune.so", "--dyn-syms", r"\w+", r"\w+"), public | {"dune_assert_failed"})
        self.assertRegex(self.done("readelf", "-d", folder / "libdune.so"), r"soname: \[libdune\.so\.\d+\.\d+\]")

    def test_destdir(self):
        self.install("libdune", "/usr/local", DESTDIR=str(self.scratch / "image"))
        image = self.scratch / "image/usr/local"
        self.assertTrue((image / "include/dune/enter.h").is_file())
        files = sorted(str(path.relative_to(image)) for path in image.rglob("*") if path.is_file())
        self.assertEqual(files, sorted(str(path.relative_to(self.prefix)) for path in self.prefix.rglob("*") if path.is_file()))


class Debugger(Installed):
    def test_finds_its_keeper(self):
        self.install("ddbg")
        program = Path(os.environ["E2E_PROGRAMS"]) / "steps"
        out = self.done(self.prefix / "bin/ddbg", "-q", "-nx", "-batch", "-ex", "break main", "-ex", "run", "-ex", "continue", "--args", program)
        self.assertRegex(out, r"Breakpoint 1, main \(")
        self.assertRegex(out, r"\[Inferior 1 \(process \d+\) exited")


if __name__ == "__main__":
    if not os.access(BUILD, os.W_OK):
        print("skipped: cmake --install writes what it has done into the build tree, which this user may not")
        sys.exit(77)
    unittest.main()
