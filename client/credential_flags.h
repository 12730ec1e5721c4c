#ifndef ESPER_CLIENT_CREDENTIAL_FLAGS_H_
#define ESPER_CLIENT_CREDENTIAL_FLAGS_H_

#include "client/credentials.h"

namespace esper::client {

// What the command line of a program says of TLS and tokens towards the policy
// server.
Credentials CredentialsFromFlags();

}  // namespace esper::client
#endif  // ESPER_CLIENT_CREDENTIAL_FLAGS_H_
