// The functions of the command table, by the file that holds them.
#pragma once

#include "dtrace-lite/ddbg/command.h"

namespace ddbg::ui::cmd {

#define DDBG_COMMAND(name) Checked<void> name(Context&, std::string_view args)

// cmd_run.cpp
DDBG_COMMAND(run);
DDBG_COMMAND(start);
DDBG_COMMAND(starti);
DDBG_COMMAND(continue_);
DDBG_COMMAND(signal_);
DDBG_COMMAND(attach);
DDBG_COMMAND(detach);
DDBG_COMMAND(kill);
DDBG_COMMAND(info_program);
DDBG_COMMAND(info_inferiors);

// cmd_step.cpp
DDBG_COMMAND(step);
DDBG_COMMAND(next);
DDBG_COMMAND(stepi);
DDBG_COMMAND(nexti);
DDBG_COMMAND(finish);
DDBG_COMMAND(until);
DDBG_COMMAND(advance);

// cmd_break.cpp
DDBG_COMMAND(break_);
DDBG_COMMAND(tbreak);
DDBG_COMMAND(watch);
DDBG_COMMAND(rwatch);
DDBG_COMMAND(awatch);
DDBG_COMMAND(delete_);
DDBG_COMMAND(clear);
DDBG_COMMAND(enable);
DDBG_COMMAND(enable_once);
DDBG_COMMAND(enable_delete);
DDBG_COMMAND(disable);
DDBG_COMMAND(condition);
DDBG_COMMAND(ignore);
DDBG_COMMAND(commands);
DDBG_COMMAND(silent);

// cmd_break_info.cpp
DDBG_COMMAND(info_breakpoints);
DDBG_COMMAND(info_watchpoints);

// cmd_stack.cpp
DDBG_COMMAND(backtrace);
DDBG_COMMAND(frame);
DDBG_COMMAND(up);
DDBG_COMMAND(down);
DDBG_COMMAND(info_frame);
DDBG_COMMAND(info_args);
DDBG_COMMAND(info_locals);

// cmd_threads.cpp
DDBG_COMMAND(thread);
DDBG_COMMAND(thread_apply);
DDBG_COMMAND(thread_find);
DDBG_COMMAND(info_threads);

// cmd_signals.cpp
DDBG_COMMAND(handle);
DDBG_COMMAND(info_signals);

// cmd_data.cpp
DDBG_COMMAND(print);
DDBG_COMMAND(output);
DDBG_COMMAND(call);
DDBG_COMMAND(set_variable);
DDBG_COMMAND(ptype);
DDBG_COMMAND(whatis);
DDBG_COMMAND(show_values);
DDBG_COMMAND(show_convenience);

// cmd_printf.cpp
DDBG_COMMAND(echo);
DDBG_COMMAND(printf_);

// cmd_display.cpp
DDBG_COMMAND(display);
DDBG_COMMAND(undisplay);
DDBG_COMMAND(enable_display);
DDBG_COMMAND(disable_display);
DDBG_COMMAND(info_display);

// cmd_memory.cpp
DDBG_COMMAND(examine);
DDBG_COMMAND(disassemble);

// cmd_registers.cpp
DDBG_COMMAND(info_registers);
DDBG_COMMAND(info_all_registers);

// cmd_source.cpp
DDBG_COMMAND(list);
DDBG_COMMAND(info_line);
DDBG_COMMAND(info_source);
DDBG_COMMAND(info_sources);
DDBG_COMMAND(info_symbol);
DDBG_COMMAND(info_address);
DDBG_COMMAND(info_functions);
DDBG_COMMAND(info_variables);

// cmd_files.cpp
DDBG_COMMAND(file);
DDBG_COMMAND(exec_file);
DDBG_COMMAND(symbol_file);
DDBG_COMMAND(pwd);
DDBG_COMMAND(cd);
DDBG_COMMAND(tty);
DDBG_COMMAND(directory);
DDBG_COMMAND(info_files);
DDBG_COMMAND(info_sharedlibrary);
DDBG_COMMAND(info_proc);
DDBG_COMMAND(info_backend);
DDBG_COMMAND(core_file);

// cmd_latency.cpp
DDBG_COMMAND(latency);

// cmd_settings.cpp
DDBG_COMMAND(set);
DDBG_COMMAND(show);
DDBG_COMMAND(set_environment);
DDBG_COMMAND(unset);
DDBG_COMMAND(unset_environment);
DDBG_COMMAND(show_environment);
DDBG_COMMAND(show_version);
DDBG_COMMAND(show_user);

// cmd_support.cpp
DDBG_COMMAND(help);
DDBG_COMMAND(apropos);
DDBG_COMMAND(source);
DDBG_COMMAND(shell);
DDBG_COMMAND(quit);
DDBG_COMMAND(define);
DDBG_COMMAND(document);
DDBG_COMMAND(info);
DDBG_COMMAND(unsupported_jump);
DDBG_COMMAND(unsupported_return);

#undef DDBG_COMMAND

} // namespace ddbg::ui::cmd
