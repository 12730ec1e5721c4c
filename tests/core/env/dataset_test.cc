// Data sets as hosts take them, and the tasks made of them.

#include "core/env/dataset.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "client/task_names.h"
#include "core/env/data.h"
#include "core/env/image_dataset.h"
#include "core/env/image_tasks.h"
#include "core/env/tasks.h"
#include "core/env/text_dataset.h"
#include "core/host/cnn_host.h"
#include "core/host/host.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/env/temp_files.h"

namespace esper::env {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kSide = 6;
constexpr int kPad = 2;

// `count` images of two channels, no two pixels of an image alike.
ImageSet NumberedImages(int64_t count) {
  ImageSet set;
  set.images = at::empty({count, 2, kSide, kSide}, at::kByte);
  uint8_t* pixels = set.images.data_ptr<uint8_t>();
  for (int64_t i = 0; i < set.images.numel(); ++i) {
    pixels[i] = static_cast<uint8_t>(1 + i % (2 * kSide * kSide) + i / 720);
  }
  std::vector<int64_t> labels(count);
  std::iota(labels.begin(), labels.end(), 0);
  set.labels = at::tensor(labels);
  return set;
}

ByteImageDataset::Options Augmenting() {
  ByteImageDataset::Options options;
  options.means = {0.5, 0.25};
  options.deviations = {0.5, 0.125};
  options.padding = kPad;
  options.flip = true;
  return options;
}

// What training may make of an image, by its definition: pad, cut, mirror,
// normalise.
at::Tensor Expected(const at::Tensor& image, int top, int left, bool flip,
                    const ByteImageDataset::Options& options) {
  at::Tensor padded =
      at::empty({2, kSide + 2 * kPad, kSide + 2 * kPad}).fill_(0);
  padded.narrow(1, kPad, kSide)
      .narrow(2, kPad, kSide)
      .copy_(image.to(at::kFloat).div(255));
  at::Tensor cut = padded.narrow(1, top, kSide).narrow(2, left, kSide);
  if (flip) cut = cut.flip({2});
  at::Tensor out = cut.clone();
  for (int c = 0; c < 2; ++c) {
    out[c] = cut[c].sub(options.means[c]).div(options.deviations[c]);
  }
  return out;
}

bool Near(const at::Tensor& a, const at::Tensor& b) {
  return a.allclose(b, /*rtol=*/0, /*atol=*/1e-6);
}

TEST(ByteImageDatasetTest, NormalisesByChannelAndKeepsTheRows) {
  const ImageSet images = NumberedImages(5);
  const ByteImageDataset data(images, Augmenting());
  EXPECT_EQ(data.size(), 5);
  const Batch batch = data.Get({3, 0, 3});
  EXPECT_EQ(batch.inputs.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(batch.labels, at::tensor({3, 0, 3}, at::kLong)));
  for (int i : {0, 1}) {
    EXPECT_TRUE(Near(batch.inputs[i],
                     Expected(images.images[i == 0 ? 3 : 0], kPad, kPad,
                              /*flip=*/false, Augmenting())));
  }
  EXPECT_THROW(data.Get({5}), c10::Error);
  EXPECT_THROW(data.Get({-1}), c10::Error);
}

TEST(ByteImageDatasetTest, AugmentsByCropAndFlipAllPlacesEquallyOften) {
  constexpr int kImages = 40;
  constexpr int kEpochs = 50;
  const ImageSet images = NumberedImages(kImages);
  const ByteImageDataset data(images, Augmenting());
  std::vector<int64_t> rows(kImages);
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<int> hits(5 * 5 * 2, 0);
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    const Batch batch = data.GetForTraining(
        rows, StreamKey(StreamPurpose::kAugmentation, 7, epoch));
    for (int i = 0; i < kImages; ++i) {
      int found = -1;
      for (int place = 0; place < 50; ++place) {
        const at::Tensor view =
            Expected(images.images[i], place / 2 / 5, place / 2 % 5, place % 2,
                     Augmenting());
        if (Near(batch.inputs[i], view)) found = place;
      }
      ASSERT_NE(found, -1) << "no crop of image " << i;
      ++hits[found];
    }
  }
  // 40 expected at each, standard deviation 6.3.
  for (int count : hits) EXPECT_NEAR(count, 40, 28);
  int flips = 0;
  for (size_t place = 1; place < hits.size(); place += 2) flips += hits[place];
  EXPECT_NEAR(flips, 1000, 100);
}

TEST(ByteImageDatasetTest, AugmentsAsAFunctionOfKeyAndSampleAlone) {
  const ByteImageDataset data(NumberedImages(30), Augmenting());
  const uint64_t key = StreamKey(StreamPurpose::kAugmentation, 3, 1);
  const Batch together = data.GetForTraining({4, 9, 17, 28}, key);
  const Batch alone = data.GetForTraining({17}, key);
  EXPECT_TRUE(at::equal(together.inputs[2], alone.inputs[0]));
  const Batch other = data.GetForTraining(
      {4, 9, 17, 28}, StreamKey(StreamPurpose::kAugmentation, 3, 2));
  EXPECT_FALSE(at::equal(together.inputs, other.inputs));

  ByteImageDataset::Options plain = Augmenting();
  plain.padding = 0;
  plain.flip = false;
  const ByteImageDataset still(NumberedImages(30), plain);
  EXPECT_TRUE(at::equal(still.GetForTraining({4, 9}, key).inputs,
                        still.Get({4, 9}).inputs));
}

