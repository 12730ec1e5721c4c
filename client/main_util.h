#ifndef ESPER_CLIENT_MAIN_UTIL_H_
#define ESPER_CLIENT_MAIN_UTIL_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

// What the main functions of the programs share.
namespace esper::client {

// Parses the flags; prints a message and exits with status 2 on arguments that
// are no flags. Unknown flags end the program inside.
// Returns what is left, without the program's name, if `allow_arguments`.
std::vector<std::string> ParseFlags(int argc, char** argv,
                                    const std::string& usage,
                                    bool allow_arguments = false);

// Logs to standard error. INVALID_ARGUMENT for an unknown level, listing the
// known ones. `clear_line`: erases the terminal's current line before each
// message, where a progress line may stand.
absl::Status SetUpLog(const std::string& level, bool clear_line = false);

// Whether standard error is a terminal.
bool IsTerminal();

}  // namespace esper::client
#endif  // ESPER_CLIENT_MAIN_UTIL_H_
