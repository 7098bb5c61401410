# Compiler and linker flags that hold for every target of the tree.
#
# A target is hosted code (ddbg, its libraries, the tests) unless it says otherwise: the agent image and everything else that
# runs without a libc sets the property DUNE_FREESTANDING, and then gets the warnings but neither hardening nor sanitizers,
# whose run-time support it has not got.
define_property(TARGET PROPERTY DUNE_FREESTANDING
                BRIEF_DOCS "Code without a libc: no hardening, no sanitizers")

# The public headers include each other as they do where they are installed: <dune/...>.
include_directories(${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/libdune/include)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
include(CheckPIESupported)
check_pie_supported()

# Expands to its arguments in C and C++ sources of hosted targets.
function(add_hosted_compile_options)
  foreach(flag ${ARGN})
    add_compile_options(
      "$<$<AND:$<COMPILE_LANGUAGE:C,CXX>,$<NOT:$<BOOL:$<TARGET_PROPERTY:DUNE_FREESTANDING>>>>:${flag}>")
  endforeach()
endfunction()
function(add_hosted_link_options)
  foreach(flag ${ARGN})
    add_link_options("$<$<NOT:$<BOOL:$<TARGET_PROPERTY:DUNE_FREESTANDING>>>:${flag}>")
  endforeach()
endfunction()

# Warnings.
add_compile_options(-Wall -Wextra -Wundef)
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-Wshadow=compatible-local)
endif()
if(DDBG_WERROR)
  add_compile_options(-Werror)
endif()

# Hardening: ddbg reads hostile files and a hostile session. _FORTIFY_SOURCE needs an optimising build, and the sanitizers
# replace the functions that it checks.
add_hosted_compile_options(-fstack-protector-strong -D_GLIBCXX_ASSERTIONS)
if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug" AND NOT DDBG_SANITIZE AND NOT DDBG_FUZZ)
  add_hosted_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
endif()
add_hosted_link_options(-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)

if(DDBG_SANITIZE)
  add_hosted_compile_options(-fsanitize=${DDBG_SANITIZE} -fno-omit-frame-pointer
                             -fno-sanitize-recover=all)
  add_hosted_link_options(-fsanitize=${DDBG_SANITIZE})
endif()

# Fuzzing: every library is instrumented for coverage; the targets under tests/fuzz/ add -fsanitize=fuzzer at the link.
if(DDBG_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "libFuzzer comes with clang: cmake --preset fuzz")
  endif()
  add_hosted_compile_options(-fsanitize=fuzzer-no-link)
endif()

# How code is compiled that runs in the target, without libc and with the program's vector state live. Clang does not know the
# last flag, and with the first no header that mentions long double: what it builds for fuzzing never runs there.
set(DUNE_FREESTANDING_FLAGS
  -O2 -ffreestanding -fno-stack-protector -fcf-protection=none -fno-sanitize=all
  -fno-asynchronous-unwind-tables
  $<$<COMPILE_LANGUAGE:CXX>:-fpie -fvisibility=hidden -fno-exceptions -fno-rtti
    -fno-threadsafe-statics -U_FORTIFY_SOURCE>)
if(NOT DDBG_FUZZ)
  list(APPEND DUNE_FREESTANDING_FLAGS
    $<$<COMPILE_LANGUAGE:CXX>:-mgeneral-regs-only -fno-tree-loop-distribute-patterns>)
endif()
