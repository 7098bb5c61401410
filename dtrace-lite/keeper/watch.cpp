#include "dtrace-lite/keeper/watch.h"

#include "dtrace-lite/keeper/tracee.h"

#include <cstring>
#include <fmt/format.h>
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <set>
#include <sys/syscall.h>

namespace ddbg::keeper {

namespace {

struct Place {
  uint64_t address;
  uint32_t size;
};

// Debian 12's headers know these; older ones do not, and the kernel (5.13 and later) decides.
int open_event(pid_t tid, const Place& place, Client::Access access, uint32_t record) {
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_BREAKPOINT;
  attr.bp_type = access == Client::Access::kWrite ? HW_BREAKPOINT_W : HW_BREAKPOINT_RW;
  attr.bp_addr = place.address;
  attr.bp_len = place.size;
  attr.sample_period = 1;
  attr.exclude_kernel = 1;
  attr.exclude_hv = 1;
  attr.inherit = 1;
  attr.inherit_thread = 1; // new threads, not forked children
  attr.remove_on_exec = 1;
  attr.sigtrap = 1;
  attr.sig_data = record;
  return static_cast<int>(syscall(SYS_perf_event_open, &attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC));
}

Checked<Place> place_of(const dune::session::Session& session, uint32_t record) {
  if (record >= dune::session::kRecords)
    return Diagnostic{"The keeper got a damaged request.", {}, {}};
  const dune::session::Record& r = session.records[record];
  const Place place{r.watch_address, r.watch_size};
  if ((place.size != 1 && place.size != 2 && place.size != 4 && place.size != 8) ||
      place.address % place.size)
    return Diagnostic{fmt::format("A hardware watchpoint cannot cover {} bytes at {:#x}.",
                                  place.size, place.address),
                      "It has to be 1, 2, 4 or 8 bytes, aligned to their size.",
                      {}};
  return place;
}

Diagnostic refusal(int error) {
  if (error == ENOSPC)
    return {"Could not insert hardware watchpoint: all debug registers are in use.",
            "The processor has four; delete one (info watchpoints).",
            {}};
  return {
      fmt::format("Could not insert hardware watchpoint: perf_event_open: {}.", strerror(error)),
      error == EACCES || error == EPERM
          ? "Set /proc/sys/kernel/perf_event_paranoid to 2 or lower, or allow "
            "perf_event_open in the container's profile."
          : "",
      {}};
}

// An event of our own, to see whether the kernel allows it; nothing accesses what it is for.
dune::Fd try_event() {
  alignas(8) static const uint64_t word = 0;
  return dune::Fd(
      open_event(0, {reinterpret_cast<uint64_t>(&word), sizeof word}, Client::Access::kWrite, 0));
}

// First come, first served: who has its page stays with it.
bool has_free_register(const dune::session::Header& header) {
  uint32_t used = 0;
  for (const dune::session::WatchPlace& place : header.watch_places)
    used += place.record && place.by_register;
  return header.capabilities & dune::session::kCapDebugRegisters &&
         used < dune::session::kDebugRegisters;
}

} // namespace

bool accesses_can_be_counted() { return bool(try_event()); }

Checked<uint32_t> WatchSet::add(pid_t pid, dune::session::Session& session, Client::Access access,
                                uint32_t record) {
  const auto place = place_of(session, record);
  if (!place)
    return place.error();
  std::vector<dune::Fd> events;
  std::set<pid_t> done;
  // Threads may be born meanwhile; those of a thread that has the event inherit it, so look until
  // nobody new is there.
  for (bool again = true; again;) {
    const TaskList tasks = list_tasks(pid);
    again = !tasks.is_complete;
    for (pid_t tid : tasks.tids) {
      if (!done.insert(tid).second)
        continue;
      again = true;
      dune::Fd fd(open_event(tid, *place, access, record));
      if (fd)
        events.push_back(std::move(fd));
      else if (errno != ESRCH)
        return refusal(errno);
    }
  }
  return list(session.header, access, record, true, std::move(events));
}

Checked<uint32_t> WatchSet::add_in_guest(dune::session::Session& session, Client::Access access,
                                         uint32_t record) {
  if (const auto place = place_of(session, record); !place)
    return place.error();
  const bool by_register = has_free_register(session.header);
  if (!by_register && !try_event())
    return refusal(errno);
  return list(session.header, access, record, by_register, {});
}

Checked<uint32_t> WatchSet::list(dune::session::Header& header, Client::Access access,
                                 uint32_t record, bool by_register, std::vector<dune::Fd> events) {
  for (dune::session::WatchPlace& place : header.watch_places)
    if (place.record == 0) {
      place.writes_only = access == Client::Access::kWrite;
      place.by_register = by_register;
      place.record = record + 1;
      header.watch_seq.fetch_add(1);
      const uint32_t id = next_++;
      watches_.emplace(id, Watch{std::move(events), &header, &place});
      return id;
    }
  return Diagnostic{
      fmt::format("Could not insert hardware watchpoint: all {} places for them are in use.",
                  dune::session::kWatchPlaces),
      "Delete one (info watchpoints), or watch a smaller object: each takes one for 8 bytes.",
      {}};
}

void WatchSet::forget(const Watch& w) {
  w.place->record = 0;
  w.header->watch_seq.fetch_add(1);
}

void WatchSet::remove(uint32_t id) {
  const auto watch = watches_.find(id);
  if (watch == watches_.end())
    return;
  forget(watch->second);
  watches_.erase(watch);
}

void WatchSet::clear() {
  for (const auto& [id, watch] : watches_)
    forget(watch);
  watches_.clear();
}

} // namespace ddbg::keeper
