// The modules of the test process itself, against dl_iterate_phdr and the linker's own structures.
#include "dtrace-lite/symbols/module_map.h"
#include "tests/unit/symbols/sample.h"

#include <dlfcn.h>
#include <filesystem>
#include <gtest/gtest.h>
#include <link.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

namespace ddbg::symbols {
namespace {

using namespace test;

bool read_self(TargetAddr from, std::span<std::byte> to) {
  iovec local{to.data(), to.size()};
  iovec remote{reinterpret_cast<void*>(from.value), to.size()};
  return ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0) ==
         static_cast<ssize_t>(to.size());
}

const LoadedModule* named(const ModuleMap& map, std::string_view part) {
  for (const LoadedModule& m : map.modules())
    if (m.path.find(part) != std::string::npos)
      return &m;
  return nullptr;
}

TEST(ModuleMap, AgreesWithTheLinkerOnEveryModule) {
  ModuleMap map;
  const auto change = map.refresh(::getpid(), read_self);
  ASSERT_TRUE(change) << change.error().message;
  EXPECT_TRUE(change->warnings.empty()) << change->warnings.front();
  struct Expected {
    uint64_t bias;
    std::string name;
  };
  std::vector<Expected> expected;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        static_cast<std::vector<Expected>*>(out)->push_back({info->dlpi_addr, info->dlpi_name});
        return 0;
      },
      &expected);
  ASSERT_GT(expected.size(), 3u);
  EXPECT_EQ(map.modules().size(), expected.size());
  for (const Expected& e : expected) {
    bool found = false;
    for (const LoadedModule& m : map.modules())
      found |= m.bias == e.bias;
    EXPECT_TRUE(found) << e.name;
  }
  ASSERT_NE(map.main(), nullptr);
  EXPECT_EQ(map.main()->to_target(map.main()->module->elf().entry()).value, ::getauxval(AT_ENTRY));
  const LoadedModule* libc = named(map, "libc.so");
  ASSERT_NE(libc, nullptr);
  void* self = ::dlopen(nullptr, RTLD_NOW);
  void* address = ::dlsym(self, "getppid"); // which the sanitizers do not replace
  const auto symbol = libc->module->symbols().find("getppid");
  ASSERT_EQ(symbol.size(), 1u);
  EXPECT_EQ(libc->to_target(symbol.front().address).value, reinterpret_cast<uint64_t>(address));
}

TEST(ModuleMap, ReadsTheVdsoFromMemory) {
  if (::getauxval(AT_SYSINFO_EHDR) == 0)
    GTEST_SKIP() << "this kernel gives the process no vDSO";
  ModuleMap map;
  ASSERT_TRUE(map.refresh(::getpid(), read_self));
  const LoadedModule* vdso = named(map, "[vdso]");
  ASSERT_NE(vdso, nullptr);
  EXPECT_TRUE(vdso->is_vdso);
  EXPECT_EQ(vdso->range.begin.value, ::getauxval(AT_SYSINFO_EHDR));
  EXPECT_FALSE(vdso->module->symbols().find("__vdso_clock_gettime").empty());
}

TEST(ModuleMap, FindsWhereTheLinkerAnnouncesLibraries) {
  ModuleMap map;
  ASSERT_TRUE(map.refresh(::getpid(), read_self));
  const auto hook = map.linker_hook(read_self);
  ASSERT_TRUE(hook);
  const r_debug* rendezvous = nullptr;
  for (const ElfW(Dyn)* d = _DYNAMIC; d->d_tag != DT_NULL; d++)
    if (d->d_tag == DT_DEBUG)
      rendezvous = reinterpret_cast<const r_debug*>(d->d_un.d_ptr);
  ASSERT_NE(rendezvous, nullptr);
  EXPECT_EQ(hook->r_debug.value, reinterpret_cast<uint64_t>(rendezvous));
  EXPECT_EQ(hook->breakpoint.value, rendezvous->r_brk);
  EXPECT_FALSE(hook->is_changing);
  // Before the linker has run, its symbols must lead to the same place.
  const auto unset = [&](TargetAddr from, std::span<std::byte> to) {
    if (!read_self(from, to))
      return false;
    if (to.size() == sizeof(ElfW(Dyn))) {
      auto* entry = reinterpret_cast<ElfW(Dyn)*>(to.data());
      if (entry->d_tag == DT_DEBUG)
        entry->d_un.d_ptr = 0;
    }
    return true;
  };
  const auto early = map.linker_hook(unset);
  ASSERT_TRUE(early);
  EXPECT_EQ(early->r_debug.value, 0u);
  EXPECT_EQ(early->breakpoint.value, rendezvous->r_brk);
  EXPECT_TRUE(early->is_changing);
}

