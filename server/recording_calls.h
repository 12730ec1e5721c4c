#ifndef ESPER_SERVER_RECORDING_CALLS_H_
#define ESPER_SERVER_RECORDING_CALLS_H_

#include "absl/status/status.h"
#include "esper/v1/policy_training.pb.h"
#include "server/recording_store.h"

// What PolicyTraining answers about recordings; each fills everything of the
// response but its header.
namespace esper::server {

// MALFORMED_REQUEST for an unknown state or a negative number.
absl::Status ListRecordings(const RecordingStore& recordings,
                            const v1::ListRecordingsRequest& request,
                            v1::ListRecordingsResponse* response);

// May read a file. Errors: of RecordingStore::Read.
absl::Status GetRecording(const RecordingStore& recordings,
                          const v1::GetRecordingRequest& request,
                          v1::GetRecordingResponse* response);

// May remove files.
absl::Status DiscardRecordings(RecordingStore& recordings,
                               const v1::DiscardRecordingsRequest& request,
                               v1::DiscardRecordingsResponse* response);

}  // namespace esper::server
#endif  // ESPER_SERVER_RECORDING_CALLS_H_
