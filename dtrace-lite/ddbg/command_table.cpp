// The commands of ddbg, a row each, sorted by name. What a row means: command.h.
#include "dtrace-lite/ddbg/commands.h"

#include <algorithm>

namespace ddbg::ui {

namespace {

using enum Topic;
using A = Argument;
using R = Repeat;
constexpr uint8_t kRuns = kResumes | kTouchesHost;

constexpr TopicInfo kTopics[] = {
    {kBreakpoints, "breakpoints", "Making program stop at certain points."},
    {kData, "data", "Examining data."},
    {kFiles, "files", "Specifying and examining files."},
    {kObscure, "obscure", "Obscure features."},
    {kRunning, "running", "Running the program."},
    {kStack, "stack", "Examining the stack."},
    {kStatus, "status", "Status inquiries."},
    {kSupport, "support", "Support facilities."},
};

// clang-format off
constexpr Command kCommands[] = {
    {"!", "", kSupport, A::kFile, R::kNever, kTouchesHost, cmd::shell,
     "Execute the rest of the line as a shell command.\n"
     "Usage: ! COMMAND"},
    {"advance", "", kRunning, A::kLocation, R::kSame, kRuns, cmd::advance,
     "Continue the program up to the given location (same form as args for break command).\n"
     "Execution also stops when the current frame returns."},
    {"apropos", "", kSupport, A::kNone, R::kNever, 0, cmd::apropos,
     "Search for commands matching a word.\n"
     "Usage: apropos [-v] WORD\n"
     "-v shows the whole documentation."},
    {"attach", "", kRunning, A::kNone, R::kNever, kRuns, cmd::attach,
     "Attach to a process.\n"
     "Usage: attach PID\n"
     "The process stops; \"detach\" lets it go on as if nothing had been."},
    {"awatch", "", kBreakpoints, A::kExpression, R::kNever, 0, cmd::awatch,
     "Set an access watchpoint for EXPRESSION.\n"
     "Usage: awatch [-l|-location] EXPRESSION [thread N] [if CONDITION]\n"
     "The program stops whenever the value is read or written."},
    {"backtrace", "bt where", kStack, A::kNone, R::kSame, 0, cmd::backtrace,
     "Print backtrace of all stack frames, or innermost COUNT frames.\n"
     "Usage: backtrace [full] [COUNT]\n"
     "With a negative COUNT, the outermost -COUNT frames. \"full\" prints the local variables too."},
    {"break", "brea bre br b", kBreakpoints, A::kLocation, R::kNever, 0, cmd::break_,
     "Set breakpoint at specified location.\n"
     "Usage: break [LOCATION] [thread N] [if CONDITION]\n"
     "LOCATION is a function, FILE:LINE, LINE, or *ADDRESS; without one, where the selected\n"
     "frame is. CONDITION is compiled and evaluated inside the program, as far as it can be."},
    {"call", "", kData, A::kExpression, R::kSame, 0, cmd::call,
     "Evaluate an expression; functions of the program cannot be called yet.\n"
     "Usage: call EXPRESSION\n"
     "As \"print\", but a void result is not printed."},
    {"cd", "", kFiles, A::kFile, R::kNever, kTouchesHost, cmd::cd,
     "Set working directory to DIR for debugger.\n"
     "Usage: cd [DIR]\n"
     "The program inherits it, unless \"set cwd\" says otherwise."},
    {"clear", "cl", kBreakpoints, A::kLocation, R::kNever, 0, cmd::clear,
     "Clear breakpoint at specified location.\n"
     "Usage: clear [LOCATION]\n"
     "Without one, at the line of the selected frame."},
    {"commands", "", kBreakpoints, A::kNone, R::kNever, kTakesBody, cmd::commands,
     "Set commands to be executed when the given breakpoints are hit.\n"
     "Usage: commands [NUMBER...], then the commands, a line each, then \"end\".\n"
     "\"silent\" as the first of them suppresses what is printed at the stop."},
    {"condition", "", kBreakpoints, A::kExpression, R::kNever, 0, cmd::condition,
     "Specify breakpoint number N to break only if COND is true.\n"
     "Usage: condition N [COND]\n"
     "Without COND the breakpoint becomes unconditional."},
    {"continue", "fg c", kRunning, A::kNone, R::kSame, kRuns, cmd::continue_,
     "Continue program being debugged, after signal or breakpoint.\n"
     "Usage: continue [N]\n"
     "N passes the breakpoint that the program stands at N-1 times more."},
    {"core-file", "", kFiles, A::kFile, R::kNever, 0, cmd::core_file,
     "Use FILE as core dump; not supported yet."},
    {"define", "", kSupport, A::kNone, R::kNever, kTakesBody, cmd::define,
     "Define a new command name.\n"
     "Usage: define NAME, then the commands, a line each, then \"end\".\n"
     "In them $arg0, $arg1 ... are the arguments, $argc is their number."},
    {"delete", "del d", kBreakpoints, A::kNone, R::kNever, kPrefix | kAllowUnknown, cmd::delete_,
     "Delete all or some breakpoints.\n"
     "Usage: delete [NUMBER...]"},
    {"delete breakpoints", "", kBreakpoints, A::kNone, R::kNever, 0, cmd::delete_,
     "Delete all or some breakpoints.\n"
     "Usage: delete breakpoints [NUMBER...]"},
    {"delete display", "", kData, A::kNone, R::kNever, 0, cmd::undisplay,
     "Cancel some expressions to be displayed when program stops.\n"
     "Usage: delete display [NUMBER...]"},
    {"detach", "", kRunning, A::kNone, R::kNever, kTouchesHost, cmd::detach,
     "Detach a process previously attached or started.\n"
     "Everything of ddbg's is taken out of it, and it runs on."},
    {"directory", "", kFiles, A::kFile, R::kNever, 0, cmd::directory,
     "Add directory DIR to beginning of search path for source files.\n"
     "Usage: directory [DIR]\n"
     "Without DIR, the path is set back to $cdir:$cwd."},
    {"disable", "disa dis", kBreakpoints, A::kNone, R::kNever, kPrefix | kAllowUnknown, cmd::disable,
     "Disable all or some breakpoints.\n"
     "Usage: disable [NUMBER[.LOCATION]...]"},
    {"disable breakpoints", "", kBreakpoints, A::kNone, R::kNever, 0, cmd::disable,
     "Disable all or some breakpoints.\n"
     "Usage: disable breakpoints [NUMBER[.LOCATION]...]"},
    {"disable display", "", kData, A::kNone, R::kNever, 0, cmd::disable_display,
     "Disable some expressions to be displayed when program stops.\n"
     "Usage: disable display [NUMBER...]"},
    {"disassemble", "disas", kData, A::kExpression, R::kSame, 0, cmd::disassemble,
     "Disassemble a specified section of memory.\n"
     "Usage: disassemble[/r][/s] [ADDRESS | START,END | START,+LENGTH]\n"
     "Without an argument, the function of the selected frame.\n"
     "/r shows the bytes, /s the source lines."},
    {"display", "", kData, A::kExpression, R::kNever, 0, cmd::display,
     "Print value of expression EXP each time the program stops.\n"
     "Usage: display[/FMT] EXP\n"
     "Without an argument, display all of them now."},
    {"document", "", kSupport, A::kNone, R::kNever, kTakesBody, cmd::document,
     "Document a user-defined command.\n"
     "Usage: document NAME, then the text, then \"end\"."},
    {"down", "dow", kStack, A::kNone, R::kSame, 0, cmd::down,
     "Select and print stack frame called by this one.\n"
     "Usage: down [COUNT]"},
    {"echo", "", kSupport, A::kNone, R::kNever, 0, cmd::echo,
     "Print a constant string.  Give string as argument.\n"
     "C escapes such as \\n are understood; a \\ at the end of the argument keeps blanks."},
    {"enable", "en", kBreakpoints, A::kNone, R::kNever, kPrefix | kAllowUnknown, cmd::enable,
     "Enable all or some breakpoints.\n"
     "Usage: enable [NUMBER[.LOCATION]...]"},
    {"enable breakpoints", "", kBreakpoints, A::kNone, R::kNever, 0, cmd::enable,
     "Enable all or some breakpoints.\n"
     "Usage: enable breakpoints [NUMBER[.LOCATION]...]"},
    {"enable delete", "", kBreakpoints, A::kNone, R::kNever, 0, cmd::enable_delete,
     "Enable some breakpoints and delete when hit.\n"
     "Usage: enable delete NUMBER..."},
    {"enable display", "", kData, A::kNone, R::kNever, 0, cmd::enable_display,
     "Enable some expressions to be displayed when program stops.\n"
     "Usage: enable display [NUMBER...]"},
    {"enable once", "", kBreakpoints, A::kNone, R::kNever, 0, cmd::enable_once,
     "Enable some breakpoints for one hit.\n"
     "Usage: enable once NUMBER..."},
    {"exec-file", "", kFiles, A::kFile, R::kNever, kTouchesHost, cmd::exec_file,
     "Use FILE as program for getting contents of pure memory.\n"
     "Usage: exec-file [FILE]"},
    {"file", "", kFiles, A::kFile, R::kNever, kTouchesHost, cmd::file,
     "Use FILE as program to be debugged.\n"
     "Usage: file [FILE]\n"
     "It is read for its symbols, and is what \"run\" starts."},
    {"finish", "fin", kRunning, A::kNone, R::kSame, kRuns, cmd::finish,
     "Execute until selected stack frame returns.\n"
     "Upon return, the value returned is printed and put in the value history."},
    {"frame", "f", kStack, A::kNone, R::kSame, 0, cmd::frame,
     "Select and print a stack frame.\n"
     "Usage: frame [LEVEL | level LEVEL | function NAME]"},
    {"handle", "", kRunning, A::kSignal, R::kNever, 0, cmd::handle,
     "Specify how to handle signals.\n"
     "Usage: handle SIGNAL... ACTION...\n"
     "Actions: stop nostop print noprint pass nopass (or noignore, ignore).\n"
     "Signals that neither stop nor print and are passed cost the program nothing."},
    {"help", "h", kSupport, A::kCommand, R::kNever, 0, cmd::help,
     "Print list of commands.\n"
     "Usage: help [COMMAND | CLASS]"},
    {"ignore", "", kBreakpoints, A::kNone, R::kNever, 0, cmd::ignore,
     "Set ignore-count of breakpoint number N to COUNT.\n"
     "Usage: ignore N COUNT\n"
     "The next COUNT hits are counted inside the program and do not stop it."},
    {"info", "inf i", kStatus, A::kSubcommand, R::kSame, kPrefix, cmd::info,
     "Generic command for showing things about the program being debugged."},
    {"info address", "", kStatus, A::kExpression, R::kSame, 0, cmd::info_address,
     "Describe where symbol SYM is stored.\n"
     "Usage: info address SYM"},
    {"info all-registers", "", kStatus, A::kExpression, R::kSame, 0, cmd::info_all_registers,
     "List of all registers and their contents, for selected stack frame.\n"
     "Usage: info all-registers [NAME...]"},
    {"info args", "", kStatus, A::kNone, R::kSame, 0, cmd::info_args,
     "All argument variables of current stack frame."},
    {"info backend", "", kStatus, A::kNone, R::kSame, 0, cmd::info_backend,
     "How traps reach the agent in the target, and what it can do.\n"
     "Capabilities are measured when the target starts; --backend asks for one by name."},
    {"info breakpoints", "b", kStatus, A::kNone, R::kSame, 0, cmd::info_breakpoints,
     "Status of specified breakpoints (all user-settable breakpoints if no argument).\n"
     "Usage: info breakpoints [NUMBER...]\n"
     "Hits and evaluations of conditions are counted by the agent inside the program; where a\n"
     "condition is evaluated, and why, is told."},
    {"info display", "", kStatus, A::kNone, R::kSame, 0, cmd::info_display,
     "Expressions to display when program stops, with code numbers."},
    {"info files", "target", kStatus, A::kNone, R::kSame, 0, cmd::info_files,
     "Names of targets and files being debugged.\n"
     "With their sections, where they are loaded."},
    {"info frame", "f", kStatus, A::kNone, R::kSame, 0, cmd::info_frame,
     "All about the selected stack frame."},
    {"info functions", "fu", kStatus, A::kExpression, R::kSame, 0, cmd::info_functions,
     "All function names or those matching REGEXPs.\n"
     "Usage: info functions [REGEXP]"},
    {"info inferiors", "", kStatus, A::kNone, R::kSame, 0, cmd::info_inferiors,
     "Print the process being debugged."},
    {"info line", "li", kStatus, A::kLocation, R::kSame, 0, cmd::info_line,
     "Core addresses of the code for a source line.\n"
     "Usage: info line [LOCATION]"},
    {"info locals", "lo", kStatus, A::kNone, R::kSame, 0, cmd::info_locals,
     "All local variables of current stack frame."},
    {"info proc", "", kStatus, A::kNone, R::kSame, kTouchesHost, cmd::info_proc,
     "Show additional information about a process.\n"
     "Usage: info proc [PID] [mappings | status | cmdline | cwd | exe | all]"},
    {"info program", "", kStatus, A::kNone, R::kSame, 0, cmd::info_program,
     "Execution status of the program."},
    {"info registers", "r", kStatus, A::kExpression, R::kSame, 0, cmd::info_registers,
     "List of integer registers and their contents, for selected stack frame.\n"
     "Usage: info registers [NAME...]"},
    {"info sharedlibrary", "dll", kStatus, A::kNone, R::kSame, 0, cmd::info_sharedlibrary,
     "Status of loaded shared object libraries.\n"
     "Usage: info sharedlibrary [PART-OF-NAME]"},
    {"info signals", "handle", kStatus, A::kSignal, R::kSame, 0, cmd::info_signals,
     "What debugger does when program gets various signals.\n"
     "Usage: info signals [SIGNAL]"},
    {"info source", "", kStatus, A::kNone, R::kSame, 0, cmd::info_source,
     "Information about the current source file."},
    {"info sources", "", kStatus, A::kFile, R::kSame, 0, cmd::info_sources,
     "All source files in the program or those whose name contains a word.\n"
     "Usage: info sources [PART-OF-NAME]"},
    {"info stack", "s", kStatus, A::kNone, R::kSame, 0, cmd::backtrace,
     "Backtrace of the stack, or innermost COUNT frames.\n"
     "Usage: info stack [full] [COUNT]"},
    {"info symbol", "", kStatus, A::kExpression, R::kSame, 0, cmd::info_symbol,
     "Describe what symbol is at location ADDR.\n"
     "Usage: info symbol ADDR"},
    {"info threads", "", kStatus, A::kNone, R::kSame, 0, cmd::info_threads,
     "Display currently known threads.\n"
     "Usage: info threads [NUMBER...]"},
    {"info variables", "", kStatus, A::kExpression, R::kSame, 0, cmd::info_variables,
     "All global and static variable names or those matching REGEXPs.\n"
     "Usage: info variables [REGEXP]"},
    {"info watchpoints", "", kStatus, A::kNone, R::kSame, 0, cmd::info_watchpoints,
     "Status of specified watchpoints (all watchpoints if no argument).\n"
     "Usage: info watchpoints [NUMBER...]"},
    {"jump", "j", kRunning, A::kLocation, R::kNever, 0, cmd::unsupported_jump,
     "Continue program being debugged at specified line or address; not supported yet.\n"
     "`set var $pc = ADDRESS' and `continue' do it."},
    {"kill", "k", kRunning, A::kNone, R::kNever, kTouchesHost, cmd::kill,
     "Kill execution of program being debugged."},
    {"latency", "", kObscure, A::kLocation, R::kNever, kRuns, cmd::latency,
     "Measure what an event costs the program, here and under ptrace.\n"
     "Usage: latency [-n EVENTS] [--against ptrace|none] [--json] [--svg FILE]\n"
     "               -b LOCATION | -w EXPRESSION | --step  [--] [PROGRAM [ARGUMENTS]]\n"
     "Runs the program several times from main, with its output thrown away: alone, with a condition\n"
     "that is false, with a stop at each event, and under a plain ptrace tracer."},
    {"list", "l", kFiles, A::kLocation, R::kWithoutArguments, 0, cmd::list,
     "List specified function or line.\n"
     "Usage: list [LOCATION | FIRST,LAST | FIRST, | ,LAST | + | -]\n"
     "Without an argument, ten lines more after or around the previous listing; \"list -\" the\n"
     "ten lines before."},
    {"next", "n", kRunning, A::kNone, R::kSame, kRuns, cmd::next,
     "Step program, proceeding through subroutine calls.\n"
     "Usage: next [N]"},
    {"nexti", "ni", kRunning, A::kNone, R::kSame, kRuns, cmd::nexti,
     "Step one instruction, but proceed through subroutine calls.\n"
     "Usage: nexti [N]"},
    {"output", "", kData, A::kExpression, R::kNever, 0, cmd::output,
     "Like \"print\" but don't put in value history and don't print newline.\n"
     "Usage: output[/FMT] EXP"},
    {"print", "inspect p", kData, A::kExpression, R::kSame, 0, cmd::print,
     "Print value of expression EXP.\n"
     "Usage: print[/FMT] [EXP]\n"
     "EXP may use variables of the selected frame, globals, registers ($rax), convenience\n"
     "variables ($foo) and the value history ($1, $, $$). FMT is one of x d u o t a c f s z."},
    {"printf", "", kData, A::kExpression, R::kNever, 0, cmd::printf_,
     "Formatted printing, like the C \"printf\" function.\n"
     "Usage: printf \"FORMAT\", ARG1, ARG2, ..."},
    {"ptype", "", kData, A::kExpression, R::kSame, 0, cmd::ptype,
     "Print definition of type TYPE.\n"
     "Usage: ptype TYPE | EXPRESSION"},
    {"pwd", "", kFiles, A::kNone, R::kSame, kTouchesHost, cmd::pwd,
     "Print working directory."},
    {"quit", "exit q", kSupport, A::kNone, R::kNever, 0, cmd::quit,
     "Exit ddbg.\n"
     "Usage: quit [STATUS]\n"
     "A program that was started is killed, one that was attached to is let go."},
    {"return", "", kRunning, A::kNone, R::kNever, 0, cmd::unsupported_return,
     "Make selected stack frame return to its caller; not supported yet."},
    {"run", "r", kRunning, A::kFile, R::kNever, kRuns, cmd::run,
     "Start debugged program.\n"
     "Usage: run [ARGS]\n"
     "ARGS may redirect and use what the shell expands; they are kept for the next run."},
    {"rwatch", "", kBreakpoints, A::kExpression, R::kNever, 0, cmd::rwatch,
     "Set a read watchpoint for EXPRESSION.\n"
     "Usage: rwatch [-l|-location] EXPRESSION [thread N] [if CONDITION]\n"
     "The processor does not tell reads from writes: it stops at both."},
    {"set", "", kData, A::kSetting, R::kNever, kPrefix | kAllowUnknown, cmd::set,
     "Evaluate expression EXP and assign result to variable VAR, or change a setting.\n"
     "Usage: set SETTING VALUE\n"
     "       set VAR = EXP"},
    {"set environment", "", kRunning, A::kNone, R::kNever, 0, cmd::set_environment,
     "Set environment variable value to give the program.\n"
     "Usage: set environment VAR [=] VALUE"},
    {"set variable", "var", kData, A::kExpression, R::kNever, 0, cmd::set_variable,
     "Evaluate expression EXP and assign result to variable VAR.\n"
     "Usage: set variable VAR = EXP"},
    {"shell", "", kSupport, A::kFile, R::kNever, kTouchesHost, cmd::shell,
     "Execute the rest of the line as a shell command.\n"
     "Usage: shell [COMMAND]\n"
     "With no arguments, run an inferior shell."},
    {"show", "", kStatus, A::kSetting, R::kSame, kPrefix | kAllowUnknown, cmd::show,
     "Generic command for showing things about the debugger.\n"
     "Usage: show [SETTING]"},
    {"show convenience", "conv", kStatus, A::kNone, R::kSame, 0, cmd::show_convenience,
     "Debugger convenience (\"$foo\") variables."},
    {"show environment", "", kStatus, A::kNone, R::kSame, 0, cmd::show_environment,
     "The environment to give the program, or one variable's value.\n"
     "Usage: show environment [VAR]"},
    {"show user", "", kStatus, A::kNone, R::kSame, 0, cmd::show_user,
     "Show definitions of user defined commands.\n"
     "Usage: show user [COMMAND]"},
    {"show values", "", kStatus, A::kNone, R::kSame, 0, cmd::show_values,
     "Elements of value history around item number IDX (or last ten).\n"
     "Usage: show values [IDX]"},
    {"show version", "", kStatus, A::kNone, R::kSame, 0, cmd::show_version,
     "Show what version of ddbg this is."},
    {"signal", "", kRunning, A::kSignal, R::kSame, kRuns, cmd::signal_,
     "Continue program with the specified signal.\n"
     "Usage: signal SIGNAL\n"
     "0 continues without the signal that it stopped with."},
    {"silent", "", kBreakpoints, A::kNone, R::kNever, 0, cmd::silent,
     "As the first of a breakpoint's commands: do not tell the stop."},
    {"source", "", kSupport, A::kFile, R::kNever, kTouchesHost, cmd::source,
     "Read commands from a file named FILE.\n"
     "Usage: source FILE"},
    {"start", "", kRunning, A::kFile, R::kNever, kRuns, cmd::start,
     "Start the debugged program stopping at the beginning of the main procedure.\n"
     "Usage: start [ARGS]"},
    {"starti", "", kRunning, A::kFile, R::kNever, kRuns, cmd::starti,
     "Start the debugged program stopping at the first instruction.\n"
     "Usage: starti [ARGS]"},
    {"step", "s", kRunning, A::kNone, R::kSame, kRuns, cmd::step,
     "Step program until it reaches a different source line.\n"
     "Usage: step [N]"},
    {"stepi", "si", kRunning, A::kNone, R::kSame, kRuns, cmd::stepi,
     "Step one instruction exactly.\n"
     "Usage: stepi [N]\n"
     "N steps are made inside the program, without a stop for each."},
    {"symbol-file", "", kFiles, A::kFile, R::kNever, kTouchesHost, cmd::symbol_file,
     "Load symbol table from executable file FILE.\n"
     "Usage: symbol-file FILE"},
    {"tbreak", "tbrea tbre tbr tb", kBreakpoints, A::kLocation, R::kNever, 0, cmd::tbreak,
     "Set a temporary breakpoint.\n"
     "Like \"break\" except the breakpoint is deleted when hit."},
    {"thread", "t", kRunning, A::kSubcommand, R::kSame, kPrefix | kAllowUnknown, cmd::thread,
     "Use this command to switch between threads.\n"
     "Usage: thread [NUMBER]"},
    {"thread apply", "", kRunning, A::kCommand, R::kSame, 0, cmd::thread_apply,
     "Apply a command to a list of threads.\n"
     "Usage: thread apply NUMBER... [-q] [-c] [-s] COMMAND\n"
     "       thread apply all [-ascending] [-q] [-c] [-s] COMMAND"},
    {"thread find", "", kRunning, A::kNone, R::kSame, 0, cmd::thread_find,
     "Find threads whose name or id contains a text.\n"
     "Usage: thread find TEXT"},
    {"tty", "", kRunning, A::kFile, R::kNever, 0, cmd::tty,
     "Set terminal for future runs of program being debugged.\n"
     "Usage: tty FILE"},
    {"undisplay", "", kData, A::kNone, R::kNever, 0, cmd::undisplay,
     "Cancel some expressions to be displayed when program stops.\n"
     "Usage: undisplay [NUMBER...]"},
    {"unset", "", kData, A::kSubcommand, R::kNever, kPrefix, cmd::unset,
     "Complement to certain \"set\" commands."},
    {"unset environment", "", kRunning, A::kNone, R::kNever, 0, cmd::unset_environment,
     "Cancel environment variable VAR for the program.\n"
     "Usage: unset environment [VAR]"},
    {"until", "u", kRunning, A::kLocation, R::kSame, kRuns, cmd::until,
     "Execute until past the current line or past a LOCATION.\n"
     "Usage: until [LOCATION]\n"
     "Without one, as \"next\", but never backwards: a loop is left."},
    {"up", "", kStack, A::kNone, R::kSame, 0, cmd::up,
     "Select and print stack frame that called this one.\n"
     "Usage: up [COUNT]"},
    {"watch", "", kBreakpoints, A::kExpression, R::kNever, 0, cmd::watch,
     "Set a watchpoint for EXPRESSION.\n"
     "Usage: watch [-l|-location] EXPRESSION [thread N] [if CONDITION]\n"
     "The program stops when the value changes."},
    {"whatis", "", kData, A::kExpression, R::kSame, 0, cmd::whatis,
     "Print data type of expression EXP.\n"
     "Usage: whatis EXP"},
    {"x", "", kData, A::kExpression, R::kWithoutArguments, 0, cmd::examine,
     "Examine memory: x/FMT ADDRESS.\n"
     "FMT is a count, a format letter (x d u o t a c f s i z) and a size letter (b h w g);\n"
     "what is not given is as the last time."},
};
// clang-format on

constexpr bool sorted() {
  for (size_t i = 1; i < std::size(kCommands); ++i)
    if (!(std::string_view(kCommands[i - 1].name) < std::string_view(kCommands[i].name)))
      return false;
  return true;
}
static_assert(sorted(), "rows are in the order of their names");

} // namespace

std::span<const TopicInfo> topics() { return kTopics; }
std::span<const Command> commands() { return kCommands; }

} // namespace ddbg::ui
