// Plans to places, with the registers and memory of a frame.
#include "dtrace-lite/symbols/locations.h"

#include <cstring>

namespace ddbg::symbols {

uint64_t convert(uint64_t value, unsigned size, bool is_signed) {
  if (size >= 8)
    return value;
  unsigned shift = 64 - 8 * size;
  value <<= shift;
  return is_signed ? static_cast<uint64_t>(static_cast<int64_t>(value) >> shift) : value >> shift;
}

std::optional<uint64_t> apply(LocationOp op, uint64_t a, uint64_t b) {
  auto sa = static_cast<int64_t>(a), sb = static_cast<int64_t>(b);
  switch (op) {
  case LocationOp::kAdd:
    return a + b;
  case LocationOp::kSubtract:
    return a - b;
  case LocationOp::kMultiply:
    return a * b;
  case LocationOp::kDivide:
    if (sb == 0)
      return std::nullopt;
    return sb == -1 ? 0 - a : static_cast<uint64_t>(sa / sb);
  case LocationOp::kModulo:
    if (b == 0)
      return std::nullopt;
    return a % b;
  case LocationOp::kAnd:
    return a & b;
  case LocationOp::kOr:
    return a | b;
  case LocationOp::kXor:
    return a ^ b;
  case LocationOp::kShiftLeft:
    return b < 64 ? a << b : 0;
  case LocationOp::kShiftRight:
    return b < 64 ? a >> b : 0;
  case LocationOp::kShiftRightArithmetic:
    return static_cast<uint64_t>(sa >> (b < 64 ? b : 63));
  case LocationOp::kNegate:
    return 0 - a;
  case LocationOp::kNot:
    return ~a;
  case LocationOp::kEqual:
    return sa == sb;
  case LocationOp::kNotEqual:
    return sa != sb;
  case LocationOp::kLess:
    return sa < sb;
  case LocationOp::kLessEqual:
    return sa <= sb;
  case LocationOp::kGreater:
    return sa > sb;
  case LocationOp::kGreaterEqual:
    return sa >= sb;
  default:
    return std::nullopt;
  }
}

Checked<TargetAddr> FrameState::tls_address(uint64_t, uint64_t) {
  return Diagnostic{"Cannot find thread-local storage: the thread pointer is not known.", "", {}};
}

namespace {

using Value = std::optional<uint64_t>;

// A node can be an operand of several (DW_OP_dup), so each is computed once.
class NodeEvaluator {
public:
  NodeEvaluator(const LocationPlan& plan, FrameState& frame, uint64_t bias, Value object_address)
      : plan_(plan), frame_(frame), bias_(bias), object_address_(object_address),
        known_(plan.nodes.size()) {}

  Checked<Value> value(int index) {
    auto i = static_cast<size_t>(index);
    if (known_[i])
      return known_[i];
    auto result = compute(plan_.nodes[i]);
    if (result)
      known_[i] = *result;
    return result;
  }

private:
  Checked<Value> compute(const LocationNode& node) {
    Value a, b;
    for (auto [operand, out] : {std::pair{node.a, &a}, std::pair{node.b, &b}}) {
      if (operand < 0)
        continue;
      auto result = value(operand);
      if (!result || !*result)
        return result;
      *out = **result;
    }
    switch (node.op) {
    case LocationOp::kConstant:
      return Value(node.value);
    case LocationOp::kAddress:
      return Value(node.value + bias_);
    case LocationOp::kRegister:
      return frame_.read_register(static_cast<int>(node.value));
    case LocationOp::kEntryRegister:
      return frame_.entry_register(static_cast<int>(node.value));
    case LocationOp::kCfa: {
      auto cfa = frame_.cfa();
      return cfa ? Value(cfa->value) : std::nullopt;
    }
    case LocationOp::kObjectAddress:
      return object_address_;
    case LocationOp::kTlsAddress: {
      auto address = frame_.tls_address(bias_, *a);
      if (!address)
        return address.error();
      return Value(address->value);
    }
    case LocationOp::kLoad: {
      uint64_t word = 0;
      auto bytes = std::as_writable_bytes(std::span(&word, 1)).first(node.size);
      if (!frame_.read_memory(TargetAddr(*a), bytes)) {
        char text[64];
        snprintf(text, sizeof text, "Cannot access memory at address 0x%llx",
                 static_cast<unsigned long long>(*a));
        return Diagnostic{text, "", {}};
      }
      return Value(convert(word, node.size, node.is_signed));
    }
    case LocationOp::kConvert:
      return Value(convert(*a, node.size, node.is_signed));
    default: {
      auto result = apply(node.op, *a, b.value_or(0));
      if (!result)
        return Diagnostic{"Division by zero in a DWARF location.", "", {}};
      return result;
    }
    }
  }

