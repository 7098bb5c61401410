#include "dtrace-lite/symbols/elf_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>

namespace ddbg::symbols {
namespace {

// A copy of a T at `offset`, or nothing when it would lie outside.
template <class T> std::optional<T> read_at(Bytes image, uint64_t offset) {
  if (offset > image.size() || image.size() - offset < sizeof(T))
    return std::nullopt;
  T value;
  std::memcpy(&value, image.data() + offset, sizeof value);
  return value;
}

// [offset, offset+size) of the image, or empty when it would lie outside.
Bytes slice(Bytes image, uint64_t offset, uint64_t size) {
  if (offset > image.size() || image.size() - offset < size)
    return {};
  return image.subspan(offset, size);
}

// The NUL-terminated text at `offset`; empty when it has no end inside the table.
std::string_view text_at(Bytes table, uint64_t offset) {
  if (offset >= table.size())
    return {};
  const char* begin = reinterpret_cast<const char*>(table.data()) + offset;
  const void* end = std::memchr(begin, 0, table.size() - offset);
  if (!end)
    return {};
  return {begin, static_cast<size_t>(static_cast<const char*>(end) - begin)};
}

const char* machine_name(unsigned machine) {
  switch (machine) {
  case EM_386:
    return "32-bit x86";
  case EM_ARM:
    return "32-bit ARM";
  case EM_AARCH64:
    return "AArch64";
  case EM_RISCV:
    return "RISC-V";
  case EM_PPC64:
    return "64-bit PowerPC";
  case EM_S390:
    return "S/390";
  case EM_MIPS:
    return "MIPS";
  default:
    return "another machine";
  }
}

constexpr uint64_t kAddressLimit = uint64_t{1} << 56; // beyond any user address, 5-level paging too

} // namespace

std::vector<Note> read_notes(Bytes notes, uint64_t alignment) {
  // Notes are 4-aligned in practice; 8 only where the segment says so (.note.gnu.property).
  const uint64_t align = alignment == 8 ? 8 : 4;
  std::vector<Note> found;
  uint64_t offset = 0;
  while (auto header = read_at<Elf64_Nhdr>(notes, offset)) {
    const uint64_t name_at = offset + sizeof(Elf64_Nhdr);
    const uint64_t content_at = (name_at + header->n_namesz + align - 1) & ~(align - 1);
    const Bytes name = slice(notes, name_at, header->n_namesz);
    const Bytes content = slice(notes, content_at, header->n_descsz);
    if (name.size() != header->n_namesz || content.size() != header->n_descsz)
      break;
    found.push_back({text_at(name, 0), header->n_type, content});
    offset = (content_at + header->n_descsz + align - 1) & ~(align - 1);
  }
  return found;
}

std::string build_id_in_notes(Bytes notes, uint64_t alignment) {
  for (const Note& note : read_notes(notes, alignment)) {
    if (note.type != NT_GNU_BUILD_ID || note.name != "GNU")
      continue;
    std::string hex;
    for (std::byte b : note.content) {
      constexpr char kDigits[] = "0123456789abcdef";
      hex += kDigits[std::to_integer<unsigned>(b) >> 4];
      hex += kDigits[std::to_integer<unsigned>(b) & 15];
    }
    return hex;
  }
  return {};
}

Checked<std::unique_ptr<ElfFile>> ElfFile::open(const std::string& path, ElfPurpose purpose) {
  const dune::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) {
    const int error = errno;
    const char* hint = "";
    if (error == ENOENT)
      hint = "Check the path; a program is not looked up in $PATH.";
    else if (error == EACCES || error == EPERM)
      hint = "Its symbols cannot be read: make the file readable, or run ddbg as its owner.";
    return Diagnostic{path + ": " + std::strerror(error) + ".", hint};
  }
  struct stat status;
  if (::fstat(fd.get(), &status) != 0)
    return Diagnostic{path + ": " + std::strerror(errno) + ".", ""};
  if (S_ISDIR(status.st_mode))
    return Diagnostic{path + ": is a directory.", "Name the program file inside it."};
  if (!S_ISREG(status.st_mode))
    return Diagnostic{path + ": is not a regular file.", "Name a program file."};
  if (status.st_size == 0)
    return Diagnostic{path + ": is empty.", "Name a program file."};
  auto mapping = dune::Mapping::private_file(fd.get(), static_cast<size_t>(status.st_size));
  if (!mapping)
    return to_diagnostic(mapping.error());
  std::unique_ptr<ElfFile> file(new ElfFile);
  file->path_ = path;
  file->mapping_ = std::move(*mapping);
  file->image_ = file->mapping_.bytes().first(static_cast<size_t>(status.st_size));
  return parse(std::move(file), purpose);
}

