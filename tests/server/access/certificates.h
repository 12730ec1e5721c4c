#ifndef ESPER_TESTS_SERVER_ACCESS_CERTIFICATES_H_
#define ESPER_TESTS_SERVER_ACCESS_CERTIFICATES_H_

#include <string>

namespace esper::testing {

// A certificate authority of a test, in a folder of its own; made with the
// program openssl.
class Authority {
 public:
  // Files `name`.pem and `name`.key in `folder`.
  Authority(const std::string& folder, const std::string& name);

  // Issues `name`.pem and `name`.key, valid for a day and for localhost and
  // 127.0.0.1; `uri` becomes a subject alternative name if it is not empty.
  void Issue(const std::string& name, const std::string& uri = "") const;

  std::string certificate_file() const { return Path(name_) + ".pem"; }
  // "<folder>/<name>", to which ".pem" and ".key" belong.
  std::string Path(const std::string& name) const {
    return folder_ + "/" + name;
  }

 private:
  const std::string folder_;
  const std::string name_;
};

// The text of a file that must be there.
std::string ReadText(const std::string& path);

}  // namespace esper::testing
#endif  // ESPER_TESTS_SERVER_ACCESS_CERTIFICATES_H_
