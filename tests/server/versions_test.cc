// Versions, labels, rollbacks, takeovers and policy files of a real server over
// a real channel.

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <vector>

#include "tests/server/training_server.h"

namespace esper::server {
namespace {

using ::esper::testing::Refused;
using Code = absl::StatusCode;
using Stub = v1::PolicyAdmin::Stub;

namespace fs = std::filesystem;

class VersionsTest : public TrainingServerTest {
 protected:
  using Versions = std::map<int64_t, v1::VersionSummary>;

  Versions List() {
    auto list = Call(*admin_, &Stub::ListVersions, v1::ListVersionsRequest());
    EXPECT_OK(list);
    Versions versions;
    if (!list.ok()) return versions;
    for (const auto& version : list->versions()) {
      versions[version.policy_version()] = version;
    }
    return versions;
  }
  std::string Digest(int64_t version) {
    return List()[version].weights_digest();
  }
  static std::vector<std::string> Labels(const v1::VersionSummary& version) {
    return {version.labels().begin(), version.labels().end()};
  }

  absl::StatusOr<v1::RollbackResponse> Rollback(int64_t version,
                                                const std::string& label = "") {
    v1::RollbackRequest request;
    request.set_policy_version(version);
    request.set_label(label);
    return Call(*admin_, &Stub::Rollback, request);
  }
  absl::StatusOr<v1::SetLabelResponse> Label(const std::string& label,
                                             int64_t version,
                                             bool remove = false) {
    v1::SetLabelRequest request;
    request.set_label(label);
    request.set_policy_version(version);
    request.set_remove(remove);
    return Call(*admin_, &Stub::SetLabel, request);
  }
  absl::StatusOr<v1::VerifyCheckpointResponse> Verify(const std::string& name) {
    v1::VerifyCheckpointRequest request;
    request.set_name(name);
    return Call(*admin_, &Stub::VerifyCheckpoint, request);
  }
  absl::StatusOr<std::string> Export(const std::string& name) {
    grpc::ClientContext context;
    v1::ExportPolicyRequest request;
    request.set_name(name);
    auto reader = admin_->ExportPolicy(&context, request);
    std::string bytes;
    v1::ExportPolicyResponse response;
    while (reader->Read(&response)) bytes += response.chunk();
    const grpc::Status status = reader->Finish();
    if (!status.ok()) return codec::DecodeStatus(status, context);
    return bytes;
  }
  absl::StatusOr<v1::ImportPolicyResponse> Import(const std::string& name,
                                                  const std::string& bytes) {
    grpc::ClientContext context;
    v1::ImportPolicyResponse response;
    auto writer = admin_->ImportPolicy(&context, &response);
    v1::ImportPolicyRequest request;
    request.set_name(name);
    for (size_t at = 0; at < bytes.size(); at += 10'000) {
      request.set_chunk(bytes.substr(at, 10'000));
      if (!writer->Write(request)) break;
    }
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    if (!status.ok()) return codec::DecodeStatus(status, context);
    return response;
  }

  // Takes the lease anew.
  v1::AcquireLearnerResponse Take(const std::string& holder,
                                  bool resume = false) {
    v1::AcquireLearnerRequest request;
    request.set_holder(holder);
    request.set_resume(resume);
    auto lease =
        Call(*training_, &v1::PolicyTraining::Stub::AcquireLearner, request);
    EXPECT_OK(lease);
    if (!lease.ok()) return {};
    token_ = lease->lease_token();
    sequence_ = 0;
    return *lease;
  }
  void Release() {
    v1::ReleaseLearnerRequest request;
    request.set_lease_token(token_);
    EXPECT_OK(
        Call(*training_, &v1::PolicyTraining::Stub::ReleaseLearner, request));
  }
  // One published update with this batch; the version.
  int64_t Publish(const v1::TrajectoryBatch& batch) {
    EXPECT_OK(ForwardBackward(Ppo(batch)));
    auto step = OptimStep(true);
    EXPECT_OK(step);
    return step.ok() ? step->header().policy_version() : 0;
  }

  // Another server on the same folder, in place of the first.
  void Restart(const std::string& restore) {
    server_.reset();
    ServerOptions options;
    options.address = "127.0.0.1:0";
    options.spec = spec_;
    options.init_seed = 17;
    options.checkpoint_dir = checkpoints_.string();
    options.restore = restore;
    auto server = Server::Create(options);
    ASSERT_OK(server);
    server_ = *std::move(server);
    channel_ =
        grpc::CreateChannel("127.0.0.1:" + std::to_string(server_->port()),
                            grpc::InsecureChannelCredentials());
    training_ = v1::PolicyTraining::NewStub(channel_);
    admin_ = v1::PolicyAdmin::NewStub(channel_);
  }
};

TEST_F(VersionsTest, TheListTellsWhatWasPublished) {
  EXPECT_EQ(Publish(Act(1)), 2);
  const Versions versions = List();
  ASSERT_EQ(versions.size(), 2);
  EXPECT_EQ(Labels(versions.at(1)), std::vector<std::string>{"previous"});
  EXPECT_EQ(Labels(versions.at(2)), std::vector<std::string>{"current"});
  EXPECT_EQ(versions.at(1).optimizer_steps(), 0);
  EXPECT_EQ(versions.at(2).optimizer_steps(), 1);
  EXPECT_EQ(versions.at(1).weights_digest().size(), 64);
  EXPECT_NE(versions.at(1).weights_digest(), versions.at(2).weights_digest());
  EXPECT_EQ(versions.at(2).precision(), v1::INFERENCE_PRECISION_FP32);
  EXPECT_GT(versions.at(1).published_at().seconds(), 0);
  EXPECT_LE(versions.at(1).published_at().seconds(),
            versions.at(2).published_at().seconds());
  EXPECT_TRUE(versions.at(1).kept());
  EXPECT_EQ(versions.at(2).rolled_back_to(), 0);
}

TEST_F(VersionsTest, ARollbackTakesTheLearnerBackUnderANewNumber) {
  ASSERT_EQ(Publish(Act(1)), 2);
  const v1::TrajectoryBatch recent = Act(2);  // Of version 2.
  ASSERT_EQ(Publish(recent), 3);
  const v1::TrajectoryBatch given_up = Act(3);  // Of version 3.
  // What is in progress is dropped: a step and a gradient.
  ASSERT_OK(ForwardBackward(Ppo(given_up)));
  ASSERT_OK(OptimStep(false));
  ASSERT_OK(ForwardBackward(Ppo(given_up)));

  auto rolled_back = Rollback(0);  // The previous one.
  ASSERT_OK(rolled_back);
  EXPECT_EQ(rolled_back->rolled_back_to(), 2);
  EXPECT_EQ(rolled_back->header().policy_version(), 4);
  EXPECT_EQ(rolled_back->optimizer_steps(), 1);
  EXPECT_EQ(Status().unpublished_steps(), 0);
  const Versions versions = List();
  EXPECT_EQ(versions.at(4).weights_digest(), versions.at(2).weights_digest());
  EXPECT_EQ(versions.at(4).rolled_back_to(), 2);
  EXPECT_EQ(Labels(versions.at(3)), std::vector<std::string>{"previous"});

  // The operator's call ends the lease.
  EXPECT_THAT(OptimStep(true), Refused(Code::kAborted, "STALE_LEASE"));
  EXPECT_FALSE(Take("test").has_gradient());
  // Steps of what was given up are of another history, ...
  EXPECT_THAT(ForwardBackward(Ppo(given_up)),
              Refused(Code::kFailedPrecondition, "UNKNOWN_VERSION"));
  --sequence_;
  // ... those of the old number are not. The learner, its optimiser included,
  // is what it was: the same update gives the same weights.
  ASSERT_EQ(Publish(recent), 5);
  EXPECT_EQ(Digest(5), Digest(3));
}

TEST_F(VersionsTest, WhatWasRecordedAfterARollbackIsOfTheNewNumber) {
  ASSERT_EQ(Publish(Act(1)), 2);
  ASSERT_OK(Rollback(1));
  Take("test");
  const v1::TrajectoryBatch acted = Act(4);
  auto pass = ForwardBackward(Ppo(acted));
  ASSERT_OK(pass);
  EXPECT_EQ(pass->header().policy_version(), 3);
  // Acting and training are the same weights again.
  ASSERT_TRUE(pass->has_ratio_check_max());
  EXPECT_LE(pass->ratio_check_max(), 1e-4);
  EXPECT_EQ(Status().version_lag(), 0);
}

TEST_F(VersionsTest, LabelsKeepVersionsAndOutliveTheProcess) {
  ASSERT_OK(Label("good", 1));
  ASSERT_EQ(Publish(Act(1)), 2);
  ASSERT_OK(Label("frozen", 0));  // The one that acts: 2.
  for (int64_t version = 3; version <= 8; ++version) {
    ASSERT_EQ(Publish(Act(version)), version);
  }
  Versions versions = List();
  EXPECT_EQ(Labels(versions.at(1)), std::vector<std::string>{"good"});
  EXPECT_EQ(Labels(versions.at(2)), std::vector<std::string>{"frozen"});
  std::set<int64_t> kept;
  for (const auto& [version, summary] : versions) {
    if (summary.kept()) kept.insert(version);
  }
  EXPECT_EQ(kept, (std::set<int64_t>{1, 2, 5, 6, 7, 8}));
  EXPECT_THAT(Rollback(3),
              Refused(Code::kFailedPrecondition, "UNKNOWN_VERSION"));
  EXPECT_THAT(Label("late", 3),
              Refused(Code::kFailedPrecondition, "UNKNOWN_VERSION"));

  Restart("");
  versions = List();
  EXPECT_EQ(Labels(versions.at(1)), std::vector<std::string>{"good"});
  EXPECT_EQ(Labels(versions.at(2)), std::vector<std::string>{"frozen"});
  EXPECT_TRUE(versions.at(2).kept());
  EXPECT_FALSE(versions.at(8).kept());
  auto rolled_back = Rollback(0, "good");
  ASSERT_OK(rolled_back);
  EXPECT_EQ(rolled_back->header().policy_version(), 10);  // 9: the fresh one.
  EXPECT_EQ(Digest(10), Digest(1));

  // A name moves; nothing holds version 1 then.
  ASSERT_OK(Label("good", 2));
  EXPECT_FALSE(List().at(1).kept());
  EXPECT_THAT(Rollback(1),
              Refused(Code::kFailedPrecondition, "UNKNOWN_VERSION"));
  ASSERT_OK(Label("good", 0, /*remove=*/true));
  EXPECT_TRUE(List().at(2).kept());  // Still frozen.
  ASSERT_OK(Label("frozen", 2, /*remove=*/true));
  EXPECT_FALSE(List().at(2).kept());
  EXPECT_THAT(Rollback(0, "good"),
              Refused(Code::kFailedPrecondition, "UNKNOWN_VERSION"));
}

TEST_F(VersionsTest, LabelsThatAreNoneAreRefused) {
  for (const char* label :
       {"", "current", "previous", "12", "../up", ".dot", "a b"}) {
    EXPECT_THAT(Label(label, 1),
                Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"))
        << label;
  }
  EXPECT_THAT(Label("good", 99),
              Refused(Code::kFailedPrecondition, "UNKNOWN_VERSION"));
  EXPECT_THAT(Label("nobody", 1, /*remove=*/true),
              Refused(Code::kFailedPrecondition, "UNKNOWN_VERSION"));
  EXPECT_THAT(Rollback(0),
              Refused(Code::kFailedPrecondition, "UNKNOWN_VERSION"));
}

TEST_F(VersionsTest, AnotherHolderGoesOnFromThePublishedVersion) {
  ASSERT_EQ(Publish(Act(1)), 2);
  const v1::TrajectoryBatch batch = Act(2);
  ASSERT_OK(ForwardBackward(Ppo(batch)));
  ASSERT_OK(OptimStep(false));
  ASSERT_OK(ForwardBackward(Ppo(batch)));
  // The same holder loses its gradient alone, ...
  v1::AcquireLearnerResponse lease = Take("test");
  EXPECT_EQ(lease.dropped_steps(), 0);
  EXPECT_EQ(lease.unpublished_steps(), 1);
  EXPECT_FALSE(lease.has_gradient());
  // ... another one all that is not published.
  Release();
  lease = Take("other");
  EXPECT_EQ(lease.dropped_steps(), 1);
  EXPECT_EQ(lease.unpublished_steps(), 0);
  EXPECT_EQ(Status().optimizer_steps(), 1);
  ASSERT_EQ(Publish(batch), 3);

  // As if the lost step had never been.
  ASSERT_OK(Rollback(2));
  Take("third");
  ASSERT_EQ(Publish(batch), 5);
  EXPECT_EQ(Digest(5), Digest(3));
}

TEST_F(VersionsTest, ARestoredUpdateIsResumedWhereItStopped) {
  const v1::TrajectoryBatch batch = Act(1);
  ASSERT_OK(ForwardBackward(Ppo(batch)));
  ASSERT_OK(OptimStep(false));
  v1::ForwardBackwardRequest second = Ppo(batch);
  second.set_first_pass(false);
  ASSERT_OK(ForwardBackward(second));
  ASSERT_OK(Save("middle"));  // One step and a gradient are not published.
  ASSERT_OK(OptimStep(true));
  const std::string uninterrupted = Digest(2);

  Restart("middle");
  v1::AcquireLearnerResponse lease = Take("test", /*resume=*/true);
  EXPECT_EQ(lease.unpublished_steps(), 1);
  EXPECT_TRUE(lease.has_gradient());
  auto step = OptimStep(true);
  ASSERT_OK(step);
  EXPECT_EQ(step->header().policy_version(), 3);
  EXPECT_EQ(Digest(3), uninterrupted);

  // Who does not ask for it begins at the published version.
  Restart("middle");
  lease = Take("test");
  EXPECT_EQ(lease.dropped_steps(), 1);
  EXPECT_FALSE(lease.has_gradient());
}

TEST_F(VersionsTest, LeaseTokensRiseOverRestartsWithoutACheckpoint) {
  ASSERT_OK(Save("early"));
  const int64_t before = Take("test").lease_token();
  Restart("early");
  EXPECT_GT(Take("other").lease_token(), before);
  Restart("");
  EXPECT_GT(Take("third").lease_token(), before + 1);
}

TEST_F(VersionsTest, ExportedWeightsComeBackAsACheckpoint) {
  ASSERT_EQ(Publish(Act(1)), 2);
  const auto file = Export("");
  ASSERT_OK(file);
  auto imported = Import("copy", *file);
  ASSERT_OK(imported);
  EXPECT_EQ(imported->checkpoint().name(), "copy");
  EXPECT_EQ(imported->checkpoint().policy_version(), 3);
  EXPECT_EQ(imported->checkpoint().weights_digest(), Digest(2));
  // It does not act yet.
  EXPECT_EQ(Status().header().policy_version(), 2);
  EXPECT_OK(Verify("copy"));
  const v1::TrajectoryBatch acted = Act(5);  // Of version 2.

  auto restored = Restore("copy");
  ASSERT_OK(restored);
  EXPECT_EQ(restored->header().policy_version(), 3);
  EXPECT_EQ(restored->optimizer_steps(), 0);
  // A history of its own: nothing before it is known.
  Take("test");
  EXPECT_THAT(ForwardBackward(Ppo(acted)),
              Refused(Code::kFailedPrecondition, "STALE_BEHAVIOUR"));
  --sequence_;
  // Its statistics came along: the same actions are as likely.
  EXPECT_NE(file->find("observation_normalizer"), std::string::npos);
  v1::TrajectoryBatch renamed = acted;
  for (auto& trajectory : *renamed.mutable_trajectories()) {
    std::string* bytes = trajectory.mutable_policy_versions()->mutable_data();
    for (size_t at = 0; at + 8 <= bytes->size(); at += 8) (*bytes)[at] = 3;
  }
  auto pass = ForwardBackward(Ppo(renamed));
  ASSERT_OK(pass);
  EXPECT_LE(pass->ratio_check_max(), 1e-4);
  // A checkpoint's weights are exported as well.
  ASSERT_OK(Save("later"));
  EXPECT_EQ(*Export("later"), *Export(""));
}

TEST_F(VersionsTest, FilesOfOtherPoliciesAreRefused) {
  const auto file = Export("");
  ASSERT_OK(file);
  const auto refused = [&](const std::string& bytes, Code code,
                           const std::string& reason) {
    EXPECT_THAT(Import("bad", bytes), Refused(code, reason));
  };
  refused("", Code::kDataLoss, "CORRUPT_CHECKPOINT");
  refused(file->substr(0, file->size() - 1), Code::kDataLoss,
          "CORRUPT_CHECKPOINT");
  EXPECT_THAT(Import("a/b", *file),
              Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  EXPECT_THAT(Export("nobody"), Refused(Code::kNotFound, "UNKNOWN_CHECKPOINT"));

  policy::NetworkGrowingOptions wider;
  wider.hidden_dim = 24;
  ServerOptions options;
  options.address = "";
  options.spec = policy::PolicySpec::NetworkGrowing(wider);
  auto other = Server::Create(options);
  ASSERT_OK(other);
  const auto admin = std::move(admin_);
  admin_ = v1::PolicyAdmin::NewStub((*other)->InProcessChannel());
  const auto foreign = Export("");
  ASSERT_OK(foreign);
  admin_ = v1::PolicyAdmin::NewStub(channel_);
  refused(*foreign, Code::kFailedPrecondition, "SPEC_MISMATCH");
  EXPECT_EQ(Status().checkpoints_size(), 0);
}

TEST_F(VersionsTest, ACheckpointOfAnotherServerGetsANumberOfItsOwn) {
  ASSERT_EQ(Publish(Act(1)), 2);
  ASSERT_OK(Save("ours"));
  const fs::path kept = checkpoints_.string() + ".ours";
  fs::remove_all(kept);
  fs::rename(checkpoints_ / "ours", kept);
  server_.reset();
  fs::remove_all(checkpoints_);

  Restart("");  // Another initial policy, another version 2.
  Take("test");
  ASSERT_EQ(Publish(Act(2)), 2);
  const std::string theirs = Digest(2);
  fs::rename(kept, checkpoints_ / "ours");
  auto restored = Restore("ours");
  ASSERT_OK(restored);
  EXPECT_EQ(restored->header().policy_version(), 3);
  EXPECT_EQ(Digest(2), theirs);
  EXPECT_NE(Digest(3), theirs);
}

TEST_F(VersionsTest, VerifyingFindsWhatAManifestHides) {
  ASSERT_EQ(Publish(Act(1)), 2);
  ASSERT_OK(Save("one"));
  auto verified = Verify("one");
  ASSERT_OK(verified);
  EXPECT_EQ(verified->checkpoint().policy_version(), 2);
  EXPECT_EQ(verified->checkpoint().weights_digest(), Digest(2));
  EXPECT_GE(verified->checkpoint().lease_token(), token_);
  EXPECT_THAT(Verify("none"), Refused(Code::kNotFound, "UNKNOWN_CHECKPOINT"));

  const fs::path path = checkpoints_ / "one" / "manifest.json";
  const auto rewrite = [&](const std::string& from, const std::string& to) {
    std::ifstream in(path);
    std::string text((std::istreambuf_iterator<char>(in)), {});
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << text;
    std::ofstream(path) << text.replace(at, from.size(), to);
  };
  // The files are those of the manifest, which says something else of them.
  rewrite("\"policy_version\": 2", "\"policy_version\": 7");
  EXPECT_THAT(Verify("one"), Refused(Code::kDataLoss, "CORRUPT_CHECKPOINT"));
  rewrite("\"policy_version\": 7", "\"policy_version\": 2");
  EXPECT_OK(Verify("one"));
  rewrite(Digest(2), Digest(1));
  EXPECT_THAT(Verify("one"), Refused(Code::kDataLoss, "CORRUPT_CHECKPOINT"));
}

TEST_F(VersionsTest, AgeIsMeasuredWeighedAndLimited) {
  const v1::TrajectoryBatch old = Act(1);  // Of version 1.
  EXPECT_EQ(Status().version_lag(), -1);
  ASSERT_EQ(Publish(old), 2);
  EXPECT_EQ(Status().version_lag(), 0);
  // One version old is admitted, and its ratio is its importance weight.
  auto pass = ForwardBackward(Ppo(old));
  ASSERT_OK(pass);
  EXPECT_EQ(pass->metrics().at("version_lag"), 1);
  EXPECT_EQ(Status().version_lag(), 1);
  EXPECT_FALSE(pass->has_ratio_check_max());
  ASSERT_OK(OptimStep(true));
  EXPECT_THAT(ForwardBackward(Ppo(old)),
              Refused(Code::kFailedPrecondition, "STALE_BEHAVIOUR"));
  EXPECT_EQ(Status().refusals().at("STALE_BEHAVIOUR"), 1);
  EXPECT_EQ(Status().ratio_alarms(), 0);
}

TEST_F(VersionsTest, ARatioAboveTheAlarmLimitIsCounted) {
  v1::ForwardBackwardRequest request = Ppo(Act(1));
  // Rounding is above this, and below the refusal.
  request.mutable_ppo()->set_ratio_alarm(1e-12);
  auto pass = ForwardBackward(request);
  ASSERT_OK(pass);
  ASSERT_GT(pass->ratio_check_max(), 1e-12);
  EXPECT_EQ(Status().ratio_alarms(), 1);
}

}  // namespace
}  // namespace esper::server
