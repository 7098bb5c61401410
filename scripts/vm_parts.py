"""What a machine of scripts/vm is made of: a Debian kernel and its modules, busybox, our init, and for one Bochs and our loader.
Packages are downloaded with apt and unpacked, never installed; what was made of them stays in the cache."""

import contextlib
import fcntl
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

# Series -> the names its packages have in Debian.
KERNELS = {
    "6.1": r"^linux-image-6\.1\.[0-9.]+-[0-9]+-cloud-amd64-unsigned$",
    "6.12": r"^linux-image-6\.12\.[0-9.]+\+deb[0-9]+-cloud-amd64-unsigned$",
}
# The same for one that is built here from Debian's source, with vm.d/debug.config: KASAN, lockdep and kmemleak. Of 6.12, whose locks and
# page tables say more of how they are to be used than those of 6.1, and which the compiler of Debian 12 takes as well.
BUILT_KERNELS = {"debug": r"^linux-source-6\.12$"}
LAYOUT = 4  # of a kernel's folder: another number if what make_kernel leaves there changes
# What some machine loads. Each has a folder with it and what it depends on; where it is built in that is empty.
MODULES = ("virtio_pci", "virtio_console", "kvm-amd", "kvm-intel")
# Where to look when this machine's own sources do not have a package.
DEBIAN = """deb [signed-by={key}] http://deb.debian.org/debian bookworm main
deb [signed-by={key}] http://deb.debian.org/debian-security bookworm-security main
"""
DEBIAN_KEY = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# bochs-term is how it gets by without a window.
BOCHS = ("bochs", "bochs-term", "bochsbios")

SOURCES = Path(__file__).resolve().parent / "vm.d"


class NotAvailable(Exception):
    """Something cannot be had on this machine; the text says what, and what would help."""


def cache_folder():
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME") or "/nowhere", ".cache")
    return Path(os.environ.get("DDBG_VM_CACHE") or os.path.join(home, "ddbg/vm"))


