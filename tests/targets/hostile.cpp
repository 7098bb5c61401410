// A program that writes over its own session while it is debugged: hostile MODE SEED [PID]. It
// begins at the end of its first call of work() and ends by itself. PID is another process, which
// mode `forge` names as one of its threads.
#include "libdune/agent/image.h"
#include "libdune/session/layout.h"

#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

using namespace dune::session;

namespace {

constexpr unsigned kSeconds = 8; // of its life

struct Range {
  uint64_t begin = 0, end = 0;
};
struct Mappings {
  Range session, stacks, code;
} g_map;

uint64_t g_state;
uint32_t g_other;

uint64_t draw() { // splitmix64
  uint64_t z = (g_state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}
uint64_t draw(uint64_t below) { return draw() % below; }
template <size_t N> uint32_t one_of(const uint32_t (&of)[N]) { return of[draw(N)]; }

bool find_mappings() {
  FILE* maps = fopen("/proc/self/maps", "r");
  char line[512], protection[8], name[256];
  while (maps && fgets(line, sizeof line, maps)) {
    Range r;
    name[0] = 0;
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %*s %*s %*s %255s", &r.begin, &r.end, protection,
               name) < 3)
      continue;
    if (strstr(name, "memfd:ddbg-session")) {
      g_map.session = r;
      g_map.stacks = {r.begin - kThreadSlots * kAgentStackSize, r.begin};
    }
    if (strstr(name, "memfd:ddbg-code") && !g_map.code.begin)
      g_map.code = r;
  }
  if (maps)
    fclose(maps);
  return g_map.session.begin;
}

Session& the_session() { return *reinterpret_cast<Session*>(g_map.session.begin); }

template <class T> void put(T& word, uint64_t value) {
  *const_cast<volatile T*>(&word) = static_cast<T>(value);
}
template <class T> void put(std::atomic<T>& word, uint64_t value) { word = static_cast<T>(value); }

// Half of what is written is small: it looks like a state, an index or a count.
void scribble(uint64_t begin, uint64_t size) {
  const uint32_t value = draw(2) ? static_cast<uint32_t>(draw(6)) : static_cast<uint32_t>(draw());
  put(*reinterpret_cast<uint32_t*>(begin + draw(size / 4) * 4), value);
}
template <class T> void scribble(T& part) {
  scribble(reinterpret_cast<uint64_t>(&part), sizeof part);
}

void over_session() { scribble(the_session()); }
void over_slots() { scribble(the_session().threads[draw(6)]); }
void over_header() { scribble(the_session().header); }
void over_records() {
  draw(2) ? scribble(the_session().records[draw(64)]) : scribble(the_session().notices);
}
void over_agent() { // the blocks and the used ends of the first threads' stacks
  const uint64_t end = g_map.stacks.begin + (1 + draw(6)) * kAgentStackSize;
  scribble(end - 4096, 4096);
}
void over_code() {
  mprotect(reinterpret_cast<void*>(g_map.code.begin), g_map.code.end - g_map.code.begin,
           PROT_READ | PROT_WRITE);
  auto& table = *reinterpret_cast<SiteTable*>(g_map.code.begin);
  draw(4) ? scribble(table.sites[draw(400)]) : scribble(table.hash);
  put(table.count, draw(2) ? draw(kSites) : draw());
}

// Nothing that is out of range: what a reader can only find out by asking the kernel, or never.
void forge() {
  Header& h = the_session().header;
  const uint32_t slot = static_cast<uint32_t>(draw(4));
  ThreadSlot& s = the_session().threads[slot];
  const uint32_t tids[] = {static_cast<uint32_t>(getpid()), g_other, 0, g_other + 1, 1};
  switch (draw(12)) {
  case 0:
    return put(h.stop_owner, slot + 1);
  case 1:
    return put(h.stop_owner, draw(2) ? 0 : kOwnedByFrontend);
  case 2:
    return put(h.stop_request, draw(2));
  case 3:
    return put(h.live_threads, draw(5));
  case 4:
    return put(h.slots_in_use, 1 + draw(4));
  case 5:
    return put(s.state, draw(4));
  case 6:
    return put(s.tid, one_of(tids));
  case 7:
    return put(s.reason, 2 + draw(6));
  case 8:
    return put(s.signal, 1 + draw(64));
  case 9:
    put(s.fired_count, 1 + draw(3));
    return put(s.fired[draw(3)], draw(16));
  case 10:
    return put(s.fpstate_size, draw(2) ? draw() : draw(4096));
  default: {
    Notice& n = the_session().notices[draw(8)];
    put(n.kind, draw(6));
    put(n.value, one_of(tids));
    return put(n.sequence, 1 + draw(64));
  }
  }
}

void once_gone() { // no way to go on, but not for the debugger
  munmap(reinterpret_cast<void*>(g_map.session.begin), g_map.session.end - g_map.session.begin);
  for (;;)
    pause();
}
void once_replaced() {
  (void)!mmap(reinterpret_cast<void*>(g_map.session.begin), g_map.session.end - g_map.session.begin,
       PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  for (;;)
    pause();
}
void nothing() { pause(); }

struct Mode {
  const char* name;
  void (*round)();
};
constexpr Mode kModes[] = {{"nothing", nothing},      {"session", over_session},
                           {"slots", over_slots},     {"header", over_header},
                           {"records", over_records}, {"agent", over_agent},
                           {"code", over_code},       {"forge", forge},
                           {"unmap", once_gone},      {"replace", once_replaced}};

void* hostile(void* mode) {
  for (;;)
    static_cast<const Mode*>(mode)->round();
}

void* spin(void*) {
  for (std::atomic<unsigned long> i = 0;; ++i)
    ;
}

} // namespace

extern "C" {
volatile long counter;

__attribute__((noinline)) long inner(long n) {
  long sum = 0;
  for (long i = 0; i < 50; ++i)
    sum += i * n;
  counter = counter + 1;
  return sum;
}
__attribute__((noinline)) long work(long n) {
  long sum = inner(n);
  sum += inner(n + 1);
  return sum;
}
}

int main(int argc, char** argv) {
  alarm(kSeconds);
  if (argc < 3)
    return 2;
  const Mode* mode = kModes;
  for (const Mode& m : kModes)
    if (strcmp(m.name, argv[1]) == 0)
      mode = &m;
  g_state = strtoull(argv[2], nullptr, 10);
  g_other = argc > 3 ? static_cast<uint32_t>(atoi(argv[3])) : 1;
  work(0);
  if (!find_mappings() && mode->round != nothing)
    return 3; // nobody debugs it, or not any more
  pthread_t thread;
  pthread_create(&thread, nullptr, spin, nullptr);
  pthread_create(&thread, nullptr, hostile, const_cast<Mode*>(mode));
  for (long n = 1;; ++n)
    work(n);
}
