#ifndef ESPER_TESTS_GOLDEN_SLOTS_PARITY_CHECKS_H_
#define ESPER_TESTS_GOLDEN_SLOTS_PARITY_CHECKS_H_

#include <cctype>
#include <set>
#include <string>

#include "core/slot/stage.h"
#include "nlohmann/json.hpp"

namespace esper::testing {

// Check ids without the numbers printed in them: cut at the first underscore
// that a digit or a minus sign follows.
template <typename Ids>
std::set<std::string> CheckNames(const Ids& ids) {
  std::set<std::string> names;
  for (const auto& element : ids) {
    const std::string id = element;
    size_t cut = 0;
    while ((cut = id.find('_', cut)) != std::string::npos) {
      const char next = cut + 1 < id.size() ? id[cut + 1] : ' ';
      if (std::isdigit(static_cast<unsigned char>(next)) || next == '-') break;
      ++cut;
    }
    names.insert(id.substr(0, cut));
  }
  return names;
}

// Throws std::out_of_range for a name that is no stage.
inline slot::SeedStage StageByName(const std::string& name) {
  for (int number = 0; number <= 10; ++number) {
    const auto stage = slot::StageFromNumber(number);
    if (stage.ok() && name == slot::StageName(*stage)) return *stage;
  }
  throw std::out_of_range("stage " + name);
}

}  // namespace esper::testing
#endif  // ESPER_TESTS_GOLDEN_SLOTS_PARITY_CHECKS_H_
