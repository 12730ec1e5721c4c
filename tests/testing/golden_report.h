#ifndef ESPER_TESTS_TESTING_GOLDEN_REPORT_H_
#define ESPER_TESTS_TESTING_GOLDEN_REPORT_H_

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace esper::testing {

// Outcome of checking reference vectors, case by case.
class GoldenReport {
 public:
  // Collects what is wrong with one case; counts it when it goes out of scope.
  class Case {
   public:
    Case(GoldenReport* report, std::string name)
        : report_(report), name_(std::move(name)) {}
    ~Case() { report_->Finish(name_, problems_); }
    Case(const Case&) = delete;
    Case& operator=(const Case&) = delete;

    void Fail(const std::string& problem) {
      absl::StrAppend(&problems_, problems_.empty() ? "" : "; ", problem);
    }

    // |actual - expected| <= absolute + relative |expected|; infinities and
    // NaN must match.
    void Near(const std::string& what, double actual, double expected,
              double relative, double absolute) {
      const bool same = actual == expected ||
                        (std::isnan(actual) && std::isnan(expected)) ||
                        std::fabs(actual - expected) <=
                            absolute + relative * std::fabs(expected);
      if (!same || std::isinf(actual) != std::isinf(expected)) {
        Fail(absl::StrCat(what, " is ", actual, ", expected ", expected));
      }
    }

    template <typename T>
    void Equal(const std::string& what, const T& actual, const T& expected) {
      if (!(actual == expected)) {
        Fail(absl::StrCat(what, " is ", actual, ", expected ", expected));
      }
    }

   private:
    GoldenReport* report_;
    std::string name_;
    std::string problems_;
  };

  void Skip(const std::string& name, const std::string& why) {
    skips_.push_back(absl::StrCat(name, ": ", why));
  }

  int passed() const { return passed_; }
  // "name: what is wrong", in order.
  const std::vector<std::string>& failures() const { return failures_; }
  const std::vector<std::string>& skips() const { return skips_; }

 private:
  void Finish(const std::string& name, const std::string& problems) {
    if (problems.empty()) {
      ++passed_;
    } else {
      failures_.push_back(absl::StrCat(name, ": ", problems));
    }
  }

  int passed_ = 0;
  std::vector<std::string> failures_;
  std::vector<std::string> skips_;
};

}  // namespace esper::testing
#endif  // ESPER_TESTS_TESTING_GOLDEN_REPORT_H_
