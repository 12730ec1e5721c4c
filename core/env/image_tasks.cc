#include "core/env/image_tasks.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/env/cifar10.h"
#include "core/env/digits.h"
#include "core/env/image_dataset.h"
#include "core/env/loss_reward.h"
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

// The host of tasks that are not published ones.
host::CnnHostOptions SmallHost(int64_t channels, bool channels_last) {
  host::CnnHostOptions options;
  options.in_channels = channels;
  options.num_classes = kClasses;
  options.base_channels = 8;
  options.n_blocks = 3;
  options.channels_last = channels_last;
  return options;
}

std::shared_ptr<Task> MakeTask(const std::string& name,
                               const host::CnnHostOptions& options,
                               std::vector<std::string> slot_ids = {
                                   "r0c0", "r0c1", "r0c2"}) {
  auto task = std::make_shared<Task>();
  task->name = name;
  task->num_classes = kClasses;
  task->host = CnnFactory(options);
  task->slot_ids = std::move(slot_ids);
  return task;
}

// The data of a task: training files, a part of them held out, and test files.
absl::Status AddFiles(RawImageFiles files,
                      const ByteImageDataset::Options& options, Task* task) {
  SplitOptions split;
  split.test_fraction = 0;
  absl::StatusOr<ImageSplits> splits =
      SplitStratified(ToImageSet(files.train), split);
  if (!splits.ok()) return splits.status();
  task->train = std::make_shared<ByteImageDataset>(splits->train, options);
  task->reward = std::make_shared<ByteImageDataset>(splits->reward, options);
  task->test =
      std::make_shared<ByteImageDataset>(ToImageSet(files.test), options);
  task->eval_batch_size = 256;
  return absl::OkStatus();
}

// An epoch that is a fraction of a second rather than a pass over all images.
void ShortenEpochs(Task* task) {
  task->batch_size = std::min<int64_t>(64, task->train->size());
  task->trainer.samples_per_epoch =
      std::min<int64_t>(1024, task->train->size());
  task->trainer.val_samples = std::min<int64_t>(512, task->reward->size());
}

ByteImageDataset::Options Cifar10Options() {
  ByteImageDataset::Options options;
  options.means = {0.4914, 0.4822, 0.4465};
  options.deviations = {0.2470, 0.2435, 0.2616};
  options.padding = 4;
  options.flip = true;
  return options;
}

// Slots of a published task, in action order: those of its largest shipped
// configuration.
struct PublishedTask {
  const char* name;  // And of its host preset.
  std::vector<std::string> slot_ids;
};

const std::vector<PublishedTask>& PublishedTasks() {
  const std::vector<std::string> three = {"r0c0", "r0c1", "r0c2"};
  const std::vector<std::string> ten = {"r0c0", "r0c1", "r0c2", "r0c3", "r0c4",
                                        "r1c0", "r1c1", "r1c2", "r1c3", "r1c4"};
  static const auto& tasks = *new std::vector<PublishedTask>{
      {"cifar_baseline", three},
      {"cifar_deep_impaired", ten},
      {"cifar_deep_multichannel", ten},
      {"cifar_highres", three},
      {"cifar_impaired", three},
      {"cifar_minimal", three},
      {"cifar_multichannel", three},
      {"cifar_postpool", {"r1c0", "r1c1", "r1c2"}},
      {"cifar_scale", {"r0c0", "r0c1", "r0c2", "r0c3", "r0c4"}}};
  return tasks;
}

// A task over the digits file with the given host.
absl::StatusOr<std::shared_ptr<const Task>> MakeDigitsTask(
    const std::string& name, const std::string& file,
    const host::CnnHostOptions& host) {
  absl::StatusOr<ImageSet> images = LoadDigits(file);
  if (!images.ok()) return images.status();
  absl::StatusOr<ImageSplits> splits = SplitStratified(*images, SplitOptions());
  if (!splits.ok()) return splits.status();
  std::shared_ptr<Task> task = MakeTask(name, host);
  task->train = std::make_shared<PlainImageDataset>(splits->train);
  task->reward = std::make_shared<PlainImageDataset>(splits->reward);
  task->test = std::make_shared<PlainImageDataset>(splits->test);
  return task;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Task>> LoadDigitsTask(
    const std::string& file) {
  return MakeDigitsTask("digits", file,
                        SmallHost(/*channels=*/1, /*channels_last=*/false));
}

absl::StatusOr<std::shared_ptr<const Task>> LoadImpairedDigitsTask(
    const std::string& file) {
  host::CnnHostOptions host =
      SmallHost(/*channels=*/1, /*channels_last=*/false);
  host.base_channels = 4;
  host.kernel = 1;
  return MakeDigitsTask("digits_impaired", file, host);
}

absl::StatusOr<std::shared_ptr<const Task>> LoadCifar10Task(
    const std::string& folder) {
  absl::StatusOr<RawImageFiles> files = LoadCifar10(folder);
  if (!files.ok()) return files.status();
  std::shared_ptr<Task> task =
      MakeTask("cifar10", SmallHost(/*channels=*/3, /*channels_last=*/true));
  absl::Status status =
      AddFiles(*std::move(files), Cifar10Options(), task.get());
  if (!status.ok()) return status;
  ShortenEpochs(task.get());
  return task;
}

std::vector<std::string> PublishedTaskNames() {
  std::vector<std::string> names;
  for (const PublishedTask& task : PublishedTasks()) names.push_back(task.name);
  return names;
}

absl::StatusOr<std::shared_ptr<const Task>> LoadPublishedTask(
    const std::string& name, const std::string& folder) {
  const auto preset = host::CnnHostPresets().find(name);
  const auto published = std::find_if(
      PublishedTasks().begin(), PublishedTasks().end(),
      [&name](const PublishedTask& task) { return task.name == name; });
  if (published == PublishedTasks().end() ||
      preset == host::CnnHostPresets().end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no published task \"", name, "\""));
  }
  absl::StatusOr<RawImageFiles> files = LoadCifar10(folder);
  if (!files.ok()) return files.status();
  std::shared_ptr<Task> task =
      MakeTask(name, preset->second, published->slot_ids);
  absl::Status status =
      AddFiles(*std::move(files), Cifar10Options(), task.get());
  if (!status.ok()) return status;
  task->batch_size = std::min<int64_t>(512, task->train->size());
  auto loss_reward = LossRewardConfig::Preset("cifar10");
  if (!loss_reward.ok()) return loss_reward.status();
  task->loss_reward = *loss_reward;
  return task;
}

absl::StatusOr<std::shared_ptr<const Task>> LoadMnistTask(
    const std::string& folder) {
  absl::StatusOr<RawImageFiles> files = LoadMnist(folder);
  if (!files.ok()) return files.status();
  ByteImageDataset::Options options;
  options.means = {0.1307};
  options.deviations = {0.3081};
  std::shared_ptr<Task> task = MakeTask(
      "mnist", SmallHost(files->train.channels, /*channels_last=*/true));
  absl::Status status = AddFiles(*std::move(files), options, task.get());
  if (!status.ok()) return status;
  ShortenEpochs(task.get());
  return task;
}

}  // namespace esper::env
