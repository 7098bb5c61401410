// `break FUNCTION` and `break FILE:LINE` land where gdb lands.
#include "dtrace-lite/symbols/module.h"
#include "tests/unit/symbols/sample.h"

#include <algorithm>
#include <cstdio>
#include <gtest/gtest.h>

namespace ddbg::symbols {
namespace {

using namespace test;

struct Compilation {
  const char* name;
  const char* command;
};

std::string shown(const std::vector<CodePlace>& places) {
  std::vector<uint64_t> addresses;
  addresses.reserve(places.size());
  for (const CodePlace& p : places)
    addresses.push_back(p.address.value);
  std::sort(addresses.begin(), addresses.end());
  std::string text;
  for (uint64_t a : addresses) {
    char hex[20];
    std::snprintf(hex, sizeof hex, " %lx", a);
    text += hex;
  }
  return text;
}

class BreakpointPlaces : public testing::TestWithParam<Compilation> {};

TEST_P(BreakpointPlaces, AreThoseOfGdb) {
  if (!have("gdb"))
    GTEST_SKIP() << "no gdb to compare with";
  const std::string command = GetParam().command;
  if (!have(command.substr(0, command.find(' '))))
    GTEST_SKIP() << "no " << command.substr(0, command.find(' '));
  const std::string program = compiled(command, "sample_cpp.txt", "cpp");
  ASSERT_FALSE(program.empty());
  auto module = Module::open(program);
  ASSERT_TRUE(module) << module.error().message;
  const auto files = (*module)->lines().files();
  const auto own = std::find_if(files.begin(), files.end(), [](const SourceFile* f) {
    return f->name.find("samples/sample") != std::string::npos;
  });
  ASSERT_NE(own, files.end());

  std::vector<std::string> questions{"main",
                                     "work",
                                     "helper",
                                     "ns::f",
                                     "ns::f(int)",
                                     "f",
                                     "f(double)",
                                     "bigger",
                                     "ns::S::S",
                                     "S::get",
                                     "get",
                                     "operator+=",
                                     "~S",
                                     "ns::S::~S",
                                     "ns::bigger<int>",
                                     "bigger<double>",
                                     "std::sort",
                                     "no_such_function"};
  const size_t functions = questions.size();
  const std::string base = (*own)->name.substr((*own)->name.rfind('/') + 1);
  for (int line = 1; line <= 45; line++)
    questions.push_back(base + ":" + std::to_string(line));

  const ScratchFolder scratch;
  std::string script = "import gdb\ngdb.execute('set breakpoint pending off')\n"
                       "def ask(q):\n"
                       "    try:\n"
                       "        b = gdb.Breakpoint(q)\n"
                       "        a = sorted(set(l.address for l in b.locations))\n"
                       "        b.delete()\n"
                       "    except gdb.error:\n"
                       "        a = []\n"
                       "    print('@' + q + ':' + ''.join(' %x' % x for x in a))\n";
  for (const std::string& q : questions)
    script += "ask('" + q + "')\n";
  write_file(scratch / "ask.py", script);
  std::vector<std::string> expected;
  for (const std::string& line :
       lines_of(output_of("gdb -nx -q -batch -x " + (scratch / "ask.py") + " " + program)))
    if (line.starts_with('@'))
      expected.push_back(line);
  ASSERT_EQ(expected.size(), questions.size());

  size_t found = 0;
  for (size_t i = 0; i < questions.size(); i++) {
    const std::string& q = questions[i];
    const size_t colon = q.rfind(':');
    const auto places =
        i < functions
            ? (*module)->functions().places(q)
            : (*module)->lines().places(q.substr(0, colon),
                                        static_cast<unsigned>(std::stoul(q.substr(colon + 1))));
    EXPECT_EQ("@" + q + ":" + shown(places), expected[i]);
    found += !places.empty();
  }
  EXPECT_GT(found, questions.size() / 2);
}

INSTANTIATE_TEST_SUITE_P(Compilers, BreakpointPlaces,
                         testing::Values(Compilation{"Gcc4Debug", "g++ -gdwarf-4 -O0"},
                                         Compilation{"Gcc5Debug", "g++ -gdwarf-5 -O0"},
                                         Compilation{"Gcc5Light", "g++ -gdwarf-5 -O1"},
                                         Compilation{"Gcc4Optimized", "g++ -gdwarf-4 -O2"},
                                         Compilation{"Gcc5Optimized", "g++ -gdwarf-5 -O2"},
                                         Compilation{"Gcc5Compressed", "g++ -gdwarf-5 -gz -O2"},
                                         Compilation{"Gcc5Static", "g++ -gdwarf-5 -O2 -static"},
                                         Compilation{"Clang4Debug", "clang++ -gdwarf-4 -O0"},
                                         Compilation{"Clang5Debug", "clang++ -gdwarf-5 -O0"},
                                         Compilation{"Clang5Optimized", "clang++ -gdwarf-5 -O2"}),
                         [](const auto& parameter) { return parameter.param.name; });

// Debian's own programs have no debug information: the frame setup is skipped by its bytes.
TEST(BreakpointPlacesOfStrippedCode, AreThoseOfGdb) {
  if (!have("gdb"))
    GTEST_SKIP() << "no gdb to compare with";
  const std::string library = output_of("readlink -fn /lib/x86_64-linux-gnu/libstdc++.so.6");
  auto module = Module::open(library);
  ASSERT_TRUE(module) << module.error().message;
  std::vector<std::string> names;
  size_t seen = 0;
  (*module)->symbols().for_each([&](const Symbol& s) {
    if (s.type == SymbolType::kFunction && !s.is_ifunc && seen++ % 40 == 0)
      names.emplace_back(s.linkage_name);
  });
  ASSERT_GT(names.size(), 50u);
  names.resize(50);
  const ScratchFolder scratch;
  std::string ours;
  for (const std::string& name : names) {
    const auto found = (*module)->symbols().find(name);
    ASSERT_FALSE(found.empty()) << name;
    char line[64];
    std::snprintf(line, sizeof line, "%lx %lx\n", found.front().address.value,
                  (*module)->lines().after_prologue(found.front().address).value);
    ours += line;
  }
  std::string script = "import gdb\nfor a in [";
  for (const std::string& line : lines_of(ours))
    script += "0x" + line.substr(0, line.find(' ')) + ",";
  script += "]:\n"
            "    n = gdb.execute('info symbol %d' % a, to_string=True).split(' in section')[0]\n"
            "    try:\n"
            "        b = gdb.Breakpoint(\"'\" + n + \"'\")\n"
            "        l = [x.address for x in b.locations]\n"
            "        b.delete()\n"
            "    except gdb.error:\n"
            "        l = []\n"
            "    print('@%x %s' % (a, ' '.join('%x' % x for x in l)))\n";
  write_file(scratch / "ask.py", script);
  size_t compared = 0;
  const auto mine = lines_of(ours);
  size_t i = 0;
  for (const std::string& line :
       lines_of(output_of("gdb -nx -q -batch -x " + (scratch / "ask.py") + " " + library))) {
    if (!line.starts_with('@'))
      continue;
    const std::string want = mine[i].substr(mine[i].find(' ') + 1);
    i++;
    const std::string addresses = line.substr(line.find(' ') + 1);
    if (addresses.empty())
      continue; // a name that gdb cannot read back
    compared++;
    EXPECT_NE((" " + addresses + " ").find(" " + want + " "), std::string::npos)
        << line << " without " << want;
  }
  EXPECT_GT(compared, 20u);
}

} // namespace
} // namespace ddbg::symbols
