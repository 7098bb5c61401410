// Mutates an ELF file a section at a time. A plain mutation moves everything behind it, so that
// offsets in the headers mean nothing any more and the file is refused; and a compressed section
// that is changed does not unpack. Here a section's content is taken out (and unpacked), mutated,
// (packed again and) put back: in its place if it fits, else at the file's end, and its header
// follows.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <elf.h>
#include <optional>
#include <random>
#include <string_view>
#include <vector>
#include <zlib.h>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using Content = std::vector<uint8_t>;

constexpr size_t kMostContent = 1 << 16;

template <class T> std::optional<T> get(const Content& file, uint64_t at) {
  if (at > file.size() || file.size() - at < sizeof(T))
    return std::nullopt;
  T value;
  memcpy(&value, file.data() + at, sizeof value);
  return value;
}

class Image {
public:
  Image(const uint8_t* data, size_t size) : file_(data, data + size) {
    const auto header = get<Elf64_Ehdr>(file_, 0);
    if (!header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
      return;
    for (unsigned i = 0; i < header->e_shnum; i++) {
      const uint64_t at = header->e_shoff + i * sizeof(Elf64_Shdr);
      const auto section = get<Elf64_Shdr>(file_, at);
      if (!section)
        return;
      headers_.push_back(at);
      if (i == header->e_shstrndx)
        names_ = *section;
    }
  }

  size_t count() const { return headers_.size(); }
  const Content& file() const { return file_; }
  Elf64_Shdr header(size_t i) const { return *get<Elf64_Shdr>(file_, headers_[i]); }
  std::string_view name(size_t i) const {
    const uint64_t at = names_.sh_offset + header(i).sh_name;
    if (at >= file_.size())
      return {};
    const auto* begin = reinterpret_cast<const char*>(file_.data()) + at;
    return {begin, strnlen(begin, file_.size() - at)};
  }
  std::optional<size_t> find(std::string_view wanted) const {
    for (size_t i = 0; i < count(); i++)
      if (name(i) == wanted)
        return i;
    return std::nullopt;
  }

  // Unpacked, if it is packed.
  Content content(size_t i) const {
    const Elf64_Shdr s = header(i);
    if (s.sh_type == SHT_NOBITS || s.sh_offset > file_.size() ||
        s.sh_size > file_.size() - s.sh_offset)
      return {};
    Content raw(file_.begin() + static_cast<ptrdiff_t>(s.sh_offset),
                file_.begin() + static_cast<ptrdiff_t>(s.sh_offset + s.sh_size));
    const auto packed = get<Elf64_Chdr>(raw, 0);
    if (!(s.sh_flags & SHF_COMPRESSED) || !packed || packed->ch_size > kMostContent)
      return raw;
    Content plain(packed->ch_size);
    uLongf size = plain.size();
    if (uncompress(plain.data(), &size, raw.data() + sizeof *packed, raw.size() - sizeof *packed) !=
        Z_OK)
      return raw;
    return plain;
  }

  void put(size_t i, Content plain, bool pack) {
    Elf64_Shdr s = header(i);
    Content stored = std::move(plain);
    s.sh_flags &= ~uint64_t{SHF_COMPRESSED};
    if (pack) {
      const Elf64_Chdr packed{ELFCOMPRESS_ZLIB, 0, stored.size(), 1};
      Content out(sizeof packed + compressBound(stored.size()));
      uLongf size = out.size() - sizeof packed;
      memcpy(out.data(), &packed, sizeof packed);
      compress2(out.data() + sizeof packed, &size, stored.data(), stored.size(), 1);
      out.resize(sizeof packed + size);
      stored = std::move(out);
      s.sh_flags |= SHF_COMPRESSED;
    }
    if (stored.size() > s.sh_size || s.sh_offset > file_.size() ||
        stored.size() > file_.size() - s.sh_offset) {
      s.sh_offset = file_.size();
      file_.resize(file_.size() + stored.size());
    }
    std::copy(stored.begin(), stored.end(), file_.begin() + static_cast<ptrdiff_t>(s.sh_offset));
    s.sh_size = stored.size();
    memcpy(file_.data() + headers_[i], &s, sizeof s);
  }

private:
  Content file_;
  std::vector<uint64_t> headers_; // offsets of the section headers
  Elf64_Shdr names_{};
};

bool is_interesting(std::string_view name) {
  return name.starts_with(".debug_") || name == ".eh_frame" || name == ".eh_frame_hdr";
}

// DWARF is most of the code that reads the file, and most of the seeds are not DWARF.
size_t choose(const Image& image, std::minstd_rand& random) {
  for (int tries = 0; tries < 4; tries++) {
    const size_t i = random() % image.count();
    if (is_interesting(image.name(i)))
      return i;
  }
  return random() % image.count();
}

size_t give(const Image& image, uint8_t* data, size_t max_size) {
  const size_t size = std::min(image.file().size(), max_size);
  memcpy(data, image.file().data(), size);
  return size;
}

} // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  std::minstd_rand random(seed);
  Image image(data, size);
  // Headers and tables, where they are.
  if (image.count() == 0 || random() % 16 == 0)
    return LLVMFuzzerMutate(data, size, random() % 4 ? size : max_size);
  const size_t i = choose(image, random);
  Content content = image.content(i);
  const size_t before = content.size();
  content.resize(std::min(kMostContent, before + 64));
  content.resize(LLVMFuzzerMutate(content.data(), before, random() % 2 ? before : content.size()));
  const bool was_packed = image.header(i).sh_flags & SHF_COMPRESSED;
  image.put(i, std::move(content), was_packed != (random() % 64 == 0));
  return give(image, data, max_size);
}

// A section of one file in the place of the other's of that name.
extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t* data1, size_t size1,
                                            const uint8_t* data2, size_t size2, uint8_t* out,
                                            size_t max_size, unsigned seed) {
  std::minstd_rand random(seed);
  Image image(data1, size1);
  const Image other(data2, size2);
  if (image.count() == 0 || other.count() == 0)
    return 0;
  const size_t from = choose(other, random);
  if (const auto to = image.find(other.name(from)))
    image.put(*to, other.content(from), image.header(*to).sh_flags & SHF_COMPRESSED);
  return give(image, out, max_size);
}
