#include "dtrace-lite/symbols/elf_symbols.h"

#include "dtrace-lite/symbols/demangle.h"

#include <algorithm>
#include <cstring>
#include <elf.h>
#include <unordered_map>
#include <unordered_set>

namespace ddbg::symbols {
namespace {

constexpr unsigned char kSymbolIfunc = 10; // STT_GNU_IFUNC

std::string_view without_version(std::string_view name) {
  const size_t at = name.find('@', 1);
  return at == std::string_view::npos ? name : name.substr(0, at);
}

// "f.constprop.0" -> ".constprop.0"; empty for a name the compiler did not derive.
std::string_view clone_suffix(std::string_view name) {
  for (std::string_view mark : {".constprop.", ".isra.", ".part.", ".cold", ".lto_priv."}) {
    const size_t at = name.find(mark);
    if (at != std::string_view::npos && at > 0)
      return name.substr(name.find('.', 1) <= at ? name.find('.', 1) : at);
  }
  return {};
}

struct Table {
  const ElfFile* file;
  Bytes symbols;
  Bytes names;

  size_t count() const { return symbols.size() / sizeof(Elf64_Sym); }
  Elf64_Sym raw(size_t i) const {
    Elf64_Sym s;
    std::memcpy(&s, symbols.data() + i * sizeof s, sizeof s);
    return s;
  }
  std::string_view name(const Elf64_Sym& s) const {
    if (s.st_name >= names.size())
      return {};
    const char* begin = reinterpret_cast<const char*>(names.data()) + s.st_name;
    const void* end = std::memchr(begin, 0, names.size() - s.st_name);
    return end ? std::string_view(begin, static_cast<size_t>(static_cast<const char*>(end) - begin))
               : std::string_view();
  }
};

std::optional<Table> table_of(const ElfFile& file, uint32_t type) {
  for (const Section& s : file.sections())
    if (s.type == type && s.data.size() >= sizeof(Elf64_Sym) && s.link < file.sections().size())
      return Table{&file, s.data, file.sections()[s.link].data};
  return std::nullopt;
}

bool defined_and_named(const Elf64_Sym& s) {
  const unsigned type = ELF64_ST_TYPE(s.st_info);
  return s.st_shndx != SHN_UNDEF && s.st_name != 0 && type != STT_SECTION && type != STT_FILE;
}

} // namespace

std::string Symbol::name() const {
  std::string text = demangle(linkage_name);
  if (is_plt)
    text += "@plt";
  return text;
}

struct ElfSymbols::Impl {
  const ElfFile& file;
  std::vector<Table> tables; // one, or none
  bool full = false;
  size_t* demangled;

  // Built on first use.
  std::optional<std::vector<Symbol>> plt;
  struct Place { // a symbol in an index by address; small, because there can be a million
    uint64_t address, size;
    uint32_t name;  // gdb's order at one address: the one later in the string table wins
    uint32_t index; // in its table, or kPlt | index in plt
  };
  static constexpr uint32_t kPlt = 1u << 31;
  bool indexed = false;
  std::vector<Place> by_address;                 // all but TLS, sorted
  std::vector<Place> code;                       // the code symbols of by_address
  std::optional<std::vector<std::string>> names; // demangled, sorted, unique

  Impl(const ElfFile& f, const ElfFile* debug, size_t* counter) : file(f), demangled(counter) {
    auto symtab = table_of(f, SHT_SYMTAB);
    if (!symtab && debug)
      symtab = table_of(*debug, SHT_SYMTAB);
    full = symtab.has_value();
    if (symtab)
      tables.push_back(*symtab);
    else if (auto dynsym = table_of(f, SHT_DYNSYM)) // .symtab has all that .dynsym has
      tables.push_back(*dynsym);
  }

  Symbol make(const Table& table, const Elf64_Sym& raw) const {
    Symbol s;
    s.linkage_name = without_version(table.name(raw));
    s.address = LinkAddr(raw.st_value);
    s.size = raw.st_size;
    const unsigned type = ELF64_ST_TYPE(raw.st_info);
    s.is_ifunc = type == kSymbolIfunc;
    s.type = type == STT_FUNC || s.is_ifunc             ? SymbolType::kFunction
             : type == STT_OBJECT || type == STT_COMMON ? SymbolType::kObject
             : type == STT_TLS                          ? SymbolType::kTls
                                                        : SymbolType::kNone;
    const unsigned binding = ELF64_ST_BIND(raw.st_info);
    s.binding = binding == STB_LOCAL  ? SymbolBinding::kLocal
                : binding == STB_WEAK ? SymbolBinding::kWeak
                                      : SymbolBinding::kGlobal;
    const auto& sections = table.file->sections();
    if (raw.st_shndx < sections.size())
      s.is_code = (sections[raw.st_shndx].flags & SHF_EXECINSTR) != 0;
    else // an absolute symbol, or more than 65280 sections
      s.is_code = raw.st_shndx == SHN_XINDEX && file.is_text(s.address);
    return s;
  }