  const LocationPlan& plan_;
  FrameState& frame_;
  uint64_t bias_;
  Value object_address_;
  std::vector<Value> known_;
};

} // namespace

Checked<std::optional<uint64_t>> evaluate_node(const LocationPlan& plan, int index,
                                               FrameState& frame, uint64_t bias,
                                               std::optional<uint64_t> object_address) {
  return NodeEvaluator(plan, frame, bias, object_address).value(index);
}

Checked<Location> evaluate_location(const LocationPlan& plan, FrameState& frame, uint64_t bias,
                                    std::optional<uint64_t> object_address) {
  Location location;
  for (const PlannedPiece& planned : plan.pieces) {
    LocatedPiece piece;
    piece.bit_size = planned.bit_size;
    piece.bit_offset = planned.bit_offset;
    switch (planned.kind) {
    case PlannedPiece::Kind::kOptimizedOut:
      break;
    case PlannedPiece::Kind::kImplicitPointer:
      piece.kind = LocatedPiece::Kind::kImplicitPointer;
      break;
    case PlannedPiece::Kind::kRegister:
      piece.kind = LocatedPiece::Kind::kRegister;
      piece.dwarf_register = planned.dwarf_register;
      break;
    case PlannedPiece::Kind::kBytes:
      piece.kind = LocatedPiece::Kind::kBytes;
      piece.bytes = planned.bytes;
      break;
    case PlannedPiece::Kind::kMemory:
    case PlannedPiece::Kind::kValue: {
      auto value = evaluate_node(plan, planned.node, frame, bias, object_address);
      if (!value)
        return value.error();
      if (!*value)
        break; // stays optimized out
      if (planned.kind == PlannedPiece::Kind::kMemory) {
        piece.kind = LocatedPiece::Kind::kMemory;
        piece.address = TargetAddr(**value);
      } else {
        piece.kind = LocatedPiece::Kind::kBytes;
        piece.bytes.resize(8);
        std::memcpy(piece.bytes.data(), &**value, 8);
      }
      break;
    }
    }
    location.pieces.push_back(std::move(piece));
  }
  return location;
}

Checked<TargetAddr> tls_block(const MemoryReader& read, uint64_t thread_pointer, unsigned module_id,
                              std::optional<ProgramTls> program_tls) {
  if (thread_pointer == 0)
    return Diagnostic{"Cannot find thread-local storage: the thread pointer is not set yet.",
                      "Let the program run to main first.",
                      {}};
  if (module_id == 1 && program_tls) {
    uint64_t alignment = program_tls->alignment ? program_tls->alignment : 1;
    uint64_t size = (program_tls->memory_size + alignment - 1) / alignment * alignment;
    return TargetAddr(thread_pointer - size);
  }
  // glibc: tcbhead_t { void* tcb; dtv_t* dtv; ... }, dtv_t { void* block; void* to_free; },
  // dtv[-1] holds how many there are, dtv[0] the generation.
  auto dtv = read_value<uint64_t>(read, TargetAddr(thread_pointer + 8));
  auto count = dtv ? read_value<uint64_t>(read, TargetAddr(*dtv - 16)) : std::nullopt;
  if (!count)
    return Diagnostic{
        "Cannot find thread-local storage: the thread's table cannot be read.", "", {}};
  auto block = module_id <= *count
                   ? read_value<uint64_t>(read, TargetAddr(*dtv + 16 * uint64_t{module_id}))
                   : std::optional<uint64_t>(~uint64_t{0});
  if (!block)
    return Diagnostic{
        "Cannot find thread-local storage: the thread's table cannot be read.", "", {}};
  if (*block == ~uint64_t{0} || *block == 0)
    return Diagnostic{"Cannot find thread-local storage: this thread has not used the variables of "
                      "that library yet.",
                      "",
                      {}};
  return TargetAddr(*block);
}

} // namespace ddbg::symbols
