#ifndef ESPER_TESTS_CORE_PPO_GOLDEN_H_
#define ESPER_TESTS_CORE_PPO_GOLDEN_H_

#include <cmath>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace esper::ppo {

inline std::string GoldenPath(const std::string& file) {
  return "tests/golden/training/" + file;
}

inline nlohmann::json LoadGolden(const std::string& file) {
  std::ifstream stream(GoldenPath(file));
  if (!stream) throw std::runtime_error("cannot open " + GoldenPath(file));
  return nlohmann::json::parse(stream);
}

// A number, or one of the strings "nan", "inf", "-inf".
inline double Number(const nlohmann::json& value) {
  if (!value.is_string()) return value.get<double>();
  if (value == "nan") return std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  return value == "-inf" ? -infinity : infinity;
}

template <typename T>
std::vector<T> Numbers(const nlohmann::json& array) {
  std::vector<T> numbers;
  for (const auto& value : array) {
    if (value.is_array()) {
      for (T inner : Numbers<T>(value)) numbers.push_back(inner);
    } else {
      numbers.push_back(static_cast<T>(value.is_boolean() ? value.get<bool>()
                                                          : Number(value)));
    }
  }
  return numbers;
}

// |actual - expected| <= absolute + relative |expected|, or both NaN.
inline bool Near(double actual, double expected, double relative,
                 double absolute) {
  if (std::isnan(expected)) return std::isnan(actual);
  return std::fabs(actual - expected) <=
         absolute + relative * std::fabs(expected);
}

}  // namespace esper::ppo
#endif  // ESPER_TESTS_CORE_PPO_GOLDEN_H_
