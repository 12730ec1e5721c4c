// Versions on their way from a server to its followers, over real sockets:
// PolicyFeed on one side, Follower on the other.

#include "server/policy_feed.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/ppo/learner.h"
#include "core/sha256.h"
#include "esper/v1/policy_training.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "proto/codec/error_detail.h"
#include "server/follower.h"
#include "server/snapshot_file.h"
#include "server/version_receiver.h"
#include "tests/testing/status_matchers.h"

namespace esper::server {
namespace {

using ::esper::testing::Refused;
using ::esper::testing::StatusIs;
using Code = absl::StatusCode;

// Generous: the machine may be busy. Conditions are waited for, not times.
constexpr absl::Duration kPatience = absl::Seconds(120);

template <typename Condition>
bool Eventually(const Condition& condition) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

policy::PolicySpec SpecOfWidth(int64_t width) {
  policy::NetworkGrowingOptions options;
  options.feature_dim = width;
  options.hidden_dim = width;
  return policy::PolicySpec::NetworkGrowing(options);
}

ppo::PolicySnapshot FirstVersion(const policy::PolicySpec& spec) {
  auto learner =
      ppo::Learner::Create(spec, ppo::LearnerConfig(), /*init_seed=*/3);
  EXPECT_OK(learner.status());
  return *(*learner)->published();
}

// Other weights under another number, with a scaler and lower floors.
ppo::PolicySnapshot Moved(const policy::PolicySpec& spec,
                          ppo::PolicySnapshot snapshot, int64_t version) {
  snapshot.version = version;
  for (auto& [name, weight] : snapshot.weights) {
    if (weight.scalar_type() == at::kFloat) {
      weight = weight.mul(1 + 0.01 * version);
    }
  }
  ppo::Moments moments = ppo::Moments::Initial(spec.observation_width(), 9);
  for (size_t i = 0; i < moments.mean.size(); ++i) {
    moments.mean[i] = 0.1 / (3.0 + i);
    moments.variance[i] = 1.0 / (1.7 + i);
  }
  snapshot.scaler = ppo::ObservationScaler(moments, 1e-4, 10.0 / 3);
  snapshot.floor_scale = 1.0 / 3;
  snapshot.floors = spec.Floors().Scaled(snapshot.floor_scale);
  snapshot.value_unit = 10.0 / 7;
  return snapshot;
}

// A server of nothing but WatchPolicy.
class FeedServer final : public v1::PolicyTraining::CallbackService {
 public:
  explicit FeedServer(const policy::PolicySpec& spec, int port = 0)
      : policies_(spec, {}) {
    EXPECT_OK(policies_.Publish(FirstVersion(spec)));
    feed_ = std::make_unique<PolicyFeed>(policies_, counters_);
    grpc::ServerBuilder builder;
    builder.AddListeningPort(absl::StrCat("127.0.0.1:", port),
                             grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FeedServer() override {
    server_->Shutdown(std::chrono::system_clock::now());
  }
  grpc::ServerWriteReactor<v1::WatchPolicyResponse>* WatchPolicy(
      grpc::CallbackServerContext* context,
      const v1::WatchPolicyRequest* request) override {
    return feed_->Open(context, request);
  }

  PolicyStore& policies() { return policies_; }
  PolicyFeed& feed() { return *feed_; }
  int port() const { return port_; }

 private:
  PolicyStore policies_;
  ServerCounters counters_;
  std::unique_ptr<PolicyFeed> feed_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// A follower with its store, without the services that would act with it.
class Replica {
 public:
  explicit Replica(const FollowerOptions& options)
      : follower_(options, keep_, /*keeps=*/false, SteadyNow) {
    auto spec = follower_.FindSpec(std::nullopt);
    EXPECT_OK(spec);
    policies_ = std::make_unique<PolicyStore>(*spec, PolicyStore::Options());
    EXPECT_OK(follower_.Begin(*policies_));
    follower_.Run([] {});
  }
  PolicyStore& policies() { return *policies_; }
  v1::FollowerStatus Status() const {
    v1::FollowerStatus status;
    follower_.FillStatus(&status);
    return status;
  }

 private:
  CheckpointStore keep_{""};
  std::unique_ptr<PolicyStore> policies_;
  Follower follower_;
};

FollowerOptions Follow(int port) {
  FollowerOptions options;
  options.source = absl::StrCat("127.0.0.1:", port);
  options.max_backoff = absl::Milliseconds(200);
  return options;
}

bool SameWeights(const ppo::PolicySnapshot& a, const ppo::PolicySnapshot& b) {
  if (a.weights.size() != b.weights.size()) return false;
  for (size_t i = 0; i < a.weights.size(); ++i) {
    if (a.weights[i].first != b.weights[i].first ||
        !a.weights[i].second.equal(b.weights[i].second)) {
      return false;
    }
  }
  return true;
}

TEST(PolicyFeedTest, FollowersGoWhereverTheSourceGoes) {
  const policy::PolicySpec spec = SpecOfWidth(32);
  auto source = std::make_unique<FeedServer>(spec);
  const int port = source->port();
  Replica replica(Follow(port));
  const ppo::PolicySnapshot first = FirstVersion(spec);
  // Up, back to what a checkpoint holds, and to other weights of a number.
  double factor = 0;
  for (const int64_t version : {2, 3, 7, 2, 2, 8}) {
    ppo::PolicySnapshot snapshot = Moved(spec, first, version);
    snapshot.weights[0].second = snapshot.weights[0].second.add(++factor);
    ASSERT_OK(source->policies().Publish(snapshot));
    ASSERT_TRUE(Eventually([&] {
      return SameWeights(replica.policies().Current()->snapshot, snapshot);
    })) << version;
    EXPECT_EQ(replica.policies().version(), version);
  }
  const ppo::PolicySnapshot& copy = replica.policies().Current()->snapshot;
  EXPECT_EQ(copy.value_unit, 10.0 / 7);
  EXPECT_EQ(copy.floor_scale, 1.0 / 3);
  EXPECT_EQ(copy.floors, spec.Floors().Scaled(1.0 / 3));
  EXPECT_EQ(replica.Status().versions_followed(), 7);
  EXPECT_TRUE(replica.Status().connected());
  EXPECT_EQ(replica.Status().seconds_since_contact(), 0);

  // Away, and back with what it began with.
  source = nullptr;
  ASSERT_TRUE(Eventually([&] { return !replica.Status().connected(); }));
  EXPECT_EQ(replica.policies().version(), 8);
  EXPECT_GE(replica.Status().seconds_since_contact(), 0);
  ASSERT_TRUE(
      Eventually([&] { return !replica.Status().last_error().empty(); }));
  FeedServer again(spec, port);
  ASSERT_TRUE(Eventually([&] { return replica.policies().version() == 1; }));
  EXPECT_TRUE(
      Eventually([&] { return replica.Status().last_error().empty(); }));
}

// A WatchPolicy stream of a client that reads when told.
class Watcher {
 public:
  Watcher(FeedServer& server, const v1::WatchPolicyRequest& request = {})
      : channel_(grpc::CreateChannel(absl::StrCat("127.0.0.1:", server.port()),
                                     grpc::InsecureChannelCredentials())),
        stub_(v1::PolicyTraining::NewStub(channel_)),
        reader_(stub_->WatchPolicy(&context_, request)) {}
  ~Watcher() {
    if (!finished_) Cancel().IgnoreError();
  }
  bool Read(v1::WatchPolicyResponse* part) { return reader_->Read(part); }
  absl::Status Cancel() {
    context_.TryCancel();
    v1::WatchPolicyResponse part;
    while (reader_->Read(&part)) continue;
    finished_ = true;
    return codec::DecodeStatus(reader_->Finish(), context_);
  }
  absl::Status Finish() {
    finished_ = true;
    return codec::DecodeStatus(reader_->Finish(), context_);
  }

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::PolicyTraining::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchPolicyResponse>> reader_;
  bool finished_ = false;
};

TEST(PolicyFeedTest, ASlowWatcherSkipsToTheNewest) {
  FeedServer server(SpecOfWidth(256));  // More than a connection holds.
  Watcher watcher(server);
  v1::WatchPolicyResponse part;
  ASSERT_TRUE(watcher.Read(&part));
  const int64_t size = part.total_bytes();
  ASSERT_GT(size, 2 << 20);
  constexpr size_t kLast = 20;
  ppo::PolicySnapshot snapshot = server.policies().Current()->snapshot;
  for (snapshot.version = 2; snapshot.version <= int64_t{kLast};
       ++snapshot.version) {
    ASSERT_OK(server.policies().Publish(snapshot));
  }
  VersionReceiver receiver(1 << 30);
  std::vector<int64_t> versions;
  do {
    EXPECT_LE(part.data().size(), 1u << 20);
    auto version = receiver.Add(part);
    ASSERT_OK(version);
    if (version->has_value()) {
      versions.push_back((*version)->header.policy_version());
    }
  } while ((versions.empty() || versions.back() != int64_t{kLast}) &&
           watcher.Read(&part));
  ASSERT_FALSE(versions.empty());
  // What was on its way while nobody read, and the last.
  EXPECT_EQ(versions.front(), 1);
  EXPECT_EQ(versions.back(), int64_t{kLast});
  EXPECT_LE(versions.size(), kLast / 2);
}

TEST(PolicyFeedTest, AWatcherThatVanishesIsFreed) {
  FeedServer server(SpecOfWidth(32));
  v1::WatchPolicyResponse part;
  {
    Watcher first(server), second(server);
    ASSERT_TRUE(first.Read(&part));
    ASSERT_TRUE(second.Read(&part));
    EXPECT_EQ(server.feed().watchers(), 2);
    EXPECT_EQ(first.Cancel().code(), Code::kCancelled);
    EXPECT_TRUE(Eventually([&] { return server.feed().watchers() == 1; }));
  }
  EXPECT_TRUE(Eventually([&] { return server.feed().watchers() == 0; }));
  // And a new one is served, from a file made anew.
  Watcher third(server);
  ASSERT_TRUE(third.Read(&part));
  EXPECT_EQ(part.header().policy_version(), 1);
}

TEST(PolicyFeedTest, WhatIsHeldIsNotSentAgain) {
  FeedServer server(SpecOfWidth(32));
  v1::WatchPolicyResponse part;
  v1::WatchPolicyRequest request;
  {
    Watcher watcher(server);
    ASSERT_TRUE(watcher.Read(&part));
    request.set_held_version(part.header().policy_version());
    request.set_held_sha256(part.sha256());
  }
  Watcher watcher(server, request);
  ASSERT_TRUE(watcher.Read(&part));
  EXPECT_TRUE(part.data().empty());
  EXPECT_EQ(part.header().policy_version(), 1);
  const auto spec = SpecOfWidth(32);
  ASSERT_OK(server.policies().Publish(Moved(spec, FirstVersion(spec), 2)));
  ASSERT_TRUE(watcher.Read(&part));
  EXPECT_EQ(part.header().policy_version(), 2);
  EXPECT_FALSE(part.data().empty());
}

TEST(PolicyFeedTest, WatchersOfAnotherSpecificationAreRefused) {
  FeedServer server(SpecOfWidth(32));
  v1::WatchPolicyRequest request;
  request.set_spec_digest("another");
  Watcher watcher(server, request);
  v1::WatchPolicyResponse part;
  EXPECT_FALSE(watcher.Read(&part));
  EXPECT_THAT(watcher.Finish(),
              Refused(Code::kFailedPrecondition, "SPEC_MISMATCH"));
}

TEST(PolicyFeedTest, ADrainingTrainerEndsItsWatches) {
  FeedServer server(SpecOfWidth(32));
  Watcher watcher(server);
  v1::WatchPolicyResponse part;
  ASSERT_TRUE(watcher.Read(&part));
  server.feed().Drain();
  EXPECT_FALSE(watcher.Read(&part));
  EXPECT_THAT(watcher.Finish(), Refused(Code::kUnavailable, "DRAINING"));
}

// A source that says what it is told to, one list of parts per stream.
class ScriptedSource final : public v1::PolicyTraining::Service {
 public:
  using Parts = std::vector<v1::WatchPolicyResponse>;
  explicit ScriptedSource(std::vector<Parts> streams)
      : streams_(std::move(streams)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~ScriptedSource() override {
    server_->Shutdown(std::chrono::system_clock::now());
  }
  grpc::Status WatchPolicy(
      grpc::ServerContext* context, const v1::WatchPolicyRequest*,
      grpc::ServerWriter<v1::WatchPolicyResponse>* writer) override {
    size_t stream = 0;
    {
      absl::MutexLock lock(&mu_);
      stream = std::min(next_++, streams_.size() - 1);
    }
    for (const auto& part : streams_[stream]) writer->Write(part);
    if (stream + 1 < streams_.size()) return grpc::Status::OK;
    while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(5));
    return grpc::Status::CANCELLED;
  }
  int port() const { return port_; }

 private:
  const std::vector<Parts> streams_;
  absl::Mutex mu_;
  size_t next_ ABSL_GUARDED_BY(mu_) = 0;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// A version's file in parts of `chunk` bytes.
ScriptedSource::Parts Split(const std::string& bytes, int64_t version,
                            const std::string& digest, size_t chunk) {
  ScriptedSource::Parts parts;
  for (size_t offset = 0; offset < bytes.size(); offset += chunk) {
    v1::WatchPolicyResponse part;
    part.mutable_header()->set_policy_version(version);
    part.mutable_header()->set_spec_digest(digest);
    part.set_total_bytes(static_cast<int64_t>(bytes.size()));
    part.set_sha256(Sha256Hex(bytes));
    part.set_offset(static_cast<int64_t>(offset));
    part.set_data(bytes.substr(offset, chunk));
    parts.push_back(part);
  }
  return parts;
}

TEST(PolicyFeedTest, DamagedVersionsAreNeverUsed) {
  const policy::PolicySpec spec = SpecOfWidth(32);
  const std::string digest = spec.Digest();
  const auto encode = [&](const ppo::PolicySnapshot& snapshot) {
    return EncodeSnapshot(spec, snapshot, policy::InferencePrecision::kFp32)
        .value();
  };
  const ppo::PolicySnapshot one = FirstVersion(spec);
  const ppo::PolicySnapshot two = Moved(spec, one, 2);
  const auto good = Split(encode(one), 1, digest, 10'000);
  const auto better = Split(encode(two), 2, digest, 10'000);
  ASSERT_GE(better.size(), 3u);
  auto flipped = better, gap = better, mixed = better, beyond = better,
       large = better;
  flipped[flipped.size() / 2].mutable_data()->at(77) ^= 1;  // A weight.
  gap.erase(gap.begin() + 1);
  mixed[1].set_sha256(good[1].sha256());
  beyond.back().mutable_data()->push_back('x');
  for (auto& part : large) part.set_total_bytes(int64_t{1} << 60);
  // Whole, but no version: weights that are not finite.
  ppo::PolicySnapshot poisoned = two;
  poisoned.weights[0].second = poisoned.weights[0].second.div(0.0);
  const auto poison = Split(encode(poisoned), 2, digest, 10'000);
  const std::vector<ScriptedSource::Parts> damaged = {flipped, gap,   mixed,
                                                      beyond,  large, poison};
  for (const auto& parts : damaged) {
    ScriptedSource source({good, parts, better});
    FollowerOptions options = Follow(source.port());
    // Long enough that the state after the damaged stream can be looked at.
    options.initial_backoff = absl::Seconds(1);
    options.max_backoff = absl::Seconds(1);
    Replica replica(options);
    EXPECT_EQ(replica.policies().version(), 1);
    EXPECT_TRUE(
        Eventually([&] { return !replica.Status().last_error().empty(); }));
    EXPECT_TRUE(Eventually([&] { return replica.policies().version() == 2; }));
    // Version 1 at the start and 2 at the end; nothing between.
    EXPECT_EQ(replica.Status().versions_followed(), 2);
    EXPECT_TRUE(SameWeights(replica.policies().Current()->snapshot, two));
  }
}

TEST(SnapshotFileTest, BringsBackEveryNumber) {
  const policy::PolicySpec spec = SpecOfWidth(32);
  const ppo::PolicySnapshot snapshot = Moved(spec, FirstVersion(spec), 1);
  const auto bytes =
      EncodeSnapshot(spec, snapshot, policy::InferencePrecision::kBf16);
  ASSERT_OK(bytes);
  const auto file = DecodeSnapshot(*bytes, "test");
  ASSERT_OK(file);
  EXPECT_EQ(file->spec.Digest(), spec.Digest());
  EXPECT_EQ(file->precision, policy::InferencePrecision::kBf16);
  EXPECT_EQ(file->snapshot.version, snapshot.version);
  EXPECT_EQ(file->snapshot.floors, snapshot.floors);
  EXPECT_EQ(file->snapshot.value_unit, snapshot.value_unit);
  ASSERT_EQ(file->snapshot.weights.size(), snapshot.weights.size());
  for (size_t i = 0; i < snapshot.weights.size(); ++i) {
    EXPECT_EQ(file->snapshot.weights[i].first, snapshot.weights[i].first);
    EXPECT_TRUE(
        file->snapshot.weights[i].second.equal(snapshot.weights[i].second));
  }
  // Equal versions make equal bytes.
  EXPECT_EQ(*EncodeSnapshot(file->spec, file->snapshot, file->precision),
            *bytes);
  // Cut off, or without what acting needs.
  EXPECT_THAT(DecodeSnapshot(bytes->substr(0, bytes->size() / 2), "x"),
              StatusIs(Code::kDataLoss));
  std::string renamed = *bytes;
  renamed.replace(renamed.find("\"acting\""), 8, "\"Acting\"");
  EXPECT_THAT(DecodeSnapshot(renamed, "x"),
              Refused(Code::kDataLoss, "CORRUPT_VERSION"));
  std::string ranged = *bytes;
  ranged.replace(ranged.find("\\\"version\\\":1"), 13, "\\\"version\\\":0");
  EXPECT_THAT(DecodeSnapshot(ranged, "x"),
              Refused(Code::kDataLoss, "CORRUPT_VERSION"));
}

}  // namespace
}  // namespace esper::server
