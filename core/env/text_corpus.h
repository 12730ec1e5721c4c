#ifndef ESPER_CORE_ENV_TEXT_CORPUS_H_
#define ESPER_CORE_ENV_TEXT_CORPUS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace esper::env {

// A text as numbers of its characters (Unicode code points).
struct TextCorpus {
  // Character of each token, ascending; at most 256. U+FFFD, if present, also
  // stands for every character that is too rare for a token of its own.
  std::u32string vocabulary;
  std::vector<uint8_t> tokens;  // Indices into `vocabulary`.

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
};

struct TextCorpusOptions {
  int max_vocabulary = 256;             // In [2, 256].
  size_t max_bytes = size_t{64} << 20;  // Of all files, uncompressed.
};

// Reads one UTF-8 file, plain or gzip, or every file in a folder and below it,
// in the order of their paths, a line break between two. In a folder, links and
// names that begin with a dot are passed over. The result depends on the
// content and names of the files alone.
// Errors: NOT_FOUND for a path that does not exist or a folder without a file;
// DATA_LOSS naming file and byte for one that is not UTF-8 text (or has a NUL)
// or a gzip file that breaks off; INVALID_ARGUMENT for a text with fewer than
// two different characters, or options out of range; RESOURCE_EXHAUSTED for one
// that is too long.
absl::StatusOr<TextCorpus> LoadTextCorpus(
    const std::string& path, const TextCorpusOptions& options = {});

// Tokens [first, second) of a corpus.
using TokenRange = std::pair<int64_t, int64_t>;

// Stretches of a text by what they are for: disjoint, ascending.
struct TextSplits {
  std::vector<TokenRange> train;
  std::vector<TokenRange> reward;
  std::vector<TokenRange> test;
};

struct TextSplitOptions {
  int64_t block_size = 64;       // Tokens that a host sees at once, >= 1.
  double test_fraction = 0.2;    // Of all blocks, in (0, 1).
  double reward_fraction = 0.1;  // Of the others, in (0, 1).
  uint64_t seed = 20240617;      // Of the split alone.
};

// Cuts a text of `tokens` into 10 to 50 contiguous blocks of nearly equal
// length and deals them out by chance, so that each part samples the whole
// text, and no part has a character of another. A pure function of its
// arguments.
// INVALID_ARGUMENT if a fraction is out of range, or the text is so short that
// a block would hold no block_size + 1 tokens.
absl::StatusOr<TextSplits> SplitText(int64_t tokens,
                                     const TextSplitOptions& options = {});

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_TEXT_CORPUS_H_
