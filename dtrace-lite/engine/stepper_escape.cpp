// Calls that do not come back where they were made: longjmp and exceptions.
#include "dtrace-lite/engine/stepper.h"

#include <algorithm>

namespace ddbg::engine {

const FrameId& Stepper::home() const { return home_.cfa ? home_ : origin_.physical; }

// Whatever waits for a return waits for an escape too. One round through the keeper for both.
Checked<std::vector<RecordId>>
Stepper::add_with_escapes(std::vector<std::pair<TargetAddr, RecordSpec>> wanted) {
  const size_t count = wanted.size();
  std::vector<EscapeSite> sites;
  // A module that comes later may be the one that throws.
  if (const uint64_t now = env_.modules.map().generation(); escapes_of_ != now && home().cfa) {
    for (const EscapeSite& site : env_.escapes.sites()) {
      if (std::any_of(escapes_.begin(), escapes_.end(),
                      [&](const Escape& e) { return e.site.address == site.address; }))
        continue;
      wanted.emplace_back(site.address, own_record());
      sites.push_back(site);
    }
  }
  Checked<std::vector<RecordId>> records = env_.inferior.add_records(wanted);
  if (!records)
    return records;
  escapes_of_ = env_.modules.map().generation();
  for (size_t i = 0; i < sites.size(); ++i)
    escapes_.push_back({(*records)[count + i], sites[i]});
  records->resize(count);
  return records;
}

std::optional<Checked<void>> Stepper::halted_at_escape() {
  if (landing_ && pc() == landing_->address)
    return landed();
  if (!escapes_.empty() && escapes_of_ != env_.modules.map().generation())
    if (Checked<std::vector<RecordId>> added = add_with_escapes({}); !added)
      return Checked<void>(added.error());
  const auto escape = std::find_if(escapes_.begin(), escapes_.end(),
                                   [&](const Escape& e) { return e.site.address == pc(); });
  if (escape != escapes_.end()) {
    const std::optional<TargetAddr> target =
        env_.escapes.landing(escape->site, known_registers(view()), memory_reader(env_.inferior));
    if (target) {
      drop_landing();
      Checked<RecordId> record = env_.inferior.add_record(*target, own_record());
      if (!record)
        return Checked<void>(record.error());
      landing_ = Landing{*record, *target};
      run();
      return Checked<void>();
    }
  }
  // In the unwinder's last instructions nobody could say which frame this is.
  if (landing_ && waits_.empty())
    return Checked<void>();
  return std::nullopt;
}

// gdb's three cases: the step's frame is gone, or it is here, or what was called from it has caught
// the exception and goes on.
Checked<void> Stepper::landed() {
  drop_landing();
  Stack stack = make_stack();
  const std::optional<unsigned> index = stack.find_physical(home());
  if (index && *index > 0) {
    run();
    if (!waits_.empty())
      return {};
    return wait_at(stack.physical(*index)->pc(), stack.physical(*index - 1)->cfa.value, false);
  }
  drop_waits();
  if (index && !finish_ranges_.empty())
    return decide(); // perhaps still inside the inlined body
  has_return_value_ = false;
  return one_done();
}

} // namespace ddbg::engine
