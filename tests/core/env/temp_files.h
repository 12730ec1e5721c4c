#ifndef ESPER_TESTS_CORE_ENV_TEMP_FILES_H_
#define ESPER_TESTS_CORE_ENV_TEMP_FILES_H_

#include <zlib.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace esper::env {

// A folder of its own for the running test, empty at first.
class TempFolder {
 public:
  TempFolder() {
    const char* root = std::getenv("TEST_TMPDIR");
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ =
        std::filesystem::path(root != nullptr ? root : ::testing::TempDir()) /
        (std::string(test->test_suite_name()) + "." + test->name());
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }

  std::string path() const { return path_.string(); }
  std::string operator/(const std::string& name) const {
    return (path_ / name).string();
  }

  // Both return the path.
  std::string Write(const std::string& name, const std::string& bytes) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return *this / name;
  }
  std::string WriteGzip(const std::string& name,
                        const std::string& bytes) const {
    gzFile file = gzopen((*this / name).c_str(), "wb");
    if (!bytes.empty()) gzwrite(file, bytes.data(), bytes.size());
    gzclose(file);
    return *this / name;
  }

 private:
  std::filesystem::path path_;
};

inline std::string ReadBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in),
                     std::istreambuf_iterator<char>());
}

}  // namespace esper::env
#endif  // ESPER_TESTS_CORE_ENV_TEMP_FILES_H_
