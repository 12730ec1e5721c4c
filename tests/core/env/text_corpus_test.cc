#include "core/env/text_corpus.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/env/temp_files.h"

namespace esper::env {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// The text that the tokens stand for.
std::u32string Decode(const TextCorpus& corpus) {
  std::u32string text;
  for (const uint8_t token : corpus.tokens) text += corpus.vocabulary[token];
  return text;
}

void ExpectRefusal(const std::string& path, absl::StatusCode code,
                   const std::string& named, const std::string& words,
                   const TextCorpusOptions& options = {}) {
  const auto corpus = LoadTextCorpus(path, options);
  ASSERT_FALSE(corpus.ok()) << path << " was read";
  EXPECT_EQ(corpus.status().code(), code) << corpus.status();
  EXPECT_THAT(std::string(corpus.status().message()),
              AllOf(HasSubstr(named), HasSubstr(words)));
}

TEST(TextCorpusTest, MakesTokensOfCharactersNotOfBytes) {
  TempFolder folder;
  const auto corpus =
      LoadTextCorpus(folder.Write("text", "b\u00e4b\u20ac\U0001f331a\n"));
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(corpus->vocabulary, U"\nab\u00e4\u20ac\U0001f331");
  EXPECT_EQ(corpus->tokens, (std::vector<uint8_t>{2, 3, 2, 4, 5, 1, 0}));
}

TEST(TextCorpusTest, ReadsAFolderInTheOrderOfPathsWithoutLinksAndHiddenFiles) {
  TempFolder folder;
  folder.Write("b", "second");
  folder.Write("a/z", "first\n");
  folder.WriteGzip("c.gz", "third");
  folder.Write(".hidden", "no");
  folder.Write(".git/config", "no");
  std::filesystem::create_symlink("b", folder / "link");
  const auto corpus = LoadTextCorpus(folder.path());
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(Decode(*corpus), U"first\nsecond\nthird");
}

TEST(TextCorpusTest, GivesTheRarestCharactersOneTokenIfThereAreTooMany) {
  TempFolder folder;
  const std::string path = folder.Write("text", "aaaabbbccdxaaabbcy");
  TextCorpusOptions options;
  options.max_vocabulary = 4;
  const auto corpus = LoadTextCorpus(path, options);
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(corpus->vocabulary, U"abc\ufffd");
  EXPECT_EQ(Decode(*corpus), U"aaaabbbcc\ufffd\ufffdaaabbc\ufffd");
  options.max_vocabulary = 6;
  const auto whole = LoadTextCorpus(path, options);
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ(whole->vocabulary, U"abcdxy");
}

TEST(TextCorpusTest, NamesFileAndByteOfWhatIsNotText) {
  TempFolder folder;
  const std::vector<std::string> bad = {
      std::string("\0", 1),  // Binary.
      "\x80",                // A continuation without a beginning.
      "\xc3",                // Breaks off at the end of the file.
      "\xe2\x82",
      "\xf0\x9f\x8c",
      "\xc3(",
      "\xc0\xaf",          // Overlong.
      "\xe0\x80\xaf",      // Overlong.
      "\xed\xa0\x80",      // A surrogate.
      "\xf4\x90\x80\x80",  // Above U+10FFFF.
      "\xff",
  };
  for (const std::string& bytes : bad) {
    const std::string path = folder.Write("bad", "good" + bytes);
    ExpectRefusal(path, absl::StatusCode::kDataLoss, path, "at byte 4");
  }
  folder.Write("also", "fine");
  folder.Write("bad", "good\xff");
  ExpectRefusal(folder.path(), absl::StatusCode::kDataLoss, folder / "bad",
                "at byte 4");
}

TEST(TextCorpusTest, RefusesMissingEmptyMonotonousLongAndBrokenTexts) {
  TempFolder folder;
  ExpectRefusal(folder / "nowhere", absl::StatusCode::kNotFound,
                folder / "nowhere", "cannot be opened");
  ExpectRefusal(folder.path(), absl::StatusCode::kNotFound, folder.path(),
                "no file");
  const std::string text = folder.Write("text", "");
  ExpectRefusal(text, absl::StatusCode::kInvalidArgument, text, "nothing");
  folder.Write("text", "aaaa");
  ExpectRefusal(text, absl::StatusCode::kInvalidArgument, text, "nothing");
  TextCorpusOptions options;
  options.max_bytes = 3;
  ExpectRefusal(text, absl::StatusCode::kResourceExhausted, text, "4 bytes",
                options);
  options = TextCorpusOptions();
  options.max_vocabulary = 257;
  ExpectRefusal(text, absl::StatusCode::kInvalidArgument, "257", "2..256",
                options);

  const std::string zipped =
      folder.WriteGzip("text.gz", "the quick brown fox jumps");
  const std::string bytes = ReadBytes(zipped);
  // From the third byte on it is known to be a gzip file.
  for (size_t cut = 3; cut < bytes.size(); ++cut) {
    folder.Write("text.gz", bytes.substr(0, cut));
    ExpectRefusal(zipped, absl::StatusCode::kDataLoss, zipped, "at byte");
  }
}

TEST(SplitTextTest, DealsOutEveryCharacterOnceInContiguousBlocks) {
  for (const int64_t tokens : {650, 1000, 3250, 303088}) {
    const auto splits = SplitText(tokens);
    ASSERT_TRUE(splits.ok()) << splits.status();
    std::vector<TokenRange> all;
    int64_t sizes[3] = {0, 0, 0};
    int part = 0;
    for (const auto* ranges :
         {&splits->train, &splits->reward, &splits->test}) {
      for (const TokenRange& range : *ranges) {
        EXPECT_GE(range.second - range.first, 65);
        sizes[part] += range.second - range.first;
        all.push_back(range);
      }
      ++part;
    }
    std::sort(all.begin(), all.end());
    int64_t end = 0;
    for (const TokenRange& range : all) {
      EXPECT_EQ(range.first, end);
      end = range.second;
    }
    EXPECT_EQ(end, tokens);
    EXPECT_NEAR(sizes[2], 0.2 * tokens, 0.02 * tokens);
    EXPECT_NEAR(sizes[1], 0.08 * tokens, 0.03 * tokens);
  }
}

TEST(SplitTextTest, IsAFunctionOfItsArguments) {
  const auto a = SplitText(50000);
  const auto b = SplitText(50000);
  TextSplitOptions options;
  options.seed = 1;
  const auto c = SplitText(50000, options);
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  EXPECT_EQ(a->train, b->train);
  EXPECT_EQ(a->test, b->test);
  EXPECT_NE(a->test, c->test);
  // Not one end of the text: each part samples the whole.
  EXPECT_LT(a->test.front().first, 25000);
  EXPECT_GT(a->test.back().second, 25000);
}

TEST(SplitTextTest, RefusesTextsThatAreTooShortAndFractionsOutOfRange) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(SplitText(649).status().code(), invalid);
  EXPECT_THAT(std::string(SplitText(649).status().message()),
              HasSubstr("at least 650"));
  TextSplitOptions options;
  options.test_fraction = 1;
  EXPECT_EQ(SplitText(50000, options).status().code(), invalid);
  options = TextSplitOptions();
  options.reward_fraction = 0;
  EXPECT_EQ(SplitText(50000, options).status().code(), invalid);
  options = TextSplitOptions();
  options.block_size = 0;
  EXPECT_EQ(SplitText(50000, options).status().code(), invalid);
}

}  // namespace
}  // namespace esper::env
