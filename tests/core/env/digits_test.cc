#include "core/env/digits.h"

#include <ATen/ops/equal.h>
#include <zlib.h>

#include <cstdlib>
#include <fstream>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "core/env/data.h"
#include "core/env/tasks.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace esper::env {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string TempPath(const std::string& name) {
  return std::string(std::getenv("TEST_TMPDIR") != nullptr
                         ? std::getenv("TEST_TMPDIR")
                         : "/tmp") +
         "/" + name;
}

std::string WriteGzip(const std::string& name, const std::string& text) {
  const std::string path = TempPath(name);
  gzFile file = gzopen(path.c_str(), "wb");
  if (!text.empty()) gzwrite(file, text.data(), text.size());
  gzclose(file);
  return path;
}

// A line whose pixels are all `grey`.
std::string Line(int grey, int label) {
  std::string line;
  for (int i = 0; i < 64; ++i) line += std::to_string(grey) + ",";
  return line + std::to_string(label) + "\n";
}

void ExpectRefusal(const std::string& path, absl::StatusCode code,
                   const std::string& words) {
  const auto loaded = LoadDigits(path);
  ASSERT_FALSE(loaded.ok()) << path;
  EXPECT_EQ(loaded.status().code(), code);
  EXPECT_THAT(std::string(loaded.status().message()),
              AllOf(HasSubstr(path), HasSubstr(words)));
}

std::string DigitsPath() {
  const char* path = std::getenv("ESPER_DIGITS");
  return path != nullptr ? path : "external/digits/digits.csv.gz";
}

// An image as text, so that images can be members of a set.
std::string Bytes(const ImageSet& set, int64_t i) {
  const at::Tensor image = set.images[i].contiguous();
  return std::string(static_cast<const char*>(image.data_ptr()),
                     image.nbytes());
}

// Every sample of a split, in order.
ImageSet All(const Dataset& split) {
  std::vector<int64_t> rows(split.size());
  std::iota(rows.begin(), rows.end(), 0);
  const Batch batch = split.Get(rows);
  return {batch.inputs, batch.labels};
}

TEST(LoadDigitsTest, ScalesGreyValuesAndKeepsRowsInOrder) {
  std::string first = "16,8,0";
  for (int i = 3; i < 64; ++i) first += ",4";
  const std::string path =
      WriteGzip("two.csv.gz", first + ",7\n" + Line(16, 0));
  const auto set = LoadDigits(path);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->images.sizes(), (std::vector<int64_t>{2, 1, 8, 8}));
  const float* pixels = set->images.data_ptr<float>();
  EXPECT_EQ(pixels[0], 1.0f);
  EXPECT_EQ(pixels[1], 0.5f);
  EXPECT_EQ(pixels[2], 0.0f);
  EXPECT_EQ(pixels[63], 0.25f);
  EXPECT_EQ(pixels[64], 1.0f);
  EXPECT_EQ(set->labels.data_ptr<int64_t>()[0], 7);
  EXPECT_EQ(set->labels.data_ptr<int64_t>()[1], 0);
}

TEST(LoadDigitsTest, NamesFileAndLineOfWhatIsWrong) {
  ExpectRefusal(WriteGzip("grey.csv.gz", Line(3, 1) + Line(17, 1)),
                absl::StatusCode::kDataLoss, "line 2: value 1");
  ExpectRefusal(WriteGzip("label.csv.gz", Line(3, 10)),
                absl::StatusCode::kDataLoss, "line 1: value 65");
  ExpectRefusal(WriteGzip("text.csv.gz", "a,b\n"), absl::StatusCode::kDataLoss,
                "line 1: value 1");
  ExpectRefusal(WriteGzip("short.csv.gz", "1,2,3\n"),
                absl::StatusCode::kDataLoss, "line 1: expected ','");
  ExpectRefusal(WriteGzip("long.csv.gz", "0," + Line(3, 1)),
                absl::StatusCode::kDataLoss, "line 1");
  ExpectRefusal(WriteGzip("cut.csv.gz", Line(3, 1) + Line(3, 1).substr(0, 20)),
                absl::StatusCode::kDataLoss, "line 2 has no end");
  ExpectRefusal(WriteGzip("empty.csv.gz", ""), absl::StatusCode::kDataLoss,
                "no images");
}

TEST(LoadDigitsTest, RefusesMissingTruncatedCorruptAndPlainFiles) {
  ExpectRefusal(TempPath("nowhere.csv.gz"), absl::StatusCode::kNotFound,
                "cannot be opened");

  std::string text;
  for (int i = 0; i < 500; ++i) text += Line(i % 17, i % 10);
  const std::string whole = WriteGzip("whole.csv.gz", text);
  ASSERT_TRUE(LoadDigits(whole).ok());
  std::ifstream in(whole, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)),
                          std::istreambuf_iterator<char>());
  // Cut at every eighth byte: never read as a shorter, valid file.
  for (size_t cut = 1; cut < bytes.size(); cut += 8) {
    const std::string path = TempPath("truncated.csv.gz");
    std::ofstream(path, std::ios::binary) << bytes.substr(0, cut);
    const auto loaded = LoadDigits(path);
    ASSERT_FALSE(loaded.ok()) << "cut at " << cut;
    EXPECT_EQ(loaded.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(loaded.status().message()),
                AllOf(HasSubstr(path), HasSubstr("byte")));
  }

  std::string flipped = bytes;
  flipped[flipped.size() / 2] ^= 0x55;
  const std::string corrupt = TempPath("corrupt.csv.gz");
  std::ofstream(corrupt, std::ios::binary) << flipped;
  EXPECT_EQ(LoadDigits(corrupt).status().code(), absl::StatusCode::kDataLoss);

  const std::string plain = TempPath("plain.csv");
  std::ofstream(plain) << text;
  ExpectRefusal(plain, absl::StatusCode::kDataLoss, "not a gzip file");
}

