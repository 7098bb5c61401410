// Memory, and the records and sites in it.
#include "dtrace-lite/engine/inferior_impl.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace ddbg::engine {

// --- Memory --------------------------------------------------------------------------------------

Checked<void> Inferior::read_memory(TargetAddr address, std::span<uint8_t> out) const {
  const Impl& m = *impl_;
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = pread(m.born.memory.get(), out.data() + done, out.size() - done,
                            static_cast<off_t>(address.value + done));
    if (n <= 0)
      return Diagnostic{
          fmt::format("Cannot access memory at address {:#x}", address.value + done), {}, {}};
    done += static_cast<size_t>(n);
  }
  m.sites->hide_patches(address, out);
  return {};
}

Checked<void> Inferior::write_memory(TargetAddr address, std::span<const uint8_t> data) {
  Impl& m = *impl_;
  std::vector<uint8_t> bytes(data.begin(), data.end());
  std::optional<TargetAddr> at_site;
  m.sites->each_patched({address - std::min<uint64_t>(15, address.value), address + data.size()},
                        [&](const SitePool::Place& p) {
                          if (p.address + p.original_length > address)
                            at_site = p.address;
                        });
  if (at_site)
    return Diagnostic{
        fmt::format("The instruction at {:#x} has a breakpoint and cannot be written.",
                    at_site->value),
        "Delete the breakpoint first.",
        {}};
  const ssize_t n =
      pwrite(m.born.memory.get(), bytes.data(), bytes.size(), static_cast<off_t>(address.value));
  if (n != static_cast<ssize_t>(bytes.size()))
    return Diagnostic{fmt::format("Cannot access memory at address {:#x}", address.value), {}, {}};
  return {};
}

// --- Records and sites ---------------------------------------------------------------------------

RecordSpec Inferior::Impl::in_agents_numbers(RecordSpec spec) const {
  if (spec.only_tid) {
    const uint32_t inner = tids->inner(spec.only_tid);
    spec.only_tid = inner ? static_cast<pid_t>(inner) : -1; // of one that has ended: never
  }
  return spec;
}

Checked<std::vector<uint8_t>> Inferior::Impl::original_bytes(TargetAddr address,
                                                             size_t wanted) const {
  std::vector<uint8_t> bytes(wanted);
  ssize_t n = pread(born.memory.get(), bytes.data(), wanted, static_cast<off_t>(address.value));
  if (n <= 0)
    return Diagnostic{fmt::format("Cannot access memory at address {:#x}", address.value), {}, {}};
  bytes.resize(static_cast<size_t>(n));
  sites->hide_patches(address, bytes);
  return bytes;
}

// After writes that failed: the keeper may have died in the middle, and what it has written has to
// stay known as ours.
bool Inferior::Impl::text_is(TargetAddr address, uint8_t byte) const {
  uint8_t now;
  return pread(born.memory.get(), &now, 1, static_cast<off_t>(address.value)) == 1 && now == byte;
}

Checked<void> Inferior::Impl::install(std::span<const uint32_t> indices) {
  std::vector<keeper::TextWrite> writes;
  std::vector<uint32_t> written;
  for (uint32_t index : indices) {
    const SitePool::Place& place = sites->place(index);
    if (place.installed())
      continue;
    writes.push_back({place.address, kInt3, place.first_byte()});
    // Before the byte: a thread that traps has to find it so.
    sites->set_flag(index, kSiteInstalled, true);
    written.push_back(index);
  }
  if (writes.empty())
    return {};
  auto ok = client.write_text(writes);
  if (!ok)
    for (uint32_t index : written)
      if (!text_is(sites->place(index).address, kInt3))
        sites->set_flag(index, kSiteInstalled, false);
  return ok;
}

Checked<void> Inferior::Impl::uninstall(std::span<const uint32_t> indices) {
  std::vector<keeper::TextWrite> writes;
  std::vector<uint32_t> written;
  for (uint32_t index : indices) {
    const SitePool::Place& place = sites->place(index);
    if (!place.installed() || sites->needs_int3(index))
      continue;
    writes.push_back({place.address, place.first_byte(), kInt3});
    written.push_back(index);
  }
  if (writes.empty())
    return {};
  auto ok = client.write_text(writes); // the byte first, see install
  for (uint32_t index : written)
    if (ok || !text_is(sites->place(index).address, kInt3))
      sites->set_flag(index, kSiteInstalled, false);
  return ok;
}

Checked<std::vector<RecordId>>
Inferior::add_records(std::span<const std::pair<TargetAddr, RecordSpec>> wanted) {
  Impl& m = *impl_;
  std::vector<RecordId> ids;
  std::vector<uint32_t> indices;
  auto undo = [&](Diagnostic d) -> Checked<std::vector<RecordId>> {
    for (RecordId id : ids)
      m.sites->remove_record(id);
    return d;
  };
  for (const auto& [address, spec] : wanted) {
    auto bytes = m.original_bytes(address, 16);
    if (!bytes)
      return undo(bytes.error());
    if (is_ours(address))
      return undo({fmt::format("The address {:#x} belongs to the debugger's agent.", address.value),
                   {},
                   {}});
    auto index = m.sites->site_at(address, *bytes, 0);
    if (!index)
      return undo(index.error());
    auto id = m.sites->add_record(*index, m.in_agents_numbers(spec));
    if (!id)
      return undo(id.error());
    ids.push_back(*id);
    indices.push_back(*index);
    if (auto jump = m.sites->jump_before(address))
      indices.push_back(*jump); // it would lead past
  }
  if (auto ok = m.install(indices); !ok)
    return undo(ok.error());
  return ids;
}

