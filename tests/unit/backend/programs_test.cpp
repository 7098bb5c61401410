// Whole programs, natively and in each guest there is: the same output, the same status.
#include "guests.h"
#include "host_loop.h"
#include "libdune/backend/probe_hosted.h"
#include "libdune/session/layout.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

namespace dune::backend {
namespace {

struct Outcome {
  std::string output;
  int status;
  bool operator==(const Outcome&) const = default;
};
void PrintTo(const Outcome& o, std::ostream* out) {
  *out << "status " << o.status << ", output:\n" << o.output;
}

// What a child does that has nothing open but the usual three descriptors.
template <class F> Outcome in_child(F&& child) {
  int ends[2];
  if (pipe(ends) != 0)
    return {"no pipe", -1};
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], STDOUT_FILENO);
    close_range(3, ~0u, 0);
    _exit(child());
  }
  close(ends[1]);
  Outcome o{"", -1};
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    o.output.append(buffer, size_t(n));
  close(ends[0]);
  int status;
  if (waitpid(pid, &status, 0) == pid)
    o.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return o;
}

Outcome natively(const std::vector<std::string>& arguments) {
  return in_child([&] {
    std::vector<char*> argv;
    argv.reserve(arguments.size() + 1);
    for (const std::string& a : arguments)
      argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    return 127;
  });
}

Outcome in_guest(const GuestOps& ops, Placement placement,
                 const std::vector<std::string>& arguments) {
  return in_child([&] {
    auto guest = MappedGuest::open(ops, placement, {}, 2048);
    return guest ? run_program(**guest, arguments) : 125;
  });
}

class Programs : public GuestTest {
protected:
  void expect_the_same(const std::vector<std::string>& arguments) {
    const Outcome expected = natively(arguments);
    ASSERT_NE(expected.status, 127) << arguments[0];
    EXPECT_EQ(in_guest(ops(), placement(), arguments), expected);
  }
};

INSTANTIATE_TEST_SUITE_P(Guests, Programs, each_guest(), name_of_guest);

const std::string kFolder = BACKEND_TEST_PROGRAMS "/";

TEST_P(Programs, RunWithoutALibrary) {
  expect_the_same({kFolder + "hello"});
  EXPECT_EQ(in_guest(ops(), placement(), {kFolder + "hello"}), (Outcome{"hello\n", 42}));
}

TEST_P(Programs, LiveTheSameLife) {
  for (const char* program : {"life_static", "life_static_pie"})
    expect_the_same({kFolder + program, "a", "b c"});
}

TEST_P(Programs, LiveTheSameLifeWithMusl) {
  if (access((kFolder + "life_musl").c_str(), X_OK) != 0)
    GTEST_SKIP() << "musl-gcc is not installed";
  expect_the_same({kFolder + "life_musl", "a", "b c"});
}

TEST_P(Programs, DieTheSameDeath) { expect_the_same({kFolder + "life_static", "crash"}); }

TEST_P(Programs, RunWherePhysicalAddressesAreNarrow) {
  GuestOps narrow = ops();
  static Status (*open)(Guest&);
  open = narrow.open;
  // 40 bits, as emulators have: an address of the stack does not fit.
  narrow.open = [](Guest& g) {
    Status ok = open(g);
    g.physical_bits = 40;
    return ok;
  };
  const std::vector<std::string> arguments{kFolder + "life_static", "a"};
  EXPECT_EQ(in_guest(narrow, placement(), arguments), natively(arguments));
}

TEST_P(Programs, BusyboxWorks) {
  const std::string busybox = "/bin/busybox";
  if (access(busybox.c_str(), X_OK) != 0)
    GTEST_SKIP() << "busybox-static is not installed";
  expect_the_same({busybox, "md5sum", busybox});
  expect_the_same({busybox, "sh", "-c", "i=0; while [ $i -lt 300 ]; do i=$((i+1)); done; echo $i"});
  expect_the_same({busybox, "awk", "BEGIN { for (i = 0; i < 9999; ++i) s += i % 7; print s }"});
  expect_the_same({busybox, "ls", "-l", "/usr/share/doc/busybox-static"});
  expect_the_same({busybox, "false"});
}

} // namespace
} // namespace dune::backend