Checked<std::unique_ptr<ElfFile>> ElfFile::from_memory(std::vector<std::byte> image,
                                                       std::string name) {
  std::unique_ptr<ElfFile> file(new ElfFile);
  file->path_ = std::move(name);
  file->memory_ = std::move(image);
  file->memory_.push_back(std::byte{0});
  file->image_ = Bytes(file->memory_).first(file->memory_.size() - 1);
  return parse(std::move(file), ElfPurpose::kProgram);
}

Checked<std::unique_ptr<ElfFile>> ElfFile::parse(std::unique_ptr<ElfFile> file,
                                                 ElfPurpose purpose) {
  const std::string& path = file->path_;
  const Bytes image = file->image_;
  const auto ident = slice(image, 0, EI_NIDENT);
  if (ident.size() != EI_NIDENT || std::memcmp(ident.data(), ELFMAG, SELFMAG) != 0) {
    if (image.size() >= 2 && std::memcmp(image.data(), "#!", 2) == 0)
      return Diagnostic{path + ": is a script, not an ELF program.",
                        "Debug its interpreter and give it the script as an argument."};
    return Diagnostic{path + ": is not an ELF file.", "Name a compiled program for x86-64 Linux."};
  }
  const auto machine = read_at<uint16_t>(image, offsetof(Elf32_Ehdr, e_machine));
  if (ident[EI_CLASS] != std::byte{ELFCLASS64})
    return Diagnostic{path + ": is a 32-bit program (" + machine_name(machine.value_or(0)) +
                          "); only x86-64 programs can be debugged.",
                      "Build it for x86-64 (-m64), or use gdb."};
  if (ident[EI_DATA] != std::byte{ELFDATA2LSB} || (machine && *machine != EM_X86_64))
    return Diagnostic{path + ": is a program for " + machine_name(machine.value_or(0)) +
                          "; only x86-64 programs can be debugged.",
                      "Run ddbg on that machine's own kind, or build the program for x86-64."};
  const auto header = read_at<Elf64_Ehdr>(image, 0);
  if (!header)
    return Diagnostic{path + ": is truncated: its ELF header is incomplete.",
                      "Copy or build it again."};
  if (header->e_type == ET_REL && purpose == ElfPurpose::kProgram)
    return Diagnostic{path + ": is an object file, not a program.", "Link it first."};
  if (header->e_type == ET_CORE)
    return Diagnostic{path + ": is a core dump; ddbg debugs live programs.",
                      "Use gdb for cores, or name the program itself."};
  if (header->e_type != ET_EXEC && header->e_type != ET_DYN && header->e_type != ET_REL)
    return Diagnostic{path + ": has an unknown ELF type (" + std::to_string(header->e_type) + ").",
                      "The file is damaged; copy or build it again."};
  file->kind_ = header->e_type == ET_EXEC ? ElfKind::kExecutable : ElfKind::kSharedObject;
  file->entry_ = LinkAddr(header->e_entry);

  const auto headers = file->read_program_headers(purpose);
  if (!headers)
    return headers.error();
  file->read_section_headers();
  return file;
}

