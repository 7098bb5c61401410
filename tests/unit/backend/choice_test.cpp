#include "libdune/backend/probe_hosted.h"

#include <gtest/gtest.h>

namespace dune::backend {
namespace {

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
