#include "dtrace-lite/engine/inferior_sites.h"

#include "disasm/decode.h"
#include "disasm/relocate.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace ddbg::engine {

using namespace dune::session;

SitePool::SitePool(Session& session, std::byte* code, const MemoryMap& map)
    : session_(&session), table_(reinterpret_cast<SiteTable*>(code)), code_(code),
      site_of_(kRecords, kNone), used_(kRecords, false) {
  windows_.push_back({map.code_near_libs, kCodeNearLibsSize, kCodeNearLibsOffset, 0});
  if (map.code_near_main)
    windows_.push_back({map.code_near_main, std::min(map.code_near_main_size, kCodeNearMainSize),
                        kCodeNearMainOffset, 0});
  for (RecordId i = 0; i < kRecords; ++i)
    free_records_.push_back(i);
}

namespace {
Diagnostic arena_full() {
  return {"There is no room left for breakpoint code in the program.",
          "Delete breakpoints and restart the program.",
          {}};
}
} // namespace

uint64_t SitePool::Window::free_from(uint64_t from, size_t size) const {
  const auto round = [](uint64_t n) { return (n + 15) & ~uint64_t{15}; };
  uint64_t at = round(std::max(from, used));
  for (const auto& [begin, end] : islands)
    if (at < end && begin < at + size)
      at = round(end);
  return at;
}

std::vector<SitePool::Window*> SitePool::nearest_first(TargetAddr near) {
  auto distance = [&](const Window& w) {
    return w.address > near.value ? w.address - near.value : near.value - w.address;
  };
  std::vector<Window*> order;
  for (Window& w : windows_)
    order.push_back(&w);
  std::sort(order.begin(), order.end(),
            [&](Window* a, Window* b) { return distance(*a) < distance(*b); });
  return order;
}

Checked<std::pair<uint64_t, std::byte*>>
SitePool::allocate_with_third_byte(size_t size, TargetAddr near, uint8_t third) {
  constexpr int64_t kStretch = 1 << 16, kPeriod = 1 << 24;
  for (Window* w : nearest_first(near)) {
    const uint64_t first = near.value + third * kStretch - w->address;
    // One stretch may have begun before the window.
    for (int64_t begin = static_cast<int64_t>(first % kPeriod) - kPeriod;
         begin < static_cast<int64_t>(w->size); begin += kPeriod) {
      const uint64_t at = w->free_from(static_cast<uint64_t>(std::max<int64_t>(begin, 0)), size);
      const int64_t end = std::min(begin + kStretch, static_cast<int64_t>(w->size));
      if (static_cast<int64_t>(at + size) > end)
        continue;
      w->islands[at] = at + size;
      return std::pair{w->address + at, code_ + w->offset + at};
    }
  }
  return arena_full();
}

Checked<std::pair<uint64_t, std::byte*>> SitePool::allocate(size_t size, TargetAddr near) {
  for (Window* w : nearest_first(near)) {
    const uint64_t at = w->free_from(0, size);
    if (at + size > w->size)
      continue;
    w->used = at + size;
    return std::pair{w->address + at, code_ + w->offset + at};
  }
  return arena_full();
}

Checked<uint32_t> SitePool::site_at(TargetAddr address, std::span<const uint8_t> original,
                                    uint32_t flags) {
  if (const auto known = by_address_.find(address.value); known != by_address_.end()) {
    places_[known->second].flags |= flags;
    publish_flags(known->second);
    return known->second;
  }
  const auto index = static_cast<uint32_t>(places_.size());
  if (index >= kSites)
    return Diagnostic{
        fmt::format("The program has had {} different breakpoint addresses already.", kSites),
        "Restart the program to set more.",
        {}};
  auto plan = dune::disasm::plan_relocation(original, address);
  if (!plan)
    return Diagnostic{fmt::format("Cannot set a breakpoint at {:#x}: {}.", address.value,
                                  dune::disasm::refusal_text(plan.error().why)),
                      "",
                      {}};
  if (auto one = dune::disasm::decode(original, address))
    if (one->repeats || one->flow == dune::disasm::Flow::kSyscall)
      flags |= kSiteInterruptible;
  auto room = allocate(plan->max_size(), address);
  if (!room)
    return room.error();
  const auto copy = plan->commit(TargetAddr(room->first));
  std::memcpy(room->second, copy.bytes.data(), copy.bytes.size());

  Place place{index, address,
              {},    static_cast<uint8_t>(plan->source_length()),
              flags, {TargetAddr(room->first), TargetAddr(room->first + copy.bytes.size())},
              {}};
  std::copy_n(original.begin(), std::min(original.size(), place.original.size()),
              place.original.begin());
  places_.push_back(std::move(place));
  publish(index, copy);
  by_address_[address.value] = index;
  return index;
}