Checked<RecordId> Inferior::add_record(TargetAddr address, const RecordSpec& spec) {
  const std::pair<TargetAddr, RecordSpec> one{address, spec};
  auto ids = add_records({&one, 1});
  if (!ids)
    return ids.error();
  return ids->front();
}

Checked<void> Inferior::add_syscall_sites(std::span<const SyscallSpot> spots) {
  Impl& m = *impl_;
  std::vector<uint32_t> traps;
  for (const SyscallSpot& spot : spots) {
    auto bytes = m.original_bytes(spot.address, 16);
    if (!bytes)
      continue;
    auto index = m.sites->site_at(spot.address, *bytes, kSiteSyscall);
    if (!index)
      continue;
    traps.push_back(*index);
  }
  if (auto ok = m.install(traps); !ok)
    return ok;
  return m.install_jumps(spots);
}

// No thread executes program code meanwhile: all are parked, or in the kernel and come back behind
// these instructions. Whoever stands on the `syscall`, or has it in a saved context, comes to its
// int3, in a jmp too.
Checked<void> Inferior::Impl::install_jumps(std::span<const SyscallSpot> spots) {
  std::vector<keeper::TextWrite> writes;
  std::vector<uint32_t> written;
  for (const SyscallSpot& spot : spots) {
    if (spot.jump == JumpKind::kNone)
      continue;
    auto bytes = original_bytes(spot.before, 16);
    auto index = bytes ? sites->site_at(spot.before, *bytes, 0) : Checked<uint32_t>(bytes.error());
    if (!index || sites->place(*index).patched())
      continue;
    const auto jump = sites->plan_jump(*index, spot.jump, *bytes, map);
    if (!jump)
      continue;
    // Whoever dies in between: the tail stands behind an int3 at a known site until it is whole.
    const SitePool::Place& place = sites->place(*index);
    writes.push_back({spot.before, kInt3, place.original[0]});
    for (size_t i = 1; i < jump->size(); ++i)
      if (spot.before + i != spot.address) // there the int3 stands already
        writes.push_back({spot.before + i, (*jump)[i], place.original[i]});
    writes.push_back({spot.before, (*jump)[0], place.original[0]});
    sites->set_flag(*index, kSiteJump, true);
    written.push_back(*index);
  }
  if (writes.empty())
    return {};
  auto ok = client.write_text(writes);
  if (!ok)
    for (uint32_t index : written)
      if (const auto& place = sites->place(index); text_is(place.address, place.original[0]))
        sites->set_flag(index, kSiteJump, false);
  return ok;
}

Checked<void> Inferior::remove_records(std::span<const RecordId> ids) {
  Impl& m = *impl_;
  std::vector<uint32_t> emptied;
  Checked<void> result;
  for (RecordId id : ids) {
    if (!m.sites->valid(id))
      continue;
    if (auto watch = m.watch_ids.find(id); watch != m.watch_ids.end()) {
      if (m.is_alive)
        result = m.client.remove_watch(watch->second);
      m.watch_ids.erase(watch);
    }
    const uint32_t index = m.sites->site_of(id);
    if (!m.sites->remove_record(id) || index == kNone)
      continue;
    emptied.push_back(index);
    if (auto jump = m.sites->jump_before(m.sites->place(index).address))
      emptied.push_back(*jump);
  }
  if (m.is_alive && !emptied.empty())
    result = m.uninstall(emptied);
  return result;
}

Checked<void> Inferior::remove_record(RecordId id) { return remove_records({&id, 1}); }

void Inferior::enable_record(RecordId id, bool on) {
  if (!impl_->sites->valid(id))
    return;
  auto& flags = impl_->sites->record(id).flags;
  if (on)
    flags.fetch_or(kRecordEnabled);
  else
    flags.fetch_and(~kRecordEnabled);
}

void Inferior::set_ignore_count(RecordId id, uint64_t count) {
  if (impl_->sites->valid(id))
    impl_->sites->record(id).ignore_count = count;
}

void Inferior::set_condition(RecordId id, std::vector<uint8_t> code) {
  if (impl_->sites->valid(id))
    (void)!impl_->sites->set_condition(id, code);
}

RecordCounts Inferior::Impl::counts(RecordId id) const {
  if (!sites->valid(id))
    return {};
  const RecordCounters r = reader->counters(id);
  return {r.hits, r.evaluations, r.faults, r.ignore_count};
}

RecordCounts Inferior::counts(RecordId id) const { return impl_->counts(id); }

std::optional<TargetAddr> Inferior::record_address(RecordId id) const {
  if (!impl_->sites->valid(id) || impl_->sites->site_of(id) == kNone)
    return std::nullopt;
  return impl_->sites->place(impl_->sites->site_of(id)).address;
}

Checked<RecordId> Inferior::add_watch(TargetAddr address, unsigned size, Client::Access access,
                                      WatchWhen when, const RecordSpec& spec) {
  Impl& m = *impl_;
  uint64_t value = 0;
  if (size == 0 || size > 8)
    return Diagnostic{fmt::format("Cannot watch {} bytes.", size),
                      "Hardware watchpoints cover 1, 2, 4 or 8 bytes.",
                      {}};
  if (auto ok = read_memory(address, {reinterpret_cast<uint8_t*>(&value), size}); !ok)
    return ok.error();
  auto id = m.sites->add_watch_record(address, size, value, when, m.in_agents_numbers(spec));
  if (!id)
    return id.error();
  auto watch = m.client.add_watch(access, *id);
  if (!watch) {
    m.sites->remove_record(*id);
    return watch.error();
  }
  m.watch_ids[*id] = *watch;
  return id;
}

unsigned Inferior::most_watches() const {
  return memory_map().guest ? kWatchPlaces : kDebugRegisters;
}

bool Inferior::is_watched_by_page(RecordId id) const {
  return impl_->reader->is_watched_by_page(id);
}

} // namespace ddbg::engine
