#include "disasm/capstone.h"

#include "disasm/decode.h"

#include <algorithm>
#include <capstone/capstone.h>
#include <cstdio>
#include <dlfcn.h>

namespace dune::disasm {

namespace {

// The library is loaded when an instruction is first printed or doubted: its tables are 1.4 MB of
// relocations, a twentieth of a debugger's start and memory, and many sessions do neither.
class Library {
public:
  static const Library* get() { // null: it is not there, and that has been said
    static const Library loaded;
    return loaded.handle_ ? &loaded : nullptr;
  }

  decltype(&cs_open) open;
  decltype(&cs_close) close;
  decltype(&cs_option) option;
  decltype(&cs_malloc) allocate;
  decltype(&cs_free) free;
  decltype(&cs_disasm_iter) disassemble;
  decltype(&cs_insn_name) name;

private:
  Library() {
    if (!handle_)
      return;
    find("cs_open", open);
    find("cs_close", close);
    find("cs_option", option);
    find("cs_malloc", allocate);
    find("cs_free", free);
    find("cs_disasm_iter", disassemble);
    find("cs_insn_name", name);
  }

  template <class F> void find(const char* symbol, F& function) {
    function = reinterpret_cast<F>(::dlsym(handle_, symbol));
    DUNE_ASSERT(function);
  }

  static void* load() {
#define DUNE_TEXT_OF(x) #x
#define DUNE_SONAME(major) "libcapstone.so." DUNE_TEXT_OF(major)
    void* handle = ::dlopen(DUNE_SONAME(CS_API_MAJOR), RTLD_NOW | RTLD_LOCAL);
#undef DUNE_SONAME
#undef DUNE_TEXT_OF
    if (!handle)
      fprintf(stderr, "warning: instructions are read by Zydis alone: %s\n", ::dlerror());
    return handle;
  }

  void* handle_ = load();
};

// A Capstone handle is not safe to share between threads, and opening one costs microseconds.
class Handle {
public:
  explicit Handle(Syntax syntax) {
    if (!library_)
      return;
    DUNE_ASSERT(library_->open(CS_ARCH_X86, CS_MODE_64, &handle_) == CS_ERR_OK);
    library_->option(handle_, CS_OPT_SYNTAX,
                     syntax == Syntax::kAtt ? CS_OPT_SYNTAX_ATT : CS_OPT_SYNTAX_INTEL);
    instruction_ = library_->allocate(handle_);
    DUNE_ASSERT(instruction_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (!library_)
      return;
    library_->free(instruction_, 1);
    library_->close(&handle_);
  }

  const cs_insn* decode(std::span<const uint8_t> bytes, TargetAddr address) {
    const uint8_t* code = bytes.data();
    size_t size = std::min(bytes.size(), kMaxInstructionLength);
    uint64_t at = address.value;
    return library_ && library_->disassemble(handle_, &code, &size, &at, instruction_)
               ? instruction_
               : nullptr;
  }

  const char* name(const cs_insn& one) const {
    const char* found = library_->name(handle_, one.id);
    return found ? found : "";
  }

private:
  const Library* library_ = Library::get();
  csh handle_ = 0;
  cs_insn* instruction_ = nullptr;
};

Handle& handle_for(Syntax syntax) {
  thread_local Handle att(Syntax::kAtt);
  thread_local Handle intel(Syntax::kIntel);
  return syntax == Syntax::kAtt ? att : intel;
}

} // namespace

uint8_t capstone_length(std::span<const uint8_t> bytes, TargetAddr address) {
  const cs_insn* one = handle_for(Syntax::kAtt).decode(bytes, address);
  return one ? static_cast<uint8_t>(one->size) : 0;
}

std::optional<CapstoneText> capstone_print(std::span<const uint8_t> bytes, TargetAddr address,
                                           Syntax syntax) {
  const cs_insn* one = handle_for(syntax).decode(bytes, address);
  if (!one)
    return {};
  return CapstoneText{static_cast<uint8_t>(one->size), handle_for(syntax).name(*one), one->mnemonic,
                      one->op_str};
}

} // namespace dune::disasm
