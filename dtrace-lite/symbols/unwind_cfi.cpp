#include "dtrace-lite/symbols/unwind_cfi.h"

#include "dtrace-lite/symbols/cfi_expression.h"
#include "dtrace-lite/symbols/cfi_table.h"
#include "dtrace-lite/symbols/prologue.h"

#include <array>
#include <cstring>
#include <dwarf.h>
#include <unordered_map>

namespace ddbg::symbols {

using dune::Reg;

const char* describe(UnwindEnd end) {
  switch (end) {
  case UnwindEnd::kUnreadable:
    return "Backtrace stopped: the stack cannot be read here";
  case UnwindEnd::kNoProgress:
    return "Backtrace stopped: previous frame inner to this frame (corrupt stack?)";
  case UnwindEnd::kUnknownCode:
    return "Backtrace stopped: no frame information for the caller";
  case UnwindEnd::kMissing:
    return "Backtrace stopped: a register that is needed is not known";
  default:
    return "";
  }
}

namespace {

constexpr unsigned kDwarfRegisters = 17; // rax..r15 and the return address
constexpr unsigned kReturnAddress = 16;

std::optional<Reg> reg_of_dwarf(unsigned number) {
  for (size_t i = 0; i < dune::kRegisterCount; i++)
    if (dune::kRegisters[i].dwarf_number == static_cast<int>(number))
      return static_cast<Reg>(i);
  return std::nullopt;
}

// Registers that hold across frames unless something says otherwise.
constexpr Reg kCarriedOver[] = {Reg::cs, Reg::ss, Reg::ds,      Reg::es,
                                Reg::fs, Reg::gs, Reg::fs_base, Reg::gs_base};

// The order of struct sigcontext (arch/x86/include/uapi/asm/sigcontext.h), from byte 40 of the
// ucontext.
constexpr uint64_t kSigcontextOffset = 40;
constexpr Reg kSigcontext[] = {Reg::r8,  Reg::r9,  Reg::r10, Reg::r11, Reg::r12, Reg::r13,
                               Reg::r14, Reg::r15, Reg::rdi, Reg::rsi, Reg::rbp, Reg::rbx,
                               Reg::rdx, Reg::rax, Reg::rcx, Reg::rsp, Reg::rip, Reg::eflags};

} // namespace

struct Unwinder::Impl {
  ModuleMap& modules;
  MemoryReader direct;

  // Pages read during one backtrace: neighbouring frames share them.
  bool caching = false;
  std::unordered_map<uint64_t, std::array<std::byte, dune::kPageSize>> pages;
  MemoryReader read;

  // Where main is, for the generation of the module map that it was looked up in.
  std::optional<uint64_t> main_generation;
  TargetRange main_range;

  Impl(ModuleMap& m, MemoryReader r) : modules(m), direct(std::move(r)) {
    read = [this](TargetAddr from, std::span<std::byte> to) { return read_cached(from, to); };
  }

  bool read_cached(TargetAddr from, std::span<std::byte> to) {
    const uint64_t page = from.align_down(dune::kPageSize).value;
    const uint64_t offset = from.value - page;
    if (!caching || offset + to.size() > dune::kPageSize)
      return direct(from, to);
    auto it = pages.find(page);
    if (it == pages.end()) {
      it = pages.emplace(page, std::array<std::byte, dune::kPageSize>{}).first;
      if (!direct(TargetAddr(page), it->second)) {
        pages.erase(it);
        return direct(from, to);
      }
    }
    std::memcpy(to.data(), it->second.data() + offset, to.size());
    return true;
  }

  bool is_code(TargetAddr a) const {
    const LoadedModule* m = modules.find(a);
    return m ? m->module->elf().is_text(m->to_link(a)) : modules.is_executable(a);
  }

  // mov $__NR_rt_sigreturn,%rax (or %eax); syscall: where a signal handler returns to.
  bool at_sigreturn(TargetAddr pc) const {
    static constexpr unsigned char kLong[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};
    static constexpr unsigned char kShort[] = {0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05};
    std::array<std::byte, sizeof kLong> code;
    return read(pc, code) && (std::memcmp(code.data(), kLong, sizeof kLong) == 0 ||
                              std::memcmp(code.data(), kShort, sizeof kShort) == 0);
  }

  Step past_signal(UnwindFrame& callee) {
    callee.is_signal_trampoline = true;
    const auto sp = callee.registers.get(Reg::rsp);
    if (!sp)
      return {UnwindEnd::kMissing, {}};
    callee.cfa = TargetAddr(*sp);
    std::array<uint64_t, std::size(kSigcontext)> saved;
    if (!read(TargetAddr(*sp + kSigcontextOffset), std::as_writable_bytes(std::span(saved))))
      return {UnwindEnd::kUnreadable, {}};
    Step step;
    carry_over(callee, step.caller);
    for (size_t i = 0; i < saved.size(); i++)
      step.caller.registers.set(kSigcontext[i], saved[i]);
    step.caller.pc_is_exact = true;
    return step;
  }

