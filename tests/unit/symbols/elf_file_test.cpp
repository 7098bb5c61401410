#include "dtrace-lite/symbols/elf_file.h"

#include "dtrace-lite/symbols/elf_symbols.h"
#include "dtrace-lite/symbols/module.h"
#include "tests/unit/symbols/sample.h"

#include <cstdio>
#include <cstring>
#include <elf.h>
#include <gtest/gtest.h>
#include <sys/auxv.h>

namespace ddbg::symbols {
namespace {

using namespace test;

const char* const kProgram = "#include <stdio.h>\nint main(void) {\n puts(\"x\");\n return 0;\n}\n";

TEST(ElfFile, TellsKindsOfProgramsApart) {
  struct Row {
    const char* command;
    ElfKind kind;
    bool is_static;
  };
  const Row rows[] = {{"gcc -no-pie", ElfKind::kExecutable, false},
                      {"gcc -pie -fPIE", ElfKind::kPie, false},
                      {"gcc -static", ElfKind::kExecutable, true},
                      {"gcc -static-pie -fPIE", ElfKind::kPie, true},
                      {"gcc -shared -fPIC", ElfKind::kSharedObject, false}};
  for (const Row& row : rows) {
    auto file = ElfFile::open(compiled(row.command, kProgram, "c"));
    ASSERT_TRUE(file) << row.command << ": " << file.error().message;
    EXPECT_EQ((*file)->kind(), row.kind) << row.command;
    EXPECT_EQ((*file)->is_static(), row.is_static) << row.command;
    EXPECT_TRUE((*file)->warnings().empty());
    EXPECT_TRUE((*file)->is_text((*file)->entry()) || row.kind == ElfKind::kSharedObject);
  }
}

TEST(ElfFile, AgreesWithReadelf) {
  const std::string path = output_of("readlink -fn /lib/x86_64-linux-gnu/libc.so.6");
  auto file = ElfFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ((*file)->build_id() + "\n",
            output_of("readelf -n " + path + " | awk '/Build ID/{print $3}'"));
  EXPECT_EQ((*file)->soname(), "libc.so.6");
  EXPECT_EQ(std::to_string((*file)->sections().size()) + "\n",
            output_of("readelf -h " + path + " | awk '/Number of section headers/{print $5}'"));
  const Section* text = (*file)->section(".text");
  ASSERT_NE(text, nullptr);
  const Bytes bytes = (*file)->bytes_at(text->range.begin, 64);
  ASSERT_EQ(bytes.size(), 64u);
  EXPECT_EQ(std::memcmp(bytes.data(), text->data.data(), 64), 0);
  EXPECT_TRUE((*file)->bytes_at(LinkAddr(uint64_t{1} << 40), 8).empty());
}

TEST(ElfFile, KnowsFunctionBoundsOfStrippedCode) {
  const std::string path = output_of("readlink -fn /usr/bin/gzip");
  auto file = ElfFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  size_t compared = 0;
  for (const std::string& line :
       lines_of(output_of("readelf --debug-dump=frames " + path + " | grep -o 'pc=[0-9a-f.]*'"))) {
    unsigned long begin = 0, end = 0;
    ASSERT_EQ(std::sscanf(line.c_str(), "pc=%lx..%lx", &begin, &end), 2) << line;
    for (unsigned long pc : {begin, (begin + end) / 2, end - 1}) {
      const auto range = (*file)->fde_range(LinkAddr(pc));
      ASSERT_TRUE(range) << line;
      EXPECT_EQ(*range, (LinkRange{LinkAddr(begin), LinkAddr(end)}));
      compared++;
    }
  }
  EXPECT_GT(compared, 200u);
  EXPECT_FALSE((*file)->fde_range(LinkAddr(0)));
}

// The memory of a file's private mapping that is resident, in kB.
long resident_kb(const std::string& path) {
  long kb = 0, one = 0;
  bool ours = false;
  for (const std::string& line : lines_of(read_file("/proc/self/smaps"))) {
    if (line.find('-') < line.find(' '))
      ours = line.ends_with(path);
    else if (ours && std::sscanf(line.c_str(), "Rss: %ld", &one) == 1)
      kb += one;
  }
  return kb;
}

TEST(ElfFile, GivesBackTheMemoryOfCodeAndReadsItAgain) {
  const ScratchFolder scratch;
  const std::string content = read_file("/lib/x86_64-linux-gnu/libc.so.6");
  write_file(scratch / "libc", content);
  const auto file = ElfFile::open(scratch / "libc");
  ASSERT_TRUE(file) << file.error().message;
  const LinkRange text = (*file)->text_ranges().at(0);
  const auto copy_of_text = [&] {
    const Bytes bytes = (*file)->bytes_at(text.begin, text.size());
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  const auto before = copy_of_text();
  const long read_kb = resident_kb(scratch / "libc");
  EXPECT_GT(read_kb, 1000);
  (*file)->forget_code();
  EXPECT_LT(resident_kb(scratch / "libc"), read_kb - 1000);
  EXPECT_EQ(copy_of_text(), before);
}

// As Go's linker lays a file out. libelf notes in the headers what it has decompressed.
TEST(ElfFile, GivesBackNoSectionHeaders) {
  const char* kWithRoom = "__asm__(\".text\\n.balign 4096\\n.globl room\\nroom: .skip "
                          "12288\");\nint main() { return 0; }\n";
  std::string content = read_file(compiled("gcc -g -gz", kWithRoom, "c"));
  const ScratchFolder scratch;
  write_file(scratch / "before", content);
  const auto before = ElfFile::open(scratch / "before");
  ASSERT_TRUE(before) << before.error().message;
  const auto room = ElfSymbols(**before, nullptr).find("room");
  ASSERT_EQ(room.size(), 1u);
  const auto place = (*before)->bytes_at(room[0].address, 1).data() - (*before)->image().data();
  Elf64_Ehdr header;
  memcpy(&header, content.data(), sizeof header);
  content.replace(static_cast<size_t>(place) + dune::kPageSize, header.e_shnum * sizeof(Elf64_Shdr),
                  content, header.e_shoff, header.e_shnum * sizeof(Elf64_Shdr));
  header.e_shoff = static_cast<uint64_t>(place) + dune::kPageSize;
  memcpy(content.data(), &header, sizeof header);
  write_file(scratch / "after", content);

  const auto module = Module::open(scratch / "after");
  ASSERT_TRUE(module) << module.error().message;
  const auto compressed = [&] {
    const Bytes headers = (*module)->elf().image().subspan(header.e_shoff);
    int count = 0;
    for (int i = 0; i < header.e_shnum; ++i) {
      Elf64_Shdr h;
      memcpy(&h, headers.data() + static_cast<size_t>(i) * sizeof h, sizeof h);
      count += (h.sh_flags & SHF_COMPRESSED) != 0;
    }
    return count;
  };
  EXPECT_GT(compressed(), 0);
  ASSERT_TRUE((*module)->debug_info());
  EXPECT_EQ(compressed(), 0);
  (*module)->elf().forget_code();
  EXPECT_EQ(compressed(), 0);
}

TEST(ElfFile, SaysWhatIsWrongAndWhatToDo) {
  const ScratchFolder scratch;
  const std::string good = read_file(compiled("gcc", kProgram, "c"));
  const auto with = [&](size_t at, char byte) {
    std::string bad = good;
    bad[at] = byte;
    return bad;
  };
  struct Row {
    std::string content;
    const char* expected;
  };
  const Row rows[] = {
      {"#!/bin/sh\necho\n", "is a script"},
      {"plain text", "is not an ELF file"},
      {"", "is empty"},
      {"\x7f", "is not an ELF file"},
      {good.substr(0, 40), "truncated"},
      {good.substr(0, 100), "program headers lie outside"},
      {good.substr(0, 4096), "truncated or damaged"},
      {with(EI_CLASS, ELFCLASS32), "32-bit"},
      {with(18, static_cast<char>(EM_AARCH64)), "AArch64"},
      {with(EI_DATA, ELFDATA2MSB), "only x86-64"},
      {with(16, ET_CORE), "core dump"},
      {with(16, ET_REL), "object file"},
      {with(16, 9), "unknown ELF type"},
      {with(54, 1), "program headers"},
  };
  for (const Row& row : rows) {
    write_file(scratch / "bad", row.content);
    const auto file = ElfFile::open(scratch / "bad");
    ASSERT_FALSE(file) << row.expected;
    EXPECT_NE(file.error().message.find(row.expected), std::string::npos) << file.error().message;
    EXPECT_FALSE(file.error().hint.empty()) << file.error().message;
  }
  for (const char* path : {"/", "/dev/null", "/no/such/file"}) {
    const auto file = ElfFile::open(path);
    ASSERT_FALSE(file) << path;
    EXPECT_FALSE(file.error().hint.empty()) << path;
  }
}

TEST(ElfFile, SurvivesADamagedSectionTable) {
  const ScratchFolder scratch;
  std::string bytes = read_file(compiled("gcc", kProgram, "c"));
  bytes.resize(bytes.size() - 64); // the table is last
  write_file(scratch / "cut", bytes);
  const auto file = ElfFile::open(scratch / "cut");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_FALSE((*file)->warnings().empty());
  EXPECT_TRUE((*file)->sections().empty());
  EXPECT_FALSE((*file)->text_ranges().empty());
}

} // namespace
} // namespace ddbg::symbols
