#ifndef ESPER_CORE_ENV_CIFAR10_H_
#define ESPER_CORE_ENV_CIFAR10_H_

#include <string>

#include "absl/status/statusor.h"
#include "core/env/raw_images.h"

namespace esper::env {

// Reads the binary version of CIFAR-10 from a folder, or from its subfolder
// cifar-10-batches-bin: data_batch_1.bin and those that follow it without a
// gap, and test_batch.bin, each plain or with .gz behind it. A record is one
// byte of label and 3072 of image: red, green and blue planes of 32x32.
//
// The format has no count, so a file that breaks off between two records looks
// whole. Therefore the training files must be equally long; and a warning is
// logged if there are not the published 50000 and 10000 images.
//
// Errors: NOT_FOUND naming the file; DATA_LOSS naming file and byte for a file
// that is empty, breaks off, is shorter or longer than data_batch_1, or has a
// label above 9.
absl::StatusOr<RawImageFiles> LoadCifar10(const std::string& folder);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_CIFAR10_H_
