#include "libdune/backend/probe_hosted.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

namespace dune::backend {

Result<Probe> probe_signal();
Result<Probe> probe_guest(const GuestOps&);

namespace {

constexpr Backend kBackends[] = {
    {"signal", probe_signal, GuestKind::kNone},
    {"kmod", nullptr, GuestKind::kKmod, true},
    {"kvm", nullptr, GuestKind::kKvm},
};

std::string absent(const Backend& b, const Error& e) {
  std::string text = std::string("The backend \"") + b.name + "\" is not there: " + e.text;
  if (e.code == Errc::kSystem)
    text += std::string(" (") + strerror(static_cast<int>(e.detail)) + ")";
  return text + ".";
}

Choice by_name(const std::string& name) {
  std::string names = "auto";
  for (const Backend& b : kBackends) {
    names += std::string(", ") + b.name;
    if (name != b.name)
      continue;
    const auto& found = probe(b);
    if (!found)
      return {nullptr, {}, absent(b, found.error())};
    return {&b, *found, "asked for"};
  }
  return {nullptr, {}, "There is no backend \"" + name + "\"; there are: " + names + "."};
}

// What many machines have for other reasons may make a program's calls so many times as dear as
// they are without it: a program may do nothing but calls, and nobody has asked.
constexpr uint64_t kMostTimesACall = 10;
// What was put there for us is weighed in the machine's own currency, because calls of a guest are
// dearer than native ones everywhere (15 times as dear on hardware, some 75 times in an emulator,
// whose traps are as slow): so many traps have to save what a call costs more.
constexpr uint64_t kTrapsForACall = 4;

bool is_good_enough(const Candidate& c, const Probe& plain) {
  if (!c.backend->is_dedicated)
    return c.probe.syscall_ns / kMostTimesACall <= plain.syscall_ns;
  return c.probe.trap_ns < plain.trap_ns &&
         c.probe.syscall_ns <=
             plain.syscall_ns + kTrapsForACall * (plain.trap_ns - c.probe.trap_ns);
}

std::string figures(const Candidate& c) {
  char text[80];
  snprintf(text, sizeof text, "; %s: a trap %.2f us, a call %.2f us", c.backend->name,
           c.probe.trap_ns / 1000.0, c.probe.syscall_ns / 1000.0);
  return text;
}

} // namespace

Choice choose_among(std::span<const Candidate> there) {
  if (there.empty())
    return {nullptr, {}, "No backend works here."};
  const auto plain = std::min_element(there.begin(), there.end(), [](const auto& a, const auto& b) {
    return a.probe.syscall_ns < b.probe.syscall_ns;
  });
  const Candidate* best = &*plain;
  for (const Candidate& c : there) {
    const bool is_better = c.backend->is_dedicated != best->backend->is_dedicated
                               ? c.backend->is_dedicated
                               : c.probe.trap_ns < best->probe.trap_ns;
    if (is_better && is_good_enough(c, plain->probe))
      best = &c;
  }
  if (there.size() == 1)
    return {best->backend, best->probe, "the only one that is there"};
  std::string why = best->backend->is_dedicated
                        ? "it is there for this, and four traps save more than a call costs"
                        : "the best as measured";
  for (const Candidate& c : there)
    if (&c != best)
      why += figures(c);
  return {best->backend, best->probe, std::move(why)};
}

namespace {

Choice by_measurement() {
  std::vector<Candidate> there;
  for (const Backend& b : kBackends)
    if (const auto& found = probe(b))
      there.push_back({&b, *found});
  return choose_among(there);
}

} // namespace

std::span<const Backend> all() { return kBackends; }

const Result<Probe>& probe(const Backend& b) {
  static std::optional<Result<Probe>> found[std::size(kBackends)];
  auto& result = found[&b - kBackends];
  if (!result)
    result.emplace(b.probe ? b.probe() : probe_guest(guest_ops(b.guest)));
  return *result;
}

Choice choose(const std::string& name) { return name == "auto" ? by_measurement() : by_name(name); }

} // namespace dune::backend
