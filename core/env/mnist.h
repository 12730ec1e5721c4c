#ifndef ESPER_CORE_ENV_MNIST_H_
#define ESPER_CORE_ENV_MNIST_H_

#include <string>

#include "absl/status/statusor.h"
#include "core/env/raw_images.h"

namespace esper::env {

// Reads MNIST, or another data set of grey images in its format (IDX), from a
// folder: train-images-idx3-ubyte, train-labels-idx1-ubyte,
// t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each plain or with .gz
// behind it. The header of an IDX file is big-endian: a magic number (2051
// images, 2049 labels) and the extent of every axis.
//
// Images may have any size from 8x8 to 512x512, the same in both parts.
//
// Errors: NOT_FOUND naming the file; DATA_LOSS naming file and byte for another
// magic number, an extent out of range, a file that is shorter or longer than
// its header says, labels that are not as many as the images, or a label
// above 9.
absl::StatusOr<RawImageFiles> LoadMnist(const std::string& folder);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_MNIST_H_
