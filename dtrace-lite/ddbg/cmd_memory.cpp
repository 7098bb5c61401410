// x and disassemble.
#include "disasm/print.h"
#include "dtrace-lite/ddbg/code_lookup.h"
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/disassembly.h"
#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/text.h"
#include "dtrace-lite/expr/format.h"

#include <algorithm>

namespace ddbg::ui {

namespace {
constexpr size_t kLongestInstruction = 15;
constexpr uint64_t kMostUnits = 1 << 20;
} // namespace

Checked<Instruction> instruction_at(Context& context, dune::TargetAddr at) {
  auto bytes = read_some(context, at, kLongestInstruction);
  if (!bytes)
    return bytes.error();
  auto syntax = context.settings.text(Setting::kDisassemblyFlavor) == "intel"
                    ? dune::disasm::Syntax::kIntel
                    : dune::disasm::Syntax::kAtt;
  auto printed = dune::disasm::print(*bytes, at, syntax,
                                     [&](dune::TargetAddr a) { return symbol_at(context, a); });
  size_t length = std::clamp<size_t>(printed.length, 1, bytes->size());
  bytes->resize(length);
  return Instruction{at, std::move(*bytes), std::move(printed.text)};
}

std::optional<dune::TargetAddr> current_pc(Context& context) {
  if (!context.debugger.alive())
    return std::nullopt;
  auto frame = context.debugger.selected_frame();
  if (!frame)
    return std::nullopt;
  return frame->pc;
}

Checked<void> examine_memory(Context& context, ExamineCursor& cursor) {
  auto disassemble = [&](dune::TargetAddr at) -> std::optional<expr::ShownInstruction> {
    auto instruction = instruction_at(context, at);
    if (!instruction)
      return std::nullopt;
    return expr::ShownInstruction{std::move(instruction->text),
                                  static_cast<unsigned>(instruction->bytes.size())};
  };
  expr::ExamineFormat format{std::min(cursor.count, kMostUnits), cursor.format, cursor.size};
  std::vector<std::string> lines;
  dune::TargetAddr first = cursor.next;
  auto done = expr::examine(cursor.next, format, context.debugger.context(), disassemble, lines,
                            cursor.next);
  // The instruction that the selected frame stands at is marked, as in `disassemble`.
  auto pc = cursor.format == 'i' ? current_pc(context) : std::nullopt;
  for (const std::string& line : lines) {
    bool here = pc && line.starts_with(fmt::format("0x{:x}", pc->value)) &&
                line.find_first_of(" :") == fmt::format("0x{:x}", pc->value).size();
    context.out.print("{}{}\n", cursor.format != 'i' ? "" : here ? "=> " : "   ", line);
  }
  set_convenience_integer(context, "_", static_cast<int64_t>(first.value));
  if (!done)
    return done.error();
  return {};
}

namespace cmd {

namespace {

struct DisassembleOptions {
  bool raw = false;     // /r
  bool source = false;  // /s
  bool by_line = false; // /m: in the order of the source
};

std::string raw_bytes(const std::vector<uint8_t>& bytes) {
  std::string text;
  for (uint8_t b : bytes)
    text += fmt::format("{}{:02x}", text.empty() ? "" : " ", b);
  return text;
}

// Whether, and where, a new source line begins at an instruction.
class SourceWalk {
public:
  explicit SourceWalk(Context& context) : context_(context) {}

