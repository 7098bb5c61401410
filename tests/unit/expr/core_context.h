// A stopped program as a core file that gdb wrote: its registers, memory and symbols. Gdb's own
// answers about the same stop are the reference for ours.
#pragma once

#include "dtrace-lite/expr/compile.h"
#include "dtrace-lite/expr/frame_context.h"

#include <map>

namespace ddbg::expr {

class CoreContext : public FrameContext {
public:
  // Runs `program` in gdb to its first signal, has it write a core to `core_path`, and print each
  // of `expressions` (a whole command each); `answers` gets what it said.
  static bool run_gdb(const std::string& program, const std::string& core_path,
                      const std::vector<std::string>& commands, std::vector<std::string>& answers);
  static std::unique_ptr<CoreContext> open(const std::string& program,
                                           const std::string& core_path);

  bool read_memory(TargetAddr from, std::span<std::byte> to) override;
  std::optional<uint64_t> read_register(int dwarf_register) override;
  std::optional<TargetAddr> cfa() override;
  bool write_memory(TargetAddr to, std::span<const std::byte> from) override;
  bool write_register(dune::Reg reg, uint64_t value) override;
  void warn(const std::string& text) override { warnings_ += "warning: " + text + "\n"; }
  std::string take_warnings_before(const std::string& answer) {
    return std::exchange(warnings_, "") + answer;
  }

  // Runs compiled code in a child that has the core's memory at its own addresses; nullopt: it
  // faulted there.
  std::optional<uint64_t> run_with_memory_mapped(const std::vector<uint8_t>& code,
                                                 TargetAddr code_address);

  dune::Registers registers{};
  // CFA = rbp + 16 holds in the bodies of unoptimized functions, which these programs stop in.
  static constexpr CfaRule kCfa{dune::Reg::rbp, 16};

private:
  struct Segment {
    uint64_t address;
    std::vector<std::byte> bytes;
  };
  struct Files {
    std::unique_ptr<symbols::Module> module;
    std::unique_ptr<symbols::VariableTable> table;
  };
  CoreContext(Files files, std::vector<ModuleScope> modules, TargetAddr pc)
      : FrameContext(std::move(modules), pc), files_(std::move(files)) {}

  Files files_;
  std::vector<Segment> segments_;
  std::string warnings_;
};

} // namespace ddbg::expr
