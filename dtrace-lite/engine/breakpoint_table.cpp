#include "dtrace-lite/engine/breakpoint_table.h"

#include "dtrace-lite/expr/compile.h"
#include "dtrace-lite/expr/evaluate.h"

#include <algorithm>

namespace ddbg::engine {

const char* type_name(BreakpointType type) {
  switch (type) {
  case BreakpointType::kBreakpoint:
    return "breakpoint";
  case BreakpointType::kWatch:
    return "hw watchpoint";
  case BreakpointType::kReadWatch:
    return "read watchpoint";
  case BreakpointType::kAccessWatch:
    return "acc watchpoint";
  }
  return "";
}

Breakpoint* BreakpointTable::find(unsigned number) const {
  for (const auto& b : all_)
    if (b->number == number)
      return b.get();
  return nullptr;
}

Linespec BreakpointTable::resolve(const Breakpoint& b) {
  return resolve_linespec(env_.modules->view(), env_.linespec_context(), b.spec);
}

Checked<unsigned> BreakpointTable::add(const AddBreakpoint& request) {
  may_be_pending_ = false;
  Checked<BreakArguments> arguments = parse_break_arguments(request.arguments);
  if (!arguments)
    return arguments.error();
  auto b = std::make_unique<Breakpoint>();
  b->disposition = request.disposition;
  b->spec = arguments->location;
  b->condition = arguments->condition;
  b->thread = arguments->thread;
  if (b->thread && env_.tid_of(*b->thread) == 0)
    return Diagnostic{"Unknown thread " + std::to_string(*b->thread) + ".", {}, {}};
  Linespec found = resolve(*b);
  if (found.places.empty() && !(found.may_come_later && request.allow_pending)) {
    may_be_pending_ = found.may_come_later;
    return found.problem;
  }
  // What is relative to where the user is now must mean the same place for ever.
  if (!found.places.empty() &&
      (b->spec.empty() || b->spec[0] == '*' || b->spec[0] == '+' || b->spec[0] == '-' ||
       std::isdigit(static_cast<unsigned char>(b->spec[0])))) {
    const ResolvedPlace& first = found.places.front();
    if (first.source && b->spec[0] != '*' && !b->spec.empty())
      b->spec = first.source.file->name + ":" + std::to_string(first.source.line);
    else if (b->spec.empty() || b->spec.find('$') != std::string::npos)
      b->is_address = true;
  }
  place(*b, found.places);
  for (BreakpointLocation& location : b->locations) {
    std::vector<uint8_t> code;
    Checked<void> compiled = compile_condition(*b, location, &code);
    if (!compiled && !arguments->force_condition)
      return compiled.error();
  }
  b->pending = b->locations.empty();
  Checked<void> installed = install(*b);
  if (!installed) {
    uninstall(*b);
    return installed.error();
  }
  b->number = next_number_++;
  all_.push_back(std::move(b));
  return all_.back()->number;
}

// Makes the locations those of `places`; what stays keeps its number, state and record.
void BreakpointTable::place(Breakpoint& b, const std::vector<ResolvedPlace>& places) {
  std::vector<BreakpointLocation> now;
  for (const ResolvedPlace& wanted : places) {
    auto old = std::find_if(b.locations.begin(), b.locations.end(),
                            [&](const auto& l) { return l.place.address == wanted.address; });
    if (old == b.locations.end()) {
      now.emplace_back();
    } else {
      now.push_back(std::move(*old));
      b.locations.erase(old);
    }
    now.back().place = wanted;
  }
  for (BreakpointLocation& gone : b.locations) {
    uninstall_location(b, gone);
    if (!now.empty()) { // its hits were the breakpoint's
      now.front().counted.hits += gone.counted.hits;
      now.front().counted.evaluations += gone.counted.evaluations;
      now.front().counted.faults += gone.counted.faults;
    }
  }
  for (size_t i = 0; i < now.size(); ++i)
    now[i].number = static_cast<unsigned>(i + 1);
  b.locations = std::move(now);
}

// Errors are what a person typed wrong. What is right but cannot be compiled is no error: the
// location says so.
Checked<void> BreakpointTable::compile_condition(const Breakpoint& b, BreakpointLocation& location,
                                                 std::vector<uint8_t>* code) {
  location.condition_place = ConditionPlace::kNone;
  location.why_not_compiled.clear();
  if (b.condition.empty())
    return {};
  Frame frame;
  frame.pc = frame.lookup_pc = location.place.address;
  const bool has_frame = !b.is_watch();
  TargetContext context(*env_.modules, module_scopes(*env_.modules, *env_.tables, env_.inferior),
                        *env_.values, env_.inferior, nullptr, has_frame ? &frame : nullptr);
  Checked<expr::Expression> checked = expr::check(b.condition, context);
  if (!checked && b.is_watch() && b.watch_scope_cfa) {
    location.condition_place = ConditionPlace::kInDdbg; // names of the watched frame
    location.why_not_compiled = "it uses variables of a frame that may not be the innermost";
    return {};
  }
  if (!checked)
    return checked.error();
  expr::CompileOptions options;
  if (has_frame)
    options.cfa = cfa_rule(frame.pc);
  Checked<std::vector<uint8_t>> compiled = expr::compile_predicate(*checked, options);
  location.condition_place = compiled ? ConditionPlace::kInTarget : ConditionPlace::kInDdbg;
  if (compiled)
    *code = std::move(*compiled);
  else
    location.why_not_compiled = compiled.error().message;
  return {};
}

// How the CFA follows from the registers at a pc, found by asking the unwinder with registers whose
// values tell them apart, twice: a rule that is not register + offset gives no answer.
std::optional<expr::CfaRule> BreakpointTable::cfa_rule(TargetAddr pc) {
  Inferior* const inferior = env_.inferior;
  const symbols::ModuleMap& map = env_.modules->map();
  const symbols::MemoryReader code_only = [&](TargetAddr from, std::span<std::byte> to) {
    if (inferior && map.find(from))
      return static_cast<bool>(
          inferior->read_memory(from, {reinterpret_cast<uint8_t*>(to.data()), to.size()}));
    std::fill(to.begin(), to.end(), std::byte{0});
    return true;
  };
  symbols::Unwinder unwinder(env_.modules->map(), code_only);
  std::optional<expr::CfaRule> rule;
  for (const uint64_t spacing : {uint64_t{1} << 52, uint64_t{3} << 50}) {
    dune::Registers registers{};
    for (size_t i = 0; i < dune::kRegisterCount; ++i)
      dune::register_at(registers, static_cast<dune::Reg>(i)) = (i + 1) * spacing;
    registers.rip = pc.value;
    symbols::UnwindFrame frame;
    frame.registers = symbols::KnownRegisters(registers);
    (void)unwinder.up(frame);
    if (!frame.cfa)
      return std::nullopt;
    std::optional<expr::CfaRule> seen;
    for (size_t i = 0; i < dune::kRegisterCount; ++i) {
      const auto reg = static_cast<dune::Reg>(i);
      const auto offset = static_cast<int64_t>(frame.cfa.value - dune::register_at(registers, reg));
      if (offset > -(int64_t{1} << 40) && offset < (int64_t{1} << 40) && reg != dune::Reg::rip)
        seen = expr::CfaRule{reg, offset};
    }
    if (!seen || (rule && (rule->base != seen->base || rule->offset != seen->offset)))
      return std::nullopt;
    rule = seen;
  }
  return rule;
}

// One place whose condition the agent knows: it can count down by itself. Otherwise the order of
// hits over several places, or the truth of a condition, is known only here.
bool BreakpointTable::agent_ignores(const Breakpoint& b) const {
  return b.locations.size() == 1 && b.locations.front().condition_place != ConditionPlace::kInDdbg;
}

Checked<void> BreakpointTable::install(Breakpoint& b) {
  if (!env_.inferior) {
    for (BreakpointLocation& location : b.locations) { // `info breakpoints` shows what will be
      std::vector<uint8_t> code;
      (void)compile_condition(b, location, &code);
    }
    return {};
  }
  if (!b.enabled)
    return {};
  if (b.is_watch())
    return install_watch(b);
  for (BreakpointLocation& location : b.locations) {
    Checked<void> done = install_location(b, location);
    if (!done)
      return done;
  }
  return {};
}

Checked<void> BreakpointTable::install_location(Breakpoint& b, BreakpointLocation& location) {
  if (location.record || !location.enabled)
    return {};
  RecordSpec spec;
  Checked<void> compiled = compile_condition(b, location, &spec.condition);
  if (!compiled) {
    location.problem = compiled.error().message;
    return {}; // resolved again later, in another module: shown, and always true
  }
  if (b.thread)
    spec.only_tid = env_.tid_of(*b.thread);
  if (agent_ignores(b))
    spec.ignore_count = b.ignore_count;
  Checked<RecordId> record = env_.inferior->add_record(location.place.address, spec);
  if (!record) {
    location.problem = record.error().message;
    return record.error();
  }
  location.problem.clear();
  location.record = *record;
  return {};
}

void BreakpointTable::uninstall(Breakpoint& b) {
  for (BreakpointLocation& location : b.locations)
    uninstall_location(b, location);
  if (b.scope_record && env_.inferior)
    (void)env_.inferior->remove_record(*b.scope_record);
  b.scope_record.reset();
}

void BreakpointTable::uninstall_location(Breakpoint& b, BreakpointLocation& location) {
  if (!location.record || !env_.inferior)
    return;
  const RecordId record = *location.record;
  take_over_counts(b, location);
  (void)env_.inferior->remove_record(record);
}

// What the record has counted is the breakpoint's from here on.
void BreakpointTable::take_over_counts(Breakpoint& b, BreakpointLocation& location) {
  if (location.record && env_.inferior && agent_ignores(b))
    b.ignore_count = live_counts(*location.record).ignore_left;
  location.counted = counts(location);
  location.record.reset();
}

RecordCounts BreakpointTable::live_counts(RecordId id) const {
  const auto last = last_counts_.find(id);
  return last != last_counts_.end() ? last->second : env_.inferior->counts(id);
}

// What was counted before, and by the record that is set now. Where ddbg evaluates, each hit of the
// record is an evaluation, and hits are counted by accept().
BreakpointCounts BreakpointTable::counts(const BreakpointLocation& location) const {
  BreakpointCounts sum = location.counted;
  if (!location.record || !env_.inferior)
    return sum;
  const RecordCounts live = live_counts(*location.record);
  if (location.condition_place == ConditionPlace::kInDdbg) {
    sum.evaluations += live.hits;
  } else {
    sum.hits += live.hits;
    sum.evaluations += live.evaluations;
    sum.faults += live.faults;
  }
  return sum;
}

BreakpointInfo BreakpointTable::info(const Breakpoint& b) const {
  BreakpointInfo info{.breakpoint = b,
                      .total = {},
                      .ignore_left = b.ignore_count,
                      .per_location = {},
                      .condition_place = ConditionPlace::kNone,
                      .by_page = false};
  for (const BreakpointLocation& location : b.locations) {
    const BreakpointCounts one = counts(location);
    info.per_location.push_back(one);
    info.total.hits += one.hits;
    info.total.evaluations += one.evaluations;
    info.total.faults += one.faults;
    info.condition_place = std::max(info.condition_place, location.condition_place);
    info.by_page |= b.is_watch() && location.record && env_.inferior &&
                    env_.inferior->is_watched_by_page(*location.record);
  }
  if (agent_ignores(b) && b.locations.front().record && env_.inferior)
    info.ignore_left = live_counts(*b.locations.front().record).ignore_left;
  return info;
}

Checked<void> BreakpointTable::remove(unsigned number) {
  auto at =
      std::find_if(all_.begin(), all_.end(), [&](const auto& b) { return b->number == number; });
  if (at == all_.end())
    return Diagnostic{"No breakpoint number " + std::to_string(number) + ".", {}, {}};
  uninstall(**at);
  watch_types_.erase(number);
  all_.erase(at);
  return {};
}

Checked<void> BreakpointTable::enable(unsigned number, unsigned location, bool on) {
  Breakpoint* b = find(number);
  if (!b)
    return Diagnostic{"No breakpoint number " + std::to_string(number) + ".", {}, {}};
  if (location > b->locations.size())
    return Diagnostic{"Bad breakpoint location number '" + std::to_string(location) + "'", {}, {}};
  if (location == 0) {
    b->enabled = on;
    if (on && b->disposition == Disposition::kDisable)
      b->disposition = Disposition::kKeep;
  } else {
    b->locations[location - 1].enabled = on;
  }
  // A site that nobody wants costs nothing: off means out of the target.
  if (!b->enabled)
    uninstall(*b);
  else if (location != 0 && !on)
    uninstall_location(*b, b->locations[location - 1]);
  return install(*b);
}

Checked<void> BreakpointTable::set_condition(unsigned number, const std::string& condition) {
  Breakpoint* b = find(number);
  if (!b)
    return Diagnostic{"No breakpoint number " + std::to_string(number) + ".", {}, {}};
  const std::string before = std::exchange(b->condition, condition);
  for (BreakpointLocation& location : b->locations) {
    BreakpointLocation probe;
    probe.place = location.place;
    std::vector<uint8_t> code;
    Checked<void> compiled = compile_condition(*b, probe, &code);
    if (!compiled) {
      b->condition = before;
      return compiled;
    }
  }
  uninstall(*b); // before condition_place changes: counts depend on it
  for (BreakpointLocation& location : b->locations) {
    std::vector<uint8_t> code;
    (void)compile_condition(*b, location, &code);
  }
  return install(*b);
}

void BreakpointTable::set_ignore_count(Breakpoint& b, uint64_t count) {
  b.ignore_count = count;
  if (agent_ignores(b) && b.locations.front().record && env_.inferior)
    env_.inferior->set_ignore_count(*b.locations.front().record, count);
}

std::vector<std::string> BreakpointTable::reset() {
  std::vector<std::string> problems;
  for (const auto& b : all_) {
    if (b->is_watch()) {
      if (!b->locations.empty() && b->locations.front().record)
        continue;
    } else if (b->is_address) {
      for (BreakpointLocation& location : b->locations) {
        const CodeLocation now = locate(env_.modules->view(), location.place.address);
        location.place = {now.pc, now.module, now.source, now.function};
      }
    } else {
      // `*main` is elsewhere once the program is loaded; `*p` may have no value now.
      const Linespec found = resolve(*b);
      if (!found.places.empty() || b->spec[0] != '*')
        place(*b, found.places);
      b->pending = b->locations.empty();
    }
    Checked<void> done = install(*b);
    if (!done)
      problems.push_back("Cannot insert breakpoint " + std::to_string(b->number) + ".\n" +
                         done.error().message);
  }
  return problems;
}

void BreakpointTable::target_gone(bool keep_local_watches) {
  for (const auto& b : all_) {
    for (BreakpointLocation& location : b->locations)
      take_over_counts(*b, location);
    b->scope_record.reset();
  }
  if (!keep_local_watches)
    std::erase_if(all_, [](const auto& b) { return b->watch_scope_cfa.value != 0; });
}

void BreakpointTable::target_execed(const std::map<RecordId, RecordCounts>& last_counts) {
  last_counts_ = last_counts;
  target_gone(false);
  last_counts_.clear();
}

void BreakpointTable::clear_counts() {
  for (const auto& b : all_)
    for (BreakpointLocation& location : b->locations)
      location.counted = {};
}

std::optional<BreakpointTable::Hit> BreakpointTable::find_record(RecordId id) {
  for (const auto& b : all_)
    for (BreakpointLocation& location : b->locations)
      if (location.record == id)
        return Hit{b.get(), &location};
  return std::nullopt;
}

Breakpoint* BreakpointTable::find_scope_record(RecordId id) {
  for (const auto& b : all_)
    if (b->scope_record == id)
      return b.get();
  return nullptr;
}

bool BreakpointTable::accept(Hit hit, const std::function<expr::Context&()>& context) {
  Breakpoint& b = *hit.breakpoint;
  const bool here = hit.location->condition_place == ConditionPlace::kInDdbg;
  if (here) {
    expr::Context& frame = context();
    Checked<expr::Expression> condition = expr::check(b.condition, frame);
    Checked<bool> holds =
        condition ? expr::evaluate_condition(*condition, frame) : Checked<bool>(condition.error());
    if (!holds)
      hit.location->counted.faults++; // counts as true, as gdb does
    else if (!*holds)
      return false;
    hit.location->counted.hits++;
  }
  if (!agent_ignores(b) && b.ignore_count > 0) {
    b.ignore_count--;
    return false;
  }
  return true;
}

void BreakpointTable::count_no_hit(Hit hit) {
  // Where ddbg evaluates, only accept() counts. Else the record has, and their sum is right
  // although this wraps.
  if (hit.location->condition_place != ConditionPlace::kInDdbg)
    hit.location->counted.hits--;
}

bool BreakpointTable::dispose(Breakpoint& b) {
  switch (b.disposition) {
  case Disposition::kKeep:
    return false;
  case Disposition::kDisable:
    b.enabled = false;
    uninstall(b);
    return false;
  case Disposition::kDelete:
    return static_cast<bool>(remove(b.number));
  }
  return false;
}

} // namespace ddbg::engine
