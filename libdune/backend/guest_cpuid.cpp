#include "libdune/backend/guest_cpuid.h"

namespace dune::backend {

namespace {

constexpr uint32_t kBasic = 0, kHypervisor = 0x40000000, kExtended = 0x80000000;

enum class Source : uint8_t {
  kKvm,  // as KVM suggests it: what depends on state that it keeps, or on features that it gives
  kHost, // as it is outside
  kBoth, // feature bits: those that both have
};

struct Rule {
  uint32_t leaf;
  Source eax, ebx, ecx, edx;
};
constexpr Rule all_of(uint32_t leaf, Source s) { return {leaf, s, s, s, s}; }
using enum Source;
constexpr Rule kRules[] = {
    all_of(0, kHost),
    // Features: KVM has all that ring 3 can use, but for what it says in ecx.
    {1, kHost, kHost, kBoth, kHost},
    all_of(2, kHost),
    all_of(4, kHost),
    all_of(5, kHost),
    all_of(6, kHost),
    {7, kKvm, kBoth, kBoth, kBoth},
    all_of(0xb, kHost),
    all_of(0x15, kHost),
    all_of(0x16, kHost),
    all_of(0x17, kHost),
    all_of(0x18, kHost),
    all_of(0x1a, kHost),
    all_of(0x1f, kHost),
    all_of(kExtended, kHost),
    {kExtended + 1, kHost, kHost, kBoth, kBoth},
    all_of(kExtended + 2, kHost),
    all_of(kExtended + 3, kHost),
    all_of(kExtended + 4, kHost),
    all_of(kExtended + 5, kHost),
    all_of(kExtended + 6, kHost),
    all_of(kExtended + 7, kHost),
    {kExtended + 8, kKvm, kBoth, kHost, kHost}, // eax: of which KVM checks the guest's tables
    all_of(kExtended + 0x19, kHost),
    all_of(kExtended + 0x1a, kHost),
    all_of(kExtended + 0x1d, kHost),
    all_of(kExtended + 0x1e, kHost),
    {kExtended + 0x21, kBoth, kKvm, kKvm, kKvm},
    all_of(kExtended + 0x26, kHost),
};
// Of leaf 1's ecx what no instruction of ring 3 needs, and KVM does not have to give.
constexpr uint32_t kRing0Features = 1u << 2 | 1u << 3 | 1u << 4 | 1u << 7 | 1u << 8 | 1u << 10 |
                                    1u << 14 | 1u << 15 | 1u << 17 | 1u << 18 | 1u << 21 |
                                    1u << 24 | 1u << 31;

const Rule* rule_of(uint32_t leaf) {
  for (const Rule& r : kRules)
    if (r.leaf == leaf)
      return &r;
  return nullptr;
}

bool is_hosts(const Rule& r) {
  return r.eax == kHost && r.ebx == kHost && r.ecx == kHost && r.edx == kHost;
}

uint32_t merge(Source source, uint32_t kvm, uint32_t host) {
  return source == kKvm ? kvm : source == kHost ? host : kvm & host;
}

bool is_of_caches(uint32_t leaf) { return leaf == 4 || leaf == kExtended + 0x1d; }
bool is_of_topology(uint32_t leaf) {
  return leaf == 0xb || leaf == 0x1f || leaf == kExtended + 0x26;
}
bool has_subleaves(uint32_t leaf) {
  return is_of_caches(leaf) || is_of_topology(leaf) || leaf == 0x18;
}
// The entry without a type that ends such a list.
bool ends_list(uint32_t leaf, const CpuidWords& w) {
  return (is_of_caches(leaf) && !(w.eax & 0x1f)) || (is_of_topology(leaf) && !(w.ecx & 0xff00));
}

class Table {
public:
  Table(std::span<kvm_cpuid_entry2> entries, uint32_t count) : entries_(entries), count_(count) {}
  uint32_t count() const { return count_; }

  template <class F> void remove_if(F&& f) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count_; ++i)
      if (!f(entries_[i]))
        entries_[kept++] = entries_[i];
    count_ = kept;
  }
  void add(uint32_t leaf, uint32_t subleaf, bool has_subleaves, const CpuidWords& w) {
    if (count_ == entries_.size())
      return;
    kvm_cpuid_entry2& e = entries_[count_++];
    e = {};
    e.function = leaf;
    e.index = subleaf;
    e.flags = has_subleaves ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
    e.eax = w.eax;
    e.ebx = w.ebx;
    e.ecx = w.ecx;
    e.edx = w.edx;
  }
  std::span<kvm_cpuid_entry2> all() const { return entries_.first(count_); }

private:
  std::span<kvm_cpuid_entry2> entries_;
  uint32_t count_;
};

void add_leaf(Table& table, uint32_t leaf, Cpuid host) {
  constexpr uint32_t kMost = 16;
  CpuidWords w = host(leaf, 0);
  table.add(leaf, 0, has_subleaves(leaf), w);
  if (!has_subleaves(leaf))
    return;
  // That one leaf says how many more there are.
  const uint32_t last = leaf != 0x18 ? kMost : w.eax < kMost ? w.eax : kMost - 1;
  for (uint32_t i = 1; i <= last && !ends_list(leaf, w); ++i) {
    w = host(leaf, i);
    table.add(leaf, i, true, w);
  }
}

} // namespace

uint32_t make_cpuid(std::span<kvm_cpuid_entry2> entries, uint32_t count, Cpuid host) {
  Table table(entries, count);
  for (kvm_cpuid_entry2& e : table.all()) {
    const Rule* rule = rule_of(e.function);
    if (!rule || is_hosts(*rule))
      continue;
    const CpuidWords there = host(e.function, e.index);
    const uint32_t more = e.function == 1 ? kRing0Features : 0;
    e.eax = merge(rule->eax, e.eax, there.eax);
    e.ebx = merge(rule->ebx, e.ebx, there.ebx);
    e.ecx = merge(rule->ecx, (e.ecx | more), there.ecx);
    e.edx = merge(rule->edx, e.edx, there.edx);
  }
  table.remove_if([](const kvm_cpuid_entry2& e) {
    const Rule* rule = rule_of(e.function);
    return (rule && is_hosts(*rule)) || e.function >> 28 == kHypervisor >> 28;
  });
  const uint32_t last_basic = host(kBasic, 0).eax, last_extended = host(kExtended, 0).eax;
  for (const Rule& r : kRules)
    if (is_hosts(r) && r.leaf <= (r.leaf < kExtended ? last_basic : last_extended))
      add_leaf(table, r.leaf, host);
  // Only where there is a hypervisor; elsewhere the processor answers something else there.
  if (host(1, 0).ecx >> 31) {
    const uint32_t last = host(kHypervisor, 0).eax;
    for (uint32_t leaf = kHypervisor;
         leaf == kHypervisor || (leaf <= last && leaf - kHypervisor < 16); ++leaf)
      add_leaf(table, leaf, host);
  }
  return table.count();
}

} // namespace dune::backend
