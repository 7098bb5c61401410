// The debugger's face: selection, frames, breakpoints, memory. Life is in debugger_life.cpp,
// running in debugger_run.cpp.
#include "dtrace-lite/engine/debugger.h"

#include "dtrace-lite/engine/debugger_impl.h"
#include "dtrace-lite/expr/evaluate.h"

#include <algorithm>
#include <cstring>

namespace ddbg::engine {

Debugger::Impl::Impl()
    : unwinder(modules.map(),
               [this](TargetAddr from, std::span<std::byte> to) { return read_cached(from, to); }),
      breakpoints(BreakpointEnvironment{
          .modules = &modules,
          .tables = &tables,
          .values = &values,
          .inferior = nullptr,
          .linespec_context = [this] { return linespec_context(); },
          .selected_context = [this]() -> expr::FrameContext& { return selected_context(); },
          .frame =
              [this](unsigned above) {
                return thread ? frame_of(thread, level + above) : std::nullopt;
              },
          .tid_of =
              [this](unsigned number) {
                const ThreadView* view = inferior ? inferior->thread(number) : nullptr;
                return view ? view->tid : 0;
              },
      }) {}

// A backtrace reads the same few pages again and again.
bool Debugger::Impl::read_cached(TargetAddr from, std::span<std::byte> to) {
  if (!inferior)
    return false;
  while (!to.empty()) {
    const TargetAddr page = from.align_down(dune::kPageSize);
    auto [slot, is_new] = pages.try_emplace(page.value);
    if (is_new) {
      slot->second.resize(dune::kPageSize);
      if (!inferior->read_memory(
              page, {reinterpret_cast<uint8_t*>(slot->second.data()), slot->second.size()}))
        slot->second.clear();
    }
    if (slot->second.empty())
      return false;
    const size_t offset = from - page;
    const size_t count = std::min(to.size(), dune::kPageSize - offset);
    std::memcpy(to.data(), slot->second.data() + offset, count);
    to = to.subspan(count);
    from += count;
  }
  return true;
}

void Debugger::Impl::forget_stop() {
  stacks.clear();
  context.reset();
  pages.clear();
}

Stack* Debugger::Impl::stack_of(uint32_t number) {
  const ThreadView* view = inferior ? inferior->thread(number) : nullptr;
  if (!view)
    return nullptr;
  std::unique_ptr<Stack>& stack = stacks[number];
  if (!stack) {
    stack = std::make_unique<Stack>(names, unwinder, known_registers(*view), settings.past_main);
    if (auto hidden = hidden_inlined.find(number); hidden != hidden_inlined.end())
      stack->hide_inlined(hidden->second);
  }
  return stack.get();
}

std::optional<Frame> Debugger::Impl::frame_of(uint32_t number, unsigned wanted) {
  Stack* stack = stack_of(number);
  const Frame* frame = stack ? stack->frame(wanted) : nullptr;
  return frame ? std::optional(*frame) : std::nullopt;
}

expr::FrameContext& Debugger::Impl::selected_context() {
  if (!context) {
    const ThreadView* view = inferior && thread ? inferior->thread(thread) : nullptr;
    std::optional<Frame> frame = view ? frame_of(thread, level) : std::nullopt;
    context =
        std::make_unique<TargetContext>(modules, module_scopes(modules, tables, inferior.get()),
                                        values, inferior.get(), view, frame ? &*frame : nullptr);
  }
  return *context;
}

// Where `list` would begin.
SourceLine Debugger::Impl::default_or_main_line() const {
  if (default_line)
    return default_line;
  const Linespec main = resolve_linespec(modules.view(), {}, "main");
  return main.places.empty() ? SourceLine{} : main.places.front().source;
}

LinespecContext Debugger::Impl::linespec_context() {
  LinespecContext out;
  out.default_line = [this] { return default_or_main_line(); };
  // Naming frame 0 would open the DWARF of whatever module it stands in, the dynamic linker's at
  // birth; its pc is the thread's.
  constexpr uint32_t kPcKnown = 1u << static_cast<unsigned>(dune::Reg::rip);
  const ThreadView* view = inferior && thread && level == 0 ? inferior->thread(thread) : nullptr;
  if (view && (view->known & kPcKnown))
    out.default_pc = TargetAddr(view->registers.rip);
  else if (std::optional<Frame> frame = thread ? frame_of(thread, level) : std::nullopt)
    out.default_pc = frame->pc;
  out.evaluate = [this](std::string_view expression) -> Checked<uint64_t> {
    expr::FrameContext& frame = selected_context();
    Checked<expr::Value> value = expr::evaluate(expression, frame);
    if (!value)
      return value.error();
    const symbols::TypeKind kind = value->type->stripped()->kind();
    // A function or an array stands for its address.
    if (kind == symbols::TypeKind::kFunction || kind == symbols::TypeKind::kArray ||
        kind == symbols::TypeKind::kNoDebugText)
      return value->address.value;
    Checked<expr::Value> fetched = expr::fetch(std::move(*value), frame);
    if (!fetched)
      return fetched.error();
    if (!fetched->type->is_integral() && !fetched->type->is_pointer())
      return Diagnostic{"Value can't be converted to integer.", {}, {}};
    return static_cast<uint64_t>(expr::number_of(*fetched));
  };
  return out;
}

Debugger::Debugger() : impl_(std::make_unique<Impl>()) {}

Debugger::~Debugger() {
  if (impl_->inferior)
    impl_->breakpoints.set_inferior(nullptr);
}

// --- Program and settings --------------------------------------------------------------------

const std::string& Debugger::program() const { return impl_->program; }
Settings& Debugger::settings() { return impl_->settings; }
void Debugger::set_interrupt(std::function<bool()> interrupted) {
  impl_->interrupted = std::move(interrupted);
}
void Debugger::set_message_sink(std::function<void(const std::string&)> sink) {
  impl_->sink = std::move(sink);
}

// --- Breakpoints -----------------------------------------------------------------------------

Checked<unsigned> Debugger::add_breakpoint(const AddBreakpoint& request) {
  return impl_->breakpoints.add(request);
}
bool Debugger::last_error_may_be_pending() const { return impl_->breakpoints.may_be_pending(); }
Checked<unsigned> Debugger::add_watchpoint(const AddWatchpoint& request) {
  return impl_->breakpoints.add_watch(request);
}
Checked<void> Debugger::delete_breakpoint(unsigned number) {
  return impl_->breakpoints.remove(number);
}
Checked<void> Debugger::enable_breakpoint(unsigned number, unsigned location, bool on) {
  return impl_->breakpoints.enable(number, location, on);
}
Checked<void> Debugger::set_condition(unsigned number, const std::string& condition) {
  return impl_->breakpoints.set_condition(number, condition);
}

namespace {
Diagnostic no_breakpoint(unsigned number) {
  return {"No breakpoint number " + std::to_string(number) + ".", {}, {}};
}
} // namespace

Checked<void> Debugger::set_disposition(unsigned number, Disposition disposition) {
  Breakpoint* b = impl_->breakpoints.find(number);
  if (!b)
    return no_breakpoint(number);
  b->disposition = disposition;
  return {};
}

Checked<void> Debugger::set_ignore_count(unsigned number, uint64_t count) {
  Breakpoint* b = impl_->breakpoints.find(number);
  if (!b)
    return no_breakpoint(number);
  impl_->breakpoints.set_ignore_count(*b, count);
  return {};
}

Checked<void> Debugger::set_commands(unsigned number, std::vector<std::string> commands) {
  Breakpoint* b = impl_->breakpoints.find(number);
  if (!b)
    return no_breakpoint(number);
  b->commands = std::move(commands);
  return {};
}

const std::vector<std::unique_ptr<Breakpoint>>& Debugger::breakpoints() const {
  return impl_->breakpoints.all();
}
const Breakpoint* Debugger::breakpoint(unsigned number) const {
  return impl_->breakpoints.find(number);
}
Checked<BreakpointInfo> Debugger::breakpoint_info(unsigned number) const {
  const Breakpoint* b = impl_->breakpoints.find(number);
  if (!b)
    return no_breakpoint(number);
  return impl_->breakpoints.info(*b);
}

// --- Threads and frames ----------------------------------------------------------------------

std::vector<ThreadInfo> Debugger::threads() {
  std::vector<ThreadInfo> all;
  if (!impl_->inferior)
    return all;
  for (const ThreadView& view : impl_->inferior->threads()) {
    ThreadInfo info;
    info.view = view;
    info.selected = view.number == impl_->thread;
    if (std::optional<Frame> frame = impl_->frame_of(view.number, 0)) {
      info.location = locate(frame->pc);
      info.location.function = frame->function;
      info.location.source = frame->source;
      info.location.at_line_start = !frame->show_address;
    }
    all.push_back(std::move(info));
  }
  return all;
}

uint32_t Debugger::selected_thread() const { return impl_->thread; }

Checked<void> Debugger::select_thread(uint32_t number) {
  if (!impl_->inferior || !impl_->inferior->thread(number))
    return Diagnostic{"Unknown thread " + std::to_string(number) + ".", {}, {}};
  impl_->thread = number;
  impl_->level = 0;
  impl_->selection_changed();
  return {};
}

Checked<Frame> Debugger::selected_frame() {
  if (!impl_->inferior || impl_->thread == 0)
    return no_stack();
  std::optional<Frame> frame = impl_->frame_of(impl_->thread, impl_->level);
  if (!frame)
    return no_stack();
  return std::move(*frame);
}

Checked<void> Debugger::select_frame(unsigned level) {
  if (!impl_->inferior || impl_->thread == 0)
    return no_stack();
  if (!impl_->frame_of(impl_->thread, level))
    return Diagnostic{"No frame at level " + std::to_string(level) + ".", {}, {}};
  impl_->level = level;
  impl_->selection_changed();
  return {};
}

Checked<std::vector<Frame>> Debugger::backtrace(unsigned limit, std::string* why_it_ended) {
  Stack* stack = impl_->inferior ? impl_->stack_of(impl_->thread) : nullptr;
  if (!stack)
    return no_stack();
  std::vector<Frame> frames;
  for (const Frame* frame : stack->frames(limit))
    frames.push_back(*frame);
  if (why_it_ended)
    *why_it_ended = frames.size() < limit ? stack->why_it_ended() : std::string();
  return frames;
}

Checked<Frame> Debugger::frame_of(uint32_t thread, unsigned level) {
  std::optional<Frame> frame = impl_->frame_of(thread, level);
  if (!frame)
    return no_stack();
  return std::move(*frame);
}

Checked<dune::Registers> Debugger::registers(uint32_t* known) {
  Checked<Frame> frame = selected_frame();
  if (!frame)
    return Diagnostic{"The program has no registers now.", {}, {}};
  if (known) {
    *known = 0;
    for (size_t i = 0; i < dune::kRegisterCount; ++i)
      if (frame->registers.known(static_cast<dune::Reg>(i)))
        *known |= 1u << i;
  }
  return frame->registers.values();
}

Checked<void> Debugger::write_register(dune::Reg reg, uint64_t value) {
  if (!impl_->inferior || impl_->thread == 0)
    return no_thread();
  Checked<void> done = impl_->inferior->write_register(impl_->thread, reg, value);
  impl_->hidden_inlined.erase(impl_->thread);
  impl_->forget_stop();
  return done;
}

// --- Expressions, memory, code ---------------------------------------------------------------

expr::FrameContext& Debugger::context() { return impl_->selected_context(); }
ValueStore& Debugger::values() { return impl_->values; }

Checked<void> Debugger::read_memory(TargetAddr at, std::span<uint8_t> to) {
  if (impl_->inferior)
    return impl_->inferior->read_memory(at, to);
  if (impl_->selected_context().read_memory(at, std::as_writable_bytes(to)))
    return {};
  return expr::cannot_access(at);
}

Checked<void> Debugger::write_memory(TargetAddr at, std::span<const uint8_t> from) {
  if (!impl_->inferior)
    return not_running();
  Checked<void> done = impl_->inferior->write_memory(at, from);
  impl_->forget_stop();
  return done;
}

CodeLocation Debugger::locate(TargetAddr pc) const {
  return engine::locate(impl_->modules.view(), pc);
}

Linespec Debugger::resolve(const std::string& location) {
  return resolve_linespec(impl_->modules.view(), impl_->linespec_context(), location);
}

ModuleSpan Debugger::modules() const { return impl_->modules.view(); }
symbols::ModuleMap& Debugger::module_map() { return impl_->modules.map(); }

std::vector<SharedLibrary> Debugger::shared_libraries() {
  std::vector<SharedLibrary> all;
  if (!impl_->inferior)
    return all;
  for (const symbols::LoadedModule& module : impl_->modules.view()) {
    if (module.is_main || module.is_vdso)
      continue;
    SharedLibrary library;
    library.path = module.path;
    library.has_debug_info = module.module->has_debug_info();
    // As gdb: the section, not the segment.
    if (const symbols::Section* text = module.module->elf().section(".text"))
      library.text = {module.to_target(text->range.begin), module.to_target(text->range.end)};
    else if (auto ranges = module.module->elf().text_ranges(); !ranges.empty())
      library.text = {module.to_target(ranges[0].begin), module.to_target(ranges[0].end)};
    all.push_back(std::move(library));
  }
  return all;
}

symbols::SourceCache& Debugger::sources() { return impl_->sources; }
SourceLine Debugger::default_line() const { return impl_->default_or_main_line(); }
void Debugger::set_default_line(SourceLine line) { impl_->default_line = line; }

// --- Signals ---------------------------------------------------------------------------------

const SignalTable& Debugger::signals() const { return impl_->signals; }

void Debugger::set_signal(int signal, SignalHandling handling) {
  if (signal <= 0 || signal >= static_cast<int>(impl_->signals.size()))
    return;
  impl_->signals[static_cast<size_t>(signal)] = handling;
  if (impl_->inferior)
    impl_->inferior->set_signal_policy(signal, handling.policy());
}

Inferior* Debugger::inferior() { return impl_->inferior.get(); }

} // namespace ddbg::engine
