// The front end's half of a session whose other half is any bytes. The input is a program: words
// written into the session, as a hostile target does at any moment, and calls of the Inferior in
// between. Whatever is there, no call crashes or hangs, and what comes out is in range.
#include "dtrace-lite/engine/inferior.h"
#include "libdune/session/reader.h"
#include "tests/fuzz/engine/fake_keeper.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

using namespace ddbg;
using namespace ddbg::engine;
using namespace dune::session;

namespace {

Session* g_session;
std::unique_ptr<keeper::Client> g_client;

class Program {
public:
  Program(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool at_end() const { return size_ == 0; }
  template <class T> T take() {
    T value{};
    const size_t n = std::min(size_, sizeof value);
    memcpy(&value, data_, n);
    data_ += n;
    size_ -= n;
    return value;
  }

private:
  const uint8_t* data_;
  size_t size_;
};

// The words that decide something, by offset in the session; `stride`: one for each thread, notice
// or record.
struct Word {
  size_t offset, stride;
};
#define HEADER_WORD(field)                                                                         \
  { offsetof(Header, field), 0 }
#define SLOT_WORD(field)                                                                           \
  { offsetof(Session, threads) + offsetof(ThreadSlot, field), sizeof(ThreadSlot) }
#define NOTICE_WORD(field)                                                                         \
  { offsetof(Session, notices) + offsetof(Notice, field), sizeof(Notice) }
#define RECORD_WORD(field)                                                                         \
  { offsetof(Session, records) + offsetof(Record, field), sizeof(Record) }
const Word kWords[] = {
    HEADER_WORD(stop_request),
    HEADER_WORD(stop_owner),
    HEADER_WORD(event_seq),
    HEADER_WORD(live_threads),
    HEADER_WORD(slots_in_use),
    HEADER_WORD(abandoned),
    HEADER_WORD(notice_tail),
    HEADER_WORD(notice_head),
    SLOT_WORD(state),
    SLOT_WORD(resume),
    SLOT_WORD(tid),
    SLOT_WORD(asleep),
    SLOT_WORD(regs.rip),
    SLOT_WORD(fpstate),
    SLOT_WORD(fpstate_size),
    SLOT_WORD(reason),
    SLOT_WORD(signal),
    SLOT_WORD(fired_count),
    SLOT_WORD(fired),
    SLOT_WORD(siginfo),
    SLOT_WORD(steps_taken),
    NOTICE_WORD(sequence),
    NOTICE_WORD(kind),
    NOTICE_WORD(value),
    RECORD_WORD(flags),
    RECORD_WORD(next),
    RECORD_WORD(ignore_count),
    RECORD_WORD(hits),
};

void write_word(Program& program, pid_t tid) {
  const Word& word = kWords[program.take<uint8_t>() % std::size(kWords)];
  const uint8_t how = program.take<uint8_t>();
  uint32_t value = program.take<uint8_t>();
  if (how & 0x80)
    value = program.take<uint32_t>();
  if (how & 0x40)
    value = static_cast<uint32_t>(tid);
  const size_t at = word.offset + word.stride * (how % 4);
  memcpy(reinterpret_cast<char*>(g_session) + at, &value, sizeof value);
}

void check_event(const Event& e) {
  DUNE_ASSERT(e.reason <= StopReason::kSyscall);
  DUNE_ASSERT(e.signal >= 0 && e.signal < static_cast<int>(kSignals));
  DUNE_ASSERT(e.fired.size() <= kMaxFired);
  for (RecordId id : e.fired)
    DUNE_ASSERT(id < kRecords);
  DUNE_ASSERT(e.kind != Event::Kind::kLost || !e.text.empty());
}

void run(Program& program, Inferior& inferior, pid_t tid) {
  // Code of the target, which is this program too.
  const TargetAddr code(reinterpret_cast<uint64_t>(&run));
  std::vector<RecordId> records;
  for (int calls = 0; !program.at_end() && calls < 64;) {
    const uint8_t operation = program.take<uint8_t>();
    calls += operation % 12 >= 4;
    switch (operation % 12) {
    case 0:
    case 1:
    case 2:
    case 3:
      write_word(program, tid);
      break;
    case 4: {
      ResumePlan plan;
      const uint8_t how = program.take<uint8_t>();
      plan.thread = how % 4;
      plan.action = static_cast<Action>(how / 4 % 3);
      plan.only_this_thread = how & 0x40;
      plan.deliver_signal = how & 0x80 ? 10 : 0;
      (void)!inferior.resume(plan);
      break;
    }
    case 5: {
      int polls = 0;
      if (auto event = inferior.wait(
              [&] { return polls++ > 0; },
              [](const NoticeView& n) { DUNE_ASSERT(n.kind <= NoticeKind::kExiting); }))
        check_event(*event);
      break;
    }
    case 6:
      (void)!inferior.stop();
      break;
    case 7:
      DUNE_ASSERT(inferior.threads().size() <= kThreadSlots);
      for (const ThreadView& v : inferior.threads())
        DUNE_ASSERT(v.slot < kThreadSlots && inferior.thread(v.number));
      break;
    case 8:
      if (auto image = inferior.read_fpstate(1 + program.take<uint8_t>() % 4))
        DUNE_ASSERT(image->size() <= XsaveImage::kMaxSize);
      (void)!inferior.write_register(1, dune::Reg::rax, 7);
      break;
    case 9:
      if (auto id = inferior.add_record(code + program.take<uint8_t>() % 64, {}))
        records.push_back(*id);
      break;
    case 10:
      for (RecordId id : records) {
        (void)inferior.counts(id);
        (void)inferior.record_address(id);
      }
      if (!records.empty()) {
        (void)!inferior.remove_record(records.back());
        records.pop_back();
      }
      break;
    case 11: {
      uint8_t bytes[64];
      (void)!inferior.read_memory(code, bytes);
      inferior.set_signal_policy(program.take<int8_t>(), 1);
      break;
    }
    }
  }
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int*, char*** arguments) {
  if (fuzz::is_keeper((*arguments)[0]))
    fuzz::run_keeper();
  g_session = fuzz::prepare_keeper();
  auto client = keeper::Client::start();
  if (!g_session || !client) {
    fprintf(stderr, "no keeper: %s\n", client ? "memfd" : client.error().message.c_str());
    exit(1);
  }
  g_client = std::move(*client);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static pid_t target = 0; // the keeper says it at the first birth
  fuzz::reset_session(*g_session, static_cast<uint32_t>(target));
  keeper::LaunchOptions options;
  options.program = "target";
  auto inferior = Inferior::launch(*g_client, options);
  DUNE_ASSERT(inferior);
  target = (*inferior)->pid();
  (*inferior)->set_patience(std::chrono::milliseconds(2));
  Program program(data, size);
  run(program, **inferior, target);
  return 0;
}
