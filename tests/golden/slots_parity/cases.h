#ifndef ESPER_TESTS_GOLDEN_SLOTS_PARITY_CASES_H_
#define ESPER_TESTS_GOLDEN_SLOTS_PARITY_CASES_H_

#include <string>

#include "nlohmann/json.hpp"
#include "tests/testing/golden_report.h"

// Checks of the slot subsystem's reference vectors. Cases, numbers and options
// come from the files, so any directory of that layout will do. Where a case
// says that the product deviates, the product's own rule is checked instead,
// or the case is a skip.
namespace esper::testing {

// "alpha_controller.json", "gates.json" and "lifecycle.json".
void CheckAlphaController(const nlohmann::json& file, GoldenReport* report);
void CheckGates(const nlohmann::json& file, GoldenReport* report);
void CheckLifecycle(const nlohmann::json& file, GoldenReport* report);

// "blend_ops.json" with the tensors of the safetensors file at `tensor_path`.
void CheckBlends(const nlohmann::json& file, const std::string& tensor_path,
                 GoldenReport* report);

// Checks every file of `directory`, in order of name. An unknown file is a
// skip; a directory without a known file, or a file that cannot be read, is a
// failure.
void CheckDirectory(const std::string& directory, GoldenReport* report);

// A number, or one of the strings "nan", "inf", "-inf".
double GoldenNumber(const nlohmann::json& value);

}  // namespace esper::testing
#endif  // ESPER_TESTS_GOLDEN_SLOTS_PARITY_CASES_H_
