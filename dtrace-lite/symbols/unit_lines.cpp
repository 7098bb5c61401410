#include "dtrace-lite/symbols/unit_lines.h"

#include <algorithm>

namespace ddbg::symbols {
namespace {

// Turns rows into items the way gdb's reader does.
class Builder {
public:
  // Files come in the order of the file table: where rows of several files could end a range, gdb
  // takes what it meets first.
  explicit Builder(UnitLines& result) {
    result.files.reserve(result.file_table.size());
    for (const SourceFile* file : result.file_table) {
      UnitLines::PerFile* known = nullptr;
      for (auto& f : result.files)
        if (f.file == file)
          known = &f;
      if (!known && file)
        known = &result.files.emplace_back(UnitLines::PerFile{file, {}});
      by_number_.push_back(known); // stays good: the capacity was reserved
    }
  }

  void row(const LineRow& row) {
    if (row.begins_sequence) {
      last_file_ = nullptr;
      last_line_ = 0;
      discriminator_seen_ = false;
      statement_at_address_ = false;
      last_address_ = row.address;
      line_before_ = 1;
    }
    if (row.line != line_before_)
      discriminator_seen_ = false;
    line_before_ = row.line;
    discriminator_seen_ |= row.discriminator != 0;

    UnitLines::PerFile* file = file_of(row.file);
    const bool changed = file != last_file_;
    // A non-statement row of another file must not end the statement that begins at its address.
    const bool ignored =
        !row.end_sequence && (row.line == 0 || (changed && last_address_ == row.address &&
                                                !row.is_statement && statement_at_address_));
    if (((changed && !ignored) || row.end_sequence) && last_file_)
      end_of_lines(*last_file_, row.address);
    if (!row.end_sequence && !ignored && file) {
      // Rows of one line that differ only in discriminator are one.
      if (changed || row.line != last_line_ || !discriminator_seen_)
        file->items.push_back({row.address,
                               static_cast<unsigned>(std::min<uint64_t>(row.line, ~0u)),
                               row.is_statement, row.prologue_end});
      last_line_ = row.line;
      last_file_ = file;
    } else if (!row.end_sequence && !ignored) {
      last_file_ = nullptr;
    }
    if (row.address != last_address_) {
      statement_at_address_ = false;
      last_address_ = row.address;
    }
    statement_at_address_ |= row.is_statement;
  }

private:
  UnitLines::PerFile* file_of(uint64_t number) {
    return number < by_number_.size() ? by_number_[number] : nullptr;
  }

  static void end_of_lines(UnitLines::PerFile& file, LinkAddr pc) {
    auto& items = file.items;
    while (!items.empty() && items.back().pc == pc)
      items.pop_back();
    if (!items.empty())
      items.push_back({pc, 0, true});
  }

  std::vector<UnitLines::PerFile*> by_number_;
  UnitLines::PerFile* last_file_ = nullptr;
  uint64_t last_line_ = 0;
  uint64_t line_before_ = 1;
  LinkAddr last_address_;
  bool discriminator_seen_ = false;
  bool statement_at_address_ = false;
};

bool before(LinkAddr pc, const LineItem& item) { return pc < item.pc; }

} // namespace

void build_unit_lines(const LineSections& sections, const LineHeader& header,
                      const std::function<bool(LinkAddr)>& is_code, UnitLines& result) {
  Builder builder(result);
  bool dropped = false;
  run_line_program(sections, header, [&](const LineRow& row) {
    if (row.begins_sequence)
      dropped = !is_code(row.address);
    if (!dropped)
      builder.row(row);
  });
  for (auto& file : result.files)
    std::stable_sort(file.items.begin(), file.items.end(),
                     [](const LineItem& a, const LineItem& b) {
                       if (a.pc == b.pc && (a.line == 0) != (b.line == 0))
                         return a.line == 0;
                       return a.pc < b.pc;
                     });
}

std::optional<LineSpan> UnitLines::find(LinkAddr pc) const {
  const LineItem* best = nullptr;
  const SourceFile* best_file = nullptr;
  LinkAddr best_end;               // 0: not known
  const LineItem* later = nullptr; // the first item of a file that begins after pc
  for (const PerFile& f : files) {
    if (f.items.empty())
      continue;
    if (f.items.front().pc > pc && (!later || f.items.front().pc < later->pc))
      later = &f.items.front();
    const auto next = std::upper_bound(f.items.begin(), f.items.end(), pc, before);
    if (next != f.items.begin()) {
      auto previous = next - 1;
      if (!previous->is_statement) {
        auto t = previous;
        while (t != f.items.begin() && (t - 1)->pc == t->pc && (t - 1)->line != 0 &&
               !t->is_statement)
          --t;
        if (t->is_statement)
          previous = t;
      }
      if (previous->line != 0 && (!best || previous->pc > best->pc)) {
        best = &*previous;
        best_file = f.file;
        if (best_end <= best->pc)
          best_end = LinkAddr(0);
      }
    }
    if (best && next != f.items.end() && next->pc > best->pc && (!best_end || best_end > next->pc))
      best_end = next->pc;
  }
  if (!best)
    return std::nullopt;
  LineSpan span;
  span.file = best_file;
  span.line = best->line;
  span.is_statement = best->is_statement;
  span.range.begin = best->pc;
  if (best_end && (!later || best_end < later->pc))
    span.range.end = best_end;
  else
    span.range.end = later ? later->pc : pc + 1;
  // The last item ended before pc: nothing is known of this address.
  if (!span.range.contains(pc))
    return std::nullopt;
  return span;
}

const UnitLines::PerFile* UnitLines::items_of(const SourceFile* file) const {
  for (const PerFile& f : files)
    if (f.file == file)
      return &f;
  return nullptr;
}

} // namespace ddbg::symbols