std::shared_ptr<const TextCorpus> CountingCorpus(int tokens) {
  auto corpus = std::make_shared<TextCorpus>();
  for (int i = 0; i < tokens; ++i) corpus->tokens.push_back(i);
  return corpus;
}

TEST(TextDatasetTest, PredictsTheNextTokenInWindowsInsideTheRanges) {
  // 4 windows of 4 in the first range (the last label is token 16), 2 in the
  // second, none in the third.
  const TextDataset data(CountingCorpus(60), {{0, 18}, {30, 39}, {50, 54}},
                         /*window=*/4);
  ASSERT_EQ(data.size(), 6);
  std::set<int64_t> starts;
  for (int64_t row = 0; row < data.size(); ++row) {
    const Batch batch = data.Get({row});
    EXPECT_EQ(batch.inputs.sizes(), (std::vector<int64_t>{1, 4}));
    EXPECT_TRUE(at::equal(batch.inputs.add(1), batch.labels));
    EXPECT_EQ(batch.inputs.scalar_type(), at::kLong);
    starts.insert(batch.inputs[0][0].item<int64_t>());
  }
  EXPECT_THAT(starts, ElementsAre(0, 4, 8, 12, 30, 34));
}

TEST(TextDatasetTest, MovesTrainingWindowsInsideTheirRange) {
  const TextDataset data(CountingCorpus(60), {{0, 18}, {30, 39}}, 4);
  std::set<int64_t> starts;
  for (int64_t epoch = 0; epoch < 60; ++epoch) {
    const uint64_t key = StreamKey(StreamPurpose::kAugmentation, 1, epoch);
    const Batch batch = data.GetForTraining({0, 1, 2, 3, 4, 5}, key);
    EXPECT_TRUE(at::equal(batch.inputs.add(1), batch.labels));
    EXPECT_TRUE(
        at::equal(data.GetForTraining({3}, key).inputs[0], batch.inputs[3]));
    for (int64_t i = 0; i < 6; ++i) {
      const int64_t start = batch.inputs[i][0].item<int64_t>();
      const int64_t home = data.Get({i}).inputs[0][0].item<int64_t>();
      EXPECT_GE(start, home);
      EXPECT_LT(start, home + 4);
      starts.insert(start);
    }
  }
  // Every place from which five tokens fit, and no other.
  std::set<int64_t> all;
  for (int64_t i = 0; i <= 13; ++i) all.insert(i);
  for (int64_t i = 30; i <= 34; ++i) all.insert(i);
  EXPECT_EQ(starts, all);
}

std::string CifarRecords(int count, int first_label) {
  std::string bytes;
  for (int i = 0; i < count; ++i) {
    const int label = (first_label + i) % 10;
    bytes += static_cast<char>(label);
    bytes += std::string(3072, static_cast<char>(20 * label + i % 7));
  }
  return bytes;
}

TEST(TasksTest, HoldsOutTrainingImagesOfCifar10AndReportsOnTheTestFile) {
  TempFolder folder;
  folder.Write("data_batch_1.bin", CifarRecords(200, 0));
  folder.Write("data_batch_2.bin", CifarRecords(200, 5));
  folder.Write("test_batch.bin", CifarRecords(30, 2));
  const auto loaded = LoadTask("cifar10", folder.path());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const Task& task = **loaded;
  EXPECT_EQ(task.name, "cifar10");
  EXPECT_EQ(task.train->size(), 360);
  EXPECT_EQ(task.reward->size(), 40);
  EXPECT_EQ(task.test->size(), 30);
  EXPECT_EQ(task.num_classes, 10);
  EXPECT_EQ(task.host.parameter_count, 6418);
  // The whole first image is one grey value: 40 of label 2.
  const Batch batch = task.test->Get({0});
  EXPECT_EQ(batch.labels.item<int64_t>(), 2);
  const double means[] = {0.4914, 0.4822, 0.4465};
  const double deviations[] = {0.2470, 0.2435, 0.2616};
  for (int c = 0; c < 3; ++c) {
    EXPECT_NEAR(batch.inputs[0][c][31][31].item<double>(),
                (40 / 255.0 - means[c]) / deviations[c], 1e-6);
  }
  // Shifted images show the black border.
  std::vector<int64_t> rows(task.train->size());
  std::iota(rows.begin(), rows.end(), 0);
  const at::Tensor seen = task.train->GetForTraining(rows, 1).inputs;
  EXPECT_FALSE(at::equal(seen, task.train->Get(rows).inputs));
  EXPECT_NEAR(seen.select(1, 0).min().item<double>(), -0.4914 / 0.2470, 1e-5);
}

