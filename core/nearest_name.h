#ifndef ESPER_CORE_NEAREST_NAME_H_
#define ESPER_CORE_NEAREST_NAME_H_

#include <string>
#include <vector>

namespace esper {

// The name that takes the fewest insertions, deletions and replacements of
// characters (Levenshtein distance) to get to from `name`; of several the first
// one. `known` must not be empty.
std::string NearestName(const std::string& name,
                        const std::vector<std::string>& known);

}  // namespace esper
#endif  // ESPER_CORE_NEAREST_NAME_H_