  // Calls f for every defined symbol; stops when f returns false.
  template <class F> void scan(F f) const {
    for (const Table& table : tables)
      for (size_t i = 1, n = table.count(); i < n; i++) {
        const Elf64_Sym raw = table.raw(i);
        if (defined_and_named(raw) && !f(table, raw))
          return;
      }
  }

  template <class F> void each_relocation(F f) const {
    for (const Section& s : file.sections()) {
      if (s.type != SHT_RELA)
        continue;
      for (uint64_t at = 0; at + sizeof(Elf64_Rela) <= s.data.size(); at += sizeof(Elf64_Rela)) {
        Elf64_Rela r;
        std::memcpy(&r, s.data.data() + at, sizeof r);
        f(r);
      }
    }
  }

  const std::vector<Symbol>& plt_entries() {
    if (!plt)
      read_plt();
    return *plt;
  }

  void read_plt() {
    plt.emplace();
    const auto dynsym = table_of(file, SHT_DYNSYM);
    if (!dynsym)
      return;
    // Which symbol each slot of the GOT is for.
    std::unordered_map<uint64_t, std::string_view> slots;
    each_relocation([&](const Elf64_Rela& r) {
      const uint64_t type = ELF64_R_TYPE(r.r_info), index = ELF64_R_SYM(r.r_info);
      if ((type == R_X86_64_JUMP_SLOT || type == R_X86_64_GLOB_DAT) && index < dynsym->count())
        slots.emplace(r.r_offset, without_version(dynsym->name(dynsym->raw(index))));
    });
    for (const Section& s : file.sections()) {
      const bool eight = s.name == ".plt.got" && s.entry_size == 8;
      if (!eight && s.name != ".plt" && s.name != ".plt.sec" && s.name != ".plt.got")
        continue;
      const uint64_t step = eight ? 8 : 16;
      for (uint64_t at = 0; at + step <= s.data.size(); at += step) {
        const auto* code = reinterpret_cast<const unsigned char*>(s.data.data()) + at;
        size_t i = 0;
        if (step == 16 && std::memcmp(code, "\xf3\x0f\x1e\xfa", 4) == 0)
          i = 4;
        if (code[i] == 0xf2) // bnd
          i++;
        if (i + 6 > step || code[i] != 0xff || code[i + 1] != 0x25) // jmp *disp(%rip)
          continue;
        int32_t displacement;
        std::memcpy(&displacement, code + i + 2, 4);
        const LinkAddr entry = s.range.begin + at;
        const auto slot =
            slots.find((entry + i + 6 + static_cast<uint64_t>(int64_t{displacement})).value);
        if (slot == slots.end() || slot->second.empty())
          continue;
        Symbol symbol;
        symbol.linkage_name = slot->second;
        symbol.address = entry;
        symbol.size = step;
        symbol.type = SymbolType::kFunction;
        symbol.binding = SymbolBinding::kGlobal;
        symbol.is_plt = symbol.is_code = true;
        plt->push_back(symbol);
      }
    }
  }

  void build_address_index() {
    if (indexed)
      return;
    indexed = true;
    if (!tables.empty()) {
      const Table& table = tables.front();
      const auto& sections = table.file->sections();
      for (uint32_t i = 1, n = static_cast<uint32_t>(std::min<size_t>(table.count(), kPlt)); i < n;
           i++) {
        const Elf64_Sym raw = table.raw(i);
        if (!defined_and_named(raw) || ELF64_ST_TYPE(raw.st_info) == STT_TLS ||
            raw.st_shndx == SHN_ABS)
          continue;
        const Place place{raw.st_value, raw.st_size, raw.st_name, i};
        by_address.push_back(place);
        if (raw.st_shndx < sections.size() ? (sections[raw.st_shndx].flags & SHF_EXECINSTR) != 0
                                           : file.is_text(LinkAddr(raw.st_value)))
          code.push_back(place);
      }
    }
    for (uint32_t i = 0; i < plt_entries().size(); i++) {
      const Place place{(*plt)[i].address.value, (*plt)[i].size, 0, kPlt | i};
      by_address.push_back(place);
      code.push_back(place);
    }
    const auto order = [](const Place& a, const Place& b) {
      return a.address != b.address ? a.address < b.address : a.name < b.name;
    };
    std::sort(by_address.begin(), by_address.end(), order);
    std::sort(code.begin(), code.end(), order);
  }

