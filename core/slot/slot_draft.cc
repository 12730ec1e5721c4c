#include "core/slot/slot_draft.h"

#include <cstring>

namespace esper::slot {

DecisionHash& DecisionHash::Add(uint64_t number) {
  for (int i = 0; i < 8; ++i) {
    value_ = (value_ ^ (number >> (8 * i) & 0xff)) * 0x100000001b3ULL;
  }
  return *this;
}

DecisionHash& DecisionHash::Add(double number) {
  uint64_t bits;
  std::memcpy(&bits, &number, sizeof(bits));
  return Add(bits);
}

DecisionHash& DecisionHash::Add(const std::string& text) {
  Add(uint64_t{text.size()});
  for (const unsigned char c : text) {
    value_ = (value_ ^ c) * 0x100000001b3ULL;
  }
  return *this;
}

}  // namespace esper::slot
