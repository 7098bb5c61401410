#include "libdune/backend/probe_hosted.h"
#include "libdune/session/layout.h"

#include <gtest/gtest.h>
#include <vector>

namespace dune::backend {
namespace {

const Backend& named(const std::string& name) {
  for (const Backend& b : all())
    if (b.name == name)
      return b;
  ADD_FAILURE() << "there is no backend " << name;
  return all()[0];
}

// In nanoseconds, as measured on the machine that a test names.
Candidate measured(const std::string& name, uint32_t trap, uint32_t call) {
  return {&named(name), {0, trap, call}};
}

void expect_choice(const std::vector<Candidate>& there, const std::string& name) {
  // Whatever order the table has.
  EXPECT_EQ(choose_among(there).backend, &named(name)) << choose_among(there).why;
  const std::vector<Candidate> back(there.rbegin(), there.rend());
  EXPECT_EQ(choose_among(back).backend, &named(name)) << choose_among(back).why;
}

TEST(Choice, IsTheModuleInBothEmulators) {
  expect_choice({measured("signal", 42'100, 710), measured("kmod", 30, 54'800)}, "kmod");    // QEMU
  expect_choice({measured("signal", 91'800, 1'770), measured("kmod", 700, 88'380)}, "kmod"); // busy
  expect_choice({measured("signal", 76'000, 6'600), measured("kmod", 0, 47'220)}, "kmod"); // Bochs
}

TEST(Choice, IsTheModuleBesideKvm) {
  expect_choice({measured("signal", 42'100, 710), measured("kmod", 700, 54'800),
                 measured("kvm", 200, 45'000)},
                "kmod");
  expect_choice(
      {measured("signal", 1'800, 100), measured("kmod", 60, 900), measured("kvm", 50, 950)},
      "kmod");
}

TEST(Choice, IsNoModuleWhoseCallsCostMoreThanItsTrapsSave) {
  expect_choice({measured("signal", 1'800, 140), measured("kmod", 3'200, 28'000)}, "signal");
  expect_choice({measured("signal", 1'800, 140), measured("kmod", 300, 28'000)}, "signal");
}

TEST(Choice, IsKvmOnlyWhereItsCallsCostLittle) {
  expect_choice({measured("signal", 1'830, 140), measured("kvm", 3'200, 28'000)}, "signal"); // PVM
  expect_choice({measured("signal", 44'170, 830), measured("kvm", 200, 45'000)}, "signal");  // QEMU
  expect_choice({measured("signal", 1'830, 140), measured("kvm", 150, 1'500)}, "signal");
  expect_choice({measured("signal", 1'830, 140), measured("kvm", 150, 1'300)}, "kvm");
}

TEST(Choice, SaysWhyAndWhatTheOthersWouldCost) {
  const std::vector there{measured("signal", 42'100, 710), measured("kmod", 30, 54'800),
                          measured("kvm", 200, 45'000)};
  const std::string why = choose_among(there).why;
  EXPECT_EQ(why, "it is there for this, and four traps save more than a call costs"
                 "; signal: a trap 42.10 us, a call 0.71 us; kvm: a trap 0.20 us, a call 45.00 us");
  EXPECT_LT(why.size(), sizeof(session::BackendInfo::why_chosen));
  EXPECT_EQ(choose_among({there.data(), 1}).why, "the only one that is there");
  EXPECT_FALSE(choose_among({}).backend);
}

TEST(Choice, AutoTakesOneThatIsThere) {
  const Choice c = choose("auto");
  ASSERT_TRUE(c.backend) << c.why;
  EXPECT_GT(c.probe.trap_ns, 0u);
  EXPECT_GT(c.probe.syscall_ns, 0u);
}

TEST(Choice, NamesTheBackendsThatThereAre) {
  const Choice c = choose("nonsense");
  EXPECT_EQ(c.backend, nullptr);
  for (const Backend& b : all())
    EXPECT_NE(c.why.find(b.name), std::string::npos) << c.why;
}

TEST(Choice, TakesByNameWhatIsThere) {
  for (const Backend& b : all()) {
    const Choice c = choose(b.name);
    if (c.backend)
      EXPECT_EQ(c.backend, &b) << c.why;
    else
      EXPECT_NE(c.why.find("is not there"), std::string::npos) << c.why;
  }
}

} // namespace
} // namespace dune::backend
