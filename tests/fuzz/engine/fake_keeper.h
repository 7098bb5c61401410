// A keeper without ptrace, for the session fuzzer: it says yes to everything, and its target is a
// process that sleeps. So the front end's half runs as it is, on a session that the fuzzer writes.
#pragma once

#include "libdune/session/layout.h"

namespace ddbg::fuzz {

// The session's and the code's memfd: the same ones for every target that is born.
inline constexpr int kSessionFd = 100, kCodeFd = 101;

// Makes the two, and has keeper::Client start this program again as the keeper. Null: it could not.
dune::session::Session* prepare_keeper();
// True in the program that was started as the keeper: run_keeper() is its main.
bool is_keeper(const char* program_name);
[[noreturn]] void run_keeper();

// What a keeper leaves behind at a birth: one thread, parked. Only what was written is cleared.
void reset_session(dune::session::Session&, uint32_t tid);

} // namespace ddbg::fuzz
