// A guest with one processor, and the memory of both, for hosted code: probes and tests.
#pragma once

#include "libdune/backend/guest.h"
#include "libdune/base/file.h"

#include <memory>

namespace dune::backend {

class OwnedGuest {
public:
  static Result<std::unique_ptr<OwnedGuest>> open(const GuestOps& ops, Placement placement,
                                                  std::span<const Handler> handlers,
                                                  uint64_t table_pages) {
    const uint64_t for_guest = sizeof(GuestMemory) + table_pages * kPageSize;
    const uint64_t size = for_guest + sizeof(CpuMemory) + kPageSize;
    auto memory = Mapping::anonymous(2 * size);
    if (!memory)
      return memory.error();
    // Half of it lies within one chunk.
    TargetAddr begin(reinterpret_cast<uint64_t>(memory->data()));
    if ((begin + size).align_down(kChunkSize) > begin)
      begin = (begin + size).align_down(kChunkSize);
    std::unique_ptr<OwnedGuest> self(new OwnedGuest(std::move(*memory)));
    const TargetAddr cpu = begin + for_guest;
    if (auto ok = open_guest(self->guest, ops, {begin, cpu}, placement, handlers); !ok)
      return ok.error();
    self->guest_is_open_ = true;
    if (auto ok = open_cpu(self->cpu, self->guest, {cpu, cpu + sizeof(CpuMemory)}, begin + size);
        !ok)
      return ok.error();
    self->cpu_is_open_ = true;
    return self;
  }
  ~OwnedGuest() {
    if (cpu_is_open_)
      guest.ops.close_cpu(cpu);
    if (guest_is_open_)
      guest.ops.close(guest);
  }
  OwnedGuest(const OwnedGuest&) = delete;
  OwnedGuest& operator=(const OwnedGuest&) = delete;

  Exit run() { return guest.ops.run(cpu); }

  Guest guest{};
  Cpu cpu{};

private:
  explicit OwnedGuest(Mapping memory) : memory_(std::move(memory)) {}

  Mapping memory_;
  bool guest_is_open_ = false;
  bool cpu_is_open_ = false;
};

} // namespace dune::backend
