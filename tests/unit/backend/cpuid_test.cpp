#include "libdune/backend/guest_cpuid.h"

#include <gtest/gtest.h>
#include <vector>

namespace dune::backend {
namespace {

constexpr uint32_t kVmx = 1 << 5, kFma = 1 << 12, kX2apic = 1 << 21, kXsave = 1 << 26,
                   kOsxsave = 1 << 27, kHypervisor = 1u << 31;

// A processor with two levels of topology, and caches; as seen by its own owner.
CpuidWords processor(uint32_t leaf, uint32_t subleaf) {
  switch (leaf) {
  case 0:
    return {0x1f, 'A', 'B', 'C'};
  case 1:
    return {0x111, 0x222, kFma | kVmx | kXsave | kOsxsave, 0xffff};
  case 4:
    return subleaf < 3 ? CpuidWords{subleaf + 1, 4, 4, 4} : CpuidWords{};
  case 7:
    return {2, 0xff0, 0xf, 0};
  case 0xb:
    return subleaf < 2 ? CpuidWords{1, 2, (subleaf + 1) << 8 | subleaf, 7}
                       : CpuidWords{0, 0, subleaf, 7};
  case 0x80000000:
    return {0x80000008, 0, 0, 0};
  case 0x80000002:
    return {'n', 'a', 'm', 'e'};
  case 0x80000008:
    return {0x3030, 0xf0f0, 5, 6};
  default:
    return {};
  }
}
CpuidWords processor_of_a_guest(uint32_t leaf, uint32_t subleaf) {
  CpuidWords w = processor(leaf, subleaf);
  if (leaf == 1)
    w.ecx |= kHypervisor;
  if (leaf == 0x40000000)
    w = {0x40000001, 'T', 'C', 'G'};
  if (leaf == 0x40000001)
    w = {8, 8, 8, 8};
  return w;
}

kvm_cpuid_entry2 entry(uint32_t leaf, CpuidWords w, uint32_t subleaf = 0) {
  kvm_cpuid_entry2 e{};
  e.function = leaf;
  e.index = subleaf;
  e.eax = w.eax;
  e.ebx = w.ebx;
  e.ecx = w.ecx;
  e.edx = w.edx;
  return e;
}

class GuestCpuid : public ::testing::Test {
protected:
  uint32_t make(Cpuid host, size_t room = 64) {
    entries_ = {
        entry(0, {0xd, 1, 1, 1}),
        entry(1, {0x999, 9, kFma | kXsave | kX2apic | kHypervisor, 9}),
        entry(4, {0, 0, 0, 0}),
        entry(7, {1, 0x1f0, 0x3, 0x80}),
        entry(0xd, {7, 8, 9, 10}),
        entry(0x40000000, {0x40000001, 'K', 'V', 'M'}),
        entry(0x40000001, {1, 1, 1, 1}),
        entry(0x80000008, {0x2828, 0xff00, 0, 0}),
    };
    const auto given = static_cast<uint32_t>(entries_.size());
    entries_.resize(room);
    count_ = make_cpuid(entries_, given, host);
    return count_;
  }
  // As KVM finds it.
  CpuidWords at(uint32_t leaf, uint32_t subleaf = 0) const {
    for (uint32_t i = 0; i < count_; ++i) {
      const kvm_cpuid_entry2& e = entries_[i];
      if (e.function == leaf &&
          (!(e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e.index == subleaf))
        return {e.eax, e.ebx, e.ecx, e.edx};
    }
    return {};
  }

  std::vector<kvm_cpuid_entry2> entries_;
  uint32_t count_ = 0;
};

TEST_F(GuestCpuid, SaysWhatTheProcessorSays) {
  make(processor);
  EXPECT_EQ(at(0).eax, 0x1fu);
  EXPECT_EQ(at(1).eax, 0x111u);
  EXPECT_EQ(at(1).edx, 0xffffu); // AT_HWCAP
  EXPECT_EQ(at(4, 1).eax, 2u);
  EXPECT_EQ(at(4, 3).eax, 0u);
  EXPECT_EQ(at(0xb, 1).ecx, 0x201u);
  EXPECT_EQ(at(0xb, 2).ecx, 2u);
  EXPECT_EQ(at(0x80000002).edx, 'e');
}

TEST_F(GuestCpuid, HasNoFeatureThatKvmDoesNotGive) {
  make(processor);
  EXPECT_EQ(at(1).ecx, kFma | kXsave); // KVM itself adds OSXSAVE
  EXPECT_EQ(at(7).eax, 1u);
  EXPECT_EQ(at(7).ebx, 0x1f0u);
  EXPECT_EQ(at(7).ecx, 0x3u);
  EXPECT_EQ(at(7).edx, 0u);
  EXPECT_EQ(at(0xd).edx, 10u);
  EXPECT_EQ(at(0x80000008).eax, 0x2828u);
  EXPECT_EQ(at(0x80000008).ebx, 0xf000u);
}

TEST_F(GuestCpuid, NamesTheHypervisorThatIsThere) {
  make(processor);
  EXPECT_EQ(at(0x40000000).eax, 0u);
  make(processor_of_a_guest);
  EXPECT_EQ(at(0x40000000).ebx, 'T');
  EXPECT_EQ(at(0x40000001).eax, 8u);
  EXPECT_TRUE(at(1).ecx & kHypervisor);
}

TEST_F(GuestCpuid, KeepsToItsRoom) {
  for (size_t room = 8; room < 24; ++room)
    EXPECT_LE(make(processor_of_a_guest, room), room);
}

} // namespace
} // namespace dune::backend
