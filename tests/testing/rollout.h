#ifndef ESPER_TESTS_TESTING_ROLLOUT_H_
#define ESPER_TESTS_TESTING_ROLLOUT_H_

#include <cstdint>
#include <memory>

#include "core/policy/policy_spec.h"
#include "esper/v1/trajectory.pb.h"
#include "grpcpp/channel.h"

namespace esper::testing {

// The network-growing policy with a network small enough for tests.
policy::PolicySpec SmallSpec();

// Acts `episodes` episodes of `steps` steps each on the server behind `channel`
// with random observations, everything allowed (without masks where `spec` lets
// them be absent), and returns them as they would be uploaded: even ones
// truncated, odd ones terminated. Dies if a call fails.
v1::TrajectoryBatch ActEpisodes(const std::shared_ptr<grpc::Channel>& channel,
                                const policy::PolicySpec& spec, int episodes,
                                int steps, uint64_t seed);

}  // namespace esper::testing
#endif  // ESPER_TESTS_TESTING_ROLLOUT_H_
