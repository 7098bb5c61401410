#include "libdune/backend/probe_hosted.h"

#include <algorithm>
#include <vector>

namespace dune::backend {

Probe probe_signal();

namespace {
constexpr Backend kBackends[] = {
    {"signal", probe_signal},
};

const std::vector<Probe>& probes() {
  static const std::vector<Probe> found = [] {
    std::vector<Probe> result;
    for (const Backend& b : kBackends)
      result.push_back(b.probe());
    return result;
  }();
  return found;
}
} // namespace

std::span<const Backend> all() { return kBackends; }

Choice choose(const std::string& name) {
  const auto& found = probes();
  if (name != "auto") {
    std::string names = "auto";
    for (size_t i = 0; i < found.size(); ++i) {
      names += std::string(", ") + kBackends[i].name;
      if (name != kBackends[i].name)
        continue;
      if (!found[i].present)
        return {nullptr, {}, found[i].why_not};
      return {&kBackends[i], found[i], "asked for"};
    }
    return {nullptr, {}, "There is no backend \"" + name + "\"; there are: " + names + "."};
  }
  uint32_t cheapest_call = UINT32_MAX;
  for (const Probe& p : found)
    if (p.present)
      cheapest_call = std::min(cheapest_call, p.syscall_ns);
  Choice best{nullptr, {}, "No backend works here."};
  for (size_t i = 0; i < found.size(); ++i)
    if (found[i].present && found[i].syscall_ns / 10 <= cheapest_call &&
        (!best.backend || found[i].trap_ns < best.probe.trap_ns))
      best = {&kBackends[i], found[i],
              found.size() == 1 ? "the only one in this build" : "the cheapest trap, as measured"};
  return best;
}

} // namespace dune::backend