TEST(SplitStratifiedTest, RefusesFractionsOutOfRangeAndEmptyParts) {
  const auto set = LoadDigits(WriteGzip("one.csv.gz", Line(3, 1)));
  ASSERT_TRUE(set.ok());
  EXPECT_EQ(SplitStratified(*set, {/*test_fraction=*/1.0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SplitStratified(*set, {0.2, /*reward_fraction=*/0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SplitStratified(*set, SplitOptions()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(DigitsTaskTest, HasTheRealDigitsInDisjointFairSplits) {
  const auto task = LoadTask("digits", DigitsPath());
  ASSERT_TRUE(task.ok()) << task.status();
  const ImageSet train = All(*(*task)->train);
  const ImageSet reward = All(*(*task)->reward);
  const ImageSet test = All(*(*task)->test);
  EXPECT_EQ(train.size() + reward.size() + test.size(), 1797);
  EXPECT_NEAR(test.size(), 0.2 * 1797, 5);
  EXPECT_NEAR(reward.size(), 0.1 * (train.size() + reward.size()), 5);

  // Which image sits in which part. The set holds no image twice.
  std::set<std::string> seen;
  for (const ImageSet* part : {&train, &reward, &test}) {
    std::vector<int> per_class(10, 0);
    for (int64_t i = 0; i < part->size(); ++i) {
      EXPECT_TRUE(seen.insert(Bytes(*part, i)).second) << "image in two parts";
      ++per_class[part->labels.data_ptr<int64_t>()[i]];
    }
    for (int count : per_class) {
      EXPECT_NEAR(count, part->size() / 10.0, 0.06 * part->size() / 2);
    }
  }
  EXPECT_EQ(seen.size(), 1797u);
}

TEST(DigitsTaskTest, TheImpairedHostSeesSinglePixelsOfTheSameData) {
  const auto task = LoadTask("digits_impaired", DigitsPath());
  ASSERT_TRUE(task.ok()) << task.status();
  const auto digits = LoadTask("digits", DigitsPath());
  EXPECT_EQ((*task)->train->size(), (*digits)->train->size());
  // 1x4 + 4x8 + 8x16 weights, 2 (4 + 8 + 16) of norms, 10 x 17.
  EXPECT_EQ((*task)->host.parameter_count, 4 + 32 + 128 + 56 + 170);
  EXPECT_EQ((*task)->slot_ids, (*digits)->slot_ids);
}

TEST(DigitsTaskTest, SplitsTheSameWayEveryTime) {
  const auto a = LoadTask("digits", DigitsPath());
  const auto b = LoadTask("digits", DigitsPath());
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_TRUE(at::equal(All(*(*a)->train).images, All(*(*b)->train).images));
  EXPECT_TRUE(at::equal(All(*(*a)->reward).labels, All(*(*b)->reward).labels));
}

TEST(EpochOrderTest, IsAPermutationThatDependsOnSeedAndEpoch) {
  for (int64_t n : {0, 1, 2, 7, 1293}) {
    const std::vector<int64_t> order = EpochOrder(n, 42, 3);
    EXPECT_EQ(order.size(), n);
    EXPECT_EQ(std::set<int64_t>(order.begin(), order.end()).size(), n);
    EXPECT_EQ(order, EpochOrder(n, 42, 3));
  }
  EXPECT_NE(EpochOrder(100, 42, 3), EpochOrder(100, 42, 4));
  EXPECT_NE(EpochOrder(100, 42, 3), EpochOrder(100, 43, 3));
}

TEST(EpochOrderTest, PutsEveryImageEverywhereEquallyOften) {
  constexpr int kCount = 6;
  constexpr int kEpochs = 6000;
  std::vector<std::vector<int>> hits(kCount, std::vector<int>(kCount, 0));
  for (int epoch = 1; epoch <= kEpochs; ++epoch) {
    const std::vector<int64_t> order = EpochOrder(kCount, 7, epoch);
    for (int i = 0; i < kCount; ++i) ++hits[i][order[i]];
  }
  // 1000 expected, standard deviation 29.
  for (const auto& row : hits) {
    for (int count : row) EXPECT_NEAR(count, kEpochs / kCount, 150);
  }
}

TEST(StreamKeyTest, SeparatesPurposesSeedsAndSteps) {
  std::set<uint64_t> keys;
  for (StreamPurpose purpose :
       {StreamPurpose::kData, StreamPurpose::kInit, StreamPurpose::kDropout}) {
    for (uint64_t seed = 0; seed < 50; ++seed) {
      for (uint64_t step = 0; step < 50; ++step) {
        keys.insert(StreamKey(purpose, seed, step));
      }
    }
  }
  EXPECT_EQ(keys.size(), 3u * 50 * 50);
}

}  // namespace
}  // namespace esper::env