void SitePool::publish(uint32_t index, const dune::disasm::Relocated& copy) {
  Place& place = places_[index];
  Site& s = table_->sites[index];
  s.address = place.address.value;
  s.copy = place.copy.begin.value;
  s.copy_size = static_cast<uint32_t>(place.copy.size());
  s.original_length = place.original_length;
  std::copy(place.original.begin(), place.original.end(), s.original);
  s.first_record = kNone;
  publish_flags(index);
  uint8_t count = 0;
  for (const auto& b : copy.boundaries) {
    if (b.state == dune::disasm::BoundaryState::kStepOn || count == kMaxBoundaries)
      continue;
    Boundary out{};
    out.original = b.original.value;
    out.copy_offset = b.offset;
    out.rsp_add = b.rsp_add;
    out.saved_count = b.saved_count;
    for (int i = 0; i < b.saved_count; ++i)
      out.saved[i] = {static_cast<uint16_t>(b.saved[i].reg), b.saved[i].at};
    s.boundaries[count++] = out;
    place.boundaries.emplace_back(b.offset, b.original);
  }
  s.boundary_count = count;
  table_->count = index + 1;
  // An empty entry is the next one that is: half of them are, whatever the target makes of them.
  uint32_t slot = site_hash(place.address.value);
  for (uint32_t n = 0; n < kSiteHashSize && table_->hash[slot].load() != 0; ++n)
    slot = (slot + 1) % kSiteHashSize;
  table_->hash[slot].store(index + 1, std::memory_order_release);
}

void SitePool::publish_flags(uint32_t index) { table_->sites[index].flags = places_[index].flags; }

void SitePool::set_flag(uint32_t index, SiteFlags flag, bool on) {
  uint32_t& flags = places_[index].flags;
  flags = on ? flags | flag : flags & ~uint32_t{flag};
  publish_flags(index);
}

void SitePool::hide_patches(TargetAddr address, std::span<uint8_t> bytes) const {
  each_patched({address, address + bytes.size()}, [&](const Place& p) {
    for (size_t i = 0; i < p.patched(); ++i)
      if (p.address + i >= address && p.address + i < address + bytes.size())
        bytes[p.address + i - address] = p.original[i];
  });
}

TargetAddr SitePool::original_of(TargetAddr pc) const {
  const bool ours = std::any_of(windows_.begin(), windows_.end(),
                                [&](const Window& w) { return pc.value - w.address < w.size; });
  if (!ours)
    return pc;
  for (const Place& place : places_) {
    if (!place.copy.contains(pc))
      continue;
    for (const auto& [offset, original] : place.boundaries)
      if (offset == pc - place.copy.begin)
        return original;
    return place.address;
  }
  for (const auto& [syscall, index] : jumps_)
    if (const Place& jump = places_[index]; jump.trampoline.contains(pc.value))
      return TargetAddr(jump.trampoline.original(pc.value, jump.address.value, syscall));
  return pc;
}

Checked<RecordId> SitePool::take_record() {
  if (free_records_.empty())
    return Diagnostic{
        fmt::format("All {} breakpoint records are in use.", kRecords), "Delete breakpoints.", {}};
  const RecordId id = free_records_.front();
  free_records_.pop_front();
  used_[id] = true;
  return id;
}