  // Prints the line(s) that `at` begins, when it is another than before.
  void at(dune::TargetAddr at) {
    const symbols::LoadedModule* loaded = context_.debugger.module_map().find(at);
    auto span = loaded ? loaded->module->lines().find(loaded->to_link(at)) : std::nullopt;
    if (!span || !span->file || span->line == 0)
      return;
    if (span->file == file_ && span->line == line_)
      return;
    if (line_ != 0)
      context_.out.write("\n");
    if (span->file != file_) {
      context_.out.print("{}:\n", span->file->name);
      last_printed_ = 0;
    }
    unsigned first = span->line;
    // Lines without code between the last one and this one are shown with it.
    if (last_printed_ != 0 && span->line > last_printed_ && span->line - last_printed_ < 20)
      first = last_printed_ + 1;
    for (unsigned n = first; n <= span->line; ++n)
      if (auto text = context_.debugger.sources().line(*span->file, n); text)
        context_.out.print("{}\t{}\n", n, *text);
      else
        context_.out.print("{}\tin {}\n", n, span->file->name);
    file_ = span->file;
    line_ = span->line;
    last_printed_ = std::max(last_printed_, span->line);
  }

private:
  Context& context_;
  const symbols::SourceFile* file_ = nullptr;
  unsigned line_ = 0, last_printed_ = 0;
};

Checked<void> dump(Context& context, dune::TargetRange range, dune::TargetAddr function,
                   bool within_function, const DisassembleOptions& options) {
  auto pc = current_pc(context);
  SourceWalk source(context);
  for (dune::TargetAddr at = range.begin; at < range.end;) {
    auto instruction = instruction_at(context, at);
    if (!instruction)
      return instruction.error();
    if (options.source || options.by_line)
      source.at(at);
    std::string where =
        within_function ? fmt::format("<+{}>", at - function) : bracketed(context, at);
    std::string raw = options.raw ? fmt::format("{:<19}\t", raw_bytes(instruction->bytes)) : "";
    context.out.print("{}0x{:016x}{}{}:\t{}{}\n", pc == at ? "=> " : "   ", at.value,
                      where.empty() ? "" : " ", where, raw, instruction->text);
    at += instruction->bytes.size();
    if (context.out.pager().quitting() || signals::interrupt_pending())
      return {};
  }
  return {};
}

} // namespace

Checked<void> disassemble(Context& context, std::string_view args) {
  DisassembleOptions options;
  while (args.starts_with('/')) {
    auto [word, rest] = split_first(args.substr(1));
    for (char c : word)
      switch (c) {
      case 'r':
      case 'b':
        options.raw = true;
        break;
      case 's':
        options.source = true;
        break;
      case 'm':
        options.by_line = true;
        break;
      default:
        return Diagnostic{"Invalid disassembly modifier.", "Modifiers are /r, /m and /s.", {}};
      }
    args = rest;
  }
  if (options.by_line && options.source)
    return Diagnostic{"Cannot specify both /m and /s.", {}, {}};
  dune::TargetAddr pc;
  size_t comma = args.find(',');
  if (args.empty()) {
    auto here = current_pc(context);
    if (!here)
      return Diagnostic{"No frame selected.", "Give an address or a function.", {}};
    pc = *here;
  } else {
    auto value = evaluate_integer(context, args.substr(0, comma));
    if (!value)
      return value.error();
    pc = dune::TargetAddr(*value);
  }
  if (comma != args.npos && !args.empty()) {
    std::string_view second = trim(args.substr(comma + 1));
    bool is_length = second.starts_with('+');
    auto value = evaluate_integer(context, is_length ? second.substr(1) : second);
    if (!value)
      return value.error();
    dune::TargetRange range{pc, is_length ? pc + *value : dune::TargetAddr(*value)};
    context.out.print("Dump of assembler code from 0x{:x} to 0x{:x}:\n", range.begin.value,
                      range.end.value);
    if (auto done = dump(context, range, pc, false, options); !done)
      return done;
    context.out.write("End of assembler dump.\n");
    return {};
  }
  auto function = function_at(context, pc);
  if (!function)
    return Diagnostic{"No function contains specified address.",
                      "Give a range: disassemble START,END or START,+LENGTH.",
                      {}};
  context.out.print("Dump of assembler code for function {}:\n", function->name);
  for (const dune::TargetRange& range : function->ranges) {
    if (function->ranges.size() > 1)
      context.out.print("Address range 0x{:x} to 0x{:x}:\n", range.begin.value, range.end.value);
    if (auto done = dump(context, range, function->ranges[0].begin, true, options); !done)
      return done;
  }
  context.out.write("End of assembler dump.\n");
  return {};
}

Checked<void> examine(Context& context, std::string_view args) {
  ExamineCursor& cursor = context.examine_cursor;
  if (args.starts_with('/')) {
    std::string_view text = args.substr(1, std::min(args.find_first_of(" \t"), args.size()) - 1);
    auto format = expr::parse_format(text, {1, cursor.format, cursor.size});
    if (!format)
      return format.error();
    cursor.count = format->count;
    cursor.format = format->letter;
    cursor.size = format->size;
    args = trim(args.substr(1 + text.size()));
  } else if (!context.repeating) {
    cursor.count = 1;
  }
  if (!args.empty()) {
    auto address = evaluate_address(context, args);
    if (!address)
      return address.error();
    cursor.next = dune::TargetAddr(*address);
    cursor.started = true;
  }
  if (!cursor.started)
    return Diagnostic{"Argument required (starting display address).", {}, {}};
  return examine_memory(context, cursor);
}

} // namespace cmd
} // namespace ddbg::ui
