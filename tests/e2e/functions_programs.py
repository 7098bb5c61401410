"""The programs of functions_test.py with workloads small enough for gdb, and what makes them repeat themselves."""
import os
import re
import shutil
import subprocess
import time


class Missing(Exception):
    pass


class Spec:
    """libraries: which of the mapped libraries give functions, too. driver: talks to the program from outside.
    start: a function, as a pattern for its symbol, from which on hits are compared; without it the entry point.
    races: what is executed depends on which thread or process comes first, or on how long a stop takes.
    gives_up: gdb's backtraces may end before the outermost frame.
    cut_off: how many threads its exit may kill between the processor's breakpoint and the trap behind it (measured in the go
    program: each execution that ddbg has not counted was the last, less than 0.1 ms before the exit)."""

    def __init__(self, path, *arguments, libraries=r"/libc\.so", env=None, prepare=None, driver=None, drop=None,
                 start=None, races=False, gives_up=False, cut_off=0):
        found = shutil.which(path)
        if not found:
            raise Missing(f"{path} is not installed")
        self.path = os.path.realpath(found)
        self.arguments = arguments
        self.libraries = libraries
        self.env = env or {}
        self.prepare = prepare or (lambda folder: None)
        self.driver = driver
        self.drop = drop
        self.start = start
        self.races = races
        self.gives_up = gives_up
        self.cut_off = cut_off

    def filtered(self, output):
        return re.sub(self.drop, b"", output) if self.drop else output


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    return path


PYTHON = """
import json, re, zlib
def f(n): return 1 if n < 2 else n * f(n - 1)
d = json.loads(json.dumps({str(i): [i, f(i)] for i in range(20)}))
print(sum(len(str(v)) for v in d.values()), re.sub(r'[aeiou]', '*', 'differential'), sorted(d)[:5])
print(zlib.crc32(b'x' * 1000), '%.3f' % 2.5, {1, 2} | {3}, 'abc'.upper().encode())
raise SystemExit(3)
"""

THREADS = """
import threading, zlib
def work(i):
    for k in range(30):
        results[i] = zlib.crc32(bytes(8000), results[i] + len(('%x' % (k * i)).upper().split('a')))
results = [0] * 4
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(results)
"""


