// DWARF location descriptions to plans.
#include "dtrace-lite/symbols/locations.h"

#include "dtrace-lite/symbols/types_reader.h"

#include <dwarf.h>

namespace ddbg::symbols {
namespace {

using Kind = PlannedPiece::Kind;

// Compilers need a few dozen. Trees are walked by recursion, so a damaged file must not make a deep
// one.
constexpr size_t kMaxNodes = 2000;

const char* libdw_message() {
  const char* message = dwarf_errmsg(-1);
  return message ? message : "unknown error";
}

// One description being turned into nodes. What DWARF keeps on its stack are indexes of nodes here.
class Planner {
public:
  Planner(LocationPlan& plan, LinkAddr pc, const DieRef& frame_base)
      : plan_(plan), pc_(pc), frame_base_(frame_base) {}

  // Runs `attribute` at pc; what it describes becomes pieces.
  std::optional<Diagnostic> run(Dwarf_Attribute& attribute, int initial = -1);

private:
  enum class Pending { kAddress, kRegister, kValue, kBytes, kImplicitPointer };

  bool step(Dwarf_Attribute& attribute, const Dwarf_Op& op);
  bool stack_op(const Dwarf_Op& op);
  bool typed_op(Dwarf_Attribute& attribute, const Dwarf_Op& op);
  bool frame_base_address();
  bool entry_value(Dwarf_Attribute& attribute, const Dwarf_Op& op);
  void finish_piece(uint64_t bit_size, uint64_t bit_offset);

  int node(LocationNode n) {
    plan_.nodes.push_back(n);
    return static_cast<int>(plan_.nodes.size()) - 1;
  }
  int constant(uint64_t value) { return node({LocationOp::kConstant, 8, false, value}); }
  int register_node(uint64_t number) { return node({LocationOp::kRegister, 8, false, number}); }
  void push(int n) { stack_.push_back(n); }
  bool pop(int& n) {
    if (stack_.empty())
      return fail("it takes from an empty stack");
    n = stack_.back();
    stack_.pop_back();
    return true;
  }
  bool binary(LocationOp op) {
    int a, b;
    if (!pop(b) || !pop(a))
      return false;
    push(node({op, 8, false, 0, a, b}));
    return true;
  }
  bool unary(LocationOp op) {
    int a;
    if (!pop(a))
      return false;
    push(node({op, 8, false, 0, a}));
    return true;
  }
  bool plus(uint64_t offset) {
    push(constant(offset));
    return binary(LocationOp::kAdd);
  }
  bool load(unsigned size) {
    int a;
    if (size == 0 || size > 8)
      return fail("it reads more than 8 bytes at once");
    if (!pop(a))
      return false;
    push(node({LocationOp::kLoad, static_cast<uint8_t>(size), false, 0, a}));
    return true;
  }
  bool fail(std::string why) {
    if (why_.empty())
      why_ = std::move(why);
    return false;
  }