  static auto after(const std::vector<Place>& sorted, LinkAddr a) {
    return std::upper_bound(sorted.begin(), sorted.end(), a.value,
                            [](uint64_t x, const Place& p) { return x < p.address; });
  }

  // gdb's choice of a minimal symbol for an address: from the last symbol at or below it go back
  // over those without size; take one with a size that covers the address, or the nearest without
  // size.
  std::optional<Symbol> choose(const std::vector<Place>& sorted, LinkAddr a) const {
    auto it = after(sorted, a);
    const Place* nearest_unsized = nullptr;
    const Place* sized = nullptr;
    while (it != sorted.begin()) {
      --it;
      if (it->size == 0) {
        if (!nearest_unsized)
          nearest_unsized = &*it;
        continue;
      }
      // Past its end: the one before may be larger and reach here.
      if (a.value - it->address >= it->size && it != sorted.begin() &&
          a.value - std::prev(it)->address < std::prev(it)->size)
        --it;
      sized = &*it;
      break;
    }
    const Place* best = sized && a.value - sized->address < sized->size ? sized : nearest_unsized;
    if (!best)
      return std::nullopt;
    Symbol symbol = best->index & kPlt ? (*plt)[best->index & ~kPlt]
                                       : make(tables.front(), tables.front().raw(best->index));
    // A symbol without size reaches to the end of its section, not into another.
    if (symbol.size == 0 && file.section_at(symbol.address) != file.section_at(a))
      return std::nullopt;
    return symbol;
  }

  const std::vector<std::string>& all_names() {
    if (!names) {
      names.emplace();
      std::unordered_set<std::string_view> seen;
      scan([&](const Table& table, const Elf64_Sym& raw) {
        const std::string_view name = without_version(table.name(raw));
        if (!name.empty() && seen.insert(name).second && clone_suffix(name).empty())
          names->push_back(demangle_counted(name));
        return true;
      });
      for (const Symbol& s : plt_entries()) // of other modules, which may not be there yet
        if (!looks_mangled(s.linkage_name)) // as find_plt wants it
          names->emplace_back(s.linkage_name);
      std::sort(names->begin(), names->end());
      names->erase(std::unique(names->begin(), names->end()), names->end());
    }
    return *names;
  }

