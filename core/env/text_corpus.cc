#include "core/env/text_corpus.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <numeric>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/env/data.h"
#include "core/env/file_bytes.h"

namespace esper::env {
namespace {

namespace fs = std::filesystem;

constexpr char32_t kReplacement = 0xfffd;
constexpr int64_t kMinBlocks = 10;
constexpr int64_t kMaxBlocks = 50;

// Length of the UTF-8 sequence that `lead` begins; 0 if it begins none.
int SequenceLength(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  if (lead >= 0xf0 && lead <= 0xf4) return 4;
  return 0;
}

// Decodes the sequence at `at` and moves behind it; false if it is not valid
// UTF-8 (overlong forms and surrogates included) or is NUL.
bool DecodeOne(const std::string& text, size_t* at, char32_t* character) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const int length = SequenceLength(byte(*at));
  if (length == 0 || text.size() - *at < static_cast<size_t>(length)) {
    return false;
  }
  char32_t value = byte(*at);
  if (length > 1) value &= 0x7f >> length;
  for (int i = 1; i < length; ++i) {
    if ((byte(*at + i) & 0xc0) != 0x80) return false;
    value = value << 6 | (byte(*at + i) & 0x3f);
  }
  static constexpr char32_t kLeast[] = {0, 1, 0x80, 0x800, 0x10000};
  if (value < kLeast[length] || value > 0x10ffff ||
      (value >= 0xd800 && value <= 0xdfff)) {
    return false;
  }
  *at += length;
  *character = value;
  return true;
}

absl::Status AppendFile(const std::string& path, size_t max_bytes,
                        size_t* bytes_read, std::u32string* text) {
  absl::StatusOr<std::string> bytes = ReadFileBytes(path);
  if (!bytes.ok()) return bytes.status();
  *bytes_read += bytes->size();
  if (*bytes_read > max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": up to here the text has ", *bytes_read,
                     " bytes; at most ", max_bytes, " are read"));
  }
  if (!text->empty() && text->back() != U'\n') text->push_back(U'\n');
  for (size_t at = 0; at < bytes->size();) {
    char32_t character;
    if (!DecodeOne(*bytes, &at, &character)) {
      return CorruptFileAt(path, at, "not UTF-8 text");
    }
    text->push_back(character);
  }
  return absl::OkStatus();
}

bool IsHidden(const fs::path& path) {
  return path.filename().string().rfind('.', 0) == 0;
}

absl::StatusOr<std::vector<std::string>> FilesBelow(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code error;
  fs::recursive_directory_iterator at(folder, error);
  for (; !error && at != fs::recursive_directory_iterator();
       at.increment(error)) {
    std::error_code ignored;
    if (IsHidden(at->path())) {
      if (at->is_directory(ignored)) at.disable_recursion_pending();
      continue;
    }
    if (!at->is_symlink(ignored) && at->is_regular_file(ignored)) {
      files.push_back(at->path().string());
    }
  }
  if (error) {
    return absl::NotFoundError(absl::StrCat(folder, ": ", error.message()));
  }
  if (files.empty()) {
    return absl::NotFoundError(absl::StrCat(folder, ": no file in it"));
  }
  std::sort(files.begin(), files.end());
  return files;
}

// The characters with a token, ascending.
std::u32string ChooseVocabulary(const std::u32string& text, int limit) {
  std::map<char32_t, int64_t> counts;
  for (char32_t character : text) ++counts[character];
  std::u32string vocabulary;
  for (const auto& [character, count] : counts) vocabulary += character;
  if (static_cast<int>(vocabulary.size()) <= limit) return vocabulary;
  // The rarest give way to the replacement character.
  std::stable_sort(
      vocabulary.begin(), vocabulary.end(),
      [&counts](char32_t a, char32_t b) { return counts[a] > counts[b]; });
  const bool has_replacement =
      vocabulary.substr(0, limit).find(kReplacement) != std::u32string::npos;
  vocabulary.resize(has_replacement ? limit : limit - 1);
  if (!has_replacement) vocabulary += kReplacement;
  std::sort(vocabulary.begin(), vocabulary.end());
  return vocabulary;
}

absl::Status CheckFraction(const std::string& name, double fraction) {
  if (fraction > 0 && fraction < 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " ", fraction, " is not in (0, 1)"));
}

}  // namespace

absl::StatusOr<TextCorpus> LoadTextCorpus(const std::string& path,
                                          const TextCorpusOptions& options) {
  if (options.max_vocabulary < 2 || options.max_vocabulary > 256) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_vocabulary ", options.max_vocabulary, " is not in 2..256"));
  }
  std::vector<std::string> files = {path};
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    absl::StatusOr<std::vector<std::string>> found = FilesBelow(path);
    if (!found.ok()) return found.status();
    files = *std::move(found);
  }
  std::u32string text;
  size_t bytes_read = 0;
  for (const std::string& file : files) {
    absl::Status status =
        AppendFile(file, options.max_bytes, &bytes_read, &text);
    if (!status.ok()) return status;
  }

  TextCorpus corpus;
  corpus.vocabulary = ChooseVocabulary(text, options.max_vocabulary);
  if (corpus.vocabulary.size() < 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": a text of ", text.size(), " characters, ",
        corpus.vocabulary.size(), " of them different, has nothing to learn"));
  }
  std::map<char32_t, uint8_t> token_of;
  for (size_t i = 0; i < corpus.vocabulary.size(); ++i) {
    token_of[corpus.vocabulary[i]] = static_cast<uint8_t>(i);
  }
  corpus.tokens.reserve(text.size());
  for (char32_t character : text) {
    const auto found = token_of.find(character);
    corpus.tokens.push_back(
        found != token_of.end() ? found->second : token_of.at(kReplacement));
  }
  return corpus;
}

absl::StatusOr<TextSplits> SplitText(int64_t tokens,
                                     const TextSplitOptions& options) {
  absl::Status status = CheckFraction("test fraction", options.test_fraction);
  if (status.ok()) {
    status = CheckFraction("reward fraction", options.reward_fraction);
  }
  if (!status.ok()) return status;
  if (options.block_size < 1) {
    return absl::InvalidArgumentError("block_size must be at least 1");
  }
  const int64_t least = kMinBlocks * (options.block_size + 1);
  if (tokens < least) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a text of ", tokens, " characters is too short: at least ", least,
        " are needed"));
  }
  const int64_t blocks =
      std::min(kMaxBlocks, tokens / (options.block_size + 1));
  const int64_t n_test = std::clamp<int64_t>(
      std::llround(options.test_fraction * blocks), 1, blocks - 2);
  const int64_t n_reward = std::clamp<int64_t>(
      std::llround(options.reward_fraction * (blocks - n_test)), 1,
      blocks - n_test - 1);
  const std::vector<int64_t> order =
      EpochOrder(blocks, options.seed, /*epoch=*/1);
  std::vector<int64_t> place(blocks);  // Of each block in the deal.
  for (int64_t i = 0; i < blocks; ++i) place[order[i]] = i;
  TextSplits splits;
  for (int64_t i = 0; i < blocks; ++i) {
    const TokenRange range = {i * tokens / blocks, (i + 1) * tokens / blocks};
    (place[i] < n_test              ? splits.test
     : place[i] < n_test + n_reward ? splits.reward
                                    : splits.train)
        .push_back(range);
  }
  return splits;
}

}  // namespace esper::env
