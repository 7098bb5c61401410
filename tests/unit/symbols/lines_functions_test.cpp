// Line, range, function and inlined calls at every few bytes of a program, compared with gdb.
#include "dtrace-lite/symbols/module.h"
#include "tests/unit/symbols/sample.h"

#include <cstdio>
#include <gtest/gtest.h>

namespace ddbg::symbols {
namespace {

using namespace test;

std::string without_end(const std::string& answer) {
  const size_t dash = answer.find('-');
  const size_t names = answer.find('|');
  return answer.substr(0, dash) + (names == std::string::npos ? "" : answer.substr(names));
}

class AddressInfo : public testing::TestWithParam<const char*> {};

TEST_P(AddressInfo, IsThatOfGdb) {
  if (!have("gdb"))
    GTEST_SKIP() << "no gdb to compare with";
  const std::string command = GetParam();
  if (!have(command.substr(0, command.find(' '))))
    GTEST_SKIP() << "no " << command.substr(0, command.find(' '));
  const std::string program = compiled(command, "sample_cpp.txt", "cpp");
  auto module = Module::open(program);
  ASSERT_TRUE(module) << module.error().message;
  const Section* text = (*module)->elf().section(".text");
  ASSERT_NE(text, nullptr);

  std::string ours;
  size_t with_line = 0, inlined_calls = 0;
  char line[512];
  for (LinkAddr a = text->range.begin; a < text->range.end; a += 3) {
    const auto span = (*module)->lines().find(a);
    if (span)
      std::snprintf(line, sizeof line, "@%lx %u %lx-%lx", a.value, span->line,
                    span->range.begin.value, span->range.end.value);
    else
      std::snprintf(line, sizeof line, "@%lx -", a.value);
    ours += line;
    with_line += span.has_value();
    const auto function = (*module)->functions().at(a);
    if (function && function->source == Function::Source::kDwarf) {
      for (const InlinedCall& call : (*module)->functions().inlined_at(a)) {
        ours += "|" + call.function;
        inlined_calls++;
      }
      ours += "|" + function->name;
    }
    ours += "\n";
  }
  EXPECT_GT(with_line, 100u);

  const ScratchFolder scratch;
  char range[64];
  std::snprintf(range, sizeof range, "range(0x%lx, 0x%lx, 3)", text->range.begin.value,
                text->range.end.value);
  write_file(scratch / "ask.py",
             "import gdb, re\n"
             "def bare(n):\n" // gdb keeps the parameters in a symbol's name
             "    d = 0\n"
             "    for i, c in enumerate(n):\n"
             "        if c == '(' and d == 0 and not n[:i].endswith('operator'):\n"
             "            j, e = i, 0\n"
             "            while True:\n"
             "                e += (n[j] == '(') - (n[j] == ')')\n"
             "                j += 1\n"
             "                if e == 0: break\n"
             "            if n[j:].startswith('::') or n[j:].startswith(' const::'): continue\n"
             "            return n[:i]\n"
             "        d += (c in '<({') - (c in '>)}')\n"
             "    return n\n"
             "for a in " +
                 std::string(range) +
                 ":\n"
                 "    s = gdb.find_pc_line(a)\n"
                 "    t = '@%x ' % a\n"
                 "    if s.symtab: t += '%d %x-%x' % (s.line, s.pc, s.last + 1)\n"
                 "    else: t += '-'\n"
                 "    b = gdb.block_for_pc(a)\n"
                 "    while b and not b.is_static and not b.is_global:\n"
                 "        if b.function: t += '|' + bare(b.function.print_name)\n"
                 "        b = b.superblock\n"
                 "    print(t)\n");
  const auto expected =
      lines_of(output_of("gdb -nx -q -batch -x " + (scratch / "ask.py") + " " + program));
  const auto mine = lines_of(ours);
  size_t next = 0, different = 0, other_end = 0;
  for (const std::string& want : expected) {
    if (!want.starts_with('@'))
      continue;
    ASSERT_LT(next, mine.size());
    // Where lines of several files interleave, gdb's end of a range depends on the order of its
    // symbol tables; a few differ.
    other_end += without_end(mine[next]) == without_end(want) && mine[next] != want;
    // The script cannot read operator< , nor tell a lambda's function from one inlined.
    const bool readable = want.find("operator<") == std::string::npos &&
                          want.find("operator()|main") == std::string::npos;
    if (readable && without_end(mine[next]) != without_end(want) && ++different <= 5) {
      EXPECT_EQ(mine[next], want);
    }
    next++;
  }
  EXPECT_EQ(next, mine.size());
  EXPECT_EQ(different, 0u);
  EXPECT_LE(other_end * 50, next);
  EXPECT_TRUE(inlined_calls > 0 || command.find("-O2") == std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Compilers, AddressInfo,
                         testing::Values("g++ -gdwarf-4 -O2", "g++ -gdwarf-5 -O2",
                                         "g++ -gdwarf-5 -O0", "clang++ -gdwarf-5 -O2"));

} // namespace
} // namespace ddbg::symbols
