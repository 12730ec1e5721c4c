#ifndef ESPER_CLIENT_TRAINER_EVENT_FILE_H_
#define ESPER_CLIENT_TRAINER_EVENT_FILE_H_

#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "tensorboard/event.pb.h"

namespace esper::client {

// CRC-32C (Castagnoli, polynomial 0x1EDC6F41 reflected) of RFC 3720.
uint32_t Crc32c(absl::string_view data);

// The file that TensorBoard reads: records of TensorFlow's TFRecord format,
//   uint64 length | uint32 masked crc of it | bytes | uint32 masked crc of them
// little-endian, each a tensorboard.Event, the first with the version
// "brain.Event:2". masked(crc) = rotate_right(crc, 15) + 0xA282EAD8 mod 2^32.
//
// Thread safety: none.
class EventFile {
 public:
  // Its name in a folder: TensorBoard looks for "tfevents" in names.
  static constexpr char kName[] = "events.out.tfevents.esper";

  // Makes the file anew.
  static absl::StatusOr<std::unique_ptr<EventFile>> Create(
      const std::string& path);
  // Continues the file: keeps its whole records up to `last_step`, and drops
  // what lies behind the first one that is broken or later. Makes it anew if
  // there is none.
  static absl::StatusOr<std::unique_ptr<EventFile>> Resume(
      const std::string& path, int64_t last_step);

  // One point of every curve. Written to the file before it returns.
  absl::Status AddScalars(int64_t step, absl::Time time,
                          const std::map<std::string, double>& scalars);
  // A text, in Markdown.
  absl::Status AddText(int64_t step, absl::Time time, const std::string& tag,
                       const std::string& text);

 private:
  explicit EventFile(std::string path) : path_(std::move(path)) {}

  absl::Status Write(const tensorboard::Event& event);

  const std::string path_;
  std::ofstream file_;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_EVENT_FILE_H_
