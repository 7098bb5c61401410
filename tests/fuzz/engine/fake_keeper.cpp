#include "tests/fuzz/engine/fake_keeper.h"

#include "dtrace-lite/keeper/protocol.h"

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

namespace ddbg::fuzz {

using namespace keeper;
using namespace dune::session;

namespace {

constexpr char kName[] = "ddbg-keeper"; // how keeper::Client starts it
constexpr int kSocket = 3;              // what it finds there

bool make_memfd(const char* name, uint64_t size, int at) {
  const int fd = memfd_create(name, 0); // inherited by the keeper
  return fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0 && dup2(fd, at) == at &&
         close(fd) == 0;
}

// Sleeps, and has the kick's signal ignored: it would be handled by an agent.
pid_t start_target() {
  const pid_t pid = fork();
  if (pid != 0)
    return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(kKickSignal, SIG_IGN);
  for (;;)
    pause();
}

} // namespace

Session* prepare_keeper() {
  if (!make_memfd("session", kSessionSize, kSessionFd) || !make_memfd("code", kCodeSize, kCodeFd))
    return nullptr;
  setenv("DDBG_KEEPER", "/proc/self/exe", 1);
  void* session = mmap(nullptr, kSessionSize, PROT_READ | PROT_WRITE, MAP_SHARED, kSessionFd, 0);
  return session == MAP_FAILED ? nullptr : static_cast<Session*>(session);
}

bool is_keeper(const char* program_name) { return strcmp(program_name, kName) == 0; }

void run_keeper() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const pid_t target = start_target();
  const int memory = open(("/proc/" + std::to_string(target) + "/mem").c_str(), O_RDWR | O_CLOEXEC);
  for (;;) {
    auto message = receive_message(kSocket, Wait::kBlock);
    if (!message)
      _exit(0);
    Writer body;
    const int fds[] = {kSessionFd, kCodeFd, memory};
    std::span<const int> passed;
    switch (message->type) {
    case MessageType::kLaunch:
      body.number<int32_t>(target).number<uint8_t>(0).number<uint8_t>(0);
      passed = fds;
      break;
    case MessageType::kDetach:
      body.strings({});
      break;
    case MessageType::kAddWatch:
      body.number<uint32_t>(1);
      break;
    default:
      break;
    }
    if (!send_message(kSocket, MessageType::kOk, body, passed))
      _exit(0);
  }
}

void reset_session(Session& session, uint32_t tid) {
  constexpr size_t kUsed = 64; // slots, notices and records that the fuzzer reaches
  memset(static_cast<void*>(&session.header), 0, sizeof session.header);
  memset(static_cast<void*>(session.notices), 0, kUsed * sizeof(Notice));
  memset(static_cast<void*>(session.threads), 0, kUsed * sizeof(ThreadSlot));
  memset(static_cast<void*>(session.records), 0, kUsed * sizeof(Record));
  Header& h = session.header;
  h.magic = kSessionMagic;
  h.version = kSessionVersion;
  h.map.agent_text = 0x7fff'0000'0000;
  h.map.agent_stacks = h.map.agent_text + 0x2'0000;
  h.map.session = h.map.agent_stacks + kThreadSlots * kAgentStackSize;
  h.map.code_table = h.map.session + kSessionSize;
  h.map.code_near_libs = h.map.code_table + kCodeTableSize;
  h.map.agent_end = h.map.code_near_libs + kCodeNearLibsSize;
  h.live_threads = h.slots_in_use = 1;
  h.stop_request = 1;
  h.stop_owner = kOwnedByFrontend;
  session.threads[0].tid = tid;
  session.threads[0].state = static_cast<uint32_t>(ThreadState::kParked);
}

} // namespace ddbg::fuzz
