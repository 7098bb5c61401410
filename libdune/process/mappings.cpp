#include "libdune/process/mappings.h"

namespace dune::process {

size_t Mappings::first_ending_after(TargetAddr a) const {
  size_t low = 0, high = count_;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (pool_[middle].range.end > a)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

void Mappings::insert(size_t at, const Mapped& m) {
  for (size_t i = count_++; i > at; --i)
    pool_[i] = pool_[i - 1];
  pool_[at] = m;
}

void Mappings::erase(size_t from, size_t to) {
  if (from == to)
    return;
  while (to < count_)
    pool_[from++] = pool_[to++];
  count_ = from;
}

const Mapped* Mappings::find(TargetAddr a) const {
  const size_t i = first_ending_after(a);
  return i < count_ && pool_[i].range.begin <= a ? &pool_[i] : nullptr;
}

void Mappings::forget(TargetRange range) {
  if (range.begin >= range.end)
    return;
  size_t from = first_ending_after(range.begin);
  if (from < count_ && pool_[from].range.begin < range.begin) {
    TargetRange& before = pool_[from++].range;
    const TargetRange behind{range.end, before.end};
    before.end = range.begin;
    if (behind.begin < behind.end) {
      if (!full())
        insert(from, {behind, pool_[from - 1].rights});
      return;
    }
  }
  size_t to = from;
  while (to < count_ && pool_[to].range.end <= range.end)
    ++to;
  if (to < count_ && pool_[to].range.begin < range.end)
    pool_[to].range.begin = range.end;
  erase(from, to);
}

void Mappings::assign(TargetRange range, uint64_t rights) {
  if (range.begin >= range.end)
    return;
  forget(range);
  const size_t at = first_ending_after(range.begin);
  const bool joins_before =
      at > 0 && pool_[at - 1].range.end == range.begin && pool_[at - 1].rights == rights;
  const bool joins_behind =
      at < count_ && pool_[at].range.begin == range.end && pool_[at].rights == rights;
  if (joins_before && joins_behind) {
    pool_[at - 1].range.end = pool_[at].range.end;
    erase(at, at + 1);
  } else if (joins_before) {
    pool_[at - 1].range.end = range.end;
  } else if (joins_behind) {
    pool_[at].range.begin = range.begin;
  } else if (full()) {
    pool_[0] = {range, rights};
    count_ = 1;
  } else {
    insert(at, {range, rights});
  }
}

bool MapsParser::feed(char c) {
  switch (field_) {
  case Field::kBegin:
  case Field::kEnd:
    if (c == '-') {
      mapped_ = {{TargetAddr(number_), {}}, 0};
      field_ = Field::kEnd;
      number_ = 0;
    } else if (c == ' ') {
      mapped_.range.end = TargetAddr(number_);
      field_ = Field::kRights;
      number_ = 0;
      flags_ = 0;
    } else {
      number_ = number_ << 4 | static_cast<uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return false;
  case Field::kRights:
    mapped_.rights |= c == 'r'   ? uint64_t{kPageRead}
                      : c == 'w' ? uint64_t{kPageWrite}
                      : c == 'x' ? uint64_t{kPageExecute}
                                 : 0;
    if (++flags_ < 3)
      return false;
    field_ = Field::kRest;
    return true;
  default:
    if (c == '\n')
      field_ = Field::kBegin;
    return false;
  }
}

} // namespace dune::process
