// `set` and `show`: one row per setting. What is not a row here (args, environment, variables) is a
// command of its own under `set`.
#pragma once

#include "dtrace-lite/symbols/diagnostic.h"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ddbg::ui {

// The order is that of the rows in settings.cpp.
enum class Setting : uint8_t {
  kArgs,
  kBacktraceLimit,
  kBacktracePastMain,
  kBreakpointPending,
  kConfirm,
  kCwd,
  kDebugFileDirectory,
  kDirectories,
  kDisableRandomization,
  kDisassembleNextLine,
  kDisassemblyFlavor,
  kHeight,
  kHistoryFilename,
  kHistorySave,
  kHistorySize,
  kInferiorTty,
  kListSize,
  kPagination,
  kPrintAddress,
  kPrintElements,
  kPrintFrameArguments,
  kPrintInferiorEvents,
  kPrintRepeats,
  kPrintThreadEvents,
  kPrompt,
  kStartupWithShell,
  kStepMode,
  kWidth,
};
inline constexpr size_t kSettingCount = static_cast<size_t>(Setting::kWidth) + 1;

enum class SettingKind : uint8_t {
  kFlag,     // on, off, and what gdb takes for them
  kAuto,     // on, off, auto
  kCount,    // a number; 0 and "unlimited" mean unlimited
  kChoice,   // one of SettingRow::choices
  kText,     // the rest of the line
  kFilename, // the same, with ~
};

struct SettingRow {
  Setting id;
  const char* name; // "print pretty"
  SettingKind kind;
  const char* initial; // as a person would type it
  const char* shown;   // what `show` says; {} is the value
  const char* help;    // begins with what it is about: "Pretty formatting of structures."
  const char* choices; // blank-separated, for kChoice
};

std::span<const SettingRow> setting_rows();
const SettingRow& setting_row(Setting);

class Settings {
public:
  Settings();

  bool flag(Setting s) const { return numbers_[index(s)] != 0; }
  uint64_t count(Setting s) const { return numbers_[index(s)]; } // kUnlimited when so
  const std::string& text(Setting s) const { return texts_[index(s)]; }
  static constexpr uint64_t kUnlimited = UINT64_MAX;

  // `value` as typed. Errors: not what this kind of setting takes.
  Checked<void> set(Setting s, std::string_view value);
  // The value as `show` prints it.
  std::string value_text(Setting s) const;
  std::string show(Setting s) const;

  // Called after a change by set().
  void on_change(Setting s, std::function<void()> f) { hooks_[index(s)] = std::move(f); }

private:
  static size_t index(Setting s) { return static_cast<size_t>(s); }

  std::vector<uint64_t> numbers_;
  std::vector<std::string> texts_;
  std::vector<std::function<void()>> hooks_;
};

// Resolves "print pret", "p pretty", "height": the row, and how many words were used.
struct SettingMatch {
  const SettingRow* row = nullptr;
  std::string_view rest;                     // what follows the name: the value
  std::vector<const SettingRow*> candidates; // when the name is a mere beginning of several
  std::string failed_prefix; // "print" when the second word of "print foo" is unknown
  std::string_view failed_word;
};
SettingMatch find_setting(std::string_view typed);

// "on", "1", "yes", "enable" ... Errors as gdb words them.
Checked<bool> parse_flag(std::string_view text);

} // namespace ddbg::ui
