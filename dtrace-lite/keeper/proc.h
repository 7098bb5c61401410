// What /proc says about a process: mappings, threads, status, memory.
#pragma once

#include "libdune/base/file.h"
#include "libdune/base/types.h"

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

namespace ddbg::keeper {

using dune::TargetAddr;

// A line of /proc/PID/maps.
struct MapEntry {
  dune::TargetRange range;
  std::string protection; // "r-xp"
  std::string path;
};
std::vector<MapEntry> read_maps(pid_t);
// AT_* value from /proc/PID/auxv; 0 if absent.
uint64_t read_auxv(pid_t, uint64_t type);
// Thread ids of a process, from /proc; less those of the kernel's own workers. Where threads end
// while the kernel makes the list it leaves others out; `is_complete`: there was a moment, after it
// was made, with these and no others.
struct TaskList {
  std::vector<pid_t> tids;
  bool is_complete = false;
};
TaskList list_tasks(pid_t);
inline std::vector<pid_t> read_tasks(pid_t pid) { return list_tasks(pid).tids; }
// The children of one thread; none where the kernel does not tell.
std::vector<pid_t> read_children(pid_t tid);
// A field of /proc/PID/status, "" if absent.
std::string read_status_field(pid_t, const std::string& name);

// Of a thread: the letter of its state, 0 if it is gone; a set of signals (SigPnd, ShdPnd).
char thread_state(pid_t tid);
constexpr bool is_ended(char state) { return state == 'Z' || state == 'X' || state == 0; }
uint64_t read_signal_set(pid_t tid, const std::string& name);

// The number that a process or thread has in its own, innermost pid namespace; 0: it is gone.
uint32_t innermost_pid(pid_t);

class Memory {
public:
  static dune::Result<Memory> open(pid_t);
  dune::Status read(TargetAddr, void* to, size_t) const;
  dune::Status write(TargetAddr, const void* from, size_t) const;
  int fd() const { return fd_.get(); }

private:
  explicit Memory(dune::Fd fd) : fd_(std::move(fd)) {}
  dune::Fd fd_;
};

} // namespace ddbg::keeper
