// ddbg's own command line: the input's lines are its words.
#include "dtrace-lite/ddbg/options.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::string> words(1);
  for (size_t i = 0; i < size; ++i)
    if (data[i] == '\n')
      words.emplace_back();
    else
      words.back() += static_cast<char>(data[i]);
  auto options = ddbg::ui::parse_options(words);
  if (!options)
    DUNE_ASSERT(!options.error().message.empty());
  return 0;
}
