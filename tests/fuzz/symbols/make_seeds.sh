#!/bin/sh
# Compiles the seeds of elf_fuzz anew. They are committed, so that a run does not depend on the compiler; this shows where
# they come from.
set -e
cd "$(dirname "$0")"
mkdir -p seeds
c="-ffreestanding -nostdlib -fno-stack-protector -Wl,--build-id=none -Wl,-z,noseparate-code"
cc="$c -fno-exceptions -fno-rtti -fno-threadsafe-statics -x c++"
gcc $c -static -no-pie -O1 -g -gdwarf-4 seed.c -o seeds/c_dwarf4
gcc $c -static -no-pie -O2 -g -gdwarf-5 seed.c -o seeds/c_dwarf5
gcc $c -static -no-pie -O1 -g -gdwarf-5 -gz=zlib seed.c -o seeds/c_dwarf5_packed
gcc $c -static -no-pie -O1 -g -gdwarf-4 -gz=zlib-gnu seed.c -o seeds/c_dwarf4_packed_gnu
gcc $c -static -no-pie -O1 -g -gdwarf-4 -fno-dwarf2-cfi-asm -fno-asynchronous-unwind-tables seed.c -o seeds/c_debug_frame
gcc $c -shared -fPIC -O1 -g -gdwarf-5 seed.c -o seeds/c_shared
gcc $c -shared -fPIC -O1 -s seed.c -o seeds/c_shared_stripped
gcc $c -static-pie -fPIE -O0 -g -gdwarf-5 seed.c -o seeds/c_pie
gcc $c -static -no-pie -O1 -g3 -gdwarf-3 -gstrict-dwarf seed.c -o seeds/c_dwarf3
g++ $cc -static -no-pie -O1 -g -gdwarf-4 -fdebug-types-section seed.c -o seeds/cpp_dwarf4_types
g++ $cc -static -no-pie -O0 -g -gdwarf-5 seed.c -o seeds/cpp_dwarf5
if command -v clang > /dev/null; then
  clang $c -static -no-pie -O2 -g -gdwarf-5 -gdwarf-aranges seed.c -o seeds/c_clang5
fi