class Parts:
    """The cache. A folder in it is complete or absent: it is made beside its place, under a lock, and renamed. A part that could
    not be made leaves the reason in a file, which counts where nothing may be downloaded (DDBG_VM_CACHE_ONLY)."""

    def __init__(self, say):
        self.folder = cache_folder()
        self.say = say
        self.cache_only = bool(os.environ.get("DDBG_VM_CACHE_ONLY"))

    def kernel(self, series):
        """A folder with vmlinuz, vmlinux (what is packed in the former), modules/, and the package's name in `package`."""
        if series in BUILT_KERNELS:
            configuration = SOURCES / f"{series}.config"
            version = hashlib.sha256(configuration.read_bytes()).hexdigest()[:16]
            return self.part(f"linux-{series}-{version}.{LAYOUT}", lambda to: build_kernel(series, configuration, to))
        return self.part(f"linux-{series}.{LAYOUT}", lambda to: make_kernel(series, to))

    def headers(self, series):
        """A folder for `make -C` that builds modules for the kernel of this series."""
        if series in BUILT_KERNELS:
            return self.kernel(series) / "build"
        # Named by the kernel, which may have been in the cache for long.
        release = re.match(r"linux-image-(.+)-cloud-amd64", (self.kernel(series) / "package").read_text())[1]
        return self.part(f"headers-{release}.{LAYOUT}", lambda to: make_headers(release, to)) / "build"

    def modules(self, series, names):
        """Name -> file of these modules of MODULES and of all they depend on, in loading order."""
        found = {}
        for wanted in names:
            for path in sorted((self.kernel(series) / "modules" / wanted).iterdir()):
                found.setdefault(path.stem.partition("-")[2], path)
        return found

    def busybox(self):
        return self.part("busybox", make_busybox) / "busybox"

    def init(self):
        return self.compiled("init", "init.c", "-O2", "-s")

    def loader(self):
        return self.compiled("boot", "boot.S", "-nostdlib", "-Wl,--oformat=binary,-Ttext=0xc0000,--build-id=none")

    def compiled(self, name, source, *options):
        # Named by what it is made of: another checkout may share the cache.
        version = hashlib.sha256((SOURCES / source).read_bytes()).hexdigest()[:16]
        return self.part(f"{name}-{version}", lambda to: compile_static(SOURCES / source, options, to / name)) / name

    def bochs(self):
        """A folder with bochs-bin, the BIOS of its machine, its plugins/, and in lib/ the libraries that are not here."""
        return self.part("bochs", make_bochs)

    def dkms(self):
        """The program, which is a script."""
        return self.part("dkms", make_dkms) / "dkms"

    def part(self, name, make):
        path = self.folder / name
        if path.is_dir():
            return path
        reason = self.folder / f"{name}.unavailable"
        if self.cache_only:
            raise NotAvailable(reason.read_text() if reason.exists() else f"{path} is not there; scripts/vm prepare makes it")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open(self.folder / ".lock", "w")
        except OSError as error:
            raise NotAvailable(f"cannot write to the cache {self.folder}: {error.strerror}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.is_dir():
                return path
            self.say(f"making {path} ...")
            # What a killed run left is removed here: only who holds the lock makes anything.
            for left in self.folder.glob(".new.*"):
                shutil.rmtree(left)
            new = Path(tempfile.mkdtemp(prefix=".new.", dir=self.folder))
            try:
                new.chmod(0o755)
                make(new)
                new.rename(path)
                reason.unlink(missing_ok=True)
            except NotAvailable as error:
                reason.write_text(str(error))
                raise
            finally:
                shutil.rmtree(new, ignore_errors=True)
        return path


def run(command, what, **keywords):
    """Its output; NotAvailable with the last line of its complaint."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **keywords)
    except FileNotFoundError as error:
        raise NotAvailable(f"{what}: {command[0]} is not installed") from error
    if done.returncode != 0:
        complaint = done.stderr.decode(errors="replace").strip().splitlines() or [f"{command[0]} failed"]
        raise NotAvailable(f"{what}: {complaint[-1]}")
    return done.stdout


# --- packages -----------------------------------------------------------------------------------------------------------


def version_key(name):
    return [int(part) for part in re.findall(r"\d+", name)]


def download(pattern, folder):
    """The newest package whose name matches, unpacked in `folder`; its file's name."""
    return from_some_source(lambda options: download_newest(options, pattern, folder), folder)


def download_with_dependencies(names, folder):
    """Packages and what has to be installed for them here, unpacked in `folder`."""
    from_some_source(lambda options: download_missing(options, names, folder), folder)


def from_some_source(get, folder):
    """What `get` makes of apt's options: this machine's sources, or if those fail Debian's."""
    if os.environ.get("DDBG_NO_APT"):
        raise NotAvailable("DDBG_NO_APT forbids downloading packages for the emulated machine")
    sources = [[]]
    with contextlib.ExitStack() as stack:
        if DEBIAN_KEY.exists():
            private = stack.enter_context(tempfile.TemporaryDirectory(prefix="apt.", dir=folder))
            sources.append(private_apt(Path(private)))
        for options in sources:
            options = ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", *options]
            try:
                return get(options)
            except NotAvailable as error:
                reason = error
        raise reason


def cannot_download(wanted):
    return f"cannot download {wanted} for the emulated machine (as root `apt-get update` may help)"


def update_private(options, what):
    if "Dir::Etc::sourceparts=-" in options:
        run(["apt-get", *options, "-o", "APT::Update::Error-Mode=any", "-qq", "update"], what)


def download_newest(options, pattern, folder):
    what = cannot_download(re.sub(r"[\^$\\]", "", re.sub(r"\[[^]]*\]\+", "*", pattern)))
    update_private(options, what)
    found = run(["apt-cache", *options, "search", "--names-only", pattern], what).decode()
    names = sorted((line.split()[0] for line in found.splitlines()), key=version_key)
    if not names:
        raise NotAvailable(f"{what}: no source of packages has it")
    (package,) = unpack(options, names[-1:], what, folder)
    return package


def download_missing(options, names, folder):
    what = cannot_download(", ".join(names))
    update_private(options, what)
    plan = run(["apt-get", *options, "-s", "--no-install-recommends", "install", *names], what).decode()
    unpack(options, sorted({*names, *re.findall(r"^Inst (\S+)", plan, re.MULTILINE)}), what, folder)


def unpack(options, names, what, folder):
    """The file names of these packages, which are in `folder` then."""
    run(["apt-get", *options, "-qq", "download", *names], what, cwd=folder)
    packages = list(folder.glob("*.deb"))
    for package in packages:
        run(["dpkg-deb", "-x", package, folder], f"cannot unpack {package.name}")
        package.unlink()
    return [package.name for package in packages]


def private_apt(folder):
    """Options that give apt Debian's own sources and nothing of this machine's but its proxies."""
    (folder / "sources.list").write_text(DEBIAN.format(key=DEBIAN_KEY))
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    settings = {"Dir::Etc::sourcelist": folder / "sources.list", "Dir::Etc::sourceparts": "-", "Dir::State::lists": folder / "lists",
                "Dir::Cache": folder / "cache", "Dir::State::status": folder / "status", "APT::Architecture": "amd64"}
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


# --- the parts ----------------------------------------------------------------------------------------------------------


def make_kernel(series, to):
    with tempfile.TemporaryDirectory(dir=to) as scratch:
        package = download(KERNELS[series], Path(scratch))
        (image,) = Path(scratch).glob("boot/vmlinuz-*")
        shutil.copy(image, to / "vmlinuz")
        (to / "vmlinux").write_bytes(unpacked_kernel(image.read_bytes()))
        add_modules({path.name.split(".ko")[0]: path for path in Path(scratch).glob("lib/modules/*/kernel/**/*.ko*")}, to)
    (to / "package").write_text(package + "\n")


def add_modules(available, to):
    for wanted in MODULES:
        folder = to / "modules" / wanted
        folder.mkdir(parents=True)
        for number, (name, content) in enumerate(modules_in_order(wanted, available).items()):
            (folder / f"{number:02}-{name}.ko").write_bytes(content)


def build_kernel(series, configuration, to):
    """As make_kernel() leaves it, with what modules are built with in build/. It takes a processor 20 minutes, and 3 GB meanwhile."""
    for tool in ("flex", "bison", "bc", "make", "xz"):
        if not shutil.which(tool):
            raise NotAvailable(f"{tool} is not installed, which builds the {series} kernel (apt-get install {tool})")
    with tempfile.TemporaryDirectory(dir=to) as scratch:
        package = download(BUILT_KERNELS[series], Path(scratch))
        (archive,) = Path(scratch).glob("usr/src/linux-source-*.tar.xz")
        run(["tar", "-xf", archive, "-C", scratch], f"cannot unpack {archive.name}")
        (tree,) = Path(scratch).glob("linux-source-*/")
        make = ["make", "-s", "-C", tree]
        run([*make, f"KCONFIG_ALLCONFIG={configuration}", "allnoconfig"], f"cannot configure the {series} kernel")
        taken = set((tree / ".config").read_text().splitlines())
        refused = [line for line in configuration.read_text().splitlines() if line and not line.startswith("#") and line not in taken]
        if refused:
            raise NotAvailable(f"{package} does not take {', '.join(refused)} of {configuration.name}")
        run([*make, f"-j{len(os.sched_getaffinity(0))}", "bzImage", "modules"], f"cannot build the {series} kernel")
        run([*make, f"KBUILD_RUN_COMMAND=$(srctree)/scripts/package/install-extmod-build {to}/build", "run-command"],
            f"cannot pick the {series} kernel's headers")
        shutil.copy(tree / "arch/x86/boot/bzImage", to / "vmlinuz")
        shutil.copy(tree / "vmlinux", to / "vmlinux")
        add_modules({path.stem: path for path in tree.glob("**/*.ko")}, to)
    (to / "package").write_text(package + "\n")


def make_headers(release, to):
    """What Debian has in three packages: this configuration, what all have in common, and the tools. They name each other by where
    they would be installed, which becomes where they are: the cache may be copied."""
    # Since 6.12 each release has tools of its own.
    tools = release if "+" in release else ".".join(release.split(".")[:2])
    for name in (f"linux-headers-{release}-cloud-amd64", f"linux-headers-{release}-common", f"linux-kbuild-{tools}"):
        with tempfile.TemporaryDirectory(dir=to) as scratch:
            download(f"^{re.escape(name)}$", Path(scratch))
            shutil.copytree(Path(scratch) / "usr", to / "usr", symlinks=True, dirs_exist_ok=True)
    build = to / f"usr/src/linux-headers-{release}-cloud-amd64"
    for path in (build / "Makefile", build / ".kernelvariables", to / f"usr/src/linux-headers-{release}-common/Makefile"):
        if path.exists():
            path.write_text(re.sub(r"(?<![\w/])/usr/(src|lib)/(?=linux-)", r"$(dir $(realpath $(lastword $(MAKEFILE_LIST))))../../\1/", path.read_text()))
    (to / "build").symlink_to(build.relative_to(to))


def unpacked_kernel(image):
    """The ELF file within a bzImage: QEMU starts it faster than the image that unpacks itself (Documentation/arch/x86/boot.rst)."""
    setup_sectors, at, size = image[0x1F1], int.from_bytes(image[0x248:0x24C], "little"), int.from_bytes(image[0x24C:0x250], "little")
    at += (setup_sectors + 1) * 512
    payload = image[at:at + size - 4]  # behind it is the size of what it unpacks to
    for magic, tool in ((bytes.fromhex("02214c18"), "lz4"), (bytes.fromhex("28b52ffd"), "zstd")):
        if payload.startswith(magic):
            return run_filter([tool, "-dc"], payload)
    raise NotAvailable("the kernel is packed in a way that is not known here")


def run_filter(command, data):
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        try:
            return subprocess.run(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
        except FileNotFoundError as error:
            raise NotAvailable(f"{command[0]} is not installed, which unpacks the kernel (apt-get install {command[0]})") from error
        except subprocess.CalledProcessError as error:
            raise NotAvailable(f"{command[0]} cannot unpack the kernel") from error


def modules_in_order(wanted, available):
    """Name -> content of a module and all it depends on, in loading order."""
    ordered = {}

    def add(name):
        path = available.get(name) or available.get(name.replace("_", "-"))
        if path is None or path.name.split(".ko")[0] in ordered:
            return
        content = path.read_bytes()
        if path.suffix == ".xz":
            content = lzma.decompress(content)
        content = without_signature(content)
        needs = re.search(rb"\0depends=([^\0]*)\0", content)
        for other in filter(None, needs[1].decode().split(",")):
            add(other)
        ordered[path.name.split(".ko")[0]] = content

    add(wanted)
    return ordered


def without_signature(module):
    """The kernels start without the keys to it (SKIPPED_INITCALLS), and yet would take a long time to digest it all."""
    mark = b"~Module signature appended~\n"
    if not module.endswith(mark):
        return module
    end = len(module) - len(mark)
    return module[:end - 12 - int.from_bytes(module[end - 4:end], "big")]  # struct module_signature, which ends in the other part's size


def make_busybox(to):
    with tempfile.TemporaryDirectory(dir=to) as scratch:
        download("^busybox-static$", Path(scratch))
        shutil.copy(next(Path(scratch).glob("**/bin/busybox")), to / "busybox")


def make_dkms(to):
    with tempfile.TemporaryDirectory(dir=to) as scratch:
        download("^dkms$", Path(scratch))
        shutil.copy(Path(scratch) / "usr/sbin/dkms", to / "dkms")


def compile_static(source, options, to):
    run([os.environ.get("CC", "cc"), "-static", *options, "-o", to, source], f"cannot compile vm.d/{source.name}")


def make_bochs(to):
    with tempfile.TemporaryDirectory(dir=to) as scratch:
        scratch = Path(scratch)
        download_with_dependencies(BOCHS, scratch)
        for name in ("bin/bochs-bin", "share/bochs/BIOS-bochs-latest"):
            shutil.copy(scratch / "usr" / name, to)
        for folder in ("plugins", "lib"):
            (to / folder).mkdir()
        for plugin in scratch.glob("usr/lib/*/bochs/plugins/*.so"):
            shutil.copy(plugin, to / "plugins")
        for program in (to / "bochs-bin", to / "plugins/libbx_term_gui.so"):
            while missing := missing_libraries(program, to / "lib"):
                for library in missing:
                    found = next(scratch.glob(f"**/{library}"), None)
                    if found is None:
                        raise NotAvailable(f"Bochs needs {library}, which is neither here nor in a package that it depends on")
                    shutil.copy(found, to / "lib")


def missing_libraries(program, folder):
    listed = run(["ldd", program], f"cannot list the libraries of {program.name}", env=dict(os.environ, LD_LIBRARY_PATH=str(folder)))
    return re.findall(r"^\t(\S+) => not found", listed.decode(), re.MULTILINE)