Checked<void> ElfFile::read_program_headers(ElfPurpose purpose) {
  const Elf64_Ehdr header = *read_at<Elf64_Ehdr>(image_, 0);
  const auto damaged = [&](const std::string& what) {
    return Diagnostic{path_ + ": is truncated or damaged: " + what + ".",
                      "Copy or build it again."};
  };
  const bool is_program = purpose == ElfPurpose::kProgram;
  if (header.e_phnum == 0 || header.e_phentsize != sizeof(Elf64_Phdr)) {
    if (is_program)
      return damaged("it has no program headers");
    return {};
  }
  for (unsigned i = 0; i < header.e_phnum; i++) {
    if (header.e_phoff > image_.size())
      return damaged("its program headers lie outside the file");
    const auto p = read_at<Elf64_Phdr>(image_, header.e_phoff + i * sizeof(Elf64_Phdr));
    if (!p)
      return damaged("its program headers lie outside the file");
    if (p->p_vaddr >= kAddressLimit || p->p_memsz >= kAddressLimit)
      return damaged("a segment lies outside the address space");
    const LinkRange range{LinkAddr(p->p_vaddr), LinkAddr(p->p_vaddr + p->p_memsz)};
    switch (p->p_type) {
    case PT_LOAD:
      if (p->p_memsz == 0)
        break;
      if (p->p_filesz > p->p_memsz)
        return damaged("a segment is larger in the file than in memory");
      if (is_program && p->p_filesz > 0 &&
          slice(image_, p->p_offset, p->p_filesz).size() != p->p_filesz)
        return damaged("a segment lies outside the file (" + std::to_string(image_.size()) +
                       " bytes)");
      segments_.push_back({range, dune::FileOffset(p->p_offset), is_program ? p->p_filesz : 0,
                           (p->p_flags & PF_R) != 0, (p->p_flags & PF_W) != 0,
                           (p->p_flags & PF_X) != 0});
      break;
    case PT_INTERP:
      interpreter_ = text_at(slice(image_, p->p_offset, p->p_filesz), 0);
      break;
    case PT_DYNAMIC:
      dynamic_ = range;
      break;
    case PT_GNU_EH_FRAME:
      eh_frame_header_ = range;
      break;
    case PT_TLS:
      tls_ = range;
      break;
    case PT_NOTE:
      if (build_id_.empty())
        build_id_ = build_id_in_notes(slice(image_, p->p_offset, p->p_filesz), p->p_align);
      break;
    default:
      break;
    }
  }
  if (segments_.empty() && is_program)
    return damaged("it has nothing to load");
  if (kind_ == ElfKind::kSharedObject) {
    bool is_program_file = !interpreter_.empty();
    // A static PIE has no interpreter; its dynamic section says what it is.
    if (dynamic_) {
      const Bytes entries = bytes_at(dynamic_->begin, dynamic_->size());
      for (uint64_t at = 0; const auto entry = read_at<Elf64_Dyn>(entries, at);
           at += sizeof(Elf64_Dyn)) {
        if (entry->d_tag == DT_NULL)
          break;
        if (entry->d_tag == DT_FLAGS_1 && (entry->d_un.d_val & DF_1_PIE))
          is_program_file = true;
      }
    }
    if (is_program_file)
      kind_ = ElfKind::kPie;
  }
  return {};
}

// A program runs without its section table, so damage here costs names, not the file.
void ElfFile::read_section_headers() {
  const Elf64_Ehdr header = *read_at<Elf64_Ehdr>(image_, 0);
  if (header.e_shoff == 0)
    return;
  const auto first = read_at<Elf64_Shdr>(image_, header.e_shoff);
  if (!first || header.e_shentsize != sizeof(Elf64_Shdr)) {
    warnings_.push_back(path_ + ": its section table is damaged; symbols cannot be read.");
    return;
  }
  // Counts that do not fit the header are in the first entry.
  const uint64_t count = header.e_shnum ? header.e_shnum : first->sh_size;
  const uint64_t names_index = header.e_shstrndx == SHN_XINDEX ? first->sh_link : header.e_shstrndx;
  if (count > (image_.size() - header.e_shoff) / sizeof(Elf64_Shdr)) {
    warnings_.push_back(path_ +
                        ": its section table lies outside the file; symbols cannot be read.");
    return;
  }
  section_headers_ = {dune::FileOffset(header.e_shoff),
                      dune::FileOffset(header.e_shoff + count * sizeof(Elf64_Shdr))};
  const auto header_at = [&](uint64_t i) {
    return *read_at<Elf64_Shdr>(image_, header.e_shoff + i * sizeof(Elf64_Shdr));
  };
  Bytes names;
  if (names_index < count) {
    const Elf64_Shdr h = header_at(names_index);
    names = slice(image_, h.sh_offset, h.sh_size);
  }
  sections_.reserve(count);
  bool outside = false;
  for (uint64_t i = 0; i < count; i++) {
    const Elf64_Shdr h = header_at(i);
    const Bytes data = h.sh_type == SHT_NOBITS ? Bytes{} : slice(image_, h.sh_offset, h.sh_size);
    outside |= h.sh_type != SHT_NOBITS && i != 0 && data.size() != h.sh_size;
    const bool sane = h.sh_addr < kAddressLimit && h.sh_size < kAddressLimit;
    sections_.push_back(
        {text_at(names, h.sh_name), h.sh_type, h.sh_flags,
         sane ? LinkRange{LinkAddr(h.sh_addr), LinkAddr(h.sh_addr + h.sh_size)} : LinkRange{}, data,
         h.sh_link, h.sh_info, h.sh_entsize});
    if (h.sh_type == SHT_NOTE && build_id_.empty())
      build_id_ = build_id_in_notes(data, h.sh_addralign);
  }
  if (outside)
    warnings_.push_back(path_ + ": some of its sections lie outside the file; it is truncated.");
}

