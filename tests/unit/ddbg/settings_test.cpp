#include "dtrace-lite/ddbg/settings.h"

#include <gtest/gtest.h>

#include <fstream>

namespace ddbg::ui {
namespace {

TEST(Settings, FlagsTakeWhatGdbTakes) {
  Settings settings;
  for (const char* on : {"on", "1", "yes", "y", "enable", "en", ""}) {
    ASSERT_TRUE(settings.set(Setting::kConfirm, "off"));
    EXPECT_TRUE(settings.set(Setting::kConfirm, on)) << on;
    EXPECT_TRUE(settings.flag(Setting::kConfirm)) << on;
  }
  for (const char* off : {"off", "of", "0", "no", "disable"}) {
    ASSERT_TRUE(settings.set(Setting::kConfirm, "on"));
    EXPECT_TRUE(settings.set(Setting::kConfirm, off)) << off;
    EXPECT_FALSE(settings.flag(Setting::kConfirm)) << off;
  }
  EXPECT_FALSE(settings.set(Setting::kConfirm, "maybe"));
  EXPECT_FALSE(settings.set(Setting::kConfirm, "o"));
}

TEST(Settings, CountsAndUnlimited) {
  Settings settings;
  ASSERT_TRUE(settings.set(Setting::kListSize, "5"));
  EXPECT_EQ(settings.count(Setting::kListSize), 5u);
  ASSERT_TRUE(settings.set(Setting::kListSize, "unl"));
  EXPECT_EQ(settings.count(Setting::kListSize), Settings::kUnlimited);
  ASSERT_TRUE(settings.set(Setting::kListSize, "0"));
  EXPECT_EQ(settings.show(Setting::kListSize),
            "Number of source lines ddbg will list by default is unlimited.");
  EXPECT_FALSE(settings.set(Setting::kListSize, "x"));
  EXPECT_FALSE(settings.set(Setting::kListSize, "99999999999"));
  EXPECT_FALSE(settings.set(Setting::kListSize, "-7"));
  EXPECT_FALSE(settings.set(Setting::kListSize, ""));
}

TEST(Settings, ChoicesByUniqueBeginning) {
  Settings settings;
  ASSERT_TRUE(settings.set(Setting::kDisassemblyFlavor, "i"));
  EXPECT_EQ(settings.text(Setting::kDisassemblyFlavor), "intel");
  EXPECT_FALSE(settings.set(Setting::kDisassemblyFlavor, "masm"));
  EXPECT_EQ(settings.text(Setting::kDisassemblyFlavor), "intel");
}

TEST(Settings, ShowIsGdbsSentence) {
  Settings settings;
  EXPECT_EQ(settings.show(Setting::kConfirm),
            "Whether to confirm potentially dangerous operations is on.");
  EXPECT_EQ(settings.show(Setting::kDisableRandomization),
            "Disabling randomization of debuggee's virtual address space is on.");
  ASSERT_TRUE(settings.set(Setting::kArgs, "a  b"));
  EXPECT_EQ(settings.show(Setting::kArgs),
            "Argument list to give program being debugged when it is started is \"a  b\".");
}

TEST(Settings, ChangeIsNoticed) {
  Settings settings;
  int changes = 0;
  settings.on_change(Setting::kWidth, [&] { ++changes; });
  ASSERT_TRUE(settings.set(Setting::kWidth, "80"));
  EXPECT_FALSE(settings.set(Setting::kWidth, "wide"));
  EXPECT_EQ(changes, 1);
}

TEST(FindSetting, OneAndTwoWordNames) {
  SettingMatch match = find_setting("pagination off");
  ASSERT_TRUE(match.row);
  EXPECT_EQ(match.row->id, Setting::kPagination);
  EXPECT_EQ(match.rest, "off");
  match = find_setting("p el 5");
  ASSERT_TRUE(match.row);
  EXPECT_EQ(match.row->id, Setting::kPrintElements);
  EXPECT_EQ(match.rest, "5");
  match = find_setting("print frame-arguments all");
  ASSERT_TRUE(match.row);
  EXPECT_EQ(match.row->id, Setting::kPrintFrameArguments);
}

TEST(FindSetting, UnknownAndAmbiguous) {
  SettingMatch match = find_setting("print nosuch");
  EXPECT_FALSE(match.row);
  EXPECT_EQ(match.failed_prefix, "print");
  EXPECT_EQ(match.failed_word, "nosuch");
  match = find_setting("disa");
  EXPECT_FALSE(match.row);
  EXPECT_EQ(match.candidates.size(), 3u);
  match = find_setting("counter = 3");
  EXPECT_FALSE(match.row);
  EXPECT_EQ(match.failed_word, "counter");
}

TEST(FindSetting, EveryRowIsFoundByItsName) {
  for (const SettingRow& row : setting_rows()) {
    SettingMatch match = find_setting(row.name);
    ASSERT_TRUE(match.row) << row.name;
    EXPECT_EQ(match.row->id, row.id);
    EXPECT_NE(std::string_view(row.shown).find("{}"), std::string_view::npos) << row.name;
  }
}

} // namespace
} // namespace ddbg::ui