  static void carry_over(const UnwindFrame& from, UnwindFrame& to) {
    for (Reg r : kCarriedOver)
      if (const auto value = from.registers.get(r))
        to.registers.set(r, *value);
  }

  Step by_cfi(UnwindFrame& callee, Dwarf_Frame* frame) {
    bool is_signal = false;
    Dwarf_Addr start = 0, end = 0;
    if (dwarf_frame_info(frame, &start, &end, &is_signal) < 0)
      return {UnwindEnd::kUnknownCode, {}};
    callee.is_signal_trampoline = is_signal;
    Dwarf_Op* operations = nullptr;
    size_t count = 0;
    if (dwarf_frame_cfa(frame, &operations, &count) != 0)
      return {UnwindEnd::kUnknownCode, {}};
    const auto cfa = evaluate_cfi({operations, count}, callee.registers, read, std::nullopt);
    if (!cfa)
      return {UnwindEnd::kMissing, {}};
    callee.cfa = TargetAddr(cfa->value);

    Step step;
    carry_over(callee, step.caller);
    step.caller.pc_is_exact = is_signal;
    for (unsigned number = 0; number < kDwarfRegisters; number++) {
      const auto reg = reg_of_dwarf(number);
      Dwarf_Op storage[3];
      if (!reg ||
          dwarf_frame_register(frame, static_cast<int>(number), storage, &operations, &count) != 0)
        continue;
      if (count == 0) {
        if (operations != storage) { // same value
          if (const auto value = callee.registers.get(*reg))
            step.caller.registers.set(*reg, *value);
        } else if (number == kReturnAddress) { // undefined: there is no caller
          return {UnwindEnd::kOutermost, {}};
        }
        continue;
      }
      const auto where = evaluate_cfi({operations, count}, callee.registers, read, cfa->value);
      std::optional<uint64_t> value;
      if (where && where->kind == ExpressionResult::Kind::kValue)
        value = where->value;
      else if (where && where->kind == ExpressionResult::Kind::kRegister)
        value = dwarf_register(callee.registers, where->value);
      else if (where)
        value = read_value<uint64_t>(read, TargetAddr(where->value));
      if (value)
        step.caller.registers.set(*reg, *value);
      else if (number == kReturnAddress)
        return {UnwindEnd::kUnreadable, {}};
    }
    if (!step.caller.registers.known(Reg::rsp))
      step.caller.registers.set(Reg::rsp, cfa->value);
    return step;
  }

  // No CFI. gdb's amd64 rule: a function that has done `push %rbp; mov %rsp,%rbp` has its frame at
  // rbp; one that has not, at the stack pointer.
  Step by_frame_pointer(UnwindFrame& callee, const LoadedModule* m) {
    const auto sp = callee.registers.get(Reg::rsp);
    const auto bp = callee.registers.get(Reg::rbp);
    if (!sp)
      return {UnwindEnd::kMissing, {}};
    bool framed = false;
    uint64_t pushed = 0; // bytes below the return address, when not framed
    if (m) {
      const LinkAddr pc = m->to_link(callee.lookup_pc());
      const auto symbol = m->module->symbols().function_at(pc);
      if (symbol) {
        const LinkAddr entry = symbol->address;
        const LinkAddr body = skip_frame_setup(m->module->elf(), entry);
        const LinkAddr exact = m->to_link(callee.pc());
        framed = body > entry && exact >= body;
        // Between the push and the move only the push has been done.
        if (!framed && body > entry && exact > entry && exact + 3 >= body)
          pushed = 8;
      }
      const auto opcode = read_value<uint8_t>(read, callee.pc());
      if (callee.pc_is_exact && opcode == 0xc3) // ret: the frame is gone again
        framed = false, pushed = 0;
    }
    // JIT compilers keep frame pointers, so that they can walk their own stacks.
    if (!m && modules.is_executable(callee.lookup_pc()) && bp && *bp >= *sp)
      framed = true;
    const auto candidate = [&](uint64_t base) {
      return read_value<uint64_t>(read, TargetAddr(base));
    };
    uint64_t at = framed && bp ? *bp + 8 : *sp + pushed;
    auto ra = candidate(at);
    if (!ra || !is_code(TargetAddr(*ra))) {
      // Neither rule fits code nobody describes; a chain of frame pointers may still hold.
      if (framed || !bp || *bp < *sp)
        return {ra ? UnwindEnd::kUnknownCode : UnwindEnd::kUnreadable, {}};
      framed = true;
      at = *bp + 8;
      ra = candidate(at);
      if (!ra || !is_code(TargetAddr(*ra)))
        return {ra ? UnwindEnd::kUnknownCode : UnwindEnd::kUnreadable, {}};
    }
    Step step;
    carry_over(callee, step.caller);
    step.caller.pc_is_exact = false;
    callee.cfa = TargetAddr(at + 8);
    step.caller.registers.set(Reg::rip, *ra);
    step.caller.registers.set(Reg::rsp, at + 8);
    std::optional<uint64_t> caller_bp = bp;
    if (framed || pushed == 8)
      caller_bp = candidate(at - 8);
    if (caller_bp)
      step.caller.registers.set(Reg::rbp, *caller_bp);
    for (Reg r : {Reg::rbx, Reg::r12, Reg::r13, Reg::r14, Reg::r15})
      if (const auto value = callee.registers.get(r))
        step.caller.registers.set(r, *value);
    return step;
  }