def python(folder):
    return Spec("/usr/bin/python3.11", "-S", "-s", write(folder, "prog.py", PYTHON), libraries=r"/libc\.so|/libm\.so|/libz\.so",
                env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"})


def python_threads(folder):
    return Spec("/usr/bin/python3.11", "-S", "-s", write(folder, "prog.py", THREADS), libraries=r"/libc\.so|/libz\.so",
                races=True, env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"})


def perl(folder):
    text = r'my %h = map { $_ => $_ ** 2 } 1..30; my $s = join ",", sort { $a <=> $b } values %h; $s =~ s/(\d)5/<$1>/g; ' \
           r'printf "%s %d %.2f\n", $s, length $s, sqrt 2; my @a = reverse split /,/, $s; print lc uc "@a[0..3]\n"; exit 5'
    return Spec("/usr/bin/perl", "-e", text, libraries=r"/libc\.so|/libm\.so", env={"PERL_HASH_SEED": "0"})


def bash(folder):
    text = 'declare -A m; for i in {1..20}; do m[$i]=$((i*i)); done; echo "${!m[@]}" "${m[@]}"; s=abcdef; echo ${s/cd/X} ' \
           '${s:1:3} ${#s}; f() { local x=$1; case $x in a*) echo A;; *) echo other;; esac; }; f abc; f b; ' \
           'echo "$(echo sub | tr a-z A-Z)"; printf "%05d|%s\\n" 42 x; [[ abc =~ ^a.c$ ]] && echo match; exit 7'
    # It finds a child ended, or its SIGCHLD comes first.
    return Spec("/bin/bash", "--norc", "-c", text, races=True, libraries=r"/libc\.so|/libtinfo")


def sqlite(folder):
    text = "create table t(a integer primary key, b text); with recursive c(x) as (select 1 union all select x+1 from c " \
           "where x<50) insert into t select x, 'v'||x from c; create index i on t(b); select count(*), sum(a), max(b) from t " \
           "where b like 'v1%'; select group_concat(b) from t where a in (3,5,7); select hex(printf('%5.2f', 3.14159));"
    return Spec("/usr/bin/sqlite3", ":memory:", text, libraries=r"/libc\.so|/libsqlite3")


def gzip(folder):
    write(folder, "input", "".join(f"line {i * i} of the input\n" for i in range(3000)))
    return Spec("/bin/gzip", "-n", "-c", "-9", "-v", os.path.join(folder, "input"))


def xz(folder):
    write(folder, "input", "".join(f"line {i * i} of the input\n" for i in range(4000)))
    return Spec("/usr/bin/xz", "-c", "-T1", "-6", os.path.join(folder, "input"), libraries=r"/libc\.so|/liblzma")


def xz_threads(folder):
    write(folder, "input", "".join(f"line {i * i} of the input\n" for i in range(8000)))
    return Spec("/usr/bin/xz", "-c", "-T4", "-1", "--block-size=40000", os.path.join(folder, "input"), races=True,
                libraries=r"/libc\.so|/liblzma")


def cc1(folder):
    found = subprocess.run(["gcc", "-print-prog-name=cc1"], capture_output=True).stdout.decode().strip()
    source = write(folder, "input.c", "struct s { int a; char b[8]; };\nint f(struct s *p, int n) { int t = 0; "
                   "for (int i = 0; i < n; i++) t += p[i].a * i + p[i].b[i & 7]; return t; }\n")
    return Spec(found, "-quiet", "-O2", source, "-o", "-", libraries=r"/libc\.so|/libgmp|/libmpfr")


def redis(folder):
    def driver(where, ended):
        path = os.path.join(where, "redis.sock")
        end = time.monotonic() + 120
        while time.monotonic() < end and not ended.is_set():
            if os.path.exists(path):
                feed = "".join(f"set k{i} {i}\nincr k{i}\nlpush l {i}\nhset h f{i} {i}\n" for i in range(10))
                feed += "lrange l 0 -1\nsort l\nhgetall h\nshutdown nosave\n"
                subprocess.run(["redis-cli", "-s", path], input=feed.encode(), capture_output=True, timeout=120)
                return
            ended.wait(0.05)

    def prepare(where):
        if os.path.exists(os.path.join(where, "redis.sock")):
            os.unlink(os.path.join(where, "redis.sock"))

    return Spec("/usr/bin/redis-server", "--port", "0", "--bind", "127.0.0.1", "--unixsocket", "redis.sock", "--save", "",
                "--io-threads", "1", "--dir", folder, "--logfile", "log", races=True, prepare=prepare, driver=driver)


def node(folder):
    text = "let m = new Map(); for (let i = 0; i < 30; i++) m.set('k' + i, i * i); console.log(JSON.stringify([...m])," \
           "'abc'.replace(/b/, 'x')); process.exitCode = 4"
    # From behind the start of V8, which reads /proc/self/maps as Rust's runtime does. Its generated code has no CFI.
    return Spec("/usr/bin/node", "--single-threaded", "--jitless", "--no-opt", "--hash-seed=1", "--random-seed=1", "-e", text,
                start=r"^_ZN4node16NodeMainInstance3RunEv$", races=True, gives_up=True, libraries=r"/libc\.so|/libstdc\+\+")


def openssl(folder):
    write(folder, "input", "".join(f"line {i * i} of the input\n" for i in range(1000)))
    return Spec("/usr/bin/openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-iter", "10", "-S", "0011223344556677", "-k", "secret", "-a",
                "-in", os.path.join(folder, "input"), libraries=r"/libc\.so|/libcrypto")


def git(folder):
    where = os.path.join(folder, "repository")
    if not os.path.isdir(where):
        env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_DATE": "1700000000 +0000",
               "GIT_COMMITTER_DATE": "1700000000 +0000"}
        base = ["git", "-C", where, "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", "init", "-q", where], check=True, env=env, capture_output=True)
        for i in range(5):
            write(where, f"file{i}", f"text {i}\n" * (i + 3))
            subprocess.run([*base, "add", "."], check=True, env=env, capture_output=True)
            subprocess.run([*base, "commit", "-q", "-m", f"commit {i}"], check=True, env=env, capture_output=True)
    return Spec("/usr/bin/git", "-C", where, "--no-pager", "log", "-p", "--stat", "--all", libraries=r"/libc\.so|/libz|/libpcre2",
                env={"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"})