  std::string demangle_counted(std::string_view name) const {
    if (demangled && looks_mangled(name))
      ++*demangled;
    return demangle(name);
  }
};

ElfSymbols::ElfSymbols(const ElfFile& file, const ElfFile* debug, size_t* demangled)
    : impl_(std::make_unique<Impl>(file, debug, demangled)) {}
ElfSymbols::~ElfSymbols() = default;
ElfSymbols::ElfSymbols(ElfSymbols&&) noexcept = default;

bool ElfSymbols::empty() const {
  bool any = false;
  impl_->scan([&](const Table&, const Elf64_Sym&) { return !(any = true); });
  return !any;
}

bool ElfSymbols::has_full_table() const { return impl_->full; }

namespace {
void add_once(std::vector<Symbol>& found, const Symbol& symbol) {
  for (Symbol& s : found) {
    if (s.address == symbol.address && s.type == symbol.type) {
      if (s.size == 0)
        s.size = symbol.size;
      return;
    }
  }
  found.push_back(symbol);
}
} // namespace

std::vector<Symbol> ElfSymbols::find(std::string_view linkage_name) const {
  std::vector<Symbol> found;
  if (linkage_name.empty())
    return found;
  impl_->scan([&](const Table& table, const Elf64_Sym& raw) {
    // The length is not known before the end is found; compare in place first.
    if (raw.st_name >= table.names.size() ||
        table.names.size() - raw.st_name <= linkage_name.size() ||
        std::memcmp(table.names.data() + raw.st_name, linkage_name.data(), linkage_name.size()) !=
            0)
      return true;
    if (without_version(table.name(raw)) == linkage_name)
      add_once(found, impl_->make(table, raw));
    return true;
  });
  return found;
}

std::vector<Symbol> ElfSymbols::find_functions(std::string_view typed, Clones clones) const {
  const NameQuery query(typed);
  const std::string& needle = query.mangled_needle();
  std::vector<Symbol> found;
  impl_->scan([&](const Table& table, const Elf64_Sym& raw) {
    const unsigned type = ELF64_ST_TYPE(raw.st_info);
    if (type == STT_OBJECT || type == STT_TLS)
      return true;
    std::string_view name = without_version(table.name(raw));
    bool matches = name == typed;
    if (!matches) {
      std::string_view base = name;
      if (const auto suffix = clone_suffix(name); !suffix.empty()) {
        if (clones == Clones::kExclude || suffix.find(".cold") != std::string_view::npos)
          return true;
        base.remove_suffix(suffix.size());
      }
      if (looks_mangled(base))
        matches = (needle.empty() || base.find(needle) != std::string_view::npos) &&
                  query.matches(impl_->demangle_counted(base));
      else
        matches = base == typed;
    }
    if (matches) {
      const Symbol symbol = impl_->make(table, raw);
      if (symbol.is_code)
        add_once(found, symbol);
    }
    return true;
  });
  return found;
}

std::vector<Symbol> ElfSymbols::find_variables(std::string_view typed) const {
  const NameQuery query(typed);
  const std::string& needle = query.mangled_needle();
  std::vector<Symbol> found;
  impl_->scan([&](const Table& table, const Elf64_Sym& raw) {
    if (ELF64_ST_TYPE(raw.st_info) == STT_FUNC)
      return true;
    const std::string_view name = without_version(table.name(raw));
    if (name != typed &&
        !(looks_mangled(name) && (needle.empty() || name.find(needle) != std::string_view::npos) &&
          query.matches(impl_->demangle_counted(name))))
      return true;
    const Symbol symbol = impl_->make(table, raw);
    if (!symbol.is_code)
      add_once(found, symbol);
    return true;
  });
  return found;
}

std::optional<Symbol> ElfSymbols::find_plt(std::string_view name) const {
  for (const Symbol& s : impl_->plt_entries())
    if (s.linkage_name == name)
      return s;
  return std::nullopt;
}

std::optional<Symbol> ElfSymbols::at(LinkAddr address) const {
  impl_->build_address_index();
  return impl_->choose(impl_->by_address, address);
}

std::optional<Symbol> ElfSymbols::function_at(LinkAddr pc) const {
  impl_->build_address_index();
  return impl_->choose(impl_->code, pc);
}

std::optional<LinkAddr> ElfSymbols::next_function(LinkAddr pc) const {
  impl_->build_address_index();
  const auto it = Impl::after(impl_->code, pc);
  return it == impl_->code.end() ? std::nullopt : std::optional(LinkAddr(it->address));
}

std::vector<std::string> ElfSymbols::complete(std::string_view prefix, size_t limit) const {
  const auto& names = impl_->all_names();
  std::vector<std::string> found;
  for (auto it = std::lower_bound(names.begin(), names.end(), prefix);
       it != names.end() && found.size() < limit && it->starts_with(prefix); ++it)
    found.push_back(*it);
  return found;
}

std::string ElfSymbols::nearest_name(std::string_view typed) const {
  // A third of the word may be wrong; more, and a suggestion is noise.
  unsigned best = static_cast<unsigned>(std::max<size_t>(1, typed.size() / 3)) + 1;
  std::string result;
  for (const std::string& name : impl_->all_names()) {
    const std::string shown = name.find('(') == std::string::npos ? name : function_name_only(name);
    const size_t difference =
        shown.size() > typed.size() ? shown.size() - typed.size() : typed.size() - shown.size();
    if (difference >= best)
      continue;
    const unsigned distance = edit_distance(typed, shown, best - 1);
    if (distance < best) {
      best = distance;
      result = shown;
    }
  }
  return result;
}

std::optional<LinkAddr> ElfSymbols::ifunc_slot(LinkAddr resolver) const {
  std::optional<LinkAddr> slot;
  impl_->each_relocation([&](const Elf64_Rela& r) {
    if (ELF64_R_TYPE(r.r_info) == R_X86_64_IRELATIVE &&
        static_cast<uint64_t>(r.r_addend) == resolver.value)
      slot = LinkAddr(r.r_offset);
  });
  return slot;
}

void ElfSymbols::for_each(const std::function<void(const Symbol&)>& f) const {
  impl_->scan([&](const Table& table, const Elf64_Sym& raw) {
    f(impl_->make(table, raw));
    return true;
  });
}

unsigned edit_distance(std::string_view a, std::string_view b, unsigned limit) {
  std::vector<unsigned> before(b.size() + 1), previous(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); j++)
    previous[j] = static_cast<unsigned>(j);
  for (size_t i = 1; i <= a.size(); i++) {
    row[0] = static_cast<unsigned>(i);
    unsigned smallest = row[0];
    for (size_t j = 1; j <= b.size(); j++) {
      row[j] = std::min(
          {previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a[i - 1] == b[j - 1] ? 0u : 1u)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
      smallest = std::min(smallest, row[j]);
    }
    if (smallest > limit)
      return limit + 1;
    std::swap(before, previous);
    std::swap(previous, row);
  }
  return std::min(previous[b.size()], limit + 1);
}

} // namespace ddbg::symbols