TEST(ModuleMap, FollowsDlopenAndDlclose) {
  const std::string library =
      compiled("gcc -shared -fPIC -g", "int in_the_library(void) {\n return 7; }\n", "c");
  ASSERT_FALSE(library.empty());
  ModuleMap map;
  ASSERT_TRUE(map.refresh(::getpid(), read_self));
  const Module* main_before = map.main()->module.get();
  const uint64_t generation = map.generation();
  void* handle = ::dlopen(library.c_str(), RTLD_NOW);
  ASSERT_NE(handle, nullptr) << ::dlerror();
  auto change = map.refresh(::getpid(), read_self);
  ASSERT_TRUE(change);
  EXPECT_EQ(change->added, std::vector<std::string>{library});
  EXPECT_TRUE(change->removed.empty());
  EXPECT_GT(map.generation(), generation);
  EXPECT_EQ(map.main()->module.get(), main_before) << "what was read is kept";
  void* function = ::dlsym(handle, "in_the_library");
  EXPECT_EQ(map.describe(TargetAddr(reinterpret_cast<uint64_t>(function))), "in_the_library");

  ::dlclose(handle);
  change = map.refresh(::getpid(), read_self);
  ASSERT_TRUE(change);
  EXPECT_EQ(change->removed, std::vector<std::string>{library});
  const auto none = map.refresh(::getpid(), read_self);
  ASSERT_TRUE(none);
  EXPECT_FALSE(none->any());
}

TEST(ModuleMap, NamesCodeOfADeletedLibraryOrSaysSo) {
  const std::string library =
      compiled("gcc -shared -fPIC -g", "int soon_deleted(void) {\n return 7; }\n", "c");
  const ScratchFolder scratch;
  std::filesystem::copy_file(library, scratch / "gone.so");
  void* handle = ::dlopen((scratch / "gone.so").c_str(), RTLD_NOW);
  ASSERT_NE(handle, nullptr) << ::dlerror();
  std::filesystem::remove(scratch / "gone.so");
  ModuleMap map;
  ASSERT_TRUE(map.refresh(::getpid(), read_self));
  const auto function = TargetAddr(reinterpret_cast<uint64_t>(::dlsym(handle, "soon_deleted")));
  if (::access("/proc/self/map_files", X_OK) == 0 && ::geteuid() == 0) {
    EXPECT_EQ(map.describe(function), "soon_deleted");
  } else {
    EXPECT_TRUE(map.is_executable(function));
  }
  ::dlclose(handle);
}

TEST(ModuleMap, WarnsOfAFileReplacedOnDisk) {
  const std::string one = compiled("gcc -shared -fPIC -Wl,--build-id",
                                   "int first_version(void) {\n return 1; }\n", "c");
  const std::string two = compiled("gcc -shared -fPIC -Wl,--build-id",
                                   "int other_version(void) {\n return 2; }\n", "c");
  const ScratchFolder scratch;
  std::filesystem::copy_file(one, scratch / "lib.so");
  void* handle = ::dlopen((scratch / "lib.so").c_str(), RTLD_NOW);
  ASSERT_NE(handle, nullptr) << ::dlerror();
  // Shown as a process sees it that cannot open map_files: same inode number, other content.
  auto maps = *read_maps(::getpid());
  std::filesystem::copy_file(two, scratch / "new.so");
  std::filesystem::rename(scratch / "new.so", scratch / "lib.so");
  struct stat status;
  ASSERT_EQ(::stat((scratch / "lib.so").c_str(), &status), 0);
  for (MapsLine& line : maps)
    if (line.path.find("lib.so") != std::string::npos && line.path.find(scratch / "") == 0)
      line.inode = status.st_ino;
  ModuleMap map;
  const auto change = map.refresh_from(maps, read_self,
                                       std::filesystem::read_symlink("/proc/self/exe"), ::getpid());
  bool warned = false;
  for (const std::string& w : change.warnings)
    warned |= w.find("replaced") != std::string::npos;
  EXPECT_TRUE(warned);
  ::dlclose(handle);
}

TEST(ModuleMap, HoldsAProgramBeforeItRuns) {
  ModuleMap map;
  const auto change = map.set_program("/proc/self/exe");
  ASSERT_TRUE(change);
  ASSERT_NE(map.main(), nullptr);
  EXPECT_EQ(map.main()->bias, 0u);
  const auto missing = map.set_program("/no/such/program");
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message.find("No such file"), std::string::npos);
  EXPECT_FALSE(missing.error().hint.empty());
}

TEST(MapsText, IsParsedWithOddPathsAndSkippedWhereDamaged) {
  const auto lines = parse_maps("7f00-7f80 r-xp 00001000 fe:01 42    /a b/c (deleted)\n"
                                "garbage\n"
                                "8000-9000 rw-p 00000000 00:00 0 \n"
                                "ffff-");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].path, "/a b/c (deleted)");
  EXPECT_EQ(lines[0].offset, 0x1000u);
  EXPECT_EQ(lines[0].device, (uint64_t{0xfe} << 32 | 1));
  EXPECT_EQ(lines[0].inode, 42u);
  EXPECT_TRUE(lines[0].executable);
  EXPECT_FALSE(lines[0].writable);
  EXPECT_TRUE(lines[1].path.empty());
}

} // namespace
} // namespace ddbg::symbols
