// Loaders of CIFAR-10 and MNIST files, on tiny files made here.

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/env/cifar10.h"
#include "core/env/mnist.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/env/temp_files.h"

namespace esper::env {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename T>
void ExpectRefusal(const absl::StatusOr<T>& loaded, absl::StatusCode code,
                   const std::string& path, const std::string& words) {
  ASSERT_FALSE(loaded.ok()) << path << " was read";
  EXPECT_EQ(loaded.status().code(), code) << loaded.status();
  EXPECT_THAT(std::string(loaded.status().message()),
              AllOf(HasSubstr(path), HasSubstr(words)));
}

constexpr size_t kRecord = 3073;

// A record whose first pixel of each plane is `mark`, + 1, + 2.
std::string Record(int label, int mark) {
  std::string record(kRecord, '\0');
  record[0] = static_cast<char>(label);
  for (int plane = 0; plane < 3; ++plane) {
    record[1 + plane * 1024] = static_cast<char>(mark + plane);
  }
  return record;
}

// Two training files of two records each and a test file of one.
void WriteCifar(const TempFolder& folder) {
  folder.Write("data_batch_1.bin", Record(1, 10) + Record(2, 20));
  folder.Write("data_batch_2.bin", Record(3, 30) + Record(9, 250));
  folder.Write("test_batch.bin", Record(0, 50));
}

TEST(Cifar10Test, ReadsLabelsAndPlanesInTheOrderOfTheFiles) {
  TempFolder folder;
  WriteCifar(folder);
  const auto files = LoadCifar10(folder.path());
  ASSERT_TRUE(files.ok()) << files.status();
  const RawImages& train = files->train;
  EXPECT_THAT(train.labels, ElementsAre(1, 2, 3, 9));
  EXPECT_EQ(train.channels, 3);
  EXPECT_EQ(train.height, 32);
  EXPECT_EQ(train.width, 32);
  ASSERT_EQ(train.pixels.size(), 4u * 3072);
  EXPECT_EQ(train.pixels[0], 10);
  EXPECT_EQ(train.pixels[1024], 11);
  EXPECT_EQ(train.pixels[3 * 3072 + 2048], 252);
  EXPECT_EQ(train.pixels[1], 0);
  EXPECT_THAT(files->test.labels, ElementsAre(0));
}

TEST(Cifar10Test, ReadsGzipFilesAndThePublishedSubfolderTheSame) {
  TempFolder folder;
  std::filesystem::create_directories(folder / "cifar-10-batches-bin");
  folder.WriteGzip("cifar-10-batches-bin/data_batch_1.bin.gz",
                   Record(1, 10) + Record(2, 20));
  folder.Write("cifar-10-batches-bin/data_batch_2.bin",
               Record(3, 30) + Record(9, 250));
  folder.WriteGzip("cifar-10-batches-bin/test_batch.bin.gz", Record(0, 50));
  const auto files = LoadCifar10(folder.path());
  ASSERT_TRUE(files.ok()) << files.status();
  TempFolder plain;
  WriteCifar(plain);
  const auto same = LoadCifar10(plain.path());
  ASSERT_TRUE(same.ok());
  EXPECT_EQ(files->train.pixels, same->train.pixels);
  EXPECT_EQ(files->train.labels, same->train.labels);
  EXPECT_EQ(files->test.pixels, same->test.pixels);
}

TEST(Cifar10Test, NamesTheFileThatIsMissing) {
  const auto missing = absl::StatusCode::kNotFound;
  ExpectRefusal(LoadCifar10("/no/such/folder"), missing, "/no/such/folder",
                "data_batch_1.bin");
  TempFolder folder;
  WriteCifar(folder);
  std::filesystem::remove(folder / "test_batch.bin");
  ExpectRefusal(LoadCifar10(folder.path()), missing, folder / "test_batch.bin",
                "test_batch.bin.gz");
  WriteCifar(folder);
  std::filesystem::rename(folder / "data_batch_2.bin",
                          folder / "data_batch_3.bin");
  ExpectRefusal(LoadCifar10(folder.path()), missing,
                folder / "data_batch_2.bin", "there is data_batch_3.bin");
}

TEST(Cifar10Test, NamesFileAndByteWhereverAFileBreaksOff) {
  const auto corrupt = absl::StatusCode::kDataLoss;
  const std::string whole = Record(3, 30) + Record(9, 250);
  // In the first label's record, inside pixels, at and around the seam.
  for (size_t cut : {size_t{1}, size_t{2}, kRecord - 1, kRecord + 1,
                     2 * kRecord - 1, 2 * kRecord + 1}) {
    TempFolder folder;
    WriteCifar(folder);
    folder.Write("data_batch_2.bin", (whole + "x").substr(0, cut));
    ExpectRefusal(LoadCifar10(folder.path()), corrupt,
                  folder / "data_batch_2.bin",
                  "at byte " + std::to_string(cut) + ": record");
  }
  TempFolder folder;
  WriteCifar(folder);
  // Between two records only the other files tell.
  folder.Write("data_batch_2.bin", whole.substr(0, kRecord));
  ExpectRefusal(LoadCifar10(folder.path()), corrupt,
                folder / "data_batch_2.bin", "at byte 3073: it has 1 records");
  folder.Write("data_batch_2.bin", "");
  ExpectRefusal(LoadCifar10(folder.path()), corrupt,
                folder / "data_batch_2.bin", "at byte 0");
}

TEST(Cifar10Test, NamesTheByteOfALabelOutOfRange) {
  TempFolder folder;
  WriteCifar(folder);
  folder.Write("data_batch_2.bin", Record(3, 30) + Record(10, 0));
  ExpectRefusal(LoadCifar10(folder.path()), absl::StatusCode::kDataLoss,
                folder / "data_batch_2.bin", "at byte 3073: label 10");
  folder.Write("data_batch_2.bin", Record(255, 30) + Record(1, 0));
  ExpectRefusal(LoadCifar10(folder.path()), absl::StatusCode::kDataLoss,
                folder / "data_batch_2.bin", "at byte 0: label 255");
}

// Every third byte: never read as a shorter, valid file.
void CutEverywhere(const TempFolder& folder, const std::string& name,
                   const std::function<absl::Status()>& load) {
  const std::string bytes = ReadBytes(folder / name);
  for (size_t cut = 0; cut < bytes.size(); cut += 3) {
    folder.Write(name, bytes.substr(0, cut));
    const absl::Status status = load();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << "cut at " << cut;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(folder / name), HasSubstr("at byte")));
  }
  std::string flipped = bytes;
  flipped[flipped.size() / 2] ^= 0x55;
  folder.Write(name, flipped);
  EXPECT_EQ(load().code(), absl::StatusCode::kDataLoss) << "corrupt";
}

