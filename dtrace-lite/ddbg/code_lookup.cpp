#include "dtrace-lite/ddbg/code_lookup.h"

#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/text.h"

#include <algorithm>

namespace ddbg::ui {

std::string symbol_at(Context& context, dune::TargetAddr a) {
  return context.debugger.module_map().describe(a);
}

std::string bracketed(Context& context, dune::TargetAddr a) {
  std::string name = symbol_at(context, a);
  return name.empty() ? name : "<" + name + ">";
}

std::optional<FunctionRange> function_at(Context& context, dune::TargetAddr pc) {
  const symbols::LoadedModule* loaded = context.debugger.module_map().find(pc);
  if (!loaded)
    return std::nullopt;
  auto function = loaded->module->functions().at(loaded->to_link(pc));
  if (!function)
    return std::nullopt;
  std::vector<dune::TargetRange> ranges;
  for (const dune::LinkRange& r : function->ranges)
    ranges.push_back({loaded->to_target(r.begin), loaded->to_target(r.end)});
  if (ranges.empty())
    return std::nullopt;
  return FunctionRange{function->name, std::move(ranges), {function->file, function->line}};
}

Checked<std::vector<uint8_t>> read_some(Context& context, dune::TargetAddr from, size_t size) {
  std::vector<uint8_t> bytes(size);
  auto read = context.debugger.read_memory(from, bytes);
  if (read)
    return bytes;
  if (!context.debugger.alive())
    if (const symbols::LoadedModule* loaded = context.debugger.module_map().find(from)) {
      auto file = loaded->module->elf().bytes_at(loaded->to_link(from), size);
      if (!file.empty()) {
        const auto* begin = reinterpret_cast<const uint8_t*>(file.data());
        return std::vector<uint8_t>(begin, begin + file.size());
      }
    }
  // The end of a mapping may be near: what is on this page, or half of it, and so on.
  for (size_t part = size / 2; part > 0; part /= 2) {
    bytes.resize(part);
    if (context.debugger.read_memory(from, bytes))
      return bytes;
  }
  return Diagnostic{
      fmt::format("Cannot access memory at address 0x{:x}", from.value), read.error().hint, {}};
}

namespace {

std::vector<const symbols::SourceFile*> files_named(Context& context, std::string_view name) {
  std::vector<const symbols::SourceFile*> files;
  for (const symbols::LoadedModule& loaded : context.debugger.module_map().modules())
    for (const symbols::SourceFile* file : loaded.module->lines().files(name))
      files.push_back(file);
  return files;
}

} // namespace

std::optional<FunctionEntry> find_function(Context& context, std::string_view name) {
  std::optional<FunctionEntry> first;
  for (const symbols::LoadedModule& loaded : context.debugger.module_map().modules())
    for (const symbols::Function& function : loaded.module->functions().find(name)) {
      FunctionEntry found{&loaded, function.entry, {function.file, function.line}};
      if (!found.source)
        if (auto span = loaded.module->lines().find(function.entry); span && span->file)
          found.source = {span->file, span->line};
      if (found.source)
        return found;
      if (!first)
        first = found;
    }
  return first;
}

Checked<engine::SourceLine> resolve_source(Context& context, std::string_view text) {
  text = trim(text);
  engine::SourceLine current = context.debugger.default_line();
  if (text.starts_with('+') || text.starts_with('-')) {
    auto offset = parse_integer(text.substr(1));
    if (!current.file || !offset)
      return Diagnostic{"No symbol table is loaded.  Use the \"file\" command.", {}, {}};
    int64_t line = static_cast<int64_t>(current.line) +
                   (text[0] == '+' ? *offset : -std::min<int64_t>(*offset, current.line));
    return engine::SourceLine{current.file,
                              static_cast<unsigned>(std::clamp<int64_t>(line, 1, INT32_MAX))};
  }
  if (auto line = parse_integer(text); line && *line >= 0) {
    if (!current.file)
      return Diagnostic{"No symbol table is loaded.  Use the \"file\" command.", {}, {}};
    return engine::SourceLine{current.file,
                              static_cast<unsigned>(std::min<int64_t>(*line, INT32_MAX))};
  }
  size_t colon = text.rfind(':');
  if (colon != text.npos && colon > 0 && text[colon - 1] != ':') {
    std::string_view file = trim(text.substr(0, colon));
    if (auto line = parse_integer(trim(text.substr(colon + 1))); line && *line >= 0) {
      auto files = files_named(context, file);
      if (files.empty())
        return Diagnostic{"No source file named " + std::string(file) + ".",
                          "\"info sources\" lists the files.",
                          {}};
      return engine::SourceLine{files[0],
                                static_cast<unsigned>(std::min<int64_t>(*line, INT32_MAX))};
    }
  }
  if (auto found = find_function(context, text); found && found->source)
    return found->source;
  engine::Linespec linespec = context.debugger.resolve(std::string(text));
  if (linespec.places.empty())
    return linespec.problem;
  if (!linespec.places[0].source)
    return Diagnostic{"Function \"" + std::string(text) + "\" has no line number information.",
                      "It was compiled without -g, or its debug file is not installed.",
                      {}};
  return linespec.places[0].source;
}

} // namespace ddbg::ui
