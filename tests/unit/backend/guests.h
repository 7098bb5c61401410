// Tests that hold for every backend with a guest.
#pragma once

#include "libdune/backend/probe_hosted.h"
#include "libdune/session/layout.h"

#include <cstring>
#include <gtest/gtest.h>
#include <vector>

namespace dune::backend {

inline auto each_guest() {
  std::vector<const Backend*> found;
  for (const Backend& b : all())
    if (b.guest != GuestKind::kNone)
      found.push_back(&b);
  return testing::ValuesIn(found);
}
inline std::string name_of_guest(const testing::TestParamInfo<const Backend*>& row) {
  return row.param->name;
}

// Skips where the guest is not to be had.
class GuestTest : public testing::TestWithParam<const Backend*> {
protected:
  void SetUp() override {
    const auto& found = probe(*GetParam());
    if (!found && found.error().code == Errc::kSystem)
      GTEST_SKIP() << GetParam()->name << " is not there: " << found.error().text << ": "
                   << strerror(int(found.error().detail));
    ASSERT_TRUE(found) << found.error().text;
    capabilities_ = found->capabilities;
  }

  GuestOps ops() const { return guest_ops(GetParam()->guest); }
  Placement placement() const {
    return can(session::kCapRing0) ? Placement::kRing0 : Placement::kRing3;
  }

  bool can(session::Capability c) const { return capabilities_ & c; }

private:
  uint32_t capabilities_ = 0;
};

} // namespace dune::backend