  // rustc marks its main function in DWARF. gdb then does not take the C `main` for the outermost
  // frame, and shows the runtime below it.
  static bool names_its_own_main(Module& module) {
    if (!module.has_debug_info())
      return false;
    for (const Symbol& s : module.symbols().find_functions("main")) {
      Dwarf_Die die;
      if (s.linkage_name != "main" && function_die_at(module, s.address, &die) &&
          dwarf_hasattr(&die, DW_AT_main_subprogram))
        return true;
    }
    return false;
  }

  bool is_main(const UnwindFrame& frame) {
    if (main_generation != modules.generation()) {
      main_generation = modules.generation();
      main_range = {};
      if (const LoadedModule* m = modules.main()) {
        if (names_its_own_main(*m->module))
          return false;
        auto found = m->module->elf().is_go() ? m->module->symbols().find("main.main")
                                              : std::vector<Symbol>{};
        if (found.empty())
          found = m->module->symbols().find("main");
        if (!found.empty()) {
          const LinkAddr begin = found.front().address;
          uint64_t size = found.front().size;
          if (size == 0)
            if (const auto range = m->module->elf().fde_range(begin))
              size = range->end - begin;
          main_range = {m->to_target(begin), m->to_target(begin + std::max<uint64_t>(size, 1))};
        }
      }
    }
    return main_range.contains(frame.lookup_pc());
  }
};

Unwinder::Unwinder(ModuleMap& modules, MemoryReader read)
    : impl_(std::make_unique<Impl>(modules, std::move(read))) {}
Unwinder::~Unwinder() = default;

Unwinder::Step Unwinder::up(UnwindFrame& callee) {
  if (!callee.registers.known(Reg::rip))
    return {UnwindEnd::kMissing, {}};
  const LoadedModule* m = impl_->modules.find(callee.lookup_pc());
  Step step;
  Dwarf_Frame* row = nullptr;
  // The trampoline's own bytes tell more reliably than its CFI, which musl and Go leave out. A
  // handler "returns" to its first byte; a thread may also be stopped there.
  if (impl_->at_sigreturn(callee.pc()))
    step = impl_->past_signal(callee);
  else if (m && (row = m->module->cfi().row(m->to_link(callee.lookup_pc()))))
    step = impl_->by_cfi(callee, row);
  else
    step = impl_->by_frame_pointer(callee, m);
  if (step.end != UnwindEnd::kNone)
    return step;
  if (!step.caller.registers.known(Reg::rip))
    return {UnwindEnd::kUnreadable, {}};
  if (step.caller.pc().value == 0)
    return {UnwindEnd::kOutermost, {}};
  // The stack grows down, so a caller lies above; except across a signal, where it may be anywhere.
  const auto below = callee.registers.get(Reg::rsp), above = step.caller.registers.get(Reg::rsp);
  if (!callee.is_signal_trampoline && below && above && *above <= *below)
    return {UnwindEnd::kNoProgress, {}};
  return step;
}

Unwinder::Trace Unwinder::backtrace(const KnownRegisters& innermost, size_t limit, bool past_main) {
  Trace trace;
  if (limit == 0)
    return trace;
  impl_->pages.clear();
  impl_->caching = true;
  UnwindFrame first;
  first.registers = innermost;
  trace.frames.push_back(first);
  while (trace.end == UnwindEnd::kNone) {
    UnwindFrame& callee = trace.frames.back();
    // The last frame is unwound too, so that its CFA is known.
    Step step = up(callee);
    if (!past_main && impl_->is_main(callee))
      break;
    trace.end = step.end;
    if (step.end != UnwindEnd::kNone || trace.frames.size() == limit)
      break;
    trace.frames.push_back(step.caller);
  }
  impl_->caching = false;
  impl_->pages.clear();
  return trace;
}

void Unwinder::forget_cached() {
  impl_->main_generation.reset();
  impl_->pages.clear();
}

} // namespace ddbg::symbols
