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
    {"signal", probe_signal, GuestKind::kNone},
    {"kmod", nullptr, GuestKind::kKmod},
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

Choice by_measurement() {
  uint32_t cheapest_call = UINT32_MAX;
  size_t present = 0;
  for (const Backend& b : kBackends)
    if (probe(b)) {
      cheapest_call = std::min(cheapest_call, probe(b)->syscall_ns);
      ++present;
    }
  Choice best{nullptr, {}, "No backend works here."};
  for (const Backend& b : kBackends) {
    if (!probe(b))
      continue;
    const Probe& found = *probe(b);
    if (found.syscall_ns / 10 <= cheapest_call &&
        (!best.backend || found.trap_ns < best.probe.trap_ns))
      best = {&b, found,
              present == 1 ? "the only one that is there" : "the cheapest trap, as measured"};
  }
  return best;
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
