// bazel run //tests/golden:policy_parity -- --golden_dir=DIR
#include "ATen/Parallel.h"
#include "tests/golden/policy_parity/cases.h"
#include "tests/testing/parity_main.h"

int main(int argc, char** argv) {
  at::set_num_threads(1);
  return esper::testing::ParityMain(argc, argv, "tests/golden/policy",
                                    esper::testing::CheckPolicyDirectory);
}
