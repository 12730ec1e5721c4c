#include "core/nearest_name.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

namespace esper {
namespace {

int EditDistance(const std::string& a, const std::string& b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row.back();
}

}  // namespace

std::string NearestName(const std::string& name,
                        const std::vector<std::string>& known) {
  return *std::min_element(known.begin(), known.end(),
                           [&name](const std::string& a, const std::string& b) {
                             return EditDistance(name, a) <
                                    EditDistance(name, b);
                           });
}

}  // namespace esper
