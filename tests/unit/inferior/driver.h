// Runs a target program under an Inferior, without the rest of the engine, and the same program
// natively, to compare. Failures of the machinery are GoogleTest failures.
#pragma once

#include "dtrace-lite/engine/modules.h"

#include <chrono>
#include <functional>
#include <gtest/gtest.h>
#include <map>

namespace ddbg::engine::test {

using dune::session::Action;
using dune::session::StopReason;
using Clock = std::chrono::steady_clock;

// A folder of its own for each test, removed at the end.
class Folder {
public:
  Folder();
  ~Folder();
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

private:
  std::string path_;
};

struct Outcome {
  std::string output; // standard output and error
  std::string status; // "exit 0", "signal 11"
  double seconds = 0;
  bool operator==(const Outcome& o) const { return output == o.output && status == o.status; }
};
std::ostream& operator<<(std::ostream&, const Outcome&);

// The program tests/targets/NAME.
std::string target_path(const std::string& name);
std::string file_text(const std::string& path);
std::string status_text(const keeper::ExitStatus&);
double seconds_since(Clock::time_point);

// `command` as a shell takes it, without redirections.
Outcome run_native(const std::string& command);

class Traced {
public:
  // The target is parked at its first instruction; modules are known, all signals pass.
  explicit Traced(const std::string& command);
  ~Traced();

  bool ok() const { return inferior_ != nullptr; }
  Inferior& inferior() { return *inferior_; }
  Modules& modules() { return modules_; }

  // Of the main program, with an offset; the target must have it.
  TargetAddr symbol(const std::string& name);
  // In the module whose path contains `module`.
  TargetAddr symbol_in(const std::string& module, const std::string& name);
  RecordId record(TargetAddr, const RecordSpec& = {});
  RecordId record(const std::string& name, const RecordSpec& spec = {}) {
    return record(symbol(name), spec);
  }
  uint64_t hits(RecordId id) { return inferior_->counts(id).hits; }
  int64_t read_variable(const std::string& name, unsigned size = 8);

  // Called at the program's entry of main, when all modules are there. Runs to it.
  void run_to_main();

  // Resumes and waits; the dynamic linker's stops are dealt with, execs too (on_exec is called with
  // the new image in place). `give_up` bounds the wait: the test fails and the target is killed.
  Event next(const ResumePlan& plan = {});
  std::function<void()> on_exec;
  double give_up = 60;
  // The `interrupt` of Inferior::wait.
  std::function<bool()> interrupt;

  // next() until the target is gone; `at_stop` may say how to go on.
  Outcome run_to_end(const std::function<ResumePlan(const Event&)>& at_stop = nullptr);
  Outcome outcome(const Event& exited);

  int stops = 0;

private:
  Folder folder_;
  std::unique_ptr<keeper::Client> client_;
  std::unique_ptr<Inferior> inferior_;
  Modules modules_;
  Clock::time_point begin_ = Clock::now();
};

// Machine code for a condition: reg (by its place in dune::Registers) compared with a constant.
std::vector<uint8_t> condition_constant(bool value);
std::vector<uint8_t> condition_low_bits_zero(dune::Reg, uint32_t mask);

} // namespace ddbg::engine::test