  LocationPlan& plan_;
  LinkAddr pc_;
  DieRef frame_base_;
  std::vector<int> stack_;
  Pending pending_ = Pending::kAddress;
  int dwarf_register_ = -1;
  std::vector<std::byte> bytes_;
  bool in_frame_base_ = false;
  std::string why_;
};

void Planner::finish_piece(uint64_t bit_size, uint64_t bit_offset) {
  PlannedPiece piece;
  piece.bit_size = bit_size;
  piece.bit_offset = bit_offset;
  switch (pending_) {
  case Pending::kAddress:
  case Pending::kValue:
    if (!stack_.empty()) {
      piece.kind = pending_ == Pending::kAddress ? Kind::kMemory : Kind::kValue;
      piece.node = stack_.back();
    }
    break;
  case Pending::kRegister:
    piece.kind = Kind::kRegister;
    piece.dwarf_register = dwarf_register_;
    break;
  case Pending::kBytes:
    piece.kind = Kind::kBytes;
    piece.bytes = std::move(bytes_);
    break;
  case Pending::kImplicitPointer:
    piece.kind = Kind::kImplicitPointer;
    break;
  }
  plan_.pieces.push_back(std::move(piece));
  stack_.clear();
  pending_ = Pending::kAddress;
}

std::optional<Diagnostic> Planner::run(Dwarf_Attribute& attribute, int initial) {
  Dwarf_Op* ops = nullptr;
  size_t count = 0;
  Dwarf_Block block;
  const bool is_empty = dwarf_formblock(&attribute, &block) == 0 && block.length == 0;
  int found = is_empty ? 0 : dwarf_getlocation_addr(&attribute, pc_.value, &ops, &count, 1);
  if (found < 0)
    return Diagnostic{std::string("Damaged DWARF location: ") + libdw_message() + ".", "", {}};
  if (found == 0 || count == 0) {
    plan_.pieces.push_back({}); // no entry for this pc, or an empty one
    return std::nullopt;
  }
  if (initial >= 0)
    push(initial);
  bool pieced = false;
  for (size_t i = 0; i < count; i++) {
    const Dwarf_Op& op = ops[i];
    if (plan_.nodes.size() > kMaxNodes)
      return Diagnostic{"Unsupported DWARF location: it is too long.", "", {}};
    if (op.atom == DW_OP_piece || op.atom == DW_OP_bit_piece) {
      pieced = true;
      if (op.atom == DW_OP_piece)
        finish_piece(op.number * 8, 0);
      else
        finish_piece(op.number, op.number2);
      continue;
    }
    if (!step(attribute, op))
      return Diagnostic{"Unsupported DWARF location: " + why_ + ".", "", {}};
  }
  if (!pieced)
    finish_piece(0, 0);
  return std::nullopt;
}

bool Planner::step(Dwarf_Attribute& attribute, const Dwarf_Op& op) {
  if (op.atom >= DW_OP_lit0 && op.atom <= DW_OP_lit31)
    return push(constant(op.atom - DW_OP_lit0)), true;
  if (op.atom >= DW_OP_reg0 && op.atom <= DW_OP_reg31) {
    pending_ = Pending::kRegister;
    dwarf_register_ = op.atom - DW_OP_reg0;
    return true;
  }
  if (op.atom >= DW_OP_breg0 && op.atom <= DW_OP_breg31) {
    push(register_node(op.atom - DW_OP_breg0));
    return plus(op.number);
  }
  switch (op.atom) {
  case DW_OP_addr:
    return push(node({LocationOp::kAddress, 8, false, op.number})), true;
  case DW_OP_addrx:
  case DW_OP_GNU_addr_index: {
    Dwarf_Attribute address;
    Dwarf_Addr value;
    if (dwarf_getlocation_attr(&attribute, &op, &address) != 0 ||
        dwarf_formaddr(&address, &value) != 0)
      return fail("its address table cannot be read");
    return push(node({LocationOp::kAddress, 8, false, value})), true;
  }
  case DW_OP_constx:
  case DW_OP_GNU_const_index: {
    Dwarf_Attribute value_attribute;
    Dwarf_Addr value;
    if (dwarf_getlocation_attr(&attribute, &op, &value_attribute) != 0 ||
        dwarf_formaddr(&value_attribute, &value) != 0)
      return fail("its address table cannot be read");
    return push(constant(value)), true;
  }
  case DW_OP_regx:
    pending_ = Pending::kRegister;
    dwarf_register_ = static_cast<int>(op.number);
    return true;
  case DW_OP_bregx:
    push(register_node(op.number));
    return plus(op.number2);
  case DW_OP_fbreg:
    return frame_base_address() && plus(op.number);
  case DW_OP_call_frame_cfa:
    return push(node({LocationOp::kCfa})), true;
  case DW_OP_push_object_address:
    return push(node({LocationOp::kObjectAddress})), true;
  case DW_OP_form_tls_address:
  case DW_OP_GNU_push_tls_address:
    return unary(LocationOp::kTlsAddress);
  case DW_OP_entry_value:
  case DW_OP_GNU_entry_value:
    return entry_value(attribute, op);
  case DW_OP_stack_value:
    pending_ = Pending::kValue;
    return true;
  case DW_OP_implicit_value: {
    Dwarf_Block block;
    if (dwarf_getlocation_implicit_value(&attribute, &op, &block) != 0)
      return fail("its implicit value cannot be read");
    const auto* data = reinterpret_cast<const std::byte*>(block.data);
    bytes_.assign(data, data + block.length);
    pending_ = Pending::kBytes;
    return true;
  }
  case DW_OP_implicit_pointer:
  case DW_OP_GNU_implicit_pointer:
    pending_ = Pending::kImplicitPointer;
    return true;
  case DW_OP_const_type:
  case DW_OP_GNU_const_type:
  case DW_OP_regval_type:
  case DW_OP_GNU_regval_type:
  case DW_OP_deref_type:
  case DW_OP_GNU_deref_type:
  case DW_OP_convert:
  case DW_OP_GNU_convert:
  case DW_OP_reinterpret:
  case DW_OP_GNU_reinterpret:
    return typed_op(attribute, op);
  default:
    return stack_op(op);
  }
}

bool Planner::stack_op(const Dwarf_Op& op) {
  int a = 0, b = 0, c = 0;
  switch (op.atom) {
  case DW_OP_const1u:
  case DW_OP_const1s:
  case DW_OP_const2u:
  case DW_OP_const2s:
  case DW_OP_const4u:
  case DW_OP_const4s:
  case DW_OP_const8u:
  case DW_OP_const8s:
  case DW_OP_constu:
  case DW_OP_consts:
    return push(constant(op.number)), true;
  case DW_OP_dup:
    return pop(a) && (push(a), push(a), true);
  case DW_OP_drop:
    return pop(a);
  case DW_OP_over:
    return pop(b) && pop(a) && (push(a), push(b), push(a), true);
  case DW_OP_pick:
    if (op.number >= stack_.size())
      return fail("it takes from an empty stack");
    return push(stack_[stack_.size() - 1 - op.number]), true;
  case DW_OP_swap:
    return pop(b) && pop(a) && (push(b), push(a), true);
  case DW_OP_rot:
    return pop(c) && pop(b) && pop(a) && (push(c), push(a), push(b), true);
  case DW_OP_nop:
    return true;
  case DW_OP_deref:
    return load(8);
  case DW_OP_deref_size:
    return load(static_cast<unsigned>(op.number));
  case DW_OP_plus_uconst:
    return plus(op.number);
  case DW_OP_plus:
    return binary(LocationOp::kAdd);
  case DW_OP_minus:
    return binary(LocationOp::kSubtract);
  case DW_OP_mul:
    return binary(LocationOp::kMultiply);
  case DW_OP_div:
    return binary(LocationOp::kDivide);
  case DW_OP_mod:
    return binary(LocationOp::kModulo);
  case DW_OP_and:
    return binary(LocationOp::kAnd);
  case DW_OP_or:
    return binary(LocationOp::kOr);
  case DW_OP_xor:
    return binary(LocationOp::kXor);
  case DW_OP_shl:
    return binary(LocationOp::kShiftLeft);
  case DW_OP_shr:
    return binary(LocationOp::kShiftRight);
  case DW_OP_shra:
    return binary(LocationOp::kShiftRightArithmetic);
  case DW_OP_neg:
    return unary(LocationOp::kNegate);
  case DW_OP_not:
    return unary(LocationOp::kNot);
  case DW_OP_eq:
    return binary(LocationOp::kEqual);
  case DW_OP_ne:
    return binary(LocationOp::kNotEqual);
  case DW_OP_lt:
    return binary(LocationOp::kLess);
  case DW_OP_le:
    return binary(LocationOp::kLessEqual);
  case DW_OP_gt:
    return binary(LocationOp::kGreater);
  case DW_OP_ge:
    return binary(LocationOp::kGreaterEqual);
  case DW_OP_bra:
  case DW_OP_skip:
    return fail("it branches");
  default: {
    char number[8];
    snprintf(number, sizeof number, "0x%02x", op.atom);
    return fail(std::string("operation ") + number);
  }
  }
}

// DWARF 5's typed stack, for integers: floats on it are what gcc leaves of vectorized code.
bool Planner::typed_op(Dwarf_Attribute& attribute, const Dwarf_Op& op) {
  Dwarf_Die type;
  bool generic = (op.atom == DW_OP_convert || op.atom == DW_OP_GNU_convert ||
                  op.atom == DW_OP_reinterpret || op.atom == DW_OP_GNU_reinterpret) &&
                 op.number == 0;
  unsigned size = 8;
  bool is_signed = false;
  if (!generic) {
    if (dwarf_getlocation_die(&attribute, &op, &type) != 0)
      return fail("the type of an operand cannot be read");
    uint64_t encoding = unsigned_attribute(type, DW_AT_encoding).value_or(0);
    size = static_cast<unsigned>(unsigned_attribute(type, DW_AT_byte_size).value_or(0));
    if (encoding == DW_ATE_float || encoding == DW_ATE_complex_float)
      return fail("it computes with floating point numbers");
    if (size == 0 || size > 8)
      return fail("it computes with more than 8 bytes");
    is_signed = encoding == DW_ATE_signed || encoding == DW_ATE_signed_char;
  }
  auto convert_top = [&] {
    int a;
    if (!pop(a))
      return false;
    push(node({LocationOp::kConvert, static_cast<uint8_t>(size), is_signed, 0, a}));
    return true;
  };
  switch (op.atom) {
  case DW_OP_const_type:
  case DW_OP_GNU_const_type: {
    Dwarf_Attribute value;
    Dwarf_Block block;
    if (dwarf_getlocation_attr(&attribute, &op, &value) != 0 ||
        dwarf_formblock(&value, &block) != 0 || block.length > 8)
      return fail("a constant in it cannot be read");
    uint64_t raw = 0;
    std::memcpy(&raw, block.data, block.length);
    push(constant(convert(raw, size, is_signed)));
    return true;
  }
  case DW_OP_regval_type:
  case DW_OP_GNU_regval_type:
    push(register_node(op.number));
    return convert_top();
  case DW_OP_deref_type:
  case DW_OP_GNU_deref_type:
    return load(static_cast<unsigned>(op.number)) && convert_top();
  default:
    return convert_top();
  }
}

bool Planner::frame_base_address() {
  if (!frame_base_ || in_frame_base_)
    return fail("DW_OP_fbreg without a frame base");
  Dwarf_Die die = to_die(frame_base_);
  Dwarf_Attribute attribute;
  if (!dwarf_attr_integrate(&die, DW_AT_frame_base, &attribute))
    return fail("DW_OP_fbreg without a frame base");
  LocationPlan base;
  base.nodes = plan_.nodes;
  Planner planner(base, pc_, frame_base_);
  planner.in_frame_base_ = true;
  if (auto problem = planner.run(attribute))
    return fail("the frame base: " + problem->message);
  plan_.nodes = std::move(base.nodes);
  const PlannedPiece& piece = base.pieces[0];
  switch (piece.kind) {
  case Kind::kMemory:
  case Kind::kValue:
    return push(piece.node), true;
  case Kind::kRegister: // means: the frame base is what the register holds
    return push(register_node(static_cast<uint64_t>(piece.dwarf_register))), true;
  default:
    return fail("the frame base is not known here");
  }
}

bool Planner::entry_value(Dwarf_Attribute& attribute, const Dwarf_Op& op) {
  Dwarf_Attribute inner;
  Dwarf_Op* ops;
  size_t count;
  if (dwarf_getlocation_attr(&attribute, &op, &inner) != 0 ||
      dwarf_getlocation(&inner, &ops, &count) != 0 || count != 1)
    return fail("an entry value that is not one register");
  uint64_t number;
  if (ops[0].atom >= DW_OP_reg0 && ops[0].atom <= DW_OP_reg31)
    number = ops[0].atom - DW_OP_reg0;
  else if (ops[0].atom == DW_OP_regx)
    number = ops[0].number;
  else
    return fail("an entry value that is not one register");
  return push(node({LocationOp::kEntryRegister, 8, false, number})), true;
}

} // namespace

Checked<LocationPlan> plan_location(const DieRef& ref, unsigned name, LinkAddr pc,
                                    const DieRef& frame_base) {
  Dwarf_Die die = to_die(ref);
  Dwarf_Attribute attribute;
  LocationPlan plan;
  if (!dwarf_attr_integrate(&die, name, &attribute)) {
    plan.pieces.push_back({});
    return plan;
  }
  Planner planner(plan, pc, frame_base);
  int initial = -1;
  if (name == DW_AT_data_member_location) {
    plan.nodes.push_back({LocationOp::kObjectAddress});
    initial = 0;
  }
  if (auto problem = planner.run(attribute, initial))
    return *problem;
  return plan;
}

} // namespace ddbg::symbols
