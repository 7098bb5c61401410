// One thread under ptrace, for the short time of birth, attach, exec or release: registers, memory,
// and system calls made in its name. The only place, with baseline/, that calls ptrace.
#pragma once

#include "libdune/base/file.h"
#include "libdune/base/types.h"

#include <cstdint>
#include <span>
#include <string>
#include <sys/types.h>
#include <sys/user.h>
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
// Thread ids of a process, from /proc.
std::vector<pid_t> read_tasks(pid_t);
// A field of /proc/PID/status, "" if absent.
std::string read_status_field(pid_t, const std::string& name);

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

// Waits for a child or traced thread to stop or to end: its wait status. Others may have ended
// before it, and are then gone.
dune::Result<int> wait_for(pid_t tid);

// The thread is in a ptrace stop for as long as this object is used.
class Tracee {
public:
  explicit Tracee(pid_t tid) : tid_(tid) {}
  pid_t tid() const { return tid_; }

  dune::Result<user_regs_struct> registers() const;
  dune::Status set_registers(const user_regs_struct&) const;
  dune::Result<uint64_t> signal_mask() const;
  dune::Status set_signal_mask(uint64_t) const;
  // The XSAVE image as PTRACE_GETREGSET gives it.
  dune::Result<std::vector<uint8_t>> xstate() const;
  dune::Status detach(int signal = 0) const;

  // A system call executed by the thread, at `syscall_instruction`; everything but memory is put
  // back afterwards. Returns what the kernel returned (an -errno included).
  dune::Result<int64_t> system_call(TargetAddr syscall_instruction, long number,
                                    std::span<const uint64_t> arguments) const;

  // Runs code of ours from `entry` up to an int3, then puts registers and mask back.
  dune::Status run_to_int3(TargetAddr entry, TargetAddr stack) const;

private:
  dune::Result<int> run_to_stop(int request) const; // the stop's signal

  pid_t tid_;
};

// Finds a `syscall` instruction in the vDSO. Errors: no vDSO, or none in it.
dune::Result<TargetAddr> find_syscall_instruction(pid_t, const Memory&);

} // namespace ddbg::keeper
