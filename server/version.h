#ifndef ESPER_SERVER_VERSION_H_
#define ESPER_SERVER_VERSION_H_

namespace esper::server {

// Version of the server, as GetStatus reports it.
inline constexpr char kServerVersion[] = "0.1.0";

}  // namespace esper::server
#endif  // ESPER_SERVER_VERSION_H_
