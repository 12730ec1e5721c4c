// bazel run //tests/golden:training_parity -- --golden_dir=DIR
#include "tests/golden/training_parity/cases.h"
#include "tests/testing/parity_main.h"

int main(int argc, char** argv) {
  return esper::testing::ParityMain(argc, argv, "tests/golden/training",
                                    esper::testing::CheckDirectory);
}