RUST = """
use std::collections::BTreeMap;
fn main() {
    let mut m: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for i in 0..40u64 { m.entry(format!("k{}", i % 7)).or_default().push(i * i); }
    let mut v: Vec<_> = m.iter().map(|(k, v)| (v.iter().sum::<u64>(), k.clone())).collect();
    v.sort();
    println!("{:?} {}", v, "x,y,z".split(',').map(|s| s.to_uppercase()).collect::<Vec<_>>().join("-"));
    let t = std::thread::spawn(move || v.len()); println!("{:.3}", t.join().unwrap() as f64 / 3.0);
    let e = "12x".parse::<i32>(); println!("{:?} {:?}", e, std::env::var("NOT_SET"));
    std::process::exit(9);
}
"""

GO = """
package main
import ("fmt"; "os"; "sort"; "strconv"; "strings"; "encoding/json")
func main() {
    m := map[string]int{}
    for i := 0; i < 40; i++ { m["k"+strconv.Itoa(i%11)] += i * i }
    keys := []string{}
    for k := range m { keys = append(keys, k) }
    sort.Strings(keys)
    b, _ := json.Marshal(m)
    fmt.Println(strings.Join(keys, ","), string(b), strings.ToUpper("abc"))
    fmt.Printf("%5.2f %x %v\\n", 3.14159, 255, keys)
    os.Exit(6)
}
"""


def compile_with(name, command, folder):
    if not shutil.which(name):
        raise Missing(f"{name} is not installed")
    done = subprocess.run(command, capture_output=True, cwd=folder, env={**os.environ, "GOCACHE": os.path.join(folder, "cache")})
    if done.returncode:
        raise Missing(f"{name} does not compile here: {done.stderr.decode()[-300:]}")


def rust(folder):
    source = write(folder, "prog.rs", RUST)
    path = os.path.join(folder, "rust_program")
    if not os.path.exists(path):
        compile_with("rustc", ["rustc", "-C", "opt-level=1", "-o", path, source], folder)
    # Before it, the runtime reads /proc/self/maps line by line, and ddbg's mappings add lines.
    return Spec(path, start=r"4prog4main", races=True)


def go(folder):
    source = write(folder, "prog.go", GO)
    path = os.path.join(folder, "go_program")
    if not os.path.exists(path):
        compile_with("go", ["go", "build", "-o", path, source], folder)
    # Static: the entry point is where starti stops already; it jumps to the start named here. Below a goroutine's first function, and
    # below the first of all, the stack holds no return address.
    return Spec(path, start=r"^_rt0_amd64$", races=True, gives_up=True, cut_off=2,
                env={"GOMAXPROCS": "1", "GOGC": "off", "GODEBUG": "asyncpreemptoff=1"})


PROGRAMS = {"python3": python, "python3_threads": python_threads, "perl": perl, "bash": bash, "sqlite3": sqlite, "gzip": gzip,
            "xz": xz, "xz_threads": xz_threads, "cc1": cc1, "redis": redis, "node": node, "openssl": openssl, "git": git,
            "rust": rust, "go": go}
