#ifndef ESPER_CORE_ENV_IMAGE_TASKS_H_
#define ESPER_CORE_ENV_IMAGE_TASKS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/env/task.h"

// Tasks that classify images with a convolutional host of 8 base channels in 3
// blocks, a slot behind each. The reward split is a tenth of the training
// images; where a data set has test files, they are the test split.
namespace esper::env {

// Handwritten digits of 8x8 pixels, the file that deploy/fetch_digits.py
// wrote. Errors: those of LoadDigits.
absl::StatusOr<std::shared_ptr<const Task>> LoadDigitsTask(
    const std::string& file);

// The same digits with a host that is too weak for them: 4 base channels and
// kernels of one pixel, so that only seeds see strokes.
absl::StatusOr<std::shared_ptr<const Task>> LoadImpairedDigitsTask(
    const std::string& file);

// CIFAR-10, normalised by channel; training images are shifted by up to four
// pixels and mirrored. Errors: those of LoadCifar10; INVALID_ARGUMENT if there
// are too few images for a reward split.
absl::StatusOr<std::shared_ptr<const Task>> LoadCifar10Task(
    const std::string& folder);

// A published task on CIFAR-10, by name: data and augmentation as above,
// another host and other slots, all images in every epoch, batches of 512. Its
// loss reward is the one for CIFAR-10. Errors: INVALID_ARGUMENT for a name that
// is none of PublishedTaskNames(); those of LoadCifar10Task.
absl::StatusOr<std::shared_ptr<const Task>> LoadPublishedTask(
    const std::string& name, const std::string& folder);
std::vector<std::string> PublishedTaskNames();  // Sorted.

// MNIST, or another data set in its files, normalised. Errors: those of
// LoadMnist; INVALID_ARGUMENT if there are too few images for a reward split.
absl::StatusOr<std::shared_ptr<const Task>> LoadMnistTask(
    const std::string& folder);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_IMAGE_TASKS_H_