TEST(TasksTest, PublishedTasksHaveTheirHostsAndSlotsOnCifar10) {
  TempFolder folder;
  folder.Write("data_batch_1.bin", CifarRecords(200, 0));
  folder.Write("test_batch.bin", CifarRecords(30, 2));
  for (const std::string& name : PublishedTaskNames()) {
    const auto loaded = LoadTask(name, folder.path());
    ASSERT_TRUE(loaded.ok()) << name << loaded.status();
    const Task& task = **loaded;
    EXPECT_EQ(task.name, name);
    EXPECT_EQ(task.host.parameter_count,
              host::CnnHostParameterCount(host::CnnHostPresets().at(name)));
    EXPECT_EQ(task.batch_size, 180);  // All of them; 512 of the real set.
    EXPECT_EQ(task.trainer.samples_per_epoch, 0);
    EXPECT_EQ(task.loss_reward.typical_loss_delta_std, 0.05);
    // The host offers the slots, in this order.
    const auto host = task.host.create(1);
    ASSERT_TRUE(host.ok()) << host.status();
    size_t found = 0;
    for (const slot::InjectionSpec& spec : (*host)->injection_specs()) {
      if (found < task.slot_ids.size() &&
          spec.slot_id == task.slot_ids[found]) {
        ++found;
      }
    }
    EXPECT_EQ(found, task.slot_ids.size()) << name;
  }
  const auto scale = LoadTask("cifar_scale", folder.path());
  EXPECT_EQ((*scale)->slot_ids.back(), "r0c4");
}

TEST(TasksTest, LoadsMnistFilesOfAnySize) {
  TempFolder folder;
  const auto write = [&](const std::string& part, uint8_t count) {
    const char n = static_cast<char>(count);
    std::string labels;
    for (int i = 0; i < count; ++i) labels += static_cast<char>(i % 10);
    folder.Write(
        part + "-images-idx3-ubyte",
        std::string({0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 12, 0, 0, 0, 8}) +
            std::string(count * 96, '\x33'));
    folder.Write(part + "-labels-idx1-ubyte",
                 std::string({0, 0, 8, 1, 0, 0, 0, n}) + labels);
  };
  write("train", 100);
  write("t10k", 20);
  const auto task = LoadTask("mnist", folder.path());
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_EQ((*task)->train->size(), 90);
  EXPECT_EQ((*task)->reward->size(), 10);
  const Batch batch = (*task)->train->GetForTraining({0, 1}, 5);
  EXPECT_EQ(batch.inputs.sizes(), (std::vector<int64_t>{2, 1, 12, 8}));
  EXPECT_NEAR(batch.inputs.max().item<double>(), (0.2 - 0.1307) / 0.3081, 1e-5);
  EXPECT_TRUE(at::equal(batch.inputs, (*task)->train->Get({0, 1}).inputs));
}

TEST(TasksTest, TextHasTheVocabularyOfTheDataAndDisjointParts) {
  TempFolder folder;
  std::string text;
  for (int i = 0; i < 20000; ++i) {
    text += static_cast<char>('a' + StreamBits(5, i) % 26);
  }
  const auto loaded = LoadTask("text", folder.Write("text", text));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const Task& task = **loaded;
  EXPECT_EQ(task.num_classes, 26);
  EXPECT_EQ(task.host.topology, slot::Topology::kTransformer);
  EXPECT_NEAR(task.loss_reward.baseline_loss, std::log(26), 1e-12);
  // 64 random letters are nowhere twice.
  std::set<std::string> windows;
  int64_t count = 0;
  for (const auto& part : {task.train, task.reward, task.test}) {
    for (int64_t row = 0; row < part->size(); ++row) {
      const Batch batch = part->Get({row});
      const auto* tokens = batch.inputs.data_ptr<int64_t>();
      windows.insert(std::string(tokens, tokens + 64));
      ++count;
    }
  }
  EXPECT_EQ(static_cast<int64_t>(windows.size()), count);
  EXPECT_GT(count, 250);

  const std::string brief = folder.Write("brief", "too short");
  const auto refused = LoadTask("text", brief);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr(brief));
}

TEST(TasksTest, AreThoseThatACoordinatorMayAskFor) {
  EXPECT_EQ(TaskNames(), client::TaskNames());
  EXPECT_TRUE(client::CheckTaskName("text").ok());
  const absl::Status unknown = client::CheckTaskName("letters");
  EXPECT_EQ(unknown.code(), absl::StatusCode::kInvalidArgument);
}

TEST(TasksTest, RefusesUnknownTasksAndMissingDataByName) {
  const auto unknown = LoadTask("letters", "");
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()),
              HasSubstr("known: cifar10, cifar_baseline, "));
  EXPECT_THAT(std::string(LoadTask("digit", "").status().message()),
              HasSubstr("nearest is \"digits\""));
  for (const std::string name : {"cifar10", "cifar_impaired", "mnist"}) {
    const auto task = LoadTask(name, "");
    EXPECT_EQ(task.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(task.status().message()),
                HasSubstr("\"" + name + "\" needs the folder"));
    EXPECT_EQ(LoadTask(name, "/no/such/folder").status().code(),
              absl::StatusCode::kNotFound);
  }
}

}  // namespace
}  // namespace esper::env
