#include "dtrace-lite/engine/escapes.h"

#include "disasm/decode.h"

#include <algorithm>
#include <bit>

namespace ddbg::engine {

using symbols::LoadedModule;
using symbols::ProbeOperand;

namespace {

constexpr const char* kJumps[] = {"longjmp", "_longjmp", "siglongjmp", "_siglongjmp",
                                  "__longjmp_chk"};
// Those of libgcc that end in a landing pad.
constexpr const char* kUnwinders[] = {"_Unwind_RaiseException", "_Unwind_Resume",
                                      "_Unwind_Resume_or_Rethrow", "_Unwind_ForcedUnwind"};

ProbeOperand memory_at(dune::Reg base, int64_t displacement) {
  ProbeOperand operand;
  operand.kind = ProbeOperand::Kind::kMemory;
  operand.base = base;
  operand.constant = displacement;
  return operand;
}

// The landing is among what the probe passes. One that has to be switched on is of no use.
std::vector<EscapeSite> probed(const LoadedModule& module,
                               const std::vector<symbols::Probe>& probes, std::string_view provider,
                               std::string_view name, unsigned argument) {
  std::vector<EscapeSite> sites;
  for (const symbols::Probe& probe : probes) {
    if (probe.provider != provider || probe.name != name || probe.semaphore)
      continue;
    if (const std::optional<ProbeOperand> landing = probe.argument(argument))
      sites.push_back({module.to_target(probe.address), *landing});
  }
  return sites;
}

// At the functions' beginning. The program counter comes eighth in the jmp_buf of glibc and of
// musl.
std::vector<EscapeSite> jumps(const LoadedModule& module) {
  std::vector<EscapeSite> sites;
  for (const char* name : kJumps)
    for (const symbols::Symbol& symbol : module.module->symbols().find(name))
      if (symbol.is_code)
        sites.push_back({module.to_target(symbol.address), memory_at(dune::Reg::rdi, 7 * 8), true});
  return sites;
}

// What GCC makes of __builtin_eh_return: `mov %rcx,%rsp`, then `ret`, or `pop %rcx; jmp *%rcx`
// where there are shadow stacks. In between the landing pad's address is on top of the stack.
std::vector<EscapeSite> unwinders(const LoadedModule& module) {
  std::vector<EscapeSite> sites;
  for (const char* name : kUnwinders)
    for (const symbols::Symbol& symbol : module.module->symbols().find(name)) {
      const symbols::Bytes bytes = module.module->elf().bytes_at(symbol.address, symbol.size);
      const std::span code(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
      const auto [instructions, stopped] =
          dune::disasm::decode_range(code, module.to_target(symbol.address));
      constexpr uint8_t kMove[] = {0x48, 0x89, 0xcc}, kPop = 0x59;
      for (size_t i = 0; i + 2 < instructions.size(); ++i) {
        const size_t at = instructions[i].address - instructions[0].address;
        if (instructions[i].length != sizeof kMove ||
            !std::equal(std::begin(kMove), std::end(kMove), code.begin() + at))
          continue;
        if (instructions[i + 1].flow == dune::disasm::Flow::kReturn ||
            (code[at + sizeof kMove] == kPop &&
             instructions[i + 2].flow == dune::disasm::Flow::kIndirectJump))
          sites.push_back({instructions[i + 1].address, memory_at(dune::Reg::rsp, 0)});
      }
    }
  return sites;
}

} // namespace

const std::vector<EscapeSite>& Escapes::sites() {
  if (generation_ == modules_.generation())
    return sites_;
  generation_ = modules_.generation();
  sites_.clear();
  for (const LoadedModule& module : modules_.modules()) {
    if (module.is_vdso)
      continue;
    const std::vector<symbols::Probe> probes = symbols::read_probes(module.module->elf());
    std::vector<EscapeSite> found = probed(module, probes, "libc", "longjmp", 2);
    if (found.empty())
      found = jumps(module);
    std::vector<EscapeSite> ends = probed(module, probes, "libgcc", "unwind", 1);
    if (ends.empty())
      ends = unwinders(module);
    sites_.insert(sites_.end(), found.begin(), found.end());
    sites_.insert(sites_.end(), ends.begin(), ends.end());
  }
  // One function has several of the names.
  const auto by_address = [](const EscapeSite& a, const EscapeSite& b) {
    return a.address < b.address;
  };
  const auto same_address = [](const EscapeSite& a, const EscapeSite& b) {
    return a.address == b.address;
  };
  std::stable_sort(sites_.begin(), sites_.end(), by_address);
  sites_.erase(std::unique(sites_.begin(), sites_.end(), same_address), sites_.end());
  return sites_;
}

std::optional<TargetAddr> Escapes::landing(const EscapeSite& site,
                                           const symbols::KnownRegisters& registers,
                                           const symbols::MemoryReader& read) const {
  const std::optional<uint64_t> value = site.landing.value(registers, read);
  if (!value)
    return std::nullopt;
  return site.is_jmp_buf ? in_jmp_buf(*value, registers, read) : TargetAddr(*value);
}

// At the beginning of longjmp: `saved` is what setjmp saved as the program counter.
std::optional<TargetAddr> Escapes::in_jmp_buf(uint64_t saved,
                                              const symbols::KnownRegisters& registers,
                                              const symbols::MemoryReader& read) const {
  const TargetAddr plain(saved);
  if (!modules_.is_executable(plain)) {
    // PTR_DEMANGLE of glibc's sysdeps/unix/sysv/linux/x86_64/pointer_guard.h.
    constexpr int kRotation = 2 * 8 + 1;
    constexpr uint64_t kGuard = 0x30; // in tcbhead_t
    const std::optional<uint64_t> thread = registers.get(dune::Reg::fs_base);
    const std::optional<uint64_t> guard =
        thread ? symbols::read_value<uint64_t>(read, TargetAddr(*thread + kGuard)) : std::nullopt;
    const TargetAddr demangled(std::rotr(saved, kRotation) ^ guard.value_or(0));
    return guard && modules_.is_executable(demangled) ? std::optional(demangled) : std::nullopt;
  }
  // musl's sigsetjmp calls setjmp, having put its own return address into the sigjmp_buf.
  constexpr uint64_t kReturn = 8 * 8;
  const LoadedModule* module = modules_.find(plain);
  const auto symbol = module ? module->module->symbols().function_at(module->to_link(plain))
                             : std::optional<symbols::Symbol>();
  if (symbol && (symbol->linkage_name == "sigsetjmp" || symbol->linkage_name == "__sigsetjmp"))
    return symbols::read_value<TargetAddr>(
        read, TargetAddr(registers.get(dune::Reg::rdi).value_or(0) + kReturn));
  return plain;
}

} // namespace ddbg::engine
