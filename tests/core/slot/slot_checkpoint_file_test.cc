// Files that are not what they should be: whatever is wrong with one, the slot
// that was to be restored from it stays as it is, bit by bit.
#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/slot/slot_checkpoint_codec.h"
#include "core/slot/slot_checkpoint_restore.h"
#include "core/slot/slot_lifecycle.h"
#include "core/tensor/safetensors.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::tensor::Safetensors;
using ::esper::testing::GrowTo;
using ::esper::testing::MakeLifecycle;
using ::esper::testing::MakeSlot;
using ::esper::testing::Refused;
using ::esper::testing::TestBlueprints;
using Json = nlohmann::ordered_json;
using S = SeedStage;

constexpr char kRecordKey[] = "esper.slot";

std::string Bytes(const SeedSlot& slot) {
  return EncodeSlotCheckpoint(SaveSlot(slot)).value();
}

std::string Bytes(const Safetensors& file) {
  return tensor::SerializeSafetensors(file.tensors, file.metadata).value();
}

absl::Status Load(SeedSlot& slot, const std::string& bytes) {
  const auto checkpoint = DecodeSlotCheckpoint(bytes, "a file");
  if (!checkpoint.ok()) return checkpoint.status();
  return LoadSlot(slot, *checkpoint, TestBlueprints());
}

class DamagedFileTest : public ::testing::Test {
 protected:
  DamagedFileTest() {
    GerminateRequest gated;
    gated.blueprint_id = "norm";
    gated.algorithm = AlphaAlgorithm::kGate;
    gated.blend_id = "gated";
    const auto saved = MakeSlot();
    GrowTo(MakeLifecycle(), *saved, S::kHolding, gated);
    good_ = Bytes(*saved);
    file_ = tensor::ParseSafetensors(good_, "good").value();
    record_ = Json::parse(*file_.FindMetadata(kRecordKey));
    GrowTo(MakeLifecycle(), *live_, S::kBlending);
  }

  // A bad file leaves both a live and an empty slot alone.
  void ExpectRefused(const std::string& bytes, absl::StatusCode code,
                     const char* reason) {
    for (const auto& slot : {live_, empty_}) {
      const std::string before = Bytes(*slot);
      const auto plan = slot->plan();
      EXPECT_THAT(Load(*slot, bytes), Refused(code, reason));
      EXPECT_EQ(Bytes(*slot), before);
      EXPECT_EQ(slot->plan(), plan);
    }
  }
  void ExpectCorrupt(const std::string& bytes) {
    ExpectRefused(bytes, absl::StatusCode::kDataLoss, "CORRUPT_CHECKPOINT");
  }

  // The good file with another text for its record.
  std::string WithRecord(const std::string& text) const {
    Safetensors file = file_;
    file.metadata[kRecordKey] = text;
    return Bytes(file);
  }
  std::string WithTensor(size_t index, const at::Tensor& tensor) const {
    Safetensors file = file_;
    file.tensors[index].second = tensor;
    return Bytes(file);
  }

  std::string good_;
  Safetensors file_;
  Json record_;
  const std::shared_ptr<SeedSlot> live_ = MakeSlot();
  const std::shared_ptr<SeedSlot> empty_ = MakeSlot();
};

TEST_F(DamagedFileTest, TheUndamagedOneLoads) {
  for (const auto& slot : {live_, empty_}) {
    EXPECT_OK(Load(*slot, good_));
    EXPECT_EQ(Bytes(*slot), good_);
  }
}

TEST_F(DamagedFileTest, TruncatedAnywhereOrTooLong) {
  for (size_t length = 0; length < good_.size();
       length += length < 32 ? 1 : 17) {
    SCOPED_TRACE(length);
    ExpectCorrupt(good_.substr(0, length));
  }
  ExpectCorrupt(good_.substr(0, good_.size() - 1));
  ExpectCorrupt(good_ + "x");
}

