#include "core/host/model_checkpoint.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/host/cnn_blueprints.h"
#include "core/host/cnn_host.h"
#include "core/host/growable_model.h"
#include "core/host/layers.h"
#include "core/host/transformer_host.h"
#include "core/slot/slot_lifecycle.h"
#include "core/tensor/safetensors.h"
#include "gtest/gtest.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

namespace esper::host {
namespace {

using ::esper::testing::GrowTo;
using ::esper::testing::Refused;
using ::esper::testing::StatusIs;
using slot::AlphaAlgorithm;
using slot::SeedStage;
using slot::Topology;
using tensor::Safetensors;

const bool kOneThread = (at::set_num_threads(1), true);

std::shared_ptr<GrowableModel> MakeModel(Topology topology, uint64_t seed) {
  std::shared_ptr<Host> host;
  if (topology == Topology::kCnn) {
    CnnHostOptions options;
    options.in_channels = 1;
    options.base_channels = 8;
    host = CnnHost::Create(options, seed).value();
  } else {
    TransformerHostOptions options;
    options.vocab_size = 20;
    options.width = 16;
    options.heads = 4;
    options.layers = 3;
    options.block_size = 12;
    options.dropout = 0;
    host = TransformerHost::Create(options, seed).value();
  }
  GrowableModelOptions options;
  options.init_seed = 1;
  return GrowableModel::Create(host, {"r0c0", "r0c1", "r0c2"}, options).value();
}

at::Tensor Input(Topology topology) {
  return topology == Topology::kCnn
             ? at::randn({3, 1, 8, 8}, MakeGenerator(3))
             : at::randint(0, 20, {3, 12}, MakeGenerator(3), at::kLong);
}

slot::SlotLifecycle MakeLifecycle() {
  slot::SlotLifecycle::Options options;
  options.registry = &DefaultBlueprints();
  return slot::SlotLifecycle::Create(options).value();
}

// One seed that holds, by its gate, and one that trains; a slot is empty. The
// host has met data.
std::shared_ptr<GrowableModel> Grown(Topology topology) {
  const auto model = MakeModel(topology, 1);
  slot::GerminateRequest gated;
  gated.blueprint_id = "norm";
  gated.algorithm = AlphaAlgorithm::kGate;
  gated.blend_id = "gated";
  GrowTo(MakeLifecycle(), *model->slots()[0], SeedStage::kHolding, gated);
  slot::GerminateRequest plain;
  plain.blueprint_id = topology == Topology::kCnn ? "conv_light" : "lora";
  GrowTo(MakeLifecycle(), *model->slots()[2], SeedStage::kTraining, plain);
  model->Forward(Input(topology));
  const at::NoGradGuard no_grad;
  for (at::Tensor& p : model->AllSlotParameters()) p.add_(0.01);
  return model;
}

at::Tensor Predict(const GrowableModel& model, Topology topology) {
  const at::NoGradGuard no_grad;
  return model.Forward(Input(topology));
}

// Everything that a checkpoint holds of the model.
std::string Bytes(const GrowableModel& model) {
  const Safetensors saved = SaveModel(model).value();
  return tensor::SerializeSafetensors(saved.tensors, saved.metadata).value();
}

class ModelCheckpointTest : public ::testing::TestWithParam<Topology> {
 protected:
  Topology topology() const { return GetParam(); }
  const std::shared_ptr<GrowableModel> grown_ = Grown(GetParam());
};

TEST_P(ModelCheckpointTest, AFreshModelBecomesTheSavedOne) {
  const std::string path = ::testing::TempDir() + "model.safetensors";
  ASSERT_OK(WriteModel(*grown_, path));
  const auto fresh = MakeModel(topology(), 99);
  ASSERT_OK(ReadModel(*fresh, path, DefaultBlueprints()));
  std::remove(path.c_str());
  for (const bool training : {false, true}) {
    grown_->train(training);
    fresh->train(training);
    EXPECT_TRUE(
        Predict(*grown_, topology()).equal(Predict(*fresh, topology())));
  }
  EXPECT_EQ(fresh->slots()[0]->stage(), SeedStage::kHolding);
  EXPECT_TRUE(fresh->slots()[1]->empty());
  EXPECT_EQ(fresh->slots()[2]->stage(), SeedStage::kTraining);
  EXPECT_EQ(fresh->CountParameters().total(),
            grown_->CountParameters().total());
  // Saved again it is the same file.
  ASSERT_OK(LoadModel(*fresh, SaveModel(*grown_).value(), DefaultBlueprints()));
  EXPECT_EQ(Bytes(*grown_), Bytes(*fresh));
}

TEST_P(ModelCheckpointTest, SeedsThatAreNotInItGo) {
  const Safetensors bare = SaveModel(*MakeModel(topology(), 1)).value();
  ASSERT_OK(LoadModel(*grown_, bare, DefaultBlueprints()));
  for (const auto& slot : grown_->slots()) EXPECT_TRUE(slot->empty());
  EXPECT_TRUE(Predict(*grown_, topology())
                  .equal(Predict(*MakeModel(topology(), 1), topology())));
}

TEST_P(ModelCheckpointTest, AFailedLoadChangesNothing) {
  const Safetensors good = SaveModel(*grown_).value();
  const auto target = MakeModel(topology(), 99);
  GrowTo(MakeLifecycle(), *target->slots()[1], SeedStage::kBlending);
  target->eval();
  const at::Tensor before = Predict(*target, topology());
  const std::string bytes = Bytes(*target);
  const auto expect_refused = [&](const Safetensors& bad, absl::StatusCode code,
                                  const char* reason) {
    EXPECT_THAT(LoadModel(*target, bad, DefaultBlueprints()),
                Refused(code, reason));
    EXPECT_EQ(Bytes(*target), bytes);
    EXPECT_TRUE(Predict(*target, topology()).equal(before));
  };
  constexpr auto kCorrupt = absl::StatusCode::kDataLoss;
  for (size_t i = 0; i < good.tensors.size(); ++i) {
    SCOPED_TRACE(good.tensors[i].first);
    Safetensors bad = good;
    bad.tensors.erase(bad.tensors.begin() + i);
    expect_refused(bad, kCorrupt, "CORRUPT_CHECKPOINT");
    bad = good;
    bad.tensors[i].second = at::ones({77});
    expect_refused(bad, kCorrupt, "CORRUPT_CHECKPOINT");
  }
  Safetensors bad = good;
  bad.tensors.push_back(bad.tensors[0]);
  expect_refused(bad, kCorrupt, "CORRUPT_CHECKPOINT");
  for (const char* name : {"host.more", "seed_slots.r0c1.seed.w", "stray"}) {
    bad = good;
    bad.tensors.emplace_back(name, at::ones({1}));
    expect_refused(bad, kCorrupt, "CORRUPT_CHECKPOINT");
  }
  for (const auto& [key, text] : good.metadata) {
    bad = good;
    bad.metadata.erase(key);
    expect_refused(bad, kCorrupt, "CORRUPT_CHECKPOINT");
    bad = good;
    bad.metadata[key] = text.substr(1);
    expect_refused(bad, kCorrupt, "CORRUPT_CHECKPOINT");
  }
  bad = good;
  bad.metadata["esper.slot.r0c0"] = bad.metadata["esper.slot.r0c2"];
  expect_refused(bad, absl::StatusCode::kFailedPrecondition, "SPEC_MISMATCH");
  bad = good;
  bad.metadata["esper.model"] =
      R"({"version": 2, "topology": "cnn", "slots": []})";
  expect_refused(bad, kCorrupt, "CORRUPT_CHECKPOINT");
}

TEST_P(ModelCheckpointTest, AnotherModelIsRefused) {
  const Safetensors saved = SaveModel(*grown_).value();
  const Topology other =
      topology() == Topology::kCnn ? Topology::kTransformer : Topology::kCnn;
  const auto wrong_host = MakeModel(other, 1);
  EXPECT_THAT(LoadModel(*wrong_host, saved, DefaultBlueprints()),
              Refused(absl::StatusCode::kFailedPrecondition, "SPEC_MISMATCH"));
  const auto fewer =
      GrowableModel::Create(
          std::dynamic_pointer_cast<Host>(
              MakeModel(topology(), 1)->host().shared_from_this()),
          {"r0c0"})
          .value();
  EXPECT_THAT(LoadModel(*fewer, saved, DefaultBlueprints()),
              Refused(absl::StatusCode::kFailedPrecondition, "SPEC_MISMATCH"));
  EXPECT_THAT(ReadModel(*fewer, "/nowhere/model", DefaultBlueprints()),
              StatusIs(absl::StatusCode::kNotFound));
}

INSTANTIATE_TEST_SUITE_P(BothTopologies, ModelCheckpointTest,
                         ::testing::Values(Topology::kCnn,
                                           Topology::kTransformer),
                         [](const auto& info) {
                           return slot::TopologyName(info.param);
                         });

}  // namespace
}  // namespace esper::host
