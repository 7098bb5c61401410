// ElfFile::fde_range: function bounds from .eh_frame_hdr (LSB, "Exception Frames"), straight from
// the file: no libdw handle is needed to find a function in a stripped program.
#include "dtrace-lite/symbols/byte_reader.h"

namespace ddbg::symbols {
namespace {

// DW_EH_PE_*: the low nibble is the format, bits 4-6 what it is relative to.
constexpr uint8_t kOmit = 0xff;
constexpr uint8_t kPcRelative = 0x10;
constexpr uint8_t kDataRelative = 0x30;

struct Encoded {
  uint8_t encoding;
  LinkAddr data_base; // the header's address

  std::optional<uint64_t> read(ByteReader& in, LinkAddr section) const {
    const LinkAddr here = section + in.position();
    uint64_t value = 0;
    switch (encoding & 0x0f) {
    case 0x00:
    case 0x04:
    case 0x0c:
      value = in.u64();
      break;
    case 0x02:
      value = in.u16();
      break;
    case 0x03:
      value = in.u32();
      break;
    case 0x0a:
      value = static_cast<uint64_t>(int64_t{in.fixed<int16_t>()});
      break;
    case 0x0b:
      value = static_cast<uint64_t>(int64_t{in.fixed<int32_t>()});
      break;
    case 0x01:
      value = in.uleb();
      break;
    case 0x09:
      value = static_cast<uint64_t>(in.sleb());
      break;
    default:
      return std::nullopt;
    }
    switch (encoding & 0x70) {
    case 0:
      break;
    case kPcRelative:
      value += here.value;
      break;
    case kDataRelative:
      value += data_base.value;
      break;
    default:
      return std::nullopt;
    }
    return in.failed() ? std::nullopt : std::optional(value);
  }
};

// How a CIE encodes the addresses of its FDEs; nothing when it cannot be understood.
std::optional<uint8_t> pointer_encoding(const ElfFile& file, LinkAddr cie) {
  const Bytes bytes = file.bytes_at(cie, 4096);
  ByteReader in(bytes);
  const uint32_t length = in.u32();
  if (length == 0 || length == 0xffffffff || in.u32() != 0)
    return std::nullopt;
  const uint8_t version = in.u8();
  const std::string_view augmentation = in.text();
  if (version != 1 && version != 3)
    return std::nullopt;
  in.uleb(); // code alignment
  in.sleb(); // data alignment
  if (version == 1)
    in.u8();
  else
    in.uleb(); // return address column
  if (!augmentation.starts_with('z'))
    return uint8_t{0};
  in.uleb(); // length of the augmentation data
  for (char c : augmentation.substr(1)) {
    if (c == 'R') {
      const uint8_t encoding = in.u8();
      return in.failed() ? std::nullopt : std::optional(encoding);
    }
    if (c == 'L')
      in.u8();
    else if (c == 'P') {
      const Encoded personality{static_cast<uint8_t>(in.u8() & 0x0f), {}};
      if (!personality.read(in, cie))
        return std::nullopt;
    } else if (c != 'S' && c != 'B')
      return std::nullopt;
  }
  return uint8_t{0};
}

} // namespace

std::optional<LinkRange> ElfFile::fde_range(LinkAddr pc) const {
  if (!eh_frame_header_)
    return std::nullopt;
  const LinkAddr base = eh_frame_header_->begin;
  const Bytes header = bytes_at(base, eh_frame_header_->size());
  ByteReader in(header);
  const uint8_t version = in.u8();
  const Encoded frame_pointer{in.u8(), base};
  const Encoded count_encoding{in.u8(), base};
  const uint8_t table_encoding = in.u8();
  // The sorted table is only ever written as pairs of 32-bit offsets.
  if (version != 1 || count_encoding.encoding == kOmit ||
      table_encoding != (kDataRelative | 0x0b) || !frame_pointer.read(in, base))
    return std::nullopt;
  const auto count = count_encoding.read(in, base);
  if (!count || in.failed() || *count > (header.size() - in.position()) / 8)
    return std::nullopt;
  const size_t table = in.position();
  const auto entry = [&](size_t i) {
    ByteReader at(header, table + i * 8);
    const auto start = static_cast<uint64_t>(int64_t{at.fixed<int32_t>()});
    const auto fde = static_cast<uint64_t>(int64_t{at.fixed<int32_t>()});
    return std::pair(base + start, base + fde);
  };
  size_t low = 0, high = *count;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (entry(middle).first <= pc)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == 0)
    return std::nullopt;

  const LinkAddr fde = entry(low - 1).second;
  const Bytes bytes = bytes_at(fde, 64);
  ByteReader body(bytes);
  const uint32_t length = body.u32();
  const uint32_t to_cie = body.u32();
  if (body.failed() || length == 0 || length == 0xffffffff || to_cie == 0)
    return std::nullopt;
  const auto encoding = pointer_encoding(*this, fde + 4 - to_cie);
  if (!encoding)
    return std::nullopt;
  const auto begin = Encoded{*encoding, base}.read(body, fde);
  const auto size = Encoded{static_cast<uint8_t>(*encoding & 0x0f), base}.read(body, fde);
  if (!begin || !size)
    return std::nullopt;
  const LinkRange range{LinkAddr(*begin), LinkAddr(*begin + *size)};
  return range.contains(pc) ? std::optional(range) : std::nullopt;
}

} // namespace ddbg::symbols
