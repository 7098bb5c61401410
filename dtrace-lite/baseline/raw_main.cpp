// ddbg-ptrace-raw: what one event costs under ptrace and nothing else. For scripts/bench.
//   ddbg-ptrace-raw EVENT TRACER_CPU TARGET_CPU EVENTS RUNS
// prints one line per run: nanoseconds per event. EVENT:
//   continue  int3 in a loop, PTRACE_CONT and waitpid
//   registers the same, with PTRACE_GETREGS
//   stepover  a breakpoint that is hit and passed: GETREGS, byte back, step, int3, continue
//   step      PTRACE_SINGLESTEP and waitpid
//   syscall   a system call that does nothing, stopped before it is made and behind it:
//   PTRACE_SYSCALL
//             and waitpid, twice, the least that interposing takes
// The program traced is this one again, as `ddbg-ptrace-raw --trap`, `--call` or `--syscall`.
#include "dtrace-lite/baseline/tracer.h"

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

using ddbg::Checked;
using ddbg::baseline::Tracer;

namespace {

[[gnu::noinline]] void traced_function() { asm volatile("nop\n\tnop" ::: "memory"); }

int run_as_target(const char* what) {
  if (strcmp(what, "--trap") == 0) {
    for (;;)
      asm volatile("int3");
  }
  if (strcmp(what, "--syscall") == 0) {
    asm volatile("int3");
    for (;;)
      syscall(SYS_getppid);
  }
  const uint64_t where = reinterpret_cast<uint64_t>(&traced_function);
  // The tracer learns the address from rax at the first trap.
  asm volatile("int3" : : "a"(where));
  for (;;)
    traced_function();
}

uint64_t now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

[[noreturn]] void give_up(const ddbg::Diagnostic& d) {
  fprintf(stderr, "ddbg-ptrace-raw: %s\n", d.message.c_str());
  exit(1);
}

} // namespace

int main(int argc, char** argv) {
  if (argc == 2)
    return run_as_target(argv[1]);
  if (argc != 6) {
    fprintf(stderr, "usage: ddbg-ptrace-raw continue|registers|stepover|step|syscall TRACER_CPU "
                    "TARGET_CPU EVENTS RUNS\n");
    return 2;
  }
  const char* event = argv[1];
  const int cpu = atoi(argv[2]), target_cpu = atoi(argv[3]), events = atoi(argv[4]);
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
  char self[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  self[n > 0 ? n : 0] = 0;

  const bool steps_over = strcmp(event, "stepover") == 0, steps = strcmp(event, "step") == 0;
  const bool reads = strcmp(event, "registers") == 0, calls = strcmp(event, "syscall") == 0;
  const char* const target = steps_over || steps ? "--call" : calls ? "--syscall" : "--trap";
  for (int run = 0; run < atoi(argv[5]); ++run) {
    auto tracer = Tracer::launch({self, {self, target}, {}, target_cpu, true});
    if (!tracer)
      give_up(tracer.error());
    Tracer& t = **tracer;
    auto next = [&]() -> Checked<bool> {
      return steps        ? t.step()
             : steps_over ? t.run_to_hit()
             : calls      ? t.run_past_call()
                          : t.run_to_own_trap(reads);
    };
    if (auto first = t.run_to_own_trap(true); !first)
      give_up(first.error());
    if (steps_over)
      if (auto ok = t.set_breakpoint(dune::TargetAddr(t.result_register()), 0x90); !ok)
        give_up(ok.error());
    uint64_t start = 0;
    for (int i = -events / 10; i < events; ++i) {
      if (i == 0)
        start = now();
      auto more = next();
      if (!more)
        give_up(more.error());
      if (!*more)
        give_up({"the traced program ended", {}, {}});
    }
    printf("%.1f\n", static_cast<double>(now() - start) / events);
    fflush(stdout);
  }
  return 0;
}
