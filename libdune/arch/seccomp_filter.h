// What a seccomp filter says to a system call: classic BPF as far as the kernel lets it into one
// (kernel/seccomp.c, seccomp_check_filter).
// Freestanding-clean.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstdint>
#include <span>

namespace dune {

// A filter that the kernel has accepted ends, and reads no scratch word before it has written it.
inline uint32_t seccomp_verdict(std::span<const sock_filter> program, const seccomp_data& data) {
  uint32_t a = 0, x = 0, memory[BPF_MEMWORDS] = {};
  for (size_t pc = 0; pc < program.size(); ++pc) {
    const sock_filter& f = program[pc];
    const uint32_t operand = BPF_SRC(f.code) == BPF_X ? x : f.k;
    switch (BPF_CLASS(f.code)) {
    case BPF_LD:
    case BPF_LDX: {
      uint32_t& to = BPF_CLASS(f.code) == BPF_LD ? a : x;
      if (BPF_MODE(f.code) == BPF_IMM)
        to = f.k;
      else if (BPF_MODE(f.code) == BPF_LEN)
        to = sizeof data;
      else if (BPF_MODE(f.code) == BPF_MEM)
        to = memory[f.k % BPF_MEMWORDS];
      else if (f.k <= sizeof data - sizeof to)
        __builtin_memcpy(&to, reinterpret_cast<const char*>(&data) + f.k, sizeof to);
      break;
    }
    case BPF_ST:
      memory[f.k % BPF_MEMWORDS] = a;
      break;
    case BPF_STX:
      memory[f.k % BPF_MEMWORDS] = x;
      break;
    case BPF_ALU:
      switch (BPF_OP(f.code)) {
      case BPF_ADD:
        a += operand;
        break;
      case BPF_SUB:
        a -= operand;
        break;
      case BPF_MUL:
        a *= operand;
        break;
      case BPF_DIV:
        if (operand == 0)
          return SECCOMP_RET_KILL_THREAD; // as the kernel: the filter ends with 0
        a /= operand;
        break;
      case BPF_AND:
        a &= operand;
        break;
      case BPF_OR:
        a |= operand;
        break;
      case BPF_XOR:
        a ^= operand;
        break;
      case BPF_LSH:
        a <<= operand % 32;
        break;
      case BPF_RSH:
        a >>= operand % 32;
        break;
      case BPF_NEG:
        a = -a;
        break;
      }
      break;
    case BPF_JMP: {
      bool holds = false;
      switch (BPF_OP(f.code)) {
      case BPF_JA:
        pc += f.k;
        continue;
      case BPF_JEQ:
        holds = a == operand;
        break;
      case BPF_JGT:
        holds = a > operand;
        break;
      case BPF_JGE:
        holds = a >= operand;
        break;
      case BPF_JSET:
        holds = a & operand;
        break;
      }
      pc += holds ? f.jt : f.jf;
      break;
    }
    case BPF_RET:
      return BPF_RVAL(f.code) == BPF_A ? a : f.k;
    case BPF_MISC:
      (BPF_MISCOP(f.code) == BPF_TAX ? x : a) = BPF_MISCOP(f.code) == BPF_TAX ? a : x;
      break;
    }
  }
  return SECCOMP_RET_KILL_PROCESS;
}

// Of two verdicts the one that counts; of equal ones the first, which is the younger filter's.
constexpr bool outranks(uint32_t verdict, uint32_t other) {
  return static_cast<int32_t>(verdict & SECCOMP_RET_ACTION_FULL) <
         static_cast<int32_t>(other & SECCOMP_RET_ACTION_FULL);
}

} // namespace dune