LinkRange ElfFile::load_range() const {
  if (segments_.empty())
    return {};
  LinkRange all{segments_.front().range};
  for (const Segment& s : segments_) {
    all.begin = std::min(all.begin, s.range.begin);
    all.end = std::max(all.end, s.range.end);
  }
  return {all.begin.align_down(dune::kPageSize), all.end.align_up(dune::kPageSize)};
}

std::vector<LinkRange> ElfFile::text_ranges() const {
  std::vector<LinkRange> ranges;
  for (const Segment& s : segments_)
    if (s.executable)
      ranges.push_back(s.range);
  return ranges;
}

bool ElfFile::is_text(LinkAddr a) const {
  for (const Segment& s : segments_)
    if (s.executable && s.range.contains(a))
      return true;
  return false;
}

bool ElfFile::make_writable() const {
  return !mapping_ || ::mprotect(mapping_.data(), mapping_.size(), PROT_READ | PROT_WRITE) == 0;
}

void ElfFile::forget_code() const {
  if (!mapping_)
    return;
  const auto forget = [&](dune::FileOffset begin, dune::FileOffset end) {
    begin = begin.align_up(dune::kPageSize);
    end = end.align_down(dune::kPageSize);
    if (begin < end)
      ::madvise(mapping_.data() + begin.value, end - begin, MADV_DONTNEED);
  };
  // Only whole pages of code: what libelf has written elsewhere would be lost. It does so to the
  // section headers, which Go's linker puts into the segment of the code.
  for (const Segment& s : segments_) {
    const dune::FileOffset begin = s.offset, end(s.offset.value + s.file_size);
    if (!s.executable || s.writable)
      continue;
    forget(begin, std::min(end, std::max(begin, section_headers_.begin)));
    forget(std::max(begin, std::min(end, section_headers_.end)), end);
  }
}

std::string ElfFile::soname() const {
  if (!dynamic_)
    return {};
  const Bytes entries = bytes_at(dynamic_->begin, dynamic_->size());
  uint64_t name = 0, table = 0, size = 0;
  bool found = false;
  for (uint64_t at = 0; const auto e = read_at<Elf64_Dyn>(entries, at); at += sizeof(Elf64_Dyn)) {
    if (e->d_tag == DT_NULL)
      break;
    if (e->d_tag == DT_SONAME)
      name = e->d_un.d_val, found = true;
    else if (e->d_tag == DT_STRTAB)
      table = e->d_un.d_ptr;
    else if (e->d_tag == DT_STRSZ)
      size = e->d_un.d_val;
  }
  return found ? std::string(text_at(bytes_at(LinkAddr(table), size), name)) : std::string();
}

const Section* ElfFile::section(std::string_view name) const {
  for (const Section& s : sections_)
    if (s.name == name)
      return &s;
  return nullptr;
}

const Section* ElfFile::section_at(LinkAddr a) const {
  for (const Section& s : sections_)
    if ((s.flags & SHF_ALLOC) && !(s.flags & SHF_TLS) && s.range.contains(a))
      return &s;
  return nullptr;
}

Bytes ElfFile::bytes_at(LinkAddr at, uint64_t size) const {
  for (const Segment& s : segments_) {
    const uint64_t from = at - s.range.begin;
    if (at >= s.range.begin && from < s.file_size)
      return slice(image_, s.offset.value + from, std::min(size, s.file_size - from));
  }
  return {};
}

} // namespace ddbg::symbols
