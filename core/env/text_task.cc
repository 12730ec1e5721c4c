#include "core/env/text_task.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/env/text_corpus.h"
#include "core/env/text_dataset.h"
#include "core/host/embedding_host.h"
#include "core/host/transformer_host.h"

namespace esper::env {
namespace {

constexpr int64_t kSegments = 3;

// What the tasks on a text differ in.
struct TextTaskOptions {
  std::string name;
  int64_t window = 64;         // Characters.
  int64_t samples = 64;        // Windows of an epoch, and of a validation.
  double learning_rate = 0.1;  // Of the host.
  // The host for a vocabulary.
  std::function<HostFactory(int64_t vocab_size)> host;
};

HostFactory TransformerFactory(const host::TransformerHostOptions& options) {
  HostFactory factory;
  factory.topology = slot::Topology::kTransformer;
  factory.parameter_count = host::TransformerHostParameterCount(options);
  factory.create =
      [options](uint64_t seed) -> absl::StatusOr<std::shared_ptr<host::Host>> {
    return host::TransformerHost::Create(options, seed);
  };
  return factory;
}

HostFactory EmbeddingFactory(const host::EmbeddingHostOptions& options) {
  HostFactory factory;
  factory.topology = slot::Topology::kTransformer;
  factory.parameter_count = (options.vocab_size + 2) * options.width;
  factory.create =
      [options](uint64_t seed) -> absl::StatusOr<std::shared_ptr<host::Host>> {
    return host::EmbeddingHost::Create(options, seed);
  };
  return factory;
}

absl::StatusOr<std::shared_ptr<const Task>> MakeTextTask(
    const TextTaskOptions& options, const std::string& path) {
  absl::StatusOr<TextCorpus> loaded = LoadTextCorpus(path);
  if (!loaded.ok()) return loaded.status();
  const auto corpus = std::make_shared<const TextCorpus>(*std::move(loaded));

  TextSplitOptions split;
  split.block_size = options.window;
  absl::StatusOr<TextSplits> splits = SplitText(corpus->size(), split);
  if (!splits.ok()) {
    return absl::Status(
        splits.status().code(),
        absl::StrCat(path, ": ", std::string(splits.status().message())));
  }

  auto task = std::make_shared<Task>();
  task->name = options.name;
  const auto windows = [&](const std::vector<TokenRange>& ranges) {
    return std::make_shared<TextDataset>(corpus, ranges, options.window);
  };
  task->train = windows(splits->train);
  task->reward = windows(splits->reward);
  task->test = windows(splits->test);
  task->num_classes = static_cast<int64_t>(corpus->vocabulary.size());
  task->host = options.host(task->num_classes);
  for (int64_t i = 0; i < kSegments; ++i) {
    task->slot_ids.push_back(absl::StrCat("r0c", i));
  }
  task->batch_size = std::min<int64_t>(8, task->train->size());
  task->eval_batch_size = 64;
  // Many short steps, so that an epoch takes a fraction of a second.
  task->trainer.host_lr = options.learning_rate;
  task->trainer.seed_lr = 0.1;
  task->trainer.samples_per_epoch =
      std::min<int64_t>(options.samples, task->train->size());
  task->trainer.val_samples =
      std::min<int64_t>(options.samples, task->reward->size());
  task->loss_reward.baseline_loss = std::log(task->num_classes);
  task->loss_reward.target_loss = 1.5;
  return task;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Task>> LoadTextTask(
    const std::string& path) {
  TextTaskOptions options;
  options.name = "text";
  options.host = [window = options.window](int64_t vocab_size) {
    host::TransformerHostOptions host;
    host.vocab_size = vocab_size;
    host.width = 64;
    host.heads = 4;
    host.layers = 3;
    host.segments = kSegments;
    host.block_size = window;
    host.dropout = 0;  // An episode is too short to learn the text by heart.
    return TransformerFactory(host);
  };
  return MakeTextTask(options, path);
}

absl::StatusOr<std::shared_ptr<const Task>> LoadImpairedTextTask(
    const std::string& path) {
  TextTaskOptions options;
  options.name = "text_impaired";
  options.window = 32;
  options.samples = 32;
  options.learning_rate = 0.003;
  options.host = [](int64_t vocab_size) {
    host::EmbeddingHostOptions host;
    host.vocab_size = vocab_size;
    host.segments = kSegments;
    return EmbeddingFactory(host);
  };
  return MakeTextTask(options, path);
}

}  // namespace esper::env
