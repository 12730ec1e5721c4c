#ifndef ESPER_TESTS_GOLDEN_BLUEPRINTS_PARITY_CASES_H_
#define ESPER_TESTS_GOLDEN_BLUEPRINTS_PARITY_CASES_H_

#include <string>

#include "tests/golden/blueprints_parity/vectors.h"
#include "tests/testing/golden_report.h"

// Checks of the reference vectors of hosts, seeds and slots. Which cases there
// are, and their options, comes from the files.
namespace esper::testing {

// "cnn_slots" and "transformer_slots": one seed in one slot. One case for each
// case and stage of the file.
void CheckSlots(Vectors& vectors, GoldenReport* report);

// "cnn_hosts" and "transformer_hosts": whole networks, with seeds in some of
// their slots. One case for each network.
void CheckHosts(Vectors& vectors, GoldenReport* report);

// Checks every file of `directory`, in order of name. An unknown file is a
// skip; a directory without a known file, a file that cannot be read, or a
// tensor that no case reads, is a failure.
void CheckBlueprintDirectory(const std::string& directory,
                             GoldenReport* report);

// Checks one file by its kind, "slots" or "hosts", including that every tensor
// was read.
void CheckVectors(const std::string& name, Vectors& vectors,
                  GoldenReport* report);

}  // namespace esper::testing
#endif  // ESPER_TESTS_GOLDEN_BLUEPRINTS_PARITY_CASES_H_