TEST_F(DamagedFileTest, RecordOfAnotherVersionOrWithOtherKeys) {
  for (const int version : {0, 1, 3}) {
    Json bad = record_;
    bad["version"] = version;
    ExpectCorrupt(WithRecord(bad.dump()));
  }
  for (const char* parent : {"", "/seed", "/seed/alpha", "/seed/metrics",
                             "/seed/stage", "/seed/gradients", "/gate"}) {
    const Json::json_pointer at(parent);
    Json bad = record_;
    bad[at]["surplus"] = 1;
    ExpectCorrupt(WithRecord(bad.dump()));
    for (const auto& [key, value] : record_[at].items()) {
      SCOPED_TRACE(absl::StrCat(parent, " ", key));
      bad = record_;
      bad[at].erase(key);
      ExpectCorrupt(WithRecord(bad.dump()));
    }
  }
  Safetensors without = file_;
  without.metadata.clear();
  ExpectCorrupt(Bytes(without));
}

TEST_F(DamagedFileTest, NumbersThatAreNotFinite) {
  const std::string text = record_.dump();
  const std::string number = "\"best_accuracy\":";
  const size_t begin = text.find(number) + number.size();
  ASSERT_GT(begin, number.size());
  for (const char* bad : {"NaN", "nan", "Infinity", "-Infinity", "1e999"}) {
    SCOPED_TRACE(bad);
    std::string damaged = text;
    damaged.replace(begin, text.find(',', begin) - begin, bad);
    ExpectCorrupt(WithRecord(damaged));
  }
}

TEST_F(DamagedFileTest, UnknownStageOperatorOrBlueprint) {
  for (const int stage : {-1, 0, 1, 5, 11}) {
    Json bad = record_;
    bad["seed"]["stage"]["stage"] = stage;
    ExpectCorrupt(WithRecord(bad.dump()));
  }
  Json bad = record_;
  bad["seed"]["algorithm"] = 4;
  ExpectCorrupt(WithRecord(bad.dump()));
  bad = record_;
  bad["seed"]["blueprint_id"] = "unheard_of";
  ExpectRefused(WithRecord(bad.dump()), absl::StatusCode::kFailedPrecondition,
                "SPEC_MISMATCH");
}

TEST_F(DamagedFileTest, TensorsOfAnotherNumberShapeOrDtype) {
  for (size_t i = 0; i < file_.tensors.size(); ++i) {
    const auto& [name, tensor] = file_.tensors[i];
    SCOPED_TRACE(name);
    ExpectCorrupt(WithTensor(i, tensor.to(at::kDouble)));
    // As many numbers in another shape: a copy would go through.
    ExpectCorrupt(WithTensor(i, tensor.reshape({1, 1, -1, 1, 1})));
    ExpectCorrupt(WithTensor(i, at::ones({7, 3})));
    Safetensors bad = file_;
    bad.tensors.erase(bad.tensors.begin() + i);
    ExpectCorrupt(Bytes(bad));
    bad = file_;
    bad.tensors[i].first += "x";
    ExpectCorrupt(Bytes(bad));
  }
  Safetensors bad = file_;
  bad.tensors.emplace_back("seed.more", at::ones({2}));
  ExpectCorrupt(Bytes(bad));
}

// Any byte may be wrong. What loads nevertheless is another sound slot (a digit
// of a weight, say); what does not leaves no trace.
TEST_F(DamagedFileTest, RandomBytesNeverHalfLoad) {
  std::mt19937 random(20260101);
  int refused = 0;
  for (int round = 0; round < 1500; ++round) {
    std::string damaged = good_;
    const size_t at = random() % damaged.size();
    damaged[at] = static_cast<char>(random());
    SCOPED_TRACE(absl::StrCat("byte ", at, " = ", int{damaged[at]}));
    const std::string before = Bytes(*live_);
    const absl::Status status = Load(*live_, damaged);
    if (status.ok()) {
      EXPECT_EQ(live_->stage(), S::kHolding);
      EXPECT_TRUE(DecodeSlotCheckpoint(Bytes(*live_), "again").ok());
    } else {
      ++refused;
      EXPECT_TRUE(status.code() == absl::StatusCode::kDataLoss ||
                  status.code() == absl::StatusCode::kFailedPrecondition)
          << status;
      EXPECT_EQ(Bytes(*live_), before);
    }
  }
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace esper::slot
