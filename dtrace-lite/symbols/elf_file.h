// One ELF file, as a file says it: headers, segments, sections, bytes by link address. Everything
// is checked against the file's size when it is opened, so that a damaged file is a Diagnostic here
// and never a wild read later. Knows nothing of symbols or DWARF.
#pragma once

#include "dtrace-lite/symbols/diagnostic.h"
#include "libdune/base/file.h"
#include "libdune/base/types.h"

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ddbg::symbols {

using dune::LinkAddr;
using dune::LinkRange;
using dune::TargetAddr;
using dune::TargetRange;
using Bytes = std::span<const std::byte>;

enum class ElfKind {
  kExecutable,   // ET_EXEC: runs at its link addresses
  kPie,          // ET_DYN that is a program: has an interpreter, or DF_1_PIE
  kSharedObject, // ET_DYN that is not a program
};

struct Segment {   // a PT_LOAD
  LinkRange range; // as in memory (p_memsz)
  dune::FileOffset offset;
  uint64_t file_size; // the rest of range is zero-filled
  bool readable, writable, executable;
};

struct Section {
  std::string_view name;
  uint32_t type;  // SHT_*
  uint64_t flags; // SHF_*
  LinkRange range;
  Bytes data; // as stored in the file (possibly compressed); empty for SHT_NOBITS
  uint32_t link;
  uint32_t info;
  uint64_t entry_size;
};

enum class ElfPurpose {
  kProgram,   // all that is loaded must be there
  kDebugInfo, // a separate debug file: program headers without content, or none at all
};

class ElfFile {
public:
  // Errors, each with a hint: cannot be read, not an ELF, 32-bit, other machine or byte order, not
  // a program or library (an object file, a core), truncated, tables that point outside the file.
  static Checked<std::unique_ptr<ElfFile>> open(const std::string& path,
                                                ElfPurpose purpose = ElfPurpose::kProgram);
  // The vDSO, or any other image read from memory. `name` is for messages.
  static Checked<std::unique_ptr<ElfFile>> from_memory(std::vector<std::byte> image,
                                                       std::string name);
  ElfFile(const ElfFile&) = delete;
  ElfFile& operator=(const ElfFile&) = delete;

  const std::string& path() const { return path_; }
  // A zero byte follows: what reads a text to its end (libdw does) stops there at the latest.
  Bytes image() const { return image_; }
  // Lets libelf write to its private view of the image (see dwarf_info.cpp). Sections and segments
  // were read before and stay as they are.
  bool make_writable() const;
  ElfKind kind() const { return kind_; }
  LinkAddr entry() const { return entry_; }
  const std::vector<Segment>& segments() const { return segments_; }
  // From the first to past the last loaded address, page-aligned.
  LinkRange load_range() const;
  std::vector<LinkRange> text_ranges() const; // the executable segments
  bool is_text(LinkAddr a) const;
  const std::string& interpreter() const { return interpreter_; } // PT_INTERP, empty if none
  bool is_static() const { return interpreter_.empty() && kind_ != ElfKind::kSharedObject; }
  const std::string& build_id() const { return build_id_; } // hexadecimal, empty if none
  bool has_dynamic_section() const { return dynamic_.has_value(); }
  std::optional<LinkRange> dynamic() const { return dynamic_; }                 // PT_DYNAMIC
  std::optional<LinkRange> eh_frame_header() const { return eh_frame_header_; } // PT_GNU_EH_FRAME
  std::optional<LinkRange> tls() const { return tls_; } // PT_TLS initial image
  std::string soname() const;
  bool is_go() const { return section(".go.buildinfo") != nullptr; }

  // Sections, in file order, index 0 included. Empty when the file has no section table; a section
  // whose content lies outside the file is kept with empty data.
  const std::vector<Section>& sections() const { return sections_; }
  const Section* section(std::string_view name) const;
  const Section* section_at(LinkAddr a) const; // an allocated one

  // The file's own bytes for [at, at+size) of the image in memory: at most the part that comes from
  // the file. Empty when `at` is not backed by the file.
  Bytes bytes_at(LinkAddr at, uint64_t size) const;

  // Gives back the memory that the code takes, for who has gone through all of it; it is read again
  // when it is needed.
  void forget_code() const;

  // Function bounds from .eh_frame: what is left to know of functions in a stripped file.
  std::optional<LinkRange> fde_range(LinkAddr pc) const;

  // The notes that gdb would give about odd but usable files (a damaged section table).
  const std::vector<std::string>& warnings() const { return warnings_; }

private:
  ElfFile() = default;
  static Checked<std::unique_ptr<ElfFile>> parse(std::unique_ptr<ElfFile> file, ElfPurpose purpose);
  Checked<void> read_program_headers(ElfPurpose purpose);
  void read_section_headers();

  std::string path_;
  dune::Mapping mapping_;
  std::vector<std::byte> memory_;
  Bytes image_;
  ElfKind kind_ = ElfKind::kExecutable;
  LinkAddr entry_;
  std::vector<Segment> segments_;
  std::vector<Section> sections_;
  dune::Range<dune::FileOffset> section_headers_{};
  std::string interpreter_;
  std::string build_id_;
  std::optional<LinkRange> dynamic_, eh_frame_header_, tls_;
  std::vector<std::string> warnings_;
};

struct Note {
  std::string_view name; // without its NUL
  uint32_t type;         // NT_*
  Bytes content;
};
// A run of ELF notes, as far as it is undamaged.
std::vector<Note> read_notes(Bytes notes, uint64_t alignment);

// The build-id in a run of ELF notes, hexadecimal; empty if there is none. For the notes of a
// loaded image, to compare with the file's.
std::string build_id_in_notes(Bytes notes, uint64_t alignment);

} // namespace ddbg::symbols
