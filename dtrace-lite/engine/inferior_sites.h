// Sites, records and the code arena: what the front end writes into the session for the agent, and
// its own account of it. Nothing read back is believed: a hostile target can write the session, and
// make its mapping of the code memfd writable. Internal to the engine's Inferior.
#pragma once

#include "dtrace-lite/engine/inferior.h"
#include "libdune/base/file.h"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <unordered_map>
#include <vector>

namespace dune::disasm {
struct Relocated;
}

namespace ddbg::engine {

class SitePool {
public:
  // Both mappings outlive the pool.
  SitePool(dune::session::Session&, std::byte* code, const dune::session::MemoryMap&);

  // The index of the site at `address`, made if there is none. `original`: the program's bytes
  // there, as many as are readable, at least one instruction.
  Checked<uint32_t> site_at(TargetAddr address, std::span<const uint8_t> original, uint32_t flags);

  // What is known of a site.
  struct Place {
    uint32_t index;
    TargetAddr address;
    std::array<uint8_t, dune::session::kJumpLength> original;
    uint8_t original_length; // of the displaced instruction(s)
    uint32_t flags;          // SiteFlags
    TargetRange copy;
    std::vector<std::pair<uint16_t, TargetAddr>> boundaries; // offset in the copy, original
    dune::session::Trampoline trampoline{};                  // of a jump site

    bool installed() const { return flags & dune::session::kSiteInstalled; }
    bool has_jump() const { return flags & dune::session::kSiteJump; }
    // What stands there without the int3.
    uint8_t first_byte() const { return has_jump() ? dune::session::kJumpOpcode : original[0]; }
    // How much of the text is not the program's.
    size_t patched() const { return has_jump() ? dune::session::kJumpLength : installed() ? 1 : 0; }
  };
  const Place& place(uint32_t index) const { return places_[index]; }
  void set_flag(uint32_t index, dune::session::SiteFlags, bool on);
  // Calls f(place) for every site that changes the text within the range.
  template <class F> void each_patched(TargetRange range, F&& f) const {
    const uint64_t before = std::min<uint64_t>(range.begin.value, dune::session::kJumpLength - 1);
    for (auto it = by_address_.lower_bound(range.begin.value - before);
         it != by_address_.end() && it->first < range.end.value; ++it)
      if (const Place& p = places_[it->second]; range.begin < p.address + p.patched())
        f(p);
  }
  // `bytes`, read at `address`, as the program has them.
  void hide_patches(TargetAddr address, std::span<uint8_t> bytes) const;

  // Makes the site on the instruction before a `syscall` that is a site a jump site: what is to be
  // written over it. nullopt: it cannot be one (jump_sites.cpp). `original` as for site_at.
  std::optional<std::array<uint8_t, dune::session::kJumpLength>>
  plan_jump(uint32_t index, JumpKind, std::span<const uint8_t> original,
            const dune::session::MemoryMap&);
  // The jump site that leads past the `syscall` at `address`.
  std::optional<uint32_t> jump_before(TargetAddr address) const;

  // The program's address for an instruction pointer inside a copy; `pc` itself elsewhere.
  TargetAddr original_of(TargetAddr pc) const;

  // A record linked to a site, not yet in the text. Errors: pool or arena full.
  Checked<RecordId> add_record(uint32_t site, const RecordSpec&);
  // Unlinks; true if its site has no record left. Watch records have no site.
  bool remove_record(RecordId);
  Checked<RecordId> add_watch_record(TargetAddr, unsigned size, uint64_t value, WatchWhen when,
                                     const RecordSpec&);
  bool valid(RecordId) const;
  uint32_t site_of(RecordId id) const { return site_of_[id]; }
  dune::session::Record& record(RecordId id) const { return session_->records[id]; }
  Checked<void> set_condition(RecordId, std::span<const uint8_t> code);
  bool needs_int3(uint32_t site) const;

private:
  bool has_records(uint32_t site) const;
  Checked<TargetAddr> gate_table();
  struct Window {
    uint64_t address, size, offset, used;
    std::map<uint64_t, uint64_t> islands{}; // taken beyond `used`: begin and end

    // Where `size` bytes are free, from `from` on and behind `used`.
    uint64_t free_from(uint64_t from, size_t size) const;
  };
  std::vector<Window*> nearest_first(TargetAddr near);
  // Room for `size` bytes near `near`; target address and our own. Errors: arena full.
  Checked<std::pair<uint64_t, std::byte*>> allocate(size_t size, TargetAddr near);
  // The same where the displacement counted from `near` has the byte `third` as its third.
  Checked<std::pair<uint64_t, std::byte*>> allocate_with_third_byte(size_t size, TargetAddr near,
                                                                    uint8_t third);
  Checked<RecordId> take_record();

  void publish(uint32_t index, const dune::disasm::Relocated& copy);
  void publish_flags(uint32_t index);

  dune::session::Session* session_;
  dune::session::SiteTable* table_; // written, never believed
  std::byte* code_;
  std::vector<Place> places_; // by index
  std::vector<Window> windows_;
  std::map<uint64_t, uint32_t> by_address_;
  std::map<uint64_t, uint32_t> jumps_; // jump sites by the address of their `syscall`
  std::optional<TargetAddr> gate_table_;
  // The chains as we made them: what the session says of them is the target's to scribble over.
  std::unordered_map<uint32_t, std::vector<RecordId>> chains_;
  std::vector<uint32_t> site_of_; // by record, kNone: free or a watch
  std::vector<bool> used_;
  // Freed records are reused last: a thread may still be walking over one.
  std::deque<RecordId> free_records_;
};

} // namespace ddbg::engine
