#include "dtrace-lite/keeper/life.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ddbg::keeper {

namespace {

// What the kernel follows at our death: head, entry, head again. The futex word is futex_offset
// behind the entry, so nothing of this lies in memory that the target can write.
robust_list g_entry;
robust_list_head g_head;

} // namespace

// The word comes last: who is killed in front of that has never lived. The kernel marks only a word
// that has our thread in it.
void show_life_in(std::atomic<uint32_t>& word) {
  g_entry.next = &g_head.list;
  g_head = {{&g_entry}, reinterpret_cast<long>(&word) - reinterpret_cast<long>(&g_entry), nullptr};
  syscall(SYS_set_robust_list, &g_head, sizeof g_head);
  word.store(static_cast<uint32_t>(gettid()));
}

} // namespace ddbg::keeper
