// Where a variable is: DWARF location descriptions (DWARF 5 section 2.6).
//
// plan_location() turns one, at one pc, into a LocationPlan: trees over registers, the CFA, memory
// and constants. evaluate_location() computes a plan with the registers and memory of a stopped
// frame; expr/ compiles the same plan to machine code. So both agree by construction on what a
// location means. DWARF's stack machine allows branches on run-time values; no compiler emits them
// for C, C++, Rust or Go, and a plan that meets one is refused by name.
#pragma once

#include "dtrace-lite/symbols/diagnostic.h"
#include "dtrace-lite/symbols/memory.h"
#include "dtrace-lite/symbols/types.h"

namespace ddbg::symbols {

using dune::LinkAddr;
using dune::TargetAddr;

enum class LocationOp : uint8_t {
  kConstant,
  kAddress,       // a link address: the module's bias is added
  kRegister,      // value: DWARF number; contents, at this frame
  kEntryRegister, // its contents when the function was entered, from the caller's call site
  kCfa,           // canonical frame address
  kObjectAddress, // what DW_OP_push_object_address gives, or a member's enclosing object
  kTlsAddress,    // a: offset in the module's thread-local block
  kLoad,          // size bytes at a, extended by is_signed
  kConvert,       // a, cut to size bytes and extended by is_signed
  kAdd,
  kSubtract,
  kMultiply,
  kDivide, // signed, as DWARF's
  kModulo, // unsigned, as DWARF's
  kAnd,
  kOr,
  kXor,
  kShiftLeft,
  kShiftRight,
  kShiftRightArithmetic,
  kNegate,
  kNot,
  kEqual, // comparisons are signed, as DWARF's
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
};

struct LocationNode {
  LocationOp op;
  uint8_t size = 8;
  bool is_signed = false;
  uint64_t value = 0;
  int a = -1; // operands: indexes of earlier nodes
  int b = -1;
};

struct PlannedPiece {
  enum class Kind { kMemory, kRegister, kValue, kBytes, kOptimizedOut, kImplicitPointer };
  Kind kind = Kind::kOptimizedOut;
  int node = -1;                // kMemory: the address; kValue: the value
  int dwarf_register = -1;      // kRegister
  std::vector<std::byte> bytes; // kBytes
  uint64_t bit_size = 0;        // 0: the whole variable
  uint64_t bit_offset = 0;      // within the register or memory, from the least significant bit
};

struct LocationPlan {
  std::vector<LocationNode> nodes;
  std::vector<PlannedPiece> pieces; // never empty

  bool is_optimized_out() const {
    for (const PlannedPiece& piece : pieces)
      if (piece.kind != PlannedPiece::Kind::kOptimizedOut)
        return false;
    return true;
  }
  // The address's node when the whole lies in memory, else -1.
  int memory_node() const {
    return pieces.size() == 1 && pieces[0].kind == PlannedPiece::Kind::kMemory ? pieces[0].node
                                                                               : -1;
  }
};

// What a location is computed from. DWARF register numbers: 0-15 general, 16 the return address
// (the pc), 17-32 xmm0-15, 33-40 st0-7.
class FrameState {
public:
  virtual ~FrameState() = default;
  virtual bool read_memory(TargetAddr from, std::span<std::byte> to) = 0;
  // The low 8 bytes; nullopt: not known in this frame.
  virtual std::optional<uint64_t> read_register(int dwarf_register) = 0;
  // All bytes of a register wider than 8 (vector, x87); false: not known.
  virtual bool read_wide_register(int /*dwarf_register*/, std::span<std::byte> /*to*/) {
    return false;
  }
  virtual std::optional<TargetAddr> cfa() = 0;
  virtual std::optional<uint64_t> entry_register(int /*dwarf_register*/) { return std::nullopt; }
  // The address of `offset` in the thread-local block of the module that has this bias.
  virtual Checked<TargetAddr> tls_address(uint64_t module_bias, uint64_t offset);
};

struct LocatedPiece {
  enum class Kind { kMemory, kRegister, kBytes, kOptimizedOut, kImplicitPointer };
  Kind kind = Kind::kOptimizedOut;
  TargetAddr address{};
  int dwarf_register = -1;
  std::vector<std::byte> bytes{}; // kBytes: at least bit_size bits
  uint64_t bit_size = 0;          // 0: the whole variable
  uint64_t bit_offset = 0;
};

struct Location {
  std::vector<LocatedPiece> pieces; // never empty
};

// The plan of an attribute that holds a location description or list. `frame_base` is the DIE whose
// DW_AT_frame_base DW_OP_fbreg means; may be empty. Errors: what the DWARF says and we cannot do.
Checked<LocationPlan> plan_location(const DieRef& die, unsigned attribute, LinkAddr pc,
                                    const DieRef& frame_base);

// `bias`: target address minus link address of the module. An unreadable register or an unknown
// entry value makes a piece optimized out, as gdb shows it; unreadable memory is an error.
Checked<Location> evaluate_location(const LocationPlan& plan, FrameState& frame, uint64_t bias,
                                    std::optional<uint64_t> object_address = std::nullopt);
// One node's value; nullopt: a register it needs is not known.
Checked<std::optional<uint64_t>> evaluate_node(const LocationPlan& plan, int node,
                                               FrameState& frame, uint64_t bias,
                                               std::optional<uint64_t> object_address);

// The value of an 8-byte operation, shared by evaluation and constant folding; nullopt: division
// by zero.
std::optional<uint64_t> apply(LocationOp op, uint64_t a, uint64_t b);
uint64_t convert(uint64_t value, unsigned size, bool is_signed);

// A module's thread-local block, by the ABI of ELF TLS variant II and glibc's DTV.
// `module_id` is the module's place among those with a PT_TLS segment in load order, from 1 (the
// program, when it has one). `program_tls` is the program's own PT_TLS: its block lies right below
// the thread pointer whether glibc or musl made it, so no DTV is read for it.
struct ProgramTls {
  uint64_t memory_size;
  uint64_t alignment;
};
Checked<TargetAddr> tls_block(const MemoryReader& read, uint64_t thread_pointer, unsigned module_id,
                              std::optional<ProgramTls> program_tls);

} // namespace ddbg::symbols
