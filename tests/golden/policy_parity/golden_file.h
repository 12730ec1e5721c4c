#ifndef ESPER_TESTS_GOLDEN_POLICY_PARITY_GOLDEN_FILE_H_
#define ESPER_TESTS_GOLDEN_POLICY_PARITY_GOLDEN_FILE_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "core/tensor/safetensors.h"
#include "tests/testing/golden_report.h"

namespace esper::testing {

// A reference file that knows which of its tensors were used, so that one that
// no case reads is noticed.
class GoldenFile {
 public:
  // Throws std::runtime_error if the file cannot be read.
  explicit GoldenFile(const std::string& path);

  // Throws std::out_of_range, naming the tensor, if it is not there.
  at::Tensor Take(const std::string& name);
  bool Has(const std::string& name) const;
  // Every name, used or not.
  std::vector<std::string> Names() const;
  // Metadata entries; both throw std::out_of_range if there is none.
  const std::string& Text(const std::string& key) const;
  int64_t Number(const std::string& key) const;
  bool HasMetadata(const std::string& key) const;
  const tensor::Safetensors& contents() const { return contents_; }

  // One case, named `name`, that fails if a tensor was never taken.
  void CheckAllRead(const std::string& name, GoldenReport* report) const;

 private:
  tensor::Safetensors contents_;
  std::set<std::string> taken_;
};

// Integers and bools exactly; float32 within 2e-5 + 1e-4 |expected|.
void CompareOutput(GoldenReport::Case& test, const std::string& what,
                   const at::Tensor& actual, const at::Tensor& expected);
// Within 1e-6 + 1e-3 * scale; `scale` < 0: the largest magnitude expected.
void CompareGradient(GoldenReport::Case& test, const std::string& what,
                     const at::Tensor& actual, const at::Tensor& expected,
                     double scale = -1);

// Runs `body` as one case; an exception is a failure.
template <typename Body>
void RunCase(GoldenReport* report, const std::string& name, Body body) {
  GoldenReport::Case test(report, name);
  try {
    body(test);
  } catch (const std::exception& error) {
    test.Fail(error.what());
  }
}

}  // namespace esper::testing
#endif  // ESPER_TESTS_GOLDEN_POLICY_PARITY_GOLDEN_FILE_H_
