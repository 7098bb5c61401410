#include "libdune/backend/probe_hosted.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <optional>

namespace dune::backend {

Result<Probe> probe_signal();
Result<Probe> probe_guest(const GuestOps&);

namespace {

constexpr Backend kBackends[] = {
    {"signal", probe_signal, nullptr},
    {"kvm", nullptr, kvm_guest},
};

const Result<Probe>& probe_of(const Backend& b) {
  static std::optional<Result<Probe>> found[std::size(kBackends)];
  auto& probe = found[&b - kBackends];
  if (!probe)
    probe.emplace(b.guest ? probe_guest(b.guest()) : b.probe());
  return *probe;
}

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
    const auto& probe = probe_of(b);
    if (!probe)
      return {nullptr, {}, absent(b, probe.error())};
    return {&b, *probe, "asked for"};
  }
  return {nullptr, {}, "There is no backend \"" + name + "\"; there are: " + names + "."};
}

Choice by_measurement() {
  uint32_t cheapest_call = UINT32_MAX;
  size_t present = 0;
  for (const Backend& b : kBackends)
    if (probe_of(b)) {
      cheapest_call = std::min(cheapest_call, probe_of(b)->syscall_ns);
      ++present;
    }
  Choice best{nullptr, {}, "No backend works here."};
  for (const Backend& b : kBackends) {
    if (!probe_of(b))
      continue;
    const Probe& probe = *probe_of(b);
    if (probe.syscall_ns / 10 <= cheapest_call &&
        (!best.backend || probe.trap_ns < best.probe.trap_ns))
      best = {&b, probe,
              present == 1 ? "the only one that is there" : "the cheapest trap, as measured"};
  }
  return best;
}

} // namespace

std::span<const Backend> all() { return kBackends; }

Choice choose(const std::string& name) { return name == "auto" ? by_measurement() : by_name(name); }

} // namespace dune::backend
