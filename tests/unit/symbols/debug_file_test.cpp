// Separate debug files, and that nothing is read that is not needed.
#include "dtrace-lite/symbols/debug_file.h"
#include "dtrace-lite/symbols/module.h"
#include "tests/unit/symbols/sample.h"

#include <filesystem>
#include <gtest/gtest.h>

namespace ddbg::symbols {
namespace {

using namespace test;

class SeparateDebugFile : public testing::Test {
protected:
  void SetUp() override {
    const std::string full = compiled("g++ -g -O1 -Wl,--build-id", "sample_cpp.txt", "cpp");
    ASSERT_FALSE(full.empty());
    std::filesystem::copy_file(full, scratch_ / "full");
    expected_ = answers(scratch_ / "full", {});
    ASSERT_NE(expected_.find("sample"), std::string::npos) << expected_;
    output_of("objcopy --only-keep-debug " + (scratch_ / "full") + " " + (scratch_ / "prog.debug"));
    output_of("cd " + (scratch_ / "") + " && strip -o prog full");
  }

  // What the debugger says of the program: any difference is a debug file not found.
  static std::string answers(const std::string& path, const DebugFileOptions& options) {
    auto module = Module::open(path, options);
    if (!module)
      return module.error().message;
    std::string text;
    for (const char* name : {"work", "ns::f", "main"})
      for (const CodePlace& p : (*module)->functions().places(name))
        text += std::string(name) + " " + std::to_string(p.address.value) + " " +
                (p.file ? p.file->name : "?") + ":" + std::to_string(p.line) + "\n";
    return text;
  }

  ScratchFolder scratch_;
  std::string expected_;
};

TEST_F(SeparateDebugFile, IsFoundByBuildId) {
  EXPECT_NE(answers(scratch_ / "prog", {}), expected_);
  const std::string id = (*ElfFile::open(scratch_ / "prog"))->build_id();
  ASSERT_EQ(id.size(), 40u);
  const std::string folder = scratch_ / ("dbg/.build-id/" + id.substr(0, 2));
  std::filesystem::create_directories(folder);
  std::filesystem::rename(scratch_ / "prog.debug", folder + "/" + id.substr(2) + ".debug");
  EXPECT_EQ(answers(scratch_ / "prog", {{scratch_ / "nowhere", scratch_ / "dbg"}}), expected_);
}

TEST_F(SeparateDebugFile, IsFoundByDebuglinkBesideInDotDebugAndInTheDirectory) {
  output_of("cd " + (scratch_ / "") + " && strip -R .note.gnu.build-id prog");
  output_of("cd " + (scratch_ / "") +
            " && objcopy --remove-section=.note.gnu.build-id "
            "--add-gnu-debuglink=prog.debug prog");
  const std::string home = std::filesystem::canonical(scratch_ / "prog").parent_path();
  for (const std::string& folder : {home, home + "/.debug", scratch_ / ("dbg" + home)}) {
    std::filesystem::create_directories(folder);
    const std::string there = folder + "/prog.debug";
    if (folder != home)
      std::filesystem::copy_file(scratch_ / "kept", there);
    EXPECT_EQ(answers(scratch_ / "prog", {{scratch_ / "dbg"}}), expected_) << folder;
    if (folder == home)
      std::filesystem::rename(there, scratch_ / "kept");
    else
      std::filesystem::remove(there);
  }
}

TEST_F(SeparateDebugFile, OfAnotherBuildIsRefusedWithAWarning) {
  output_of("cd " + (scratch_ / "") +
            " && objcopy --remove-section=.note.gnu.build-id "
            "--add-gnu-debuglink=prog.debug prog");
  std::string content = read_file(scratch_ / "prog.debug");
  content.back() = static_cast<char>(content.back() ^ 1);
  write_file(scratch_ / "prog.debug", content);
  auto module = Module::open(scratch_ / "prog", {{scratch_ / "dbg"}});
  ASSERT_TRUE(module) << module.error().message;
  EXPECT_EQ((*module)->separate_debug_file(), nullptr);
  ASSERT_FALSE((*module)->warnings().empty());
  EXPECT_NE((*module)->warnings().back().find("CRC"), std::string::npos);
}

TEST(Laziness, ReadsNoDwarfForNamesAndOneUnitForOneFunction) {
  const ScratchFolder scratch;
  std::string sources;
  for (int i = 0; i < 8; i++) {
    const std::string name = "unit" + std::to_string(i) + ".c";
    write_file(scratch / name, "int function" + std::to_string(i) + "(int x) {\n  return x + " +
                                   std::to_string(i) + ";\n}\n" +
                                   (i == 0 ? "int main(void) { return function0(1); }\n" : ""));
    sources += " " + (scratch / name);
  }
  output_of("gcc -g -O0 -o " + (scratch / "prog") + sources);
  auto opened = Module::open(scratch / "prog");
  ASSERT_TRUE(opened) << opened.error().message;
  Module& module = **opened;
  ReadCounters& counters = module.counters();

  EXPECT_EQ(module.symbols().find_functions("function3").size(), 1u);
  EXPECT_TRUE(module.symbols().function_at(module.elf().entry()));
  EXPECT_EQ(counters.units_opened + counters.line_programs + counters.line_headers, 0u);

  EXPECT_EQ(module.functions().places("main").size(), 1u);
  EXPECT_EQ(counters.units_opened, 1u);
  EXPECT_EQ(counters.line_programs, 1u);
  EXPECT_EQ(counters.symbols_demangled, 0u);

  EXPECT_EQ(module.lines().places("unit5.c", 2).size(), 1u);
  EXPECT_EQ(counters.line_programs, 2u) << "of the other units only the file names";
  EXPECT_EQ(module.lines().places("unit5.c", 2).size(), 1u);
  EXPECT_EQ(counters.line_programs, 2u) << "and only once";
}

} // namespace
} // namespace ddbg::symbols
