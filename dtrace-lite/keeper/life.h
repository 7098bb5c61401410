// A word in the session by which the target sees whether we live: registered with the kernel as a
// robust futex, so that the kernel marks it when this process dies, however it dies.
#pragma once

#include <atomic>
#include <cstdint>

namespace ddbg::keeper {

// From now on `word` says that the calling thread lives; the word of an earlier call is forgotten.
// Takes the place of the list that the C library keeps for robust mutexes, which neither ddbg nor
// the keeper has.
void show_life_in(std::atomic<uint32_t>& word);

} // namespace ddbg::keeper