Checked<void> SitePool::set_condition(RecordId id, std::span<const uint8_t> code) {
  if (code.empty()) {
    record(id).condition = 0;
    return {};
  }
  const TargetAddr near = site_of_[id] == kNone ? TargetAddr(0) : places_[site_of_[id]].address;
  auto room = allocate(code.size(), near);
  if (!room)
    return room.error();
  std::memcpy(room->second, code.data(), code.size());
  record(id).condition = room->first;
  return {};
}

namespace {
void fill(Record& r, const RecordSpec& spec) {
  r.only_tid = static_cast<uint32_t>(spec.only_tid);
  r.min_stack_pointer = spec.min_stack_pointer;
  r.ignore_count = spec.ignore_count;
  r.hits = r.evaluations = r.faults = 0;
  r.condition = 0;
  r.watch_address = r.watch_size = 0;
  r.next = kNone;
}
uint32_t flags_of(const RecordSpec& spec) {
  return (spec.enabled ? kRecordEnabled : 0u) | (spec.internal ? kRecordInternal : 0u) |
         (spec.park_only ? kRecordParkOnly : 0u);
}
} // namespace

Checked<RecordId> SitePool::add_record(uint32_t site_index, const RecordSpec& spec) {
  auto id = take_record();
  if (!id)
    return id.error();
  Record& r = record(*id);
  fill(r, spec);
  site_of_[*id] = site_index;
  if (auto ok = set_condition(*id, spec.condition); !ok) {
    used_[*id] = false;
    free_records_.push_back(*id);
    return ok.error();
  }
  r.flags = flags_of(spec);
  // At the end of the chain: records fire in the order they were set.
  auto& chain = chains_[site_index];
  if (chain.empty())
    table_->sites[site_index].first_record.store(*id, std::memory_order_release);
  else
    record(chain.back()).next.store(*id, std::memory_order_release);
  chain.push_back(*id);
  return *id;
}

Checked<RecordId> SitePool::add_watch_record(TargetAddr address, unsigned size, uint64_t value,
                                             WatchWhen when, const RecordSpec& spec) {
  auto id = take_record();
  if (!id)
    return id.error();
  Record& r = record(*id);
  fill(r, spec);
  site_of_[*id] = kNone;
  r.watch_address = address.value;
  r.watch_size = size;
  r.watch_value = value;
  if (auto ok = set_condition(*id, spec.condition); !ok)
    return ok.error();
  r.flags = flags_of(spec) | (when == WatchWhen::kChanged     ? uint32_t{kRecordCompareValue}
                              : when == WatchWhen::kUnchanged ? uint32_t{kRecordUnchangedOnly}
                                                              : 0);
  return *id;
}

bool SitePool::valid(RecordId id) const { return id < kRecords && used_[id]; }

bool SitePool::remove_record(RecordId id) {
  record(id).flags = 0;
  const uint32_t index = site_of_[id];
  bool last = false;
  if (index != kNone) {
    auto& chain = chains_[index];
    auto at = std::find(chain.begin(), chain.end(), id);
    DUNE_ASSERT(at != chain.end());
    const uint32_t next = at + 1 == chain.end() ? kNone : *(at + 1);
    if (at == chain.begin())
      table_->sites[index].first_record.store(next, std::memory_order_release);
    else
      record(*(at - 1)).next.store(next, std::memory_order_release);
    chain.erase(at);
    last = chain.empty();
  }
  // `next` stays: a thread that stands on this record walks on from it.
  used_[id] = false;
  site_of_[id] = kNone;
  free_records_.push_back(id);
  return last;
}

bool SitePool::has_records(uint32_t index) const {
  const auto chain = chains_.find(index);
  return chain != chains_.end() && !chain->second.empty();
}

bool SitePool::needs_int3(uint32_t index) const {
  const Place& place = places_[index];
  if (has_records(index) || (place.flags & kSiteSyscall))
    return true;
  // A jump leads past the `syscall`, where somebody waits.
  const auto behind = by_address_.find(place.address.value + place.original_length);
  return place.has_jump() && behind != by_address_.end() && has_records(behind->second);
}

} // namespace ddbg::engine
