#include "dtrace-lite/ddbg/line_reader.h"

#include "dtrace-lite/ddbg/completion.h"
#include "dtrace-lite/ddbg/context.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <readline/history.h>
#include <readline/readline.h>

namespace ddbg::ui {

namespace {

// readline calls back without an argument: there is one reader at a time.
Context* g_context = nullptr;
bool g_line_done = false;
std::optional<std::string> g_line;

void take_line(char* line) {
  g_line_done = true;
  g_line = line ? std::optional<std::string>(line) : std::nullopt;
  std::free(line);
  // Before the command's output, so that the terminal is the command's (and the target's).
  rl_callback_handler_remove();
}

class HeldSignals {
public:
  HeldSignals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, &before_);
  }
  ~HeldSignals() { sigprocmask(SIG_SETMASK, &before_, nullptr); }
  const sigset_t* before() const { return &before_; }

private:
  sigset_t before_;
};

// False: a signal has come first. It is deliverable only inside ppoll: a Ctrl-C between the look at
// the flag and the sleep would else wait for the next key.
bool wait_for_input() {
  HeldSignals held;
  pollfd input{0, POLLIN, 0};
  return !signals::interrupt_pending() &&
         (ppoll(&input, 1, nullptr, held.before()) >= 0 || errno != EINTR);
}

Completions g_completions;
size_t g_next_word = 0;
std::string g_cut, g_added; // what readline's idea of the word has too little or too much

char* next_word(const char*, int state) {
  if (state == 0)
    g_next_word = 0;
  if (g_next_word >= g_completions.words.size())
    return nullptr;
  std::string word = g_completions.words[g_next_word++];
  word = g_added + (word.size() >= g_cut.size() ? word.substr(g_cut.size()) : word);
  return strdup(word.c_str());
}

char** complete_word(const char* text, int start, int end) {
  rl_attempted_completion_over = 1; // no file names unless they are asked for
  if (!g_context)
    return nullptr;
  std::string line(rl_line_buffer, static_cast<size_t>(end));
  g_completions = complete(*g_context, line);
  auto begin = static_cast<size_t>(start);
  g_cut = g_completions.begin < begin
              ? line.substr(g_completions.begin, begin - g_completions.begin)
              : "";
  g_added = g_completions.begin > begin ? line.substr(begin, g_completions.begin - begin) : "";
  rl_completion_append_character = ' ';
  if (g_completions.words.size() == 1 && g_completions.words[0].ends_with(':'))
    rl_completion_append_character = '\0';
  char** matches = rl_completion_matches(text, next_word);
  if (!matches && g_completions.files) {
    rl_attempted_completion_over = 0;
    rl_filename_completion_desired = 1;
  }
  return matches;
}

} // namespace

LineReader::LineReader(Context& context) : context_(context) {
  if (!context.input_is_terminal)
    return;
  g_context = &context;
  rl_readline_name = "ddbg";
  rl_catch_signals = 0; // ours, see terminal.h
  rl_catch_sigwinch = 0;
  rl_attempted_completion_function = complete_word;
  rl_completer_word_break_characters = " \t\n";
  rl_completer_quote_characters = "";
  using_history();
}

LineReader::~LineReader() {
  rl_callback_handler_remove(); // there is one behind a Ctrl-C
  g_context = nullptr;
}

std::optional<std::string> LineReader::next(const std::string& prompt) {
  context_.out.flush();
  return context_.input_is_terminal ? read_edited(prompt) : read_plain(prompt);
}

std::optional<std::string> LineReader::read_edited(const std::string& prompt) {
  g_line_done = false;
  interrupted_ = false;
  HeldSignals held; // as wait_for_input()
  rl_callback_handler_install(prompt.c_str(), take_line);
  while (!g_line_done) {
    pollfd input{0, POLLIN, 0};
    int ready = ppoll(&input, 1, nullptr, held.before());
    if (signals::take_resize())
      rl_resize_terminal();
    if (signals::take_interrupt()) {
      rl_free_line_state();
      rl_callback_sigcleanup();
      interrupted_ = true;
      // Whoever has asked says "Quit" behind the line and asks again. To let go of the terminal
      // would bring the cursor back to the line's beginning, if it knows bracketed paste.
      return std::nullopt;
    }
    if (ready > 0)
      rl_callback_read_char();
    else if (ready < 0 && errno != EINTR) {
      rl_callback_handler_remove();
      return std::nullopt;
    }
  }
  return g_line;
}

// A byte at a time: what follows the line belongs to whoever reads next, the target for one.
std::optional<std::string> LineReader::read_plain(const std::string& prompt) {
  interrupted_ = false;
  context_.out.flush();
  if (!prompt.empty()) {
    // Past the pager, which may be the one that asks.
    [[maybe_unused]] ssize_t written = ::write(1, prompt.data(), prompt.size());
  }
  std::string line;
  for (;;) {
    const bool is_there = wait_for_input();
    if (signals::take_interrupt()) {
      interrupted_ = true;
      return std::nullopt;
    }
    if (!is_there)
      continue;
    char c;
    ssize_t n = ::read(0, &c, 1);
    if (n == 1) {
      if (c == '\n')
        return line;
      line += c;
    } else if (n == 0) {
      return line.empty() ? std::nullopt : std::optional(line);
    } else if (errno != EINTR &&
               errno != EAGAIN) { // a target left the shared terminal non-blocking
      return std::nullopt;
    }
  }
}

void LineReader::remember(const std::string& line) {
  if (!context_.input_is_terminal || line.empty())
    return;
  HIST_ENTRY* last = history_length > 0 ? history_get(history_base + history_length - 1) : nullptr;
  if (!last || line != last->line)
    add_history(line.c_str());
}

void LineReader::load_history() {
  if (!context_.input_is_terminal)
    return;
  uint64_t size = context_.settings.count(Setting::kHistorySize);
  if (size == Settings::kUnlimited)
    unstifle_history();
  else
    stifle_history(static_cast<int>(size));
  const std::string& file = context_.settings.text(Setting::kHistoryFilename);
  if (!file.empty())
    read_history(file.c_str());
}

void LineReader::save_history() {
  const std::string& file = context_.settings.text(Setting::kHistoryFilename);
  if (!context_.input_is_terminal || !context_.settings.flag(Setting::kHistorySave) || file.empty())
    return;
  // What was typed may hold secrets: the file is the user's alone, whatever the umask.
  mode_t before = umask(077);
  write_history(file.c_str());
  umask(before);
}

} // namespace ddbg::ui
