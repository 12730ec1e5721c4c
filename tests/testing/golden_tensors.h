#ifndef ESPER_TESTS_TESTING_GOLDEN_TENSORS_H_
#define ESPER_TESTS_TESTING_GOLDEN_TENSORS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace esper::testing {

// A tensor of a reference file, as doubles: exact for every dtype that those
// files hold (F32, F64, I64 below 2^53, U8, BOOL).
struct GoldenTensor {
  std::vector<int64_t> shape;
  std::vector<double> values;  // Row-major.

  double at(int64_t i) const { return values.at(static_cast<size_t>(i)); }
  double at(int64_t i, int64_t j) const { return at(i * shape.at(1) + j); }
  double at(int64_t i, int64_t j, int64_t k) const {
    return at((i * shape.at(1) + j) * shape.at(2) + k);
  }
};

// Reads a safetensors file without LibTorch, so that tests of plain C++ units
// stay quick to build. Throws std::runtime_error if the file is not well
// formed; for trusted test data only.
class GoldenTensors {
 public:
  explicit GoldenTensors(const std::string& path);

  // Throws std::out_of_range, naming the tensor, if it is not there.
  const GoldenTensor& operator[](const std::string& name) const;
  bool has(const std::string& name) const { return tensors_.count(name) > 0; }
  const std::map<std::string, GoldenTensor>& all() const { return tensors_; }

 private:
  std::map<std::string, GoldenTensor> tensors_;
};

}  // namespace esper::testing
#endif  // ESPER_TESTS_TESTING_GOLDEN_TENSORS_H_
