// Expressions over a thread and frame of the target, or over the program's file when nothing runs.
#pragma once

#include "dtrace-lite/engine/frames.h"
#include "dtrace-lite/engine/modules.h"
#include "dtrace-lite/expr/frame_context.h"

#include <map>
#include <memory>
#include <vector>

namespace ddbg::engine {

// What outlives a stop: $1, $2 ... and the convenience variables.
struct ValueStore {
  std::map<std::string, expr::Value> convenience;
  std::vector<expr::Value> history; // history[0] is $1
};

// Variable tables by module, opened when an expression first needs one.
class VariableTables {
public:
  symbols::VariableTable* of(const std::shared_ptr<symbols::Module>& module);

private:
  struct Entry {
    std::shared_ptr<symbols::Module> module; // keeps what the table and its types refer to
    std::unique_ptr<symbols::VariableTable> table;
  };
  std::map<const symbols::Module*, Entry> entries_;
};

// The modules as expressions see them. `inferior` may be null.
std::vector<expr::ModuleScope> module_scopes(const Modules& modules, VariableTables& tables,
                                             Inferior* inferior);

class TargetContext : public expr::FrameContext {
public:
  // `frame` and `thread` may be absent: globals only. `inferior` may be null: memory is the file's.
  TargetContext(const Modules& modules, std::vector<expr::ModuleScope> scopes, ValueStore& values,
                Inferior* inferior, const ThreadView* thread, const Frame* frame);

  bool read_memory(TargetAddr from, std::span<std::byte> to) override;
  bool write_memory(TargetAddr to, std::span<const std::byte> from) override;
  std::optional<uint64_t> read_register(int dwarf_register) override;
  bool read_wide_register(int dwarf_register, std::span<std::byte> to) override;
  bool write_register(dune::Reg reg, uint64_t value) override;
  std::optional<TargetAddr> cfa() override;
  bool has_registers() override { return frame_.has_value(); }
  std::optional<expr::Value> named_register(std::string_view name) override;

  const expr::Value* convenience(const std::string& name) override;
  void set_convenience(const std::string& name, expr::Value value) override;
  std::optional<expr::Value> history(int64_t index, bool from_end) override;

private:
  const Modules& modules_;
  ValueStore& values_;
  Inferior* inferior_;
  std::optional<Frame> frame_;
  uint32_t thread_ = 0;
  bool is_innermost_ = false; // no frame below: the thread's own registers
  std::optional<std::vector<uint8_t>> fpstate_;
};

} // namespace ddbg::engine