TEST(Cifar10Test, RefusesGzipFilesThatBreakOffOrAreCorrupt) {
  TempFolder folder;
  WriteCifar(folder);
  std::filesystem::remove(folder / "test_batch.bin");
  folder.WriteGzip("test_batch.bin.gz", Record(0, 50));
  CutEverywhere(folder, "test_batch.bin.gz",
                [&] { return LoadCifar10(folder.path()).status(); });
}

std::string BigEndian(const std::vector<uint32_t>& values) {
  std::string bytes;
  for (uint32_t value : values) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      bytes += static_cast<char>(value >> shift & 0xff);
    }
  }
  return bytes;
}

// `count` images of 8x9 whose bytes count up.
std::string IdxImages(uint32_t count) {
  std::string bytes = BigEndian({2051, count, 8, 9});
  for (uint32_t i = 0; i < count * 72; ++i) bytes += static_cast<char>(i % 251);
  return bytes;
}

std::string IdxLabels(const std::string& labels) {
  return BigEndian({2049, static_cast<uint32_t>(labels.size())}) + labels;
}

constexpr char kTrainImages[] = "train-images-idx3-ubyte";
constexpr char kTrainLabels[] = "train-labels-idx1-ubyte";

void WriteMnist(const TempFolder& folder) {
  folder.Write(kTrainImages, IdxImages(3));
  folder.Write(kTrainLabels, IdxLabels({4, 0, 9}));
  folder.Write("t10k-images-idx3-ubyte", IdxImages(2));
  folder.Write("t10k-labels-idx1-ubyte", IdxLabels({1, 2}));
}

