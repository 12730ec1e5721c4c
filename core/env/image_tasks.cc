#include "core/env/image_tasks.h"

#include <algorithm>
#include <utility>

#include "core/env/cifar10.h"
#include "core/env/digits.h"
#include "core/env/image_dataset.h"
#include "core/env/mnist.h"
#include "core/host/cnn_host.h"

namespace esper::env {
namespace {

constexpr int kClasses = 10;

HostFactory CnnFactory(const host::CnnHostOptions& options) {
  HostFactory factory;
  factory.topology = slot::Topology::kCnn;
  factory.parameter_count = host::CnnHostParameterCount(options);
  factory.create =
      [options](uint64_t seed) -> absl::StatusOr<std::shared_ptr<host::Host>> {
    return host::CnnHost::Create(options, seed);
  };
  return factory;
}

std::shared_ptr<Task> MakeTask(const std::string& name, int channels,
                               bool channels_last) {
  host::CnnHostOptions options;
  options.in_channels = channels;
  options.num_classes = kClasses;
  options.base_channels = 8;
  options.n_blocks = 3;
  options.channels_last = channels_last;
  auto task = std::make_shared<Task>();
  task->name = name;
  task->num_classes = kClasses;
  task->host = CnnFactory(options);
  task->slot_ids = {"r0c0", "r0c1", "r0c2"};
  return task;
}

// A task over training files, a part of them held out, and test files.
absl::StatusOr<std::shared_ptr<const Task>> MakeFileTask(
    const std::string& name, RawImageFiles files,
    const ByteImageDataset::Options& options) {
  SplitOptions split;
  split.test_fraction = 0;
  absl::StatusOr<ImageSplits> splits =
      SplitStratified(ToImageSet(files.train), split);
  if (!splits.ok()) return splits.status();
  std::shared_ptr<Task> task =
      MakeTask(name, static_cast<int>(files.train.channels),
               /*channels_last=*/true);
  task->train = std::make_shared<ByteImageDataset>(splits->train, options);
  task->reward = std::make_shared<ByteImageDataset>(splits->reward, options);
  task->test =
      std::make_shared<ByteImageDataset>(ToImageSet(files.test), options);
  task->batch_size = std::min<int64_t>(64, task->train->size());
  task->eval_batch_size = 256;
  // An epoch is a fraction of a second rather than a pass over all images.
  task->trainer.samples_per_epoch =
      std::min<int64_t>(1024, task->train->size());
  task->trainer.val_samples = std::min<int64_t>(512, task->reward->size());
  return task;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Task>> LoadDigitsTask(
    const std::string& file) {
  absl::StatusOr<ImageSet> images = LoadDigits(file);
  if (!images.ok()) return images.status();
  absl::StatusOr<ImageSplits> splits = SplitStratified(*images, SplitOptions());
  if (!splits.ok()) return splits.status();
  std::shared_ptr<Task> task = MakeTask("digits", /*channels=*/1,
                                        /*channels_last=*/false);
  task->train = std::make_shared<PlainImageDataset>(splits->train);
  task->reward = std::make_shared<PlainImageDataset>(splits->reward);
  task->test = std::make_shared<PlainImageDataset>(splits->test);
  return task;
}

absl::StatusOr<std::shared_ptr<const Task>> LoadCifar10Task(
    const std::string& folder) {
  absl::StatusOr<RawImageFiles> files = LoadCifar10(folder);
  if (!files.ok()) return files.status();
  ByteImageDataset::Options options;
  options.means = {0.4914, 0.4822, 0.4465};
  options.deviations = {0.2470, 0.2435, 0.2616};
  options.padding = 4;
  options.flip = true;
  auto task = MakeFileTask("cifar10", *std::move(files), options);
  return task;
}

absl::StatusOr<std::shared_ptr<const Task>> LoadMnistTask(
    const std::string& folder) {
  absl::StatusOr<RawImageFiles> files = LoadMnist(folder);
  if (!files.ok()) return files.status();
  ByteImageDataset::Options options;
  options.means = {0.1307};
  options.deviations = {0.3081};
  return MakeFileTask("mnist", *std::move(files), options);
}

}  // namespace esper::env
