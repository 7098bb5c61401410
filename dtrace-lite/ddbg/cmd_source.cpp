// Source lines and symbols: list, info line, info source, info symbol ...
#include "dtrace-lite/ddbg/code_lookup.h"
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/text.h"

#include <algorithm>
#include <regex.h>

namespace ddbg::ui::cmd {

namespace {

unsigned page(Context& context) {
  return static_cast<unsigned>(
      std::min<uint64_t>(context.settings.count(Setting::kListSize), 1u << 24));
}

// [first, last], what of it exists.
Checked<void> show_lines(Context& context, const symbols::SourceFile* file, unsigned first,
                         unsigned last) {
  auto& sources = context.debugger.sources();
  auto count = sources.line_count(*file);
  if (!count)
    return Diagnostic{fmt::format("{}\tin {}\n", first, file->name) + count.error().message,
                      count.error().hint.empty() ? "\"directory DIR\" says where sources are."
                                                 : count.error().hint,
                      {}};
  if (first > *count)
    return Diagnostic{
        fmt::format("Line number {} out of range; {} has {} lines.", first, file->name, *count),
        {},
        {}};
  last = static_cast<unsigned>(std::min<size_t>(last, *count));
  for (unsigned n = first; n <= last; ++n) {
    auto line = sources.line(*file, n);
    if (!line)
      return line.error();
    context.out.print("{}\t{}\n", n, *line);
    if (context.out.pager().quitting())
      break;
  }
  context.list_cursor = {file, first, last, false};
  context.debugger.set_default_line({file, last});
  return {};
}

Checked<void> list_around(Context& context, engine::SourceLine where) {
  unsigned lines = page(context);
  unsigned first = where.line > lines / 2 ? where.line - lines / 2 : 1;
  return show_lines(context, where.file, first, first + lines - 1);
}

Checked<engine::SourceLine> initial_line(Context& context) {
  engine::SourceLine line = context.debugger.default_line();
  if (line)
    return line;
  auto main = resolve_source(context, "main");
  if (!main)
    return Diagnostic{"No symbol table is loaded.  Use the \"file\" command.",
                      "Programs are compiled with -g for `list' to work.",
                      {}};
  // gdb's choice when nothing has stopped yet: a page that ends with main's line ...
  unsigned lines = page(context);
  main->line = main->line > lines - 1 ? main->line - (lines - 1) : 1;
  return main;
}

} // namespace

Checked<void> list(Context& context, std::string_view args) {
  ListCursor& cursor = context.list_cursor;
  unsigned lines = page(context);
  if (args.empty() || args == "+") {
    if (!cursor.file || cursor.centre_default) {
      auto line = initial_line(context);
      return line ? list_around(context, *line) : Checked<void>(line.error());
    }
    return show_lines(context, cursor.file, cursor.last + 1, cursor.last + lines);
  }
  if (args == "-") {
    if (!cursor.file) {
      auto line = initial_line(context);
      return line ? list_around(context, *line) : Checked<void>(line.error());
    }
    if (cursor.first <= 1)
      return Diagnostic{"Already at the start of " + cursor.file->name + ".", {}, {}};
    unsigned last = cursor.first - 1;
    return show_lines(context, cursor.file, last > lines ? last - lines + 1 : 1, last);
  }
  size_t comma = args.find(',');
  // A comma inside parentheses belongs to a function's parameters: f(int, char).
  if (comma != args.npos && std::count(args.begin(), args.begin() + comma, '(') !=
                                std::count(args.begin(), args.begin() + comma, ')'))
    comma = args.find(',', std::min(args.rfind(')'), args.size()));
  if (comma == args.npos) {
    auto where = resolve_source(context, args);
    return where ? list_around(context, *where) : Checked<void>(where.error());
  }
  std::string_view from = trim(args.substr(0, comma)), to = trim(args.substr(comma + 1));
  if (from.empty() && to.empty())
    return Diagnostic{"Argument to `list' may not be \",\".", {}, {}};
  std::optional<engine::SourceLine> begin, end;
  if (!from.empty()) {
    auto line = resolve_source(context, from);
    if (!line)
      return line.error();
    begin = *line;
    context.debugger.set_default_line(*begin);
  }
  if (!to.empty()) {
    if (to.starts_with('+') && begin) {
      auto offset = parse_integer(to.substr(1));
      if (!offset)
        return offset.error();
      end = engine::SourceLine{
          begin->file, begin->line + static_cast<unsigned>(std::min<int64_t>(*offset, 1 << 24))};
    } else {
      auto line = resolve_source(context, to);
      if (!line)
        return line.error();
      end = *line;
    }
  }
  if (begin && end && begin->file != end->file)
    return Diagnostic{"Specified first and last lines are in different files.", {}, {}};
  if (!begin)
    begin = engine::SourceLine{end->file, end->line >= lines ? end->line - lines + 1 : 1};
  if (!end)
    end = engine::SourceLine{begin->file, begin->line + lines - 1};
  if (begin->line > end->line)
    return Diagnostic{"Second line is before the first.", {}, {}};
  return show_lines(context, begin->file, std::max(begin->line, 1u), end->line);
}

namespace {

// What `info line` says of the code at `at`, asked for as `where`. False: no line begins there.
bool show_span(Context& context, const symbols::LoadedModule& loaded, dune::LinkAddr at,
               engine::SourceLine where) {
  auto span = loaded.module->lines().find(at);
  if (!span || !span->file)
    return false;
  dune::TargetAddr begin = loaded.to_target(span->range.begin);
  dune::TargetAddr end = loaded.to_target(span->range.end);
  if (span->line != where.line)
    context.out.print("Line {} of \"{}\" is at address 0x{:x} {} but contains no code.\n",
                      where.line, where.file->name, begin.value, bracketed(context, begin));
  else
    context.out.print("Line {} of \"{}\" starts at address 0x{:x} {} and ends at 0x{:x} {}.\n",
                      where.line, where.file->name, begin.value, bracketed(context, begin),
                      end.value, bracketed(context, end));
  return true;
}

} // namespace

Checked<void> info_line(Context& context, std::string_view args) {
  engine::SourceLine where = context.debugger.default_line();
  if (args.starts_with('*')) {
    auto address = evaluate_integer(context, args.substr(1));
    if (!address)
      return address.error();
    dune::TargetAddr a(*address);
    const symbols::LoadedModule* loaded = context.debugger.module_map().find(a);
    auto span = loaded ? loaded->module->lines().find(loaded->to_link(a)) : std::nullopt;
    if (!span || !span->file || span->line == 0) {
      std::string name = bracketed(context, a);
      context.out.print("No line number information available for address 0x{:x}{}{}\n", a.value,
                        name.empty() ? "" : " ", name);
      return {};
    }
    dune::TargetAddr begin = loaded->to_target(span->range.begin);
    dune::TargetAddr end = loaded->to_target(span->range.end);
    context.out.print("Line {} of \"{}\" starts at address 0x{:x} {} and ends at 0x{:x} {}.\n",
                      span->line, span->file->name, begin.value, bracketed(context, begin),
                      end.value, bracketed(context, end));
    return {};
  }
  if (!args.empty()) {
    if (auto function = find_function(context, args); function && function->source) {
      show_span(context, *function->module, function->entry, function->source);
      return {};
    }
    auto resolved = resolve_source(context, args);
    if (!resolved)
      return resolved.error();
    where = *resolved;
  } else if (context.list_cursor.file) {
    where = {context.list_cursor.file, context.list_cursor.last};
  } else if (auto frame = context.debugger.selected_frame(); frame && frame->source) {
    where = frame->source;
  }
  if (!where)
    return Diagnostic{"No line number information available.", {}, {}};
  bool found = false;
  for (const symbols::LoadedModule& loaded : context.debugger.module_map().modules()) {
    auto& lines = loaded.module->lines();
    std::vector<dune::LinkAddr> shown;
    for (const symbols::CodePlace& place : lines.places(where.file->name, where.line)) {
      // A function's line is where its code begins, not where a breakpoint goes.
      dune::LinkAddr at = place.address;
      if (auto f = loaded.module->functions().at(at))
        if (auto first = lines.find(f->entry);
            first && first->line >= where.line && at == lines.after_prologue(f->entry))
          at = f->entry;
      if (std::find(shown.begin(), shown.end(), at) != shown.end())
        continue;
      shown.push_back(at);
      found |= show_span(context, loaded, at, where);
    }
  }
  if (!found)
    context.out.print("Line number {} is out of range for \"{}\".\n", where.line, where.file->name);
  return {};
}

Checked<void> info_source(Context& context, std::string_view) {
  engine::SourceLine line = context.debugger.default_line();
  if (!line.file) {
    context.out.write("No current source file.\n");
    return {};
  }
  const symbols::SourceFile& file = *line.file;
  context.out.print("Current source file is {}\n", file.name);
  std::string_view full = file.full_name, name = file.name;
  if (full != name && full.ends_with(name) && full.size() > name.size() + 1)
    context.out.print("Compilation directory is {}\n",
                      full.substr(0, full.size() - name.size() - 1));
  if (auto count = context.debugger.sources().line_count(file))
    context.out.print("Located in {}\nContains {} line{}.\n", full, *count, *count == 1 ? "" : "s");
  else
    context.out.print("{}\n", count.error().message);
  return {};
}

Checked<void> info_sources(Context& context, std::string_view args) {
  for (const symbols::LoadedModule& loaded : context.debugger.module_map().modules()) {
    std::vector<std::string> names;
    for (const symbols::SourceFile* file : loaded.module->lines().files())
      if (args.empty() || file->full_name.find(args) != std::string::npos)
        names.push_back(file->full_name);
    if (names.empty())
      continue;
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    context.out.print("{}:\n", loaded.path);
    for (const std::string& name : names)
      context.out.print("  {}\n", name);
    if (context.out.pager().quitting())
      return {};
  }
  return {};
}

Checked<void> info_symbol(Context& context, std::string_view args) {
  if (args.empty())
    return Diagnostic{"Argument required (address).", {}, {}};
  auto value = evaluate_integer(context, args);
  if (!value)
    return value.error();
  dune::TargetAddr address(*value);
  const symbols::LoadedModule* loaded = context.debugger.module_map().find(address);
  auto symbol = loaded ? loaded->module->symbols().at(loaded->to_link(address)) : std::nullopt;
  if (!symbol) {
    context.out.print("No symbol matches {}.\n", args);
    return {};
  }
  uint64_t offset = loaded->to_link(address) - symbol->address;
  std::string text = symbol->name() + (offset ? fmt::format(" + {}", offset) : "");
  if (const symbols::Section* section = loaded->module->elf().section_at(loaded->to_link(address)))
    text += fmt::format(" in section {}", section->name);
  // gdb names the file when more than one could be meant.
  if (context.debugger.alive())
    text += " of " + loaded->path;
  context.out.write(text + "\n");
  return {};
}

Checked<void> info_address(Context& context, std::string_view args) {
  if (args.empty())
    return Diagnostic{"Argument required.", {}, {}};
  for (const symbols::LoadedModule& loaded : context.debugger.module_map().modules()) {
    for (const symbols::Function& f : loaded.module->functions().find(args)) {
      const auto described = loaded.module->functions().at(f.entry);
      const char* format = described && described->source == symbols::Function::Source::kDwarf
                               ? "Symbol \"{}\" is a function at address 0x{:x}.\n"
                               : "Symbol \"{}\" is at 0x{:x} in a file compiled without "
                                 "debugging.\n";
      context.out.write(fmt::format(fmt::runtime(format), args, loaded.to_target(f.entry).value));
      return {};
    }
    for (const symbols::Symbol& s : loaded.module->symbols().find_variables(args)) {
      bool debug = loaded.module->has_debug_info();
      context.out.write(
          fmt::format(fmt::runtime(debug ? "Symbol \"{}\" is static storage at address 0x{:x}.\n"
                                         : "Symbol \"{}\" is at 0x{:x} in a file compiled without "
                                           "debugging.\n"),
                      args, loaded.to_target(s.address).value));
      return {};
    }
  }
  return Diagnostic{"No symbol \"" + std::string(args) + "\" in current context.", {}, {}};
}

namespace {

class Pattern {
public:
  explicit Pattern(const std::string& text) {
    valid_ = text.size() <= kMaxLength && regcomp(&compiled_, text.c_str(), REG_NOSUB) == 0;
  }
  ~Pattern() {
    if (valid_)
      regfree(&compiled_);
  }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;
  bool valid() const { return valid_; }
  bool matches(const std::string& text) const {
    return regexec(&compiled_, text.c_str(), 0, nullptr, 0) == 0;
  }

private:
  static constexpr size_t kMaxLength = 1024; // the library's parser recurses
  regex_t compiled_;
  bool valid_ = false;
};

// `info functions REGEXP`, `info variables REGEXP` over the symbol tables.
Checked<void> list_symbols(Context& context, std::string_view args, bool functions) {
  std::optional<Pattern> pattern;
  if (!args.empty()) {
    pattern.emplace(std::string(args));
    if (!pattern->valid())
      return Diagnostic{"Invalid regexp: " + std::string(args), {}, {}};
  }
  std::string what = functions ? "functions" : "variables";
  context.out.write(args.empty() ? "All defined " + what + ":\n"
                                 : "All " + what + " matching regular expression \"" +
                                       std::string(args) + "\":\n");
  for (const symbols::LoadedModule& loaded : context.debugger.module_map().modules()) {
    std::vector<std::pair<uint64_t, std::string>> rows;
    loaded.module->symbols().for_each([&](const symbols::Symbol& s) {
      bool is_function = s.type == symbols::SymbolType::kFunction || s.is_plt;
      bool is_data = s.type == symbols::SymbolType::kObject;
      if (functions ? !is_function : !is_data)
        return;
      std::string name = s.name();
      if (!pattern || pattern->matches(name))
        rows.emplace_back(loaded.to_target(s.address).value, std::move(name));
    });
    if (rows.empty())
      continue;
    std::sort(rows.begin(), rows.end());
    rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
    context.out.print("\nFile {}:\n", loaded.path);
    for (const auto& [address, name] : rows) {
      context.out.print("0x{:016x}  {}\n", address, name);
      if (context.out.pager().quitting())
        return {};
    }
  }
  return {};
}

} // namespace

Checked<void> info_functions(Context& context, std::string_view args) {
  return list_symbols(context, args, true);
}
Checked<void> info_variables(Context& context, std::string_view args) {
  return list_symbols(context, args, false);
}

} // namespace ddbg::ui::cmd
