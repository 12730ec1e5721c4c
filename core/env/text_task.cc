#include "core/env/text_task.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/env/text_corpus.h"
#include "core/env/text_dataset.h"
#include "core/host/transformer_host.h"

namespace esper::env {
namespace {

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

}  // namespace

absl::StatusOr<std::shared_ptr<const Task>> LoadTextTask(
    const std::string& path) {
  absl::StatusOr<TextCorpus> loaded = LoadTextCorpus(path);
  if (!loaded.ok()) return loaded.status();
  const auto corpus = std::make_shared<const TextCorpus>(*std::move(loaded));

  host::TransformerHostOptions host;
  host.vocab_size = static_cast<int64_t>(corpus->vocabulary.size());
  host.width = 64;
  host.heads = 4;
  host.layers = 3;
  host.segments = 3;
  host.block_size = 64;
  host.dropout = 0;  // An episode is too short to learn the text by heart.

  TextSplitOptions split;
  split.block_size = host.block_size;
  absl::StatusOr<TextSplits> splits = SplitText(corpus->size(), split);
  if (!splits.ok()) {
    return absl::Status(
        splits.status().code(),
        absl::StrCat(path, ": ", std::string(splits.status().message())));
  }

  auto task = std::make_shared<Task>();
  task->name = "text";
  const auto windows = [&](const std::vector<TokenRange>& ranges) {
    return std::make_shared<TextDataset>(corpus, ranges, host.block_size);
  };
  task->train = windows(splits->train);
  task->reward = windows(splits->reward);
  task->test = windows(splits->test);
  task->num_classes = host.vocab_size;
  task->host = TransformerFactory(host);
  for (int64_t i = 0; i < host.segments; ++i) {
    task->slot_ids.push_back(absl::StrCat("r0c", i));
  }
  task->batch_size = std::min<int64_t>(8, task->train->size());
  task->eval_batch_size = 64;
  // Many short steps: an epoch takes about a tenth of a second on one core.
  task->trainer.host_lr = 0.1;
  task->trainer.seed_lr = 0.1;
  task->trainer.samples_per_epoch = std::min<int64_t>(64, task->train->size());
  task->trainer.val_samples = std::min<int64_t>(64, task->reward->size());
  task->loss_reward.baseline_loss = std::log(host.vocab_size);
  task->loss_reward.target_loss = 1.5;
  return task;
}

}  // namespace esper::env
