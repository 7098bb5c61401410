// Watchpoints: from an expression to hardware records, and back to values as text.
#include "dtrace-lite/engine/breakpoint_table.h"
#include "dtrace-lite/expr/evaluate.h"
#include "dtrace-lite/expr/format.h"

#include <cstring>

namespace ddbg::engine {

namespace {

constexpr unsigned kHardwareWatchSize = 8;

// Does the value depend on a frame: a local or an argument?
bool uses_frame(const expr::Expr& e) {
  if (e.op == expr::Op::kRegister)
    return true;
  if (e.op == expr::Op::kVariable && e.symbol.variable.function)
    return true;
  return (e.a && uses_frame(*e.a)) || (e.b && uses_frame(*e.b)) || (e.c && uses_frame(*e.c));
}

std::string_view trim(std::string_view s) {
  while (!s.empty() && s.front() == ' ')
    s.remove_prefix(1);
  while (!s.empty() && s.back() == ' ')
    s.remove_suffix(1);
  return s;
}

} // namespace

// Finds the address, type and present value of what is watched.
Checked<void> BreakpointTable::evaluate_watch(Breakpoint& b, expr::FrameContext& context,
                                              bool* is_local) {
  std::string text = b.spec;
  if (b.watch_location)
    text = "*&(" + b.spec + ")";
  Checked<expr::Expression> checked = expr::check(text, context);
  if (!checked)
    return checked.error();
  *is_local = !b.watch_location && uses_frame(*checked->root);
  Checked<expr::Value> value = expr::evaluate(*checked, context);
  if (!value)
    return value.error();
  if (value->place == expr::Value::Place::kNone)
    return Diagnostic{"Cannot watch constant value `" + b.spec + "'.", {}, {}};
  if (value->place != expr::Value::Place::kMemory || value->bit_size != 0)
    return Diagnostic{"`" + b.spec +
                          "' does not lie in memory of its own, so no hardware "
                          "watchpoint can be set on it.",
                      "Watch the object that it is part of.",
                      {}};
  const uint64_t size = value->type->size();
  const unsigned most =
      env_.inferior ? env_.inferior->most_watches() : dune::session::kDebugRegisters;
  if (size == 0 || size > most * kHardwareWatchSize)
    return Diagnostic{"`" + b.spec + "' has " + std::to_string(size) +
                          " bytes; hardware watchpoints cover at most " +
                          std::to_string(most * kHardwareWatchSize) + ".",
                      "Watch a member or an element of it.",
                      {}};
  b.watch_address = value->address;
  b.watch_size = static_cast<unsigned>(size);
  b.watch_type = value->type->name();
  watch_types_[b.number] = value->type;
  // A value that cannot be shown can still be watched.
  Checked<std::string> shown = expr::format_value(*value, context);
  b.watch_value = shown ? *shown : "<" + shown.error().message + ">";
  return {};
}

Checked<unsigned> BreakpointTable::add_watch(const AddWatchpoint& request) {
  std::string_view text = trim(request.arguments);
  auto b = std::make_unique<Breakpoint>();
  b->type = request.type;
  b->number = next_number_;
  for (const std::string_view option : {"-location ", "-l "})
    if (text.starts_with(option)) {
      b->watch_location = true;
      text = trim(text.substr(option.size()));
    }
  Checked<BreakArguments> arguments = parse_break_arguments(text);
  if (!arguments)
    return arguments.error();
  if (arguments->location.empty())
    return Diagnostic{"Argument required (expression to compute).", {}, {}};
  b->spec = arguments->location;
  b->condition = arguments->condition;
  b->thread = arguments->thread;
  bool is_local = false;
  Checked<void> evaluated = evaluate_watch(*b, env_.selected_context(), &is_local);
  if (!evaluated)
    return evaluated.error();
  b->locations.emplace_back();
  b->locations.front().place.address = b->watch_address;
  if (is_local) {
    std::optional<Frame> frame = env_.frame(0);
    if (frame)
      b->watch_scope_cfa = frame->id.cfa;
    for (unsigned above = 1; env_.inferior; ++above) {
      // Where the function returns to; what is inlined into it returns with it.
      std::optional<Frame> caller = env_.frame(above);
      if (!caller)
        break;
      if (caller->id.cfa == b->watch_scope_cfa)
        continue;
      b->watch_scope_return = caller->pc;
      break;
    }
  }
  std::vector<uint8_t> code;
  Checked<void> compiled = compile_condition(*b, b->locations.front(), &code);
  if (!compiled)
    return compiled.error();
  Checked<void> installed = install(*b);
  if (!installed) {
    uninstall(*b);
    return installed.error();
  }
  ++next_number_;
  all_.push_back(std::move(b));
  return all_.back()->number;
}

Checked<void> BreakpointTable::install_watch(Breakpoint& b) {
  if (!b.locations.empty() && b.locations.front().record)
    return {};
  if (b.watch_scope_cfa.value == 0) {
    // The program may have been loaded elsewhere since.
    TargetContext globals(*env_.modules, module_scopes(*env_.modules, *env_.tables, env_.inferior),
                          *env_.values, env_.inferior, nullptr, nullptr);
    Breakpoint probe = b;
    bool is_local = false;
    if (!b.watch_location && evaluate_watch(probe, globals, &is_local)) {
      b.watch_address = probe.watch_address;
      b.watch_value = probe.watch_value;
    }
  }
  const TargetAddr end = b.watch_address + b.watch_size;
  std::vector<BreakpointLocation> before = std::move(b.locations);
  b.locations.clear();
  // Debug registers watch 1, 2, 4 or 8 bytes at a multiple of their size.
  for (TargetAddr at = b.watch_address; at < end;) {
    unsigned size = kHardwareWatchSize;
    while (at.value % size != 0 || at + size > end)
      size /= 2;
    BreakpointLocation location;
    if (b.locations.size() < before.size())
      location = before[b.locations.size()];
    location.place.address = at;
    location.number = static_cast<unsigned>(b.locations.size() + 1);
    RecordSpec spec;
    (void)compile_condition(b, location, &spec.condition); // checked when it was typed
    if (b.thread)
      spec.only_tid = env_.tid_of(*b.thread);
    spec.ignore_count = b.ignore_count;
    const auto access = b.type == BreakpointType::kWatch ? keeper::Client::Access::kWrite
                                                         : keeper::Client::Access::kReadWrite;
    const WatchWhen when = b.type == BreakpointType::kWatch       ? WatchWhen::kChanged
                           : b.type == BreakpointType::kReadWatch ? WatchWhen::kUnchanged
                                                                  : WatchWhen::kAccessed;
    Checked<RecordId> record = env_.inferior->add_watch(at, size, access, when, spec);
    if (!record) {
      b.locations.push_back(std::move(location));
      b.locations.back().problem = record.error().message;
      return Diagnostic{record.error().message,
                        record.error().hint.empty()
                            ? "The processor has four debug registers; delete a watchpoint first."
                            : record.error().hint,
                        {}};
    }
    location.record = *record;
    b.locations.push_back(std::move(location));
    at += size;
  }
  if (b.watch_scope_return && !b.scope_record) {
    RecordSpec spec;
    spec.internal = true;
    spec.min_stack_pointer = b.watch_scope_cfa.value;
    Checked<RecordId> scope = env_.inferior->add_record(b.watch_scope_return, spec);
    if (!scope)
      return scope.error();
    b.scope_record = *scope;
  }
  return {};
}

std::string BreakpointTable::format_watched(const Breakpoint& b, uint64_t raw) {
  TargetContext globals(*env_.modules, module_scopes(*env_.modules, *env_.tables, env_.inferior),
                        *env_.values, env_.inferior, nullptr, nullptr);
  const auto type = watch_types_.find(b.number);
  if (type == watch_types_.end())
    return {};
  expr::Value value = expr::Value::in_memory(type->second, b.watch_address);
  if (b.watch_size <= sizeof raw && b.locations.size() == 1) {
    std::vector<std::byte> bytes(b.watch_size);
    std::memcpy(bytes.data(), &raw, bytes.size());
    value = expr::Value::of(type->second, std::move(bytes));
  }
  Checked<std::string> shown = expr::format_value(value, globals);
  return shown ? *shown : "<" + shown.error().message + ">";
}

} // namespace ddbg::engine