TEST(MnistTest, ReadsPlainAndGzipFilesTheSame) {
  TempFolder folder;
  WriteMnist(folder);
  const auto files = LoadMnist(folder.path());
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(files->train.labels, ElementsAre(4, 0, 9));
  EXPECT_THAT(files->test.labels, ElementsAre(1, 2));
  EXPECT_EQ(files->train.channels, 1);
  EXPECT_EQ(files->train.height, 8);
  EXPECT_EQ(files->train.width, 9);
  ASSERT_EQ(files->train.pixels.size(), 3u * 72);
  EXPECT_EQ(files->train.pixels[0], 0);
  EXPECT_EQ(files->train.pixels[215], 215);

  for (const std::string name : {kTrainImages, kTrainLabels}) {
    folder.WriteGzip(name + ".gz", ReadBytes(folder / name));
    std::filesystem::remove(folder / name);
  }
  const auto zipped = LoadMnist(folder.path());
  ASSERT_TRUE(zipped.ok()) << zipped.status();
  EXPECT_EQ(zipped->train.pixels, files->train.pixels);
  EXPECT_EQ(zipped->train.labels, files->train.labels);
}

TEST(MnistTest, NamesFileAndByteOfAWrongHeader) {
  TempFolder folder;
  const auto refused = [&](const std::string& name, const std::string& bytes,
                           const std::string& words) {
    WriteMnist(folder);
    folder.Write(name, bytes);
    ExpectRefusal(LoadMnist(folder.path()), absl::StatusCode::kDataLoss,
                  folder / name, words);
  };
  const std::string pixels(3 * 72, 'x');
  refused(kTrainImages, IdxLabels({4, 0, 9}),
          "at byte 0: magic number 2049, expected 2051");
  refused(kTrainLabels, IdxImages(3), "at byte 0: magic number 2051");
  refused(kTrainImages, BigEndian({2051, 0, 8, 9}), "at byte 4: extent 0");
  refused(kTrainImages, BigEndian({2051, 3, 7, 9}) + pixels,
          "at byte 8: extent 7");
  refused(kTrainImages, BigEndian({2051, 3, 8, 513}) + pixels,
          "at byte 12: extent 513");
  refused(kTrainImages, BigEndian({2051, 0xffffffff, 512, 512}) + pixels,
          "at byte 4: extent 4294967295");
  refused(kTrainLabels, IdxLabels({4, 0}), "at byte 4: 2 labels");
  refused(kTrainLabels, IdxLabels({4, 10, 1}), "at byte 9: label 10");
  refused(kTrainImages, IdxImages(3) + "xy", "at byte 232: 2 bytes too many");
}

TEST(MnistTest, NamesFileAndByteWhereverAFileBreaksOff) {
  TempFolder folder;
  WriteMnist(folder);
  for (const std::string name : {kTrainImages, kTrainLabels}) {
    const std::string bytes = ReadBytes(folder / name);
    for (size_t cut = 0; cut < bytes.size(); ++cut) {
      folder.Write(name, bytes.substr(0, cut));
      ExpectRefusal(LoadMnist(folder.path()), absl::StatusCode::kDataLoss,
                    folder / name, "at byte " + std::to_string(cut) + ": ");
    }
    folder.Write(name, bytes);
  }
  ASSERT_TRUE(LoadMnist(folder.path()).ok());

  folder.WriteGzip("t10k-images-idx3-ubyte.gz", IdxImages(2));
  std::filesystem::remove(folder / "t10k-images-idx3-ubyte");
  CutEverywhere(folder, "t10k-images-idx3-ubyte.gz",
                [&] { return LoadMnist(folder.path()).status(); });
}

TEST(MnistTest, NamesTheFileThatIsMissingAndPartsThatDoNotFit) {
  TempFolder folder;
  WriteMnist(folder);
  folder.Write("t10k-images-idx3-ubyte",
               BigEndian({2051, 2, 9, 8}) + std::string(144, 'x'));
  ExpectRefusal(LoadMnist(folder.path()), absl::StatusCode::kDataLoss,
                folder.path(), "test images of 9x8");
  std::filesystem::remove(folder / "t10k-images-idx3-ubyte");
  ExpectRefusal(LoadMnist(folder.path()), absl::StatusCode::kNotFound,
                folder / "t10k-images-idx3-ubyte", "not found");
  // A folder of that name is no file.
  std::filesystem::create_directories(folder / "t10k-images-idx3-ubyte");
  ExpectRefusal(LoadMnist(folder.path()), absl::StatusCode::kNotFound,
                folder / "t10k-images-idx3-ubyte", "not found");
}

}  // namespace
}  // namespace esper::env
