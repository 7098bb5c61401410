// A file as the debugger reads one: ELF, symbols, DWARF lines, functions, variables, types,
// locations, and unwinding by its CFI. The input is the whole file; see elf_mutator.cpp.
#include "tests/unit/symbols/exercise.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* begin = reinterpret_cast<const std::byte*>(data);
  const std::vector<std::byte> image(begin, begin + size);
  if (ddbg::symbols::test::exercise(image))
    ddbg::symbols::test::exercise_unwinding(image);
  return 0;
}
