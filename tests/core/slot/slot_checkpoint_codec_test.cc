#include "core/slot/slot_checkpoint_codec.h"

#include <ATen/ops/ones.h>

#include <limits>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/error.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/core/slot/checkpoint_text.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::testing::FieldTexts;
using ::esper::testing::Flatten;
using ::esper::testing::FullRecord;
using ::esper::testing::Refused;
using ::esper::testing::StatusIs;
using Json = nlohmann::ordered_json;

Json FullJson() { return Json::parse(EncodeSlotRecord(FullRecord()).value()); }

std::string FieldOf(const absl::Status& status) {
  const auto detail = DetailOf(status);
  return detail ? detail->field : "none";
}

void ExpectCorrupt(const std::string& text, const std::string& key) {
  const auto decoded = DecodeSlotRecord(text);
  EXPECT_THAT(decoded,
              Refused(absl::StatusCode::kDataLoss, "CORRUPT_CHECKPOINT"))
      << key;
  EXPECT_EQ(FieldOf(decoded.status()), key) << decoded.status();
}

TEST(SlotRecordTest, EveryFieldSurvivesWithAValueOfItsOwn) {
  const SlotRecord record = FullRecord();
  SlotRecord plain;
  plain.seed.emplace();
  plain.gate.emplace();
  const FieldTexts before = Flatten(record);
  const FieldTexts defaults = Flatten(plain);
  ASSERT_EQ(before.size(), defaults.size());
  ASSERT_GT(before.size(), 70);
  for (const auto& [key, text] : before) {
    if (key == "version" || key == "gate.algorithm_id") continue;  // Constant.
    EXPECT_NE(text, defaults.at(key)) << key;
  }
  EXPECT_EQ(Flatten(DecodeSlotRecord(EncodeSlotRecord(record).value()).value()),
            before);
}

TEST(SlotRecordTest, AbsentValuesStayAbsent) {
  SlotRecord record = FullRecord();
  record.auto_prune = std::nullopt;
  record.seed->metrics.contribution = std::nullopt;
  record.seed->gradients = {};
  EXPECT_EQ(Flatten(DecodeSlotRecord(EncodeSlotRecord(record).value()).value()),
            Flatten(record));
  record.seed = std::nullopt;
  record.gate = std::nullopt;
  EXPECT_EQ(Flatten(DecodeSlotRecord(EncodeSlotRecord(record).value()).value()),
            Flatten(record));
}

TEST(SlotRecordTest, TimesAndNumbersKeepEveryBit) {
  SlotRecord record = FullRecord();
  record.seed->stage.entered_at = absl::InfinitePast();
  record.seed->metrics.best_accuracy = 1.0 / 3;
  record.seed->metrics.initial_accuracy = -0.0;
  record.seed->metrics.contribution = std::numeric_limits<double>::denorm_min();
  record.seed->generation = record.germinations = ~uint64_t{0};
  const SlotRecord back =
      DecodeSlotRecord(EncodeSlotRecord(record).value()).value();
  EXPECT_EQ(Flatten(back), Flatten(record));
}

TEST(SlotRecordTest, RefusesToWriteWhatCannotBeReadBack) {
  SlotRecord record = FullRecord();
  record.seed->metrics.boost_received =
      std::numeric_limits<double>::quiet_NaN();
  const auto text = EncodeSlotRecord(record);
  EXPECT_THAT(text, StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_NE(text.status().message().find("seed.metrics.boost_received"),
            std::string::npos);
  record = FullRecord();
  record.seed->prune_reason = "\xff";
  EXPECT_THAT(EncodeSlotRecord(record),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

// Calls `visit(key, parent object, name)` for each key of the record.
template <typename Visit>
void ForEachKey(const Json& object, const Json::json_pointer& at,
                const std::string& path, Visit visit) {
  for (const auto& [name, value] : object.items()) {
    const std::string key = path.empty() ? name : path + "." + name;
    visit(key, at, name);
    // Maps have free keys; they have tests of their own.
    if (value.is_object() && key != "seed.trainable" &&
        key != "seed.blueprint_options") {
      ForEachKey(value, at / name, key, visit);
    }
  }
}

TEST(SlotRecordTest, EveryMissingKeyIsNamed) {
  const Json full = FullJson();
  int keys = 0;
  ForEachKey(full, Json::json_pointer(), "",
             [&](const std::string& key, const Json::json_pointer& parent,
                 const std::string& name) {
               Json damaged = full;
               damaged[parent].erase(name);
               ExpectCorrupt(damaged.dump(), key);
               ++keys;
             });
  EXPECT_GT(keys, 70);
}

TEST(SlotRecordTest, EveryWrongTypeIsNamed) {
  const Json full = FullJson();
  ForEachKey(full, Json::json_pointer(), "",
             [&](const std::string& key, const Json::json_pointer& parent,
                 const std::string& name) {
               for (const Json& wrong :
                    {Json(Json::array({1})), Json("a text"), Json(true)}) {
                 if (wrong.type() == full[parent][name].type()) continue;
                 Json damaged = full;
                 damaged[parent][name] = wrong;
                 ExpectCorrupt(damaged.dump(), key);
               }
             });
}

TEST(SlotRecordTest, UnknownKeysAreNamed) {
  for (const char* parent : {"", "/seed", "/seed/alpha", "/gate"}) {
    Json damaged = FullJson();
    damaged[Json::json_pointer(parent)]["surprise"] = 1;
    const std::string path =
        parent[0] == 0 ? "" : Json::json_pointer(parent).to_string() + ".";
    std::string key = path.empty() ? "" : path.substr(1);
    for (char& c : key) c = c == '/' ? '.' : c;
    ExpectCorrupt(damaged.dump(), key + "surprise");
  }
}

TEST(SlotRecordTest, BadValuesAreNamed) {
  const std::vector<std::tuple<const char*, Json, const char*>> cases = {
      {"/version", 1, "version"},
      {"/version", 3, "version"},
      {"/slot_id", "early", "slot_id"},
      {"/topology", "mlp", "topology"},
      {"/channels", 0, "channels"},
      {"/germinations", -1, "germinations"},
      {"/germinations", 1.5, "germinations"},
      {"/germinations", 1, "seed.generation"},
      {"/seed/seed_id", "", "seed.seed_id"},
      {"/seed/blueprint_id", "", "seed.blueprint_id"},
      {"/seed/init_profile", "dead", "seed.init_profile"},
      {"/seed/generation", 0, "seed.generation"},
      {"/seed/tempo", 0, "seed.tempo"},
      {"/seed/tempo", 9223372036854775808u, "seed.tempo"},
      {"/seed/alpha_target", 0, "seed.alpha_target"},
      {"/seed/alpha_target", 1.5, "seed.alpha_target"},
      {"/seed/stage/stage", 5, "seed.stage.stage"},  // Retired.
      {"/seed/stage/stage", 11, "seed.stage.stage"},
      {"/seed/stage/stage", 1, "seed.stage.stage"},  // DORMANT.
      {"/seed/stage/stage", 6, "seed.stage.history"},
      {"/seed/stage/previous", 6, nullptr},  // HOLDING leads to BLENDING.
      {"/seed/stage/previous", 2, "seed.stage.previous"},
      {"/seed/stage/previous_epochs", -1, "seed.stage.previous_epochs"},
      {"/seed/stage/entered_at", "yesterday", "seed.stage.entered_at"},
      {"/seed/stage/history", Json::array(), "seed.stage.history"},
      {"/seed/stage/history/0", 3, "seed.stage.history"},
      {"/seed/stage/history/0/0", 5, "seed.stage.history"},
      {"/seed/alpha/mode", 3, "seed.alpha.mode"},
      {"/seed/alpha/mode", 2, "seed.alpha.mode"},  // DOWN to a higher target.
      {"/seed/alpha/curve", 0, "seed.alpha.curve"},
      {"/seed/alpha/alpha", 1.5, "seed.alpha"},
      {"/seed/alpha/alpha", 0.4, "seed.metrics.current_alpha"},
      {"/seed/alpha/steepness", 0.01, "seed.alpha"},
      {"/seed/alpha/steps_done", 10, "seed.alpha"},
      {"/seed/alpha/steps_done", -1, "seed.alpha"},
      {"/seed/algorithm", 4, "seed.algorithm"},
      {"/seed/algorithm", 1, "seed.blend_id"},
      {"/seed/blend_id", "cubic", "seed.blend_id"},
      {"/seed/blend_id", "linear", "seed.blend_id"},
      {"/seed/metrics/epochs_total", -1, "seed.metrics.epochs_total"},
      {"/seed/cooldown_ticks", -1, "seed.cooldown_ticks"},
      {"/seed/ste_blocked_steps", -1, "seed.ste_blocked_steps"},
      {"/seed/trainable", {{"seed.w", 1}}, "seed.trainable.seed.w"},
      {"/seed/blueprint_options", {{"n", "1"}}, "seed.blueprint_options.n"},
      {"/seed", nullptr, "gate"},  // A gate without a seed.
      {"/gate", nullptr, "gate"},  // GATE without a gate.
      {"/gate/algorithm_id", "open", "gate.algorithm_id"},
      {"/gate/total_steps", 0, "gate.total_steps"},
  };
  for (const auto& [pointer, value, key] : cases) {
    Json damaged = FullJson();
    damaged[Json::json_pointer(pointer)] = value;
    if (key == nullptr) {
      EXPECT_OK(DecodeSlotRecord(damaged.dump())) << pointer;
    } else {
      ExpectCorrupt(damaged.dump(), key);
    }
  }
  // A gate under another algorithm, and in a slot that cools down.
  Json damaged = FullJson();
  damaged["seed"]["algorithm"] = 1;
  damaged["seed"]["blend_id"] = "linear";
  ExpectCorrupt(damaged.dump(), "gate");
  damaged = FullJson();
  damaged["seed"]["stage"]["stage"] = 8;
  ExpectCorrupt(damaged.dump(), "gate");
}

TEST(SlotRecordTest, TextThatIsNotARecordIsCorrupt) {
  for (const char* text : {"", "{", "[]", "null", "7", "\xff"}) {
    EXPECT_THAT(DecodeSlotRecord(text),
                Refused(absl::StatusCode::kDataLoss, "CORRUPT_CHECKPOINT"));
  }
  std::string text = FullJson().dump();
  const size_t at = text.find("0.75");
  ExpectCorrupt(text.replace(at, 4, "1e999"), "");
  const std::string full = FullJson().dump();
  for (size_t length = 0; length < full.size(); length += 7) {
    EXPECT_FALSE(DecodeSlotRecord(full.substr(0, length)).ok());
  }
}

TEST(SlotCheckpointFileTest, TensorsAndRecordShareOneFile) {
  SlotCheckpoint checkpoint{FullRecord(), {{"seed.w", at::ones({2, 3})}}};
  const std::string bytes = EncodeSlotCheckpoint(checkpoint).value();
  const SlotCheckpoint back = DecodeSlotCheckpoint(bytes, "a file").value();
  EXPECT_EQ(Flatten(back.record), Flatten(checkpoint.record));
  ASSERT_EQ(back.tensors.size(), 1);
  EXPECT_EQ(back.tensors[0].first, "seed.w");
  EXPECT_TRUE(back.tensors[0].second.equal(at::ones({2, 3})));
  EXPECT_THAT(DecodeSlotCheckpoint(bytes.substr(0, bytes.size() - 1), "it"),
              Refused(absl::StatusCode::kDataLoss, "CORRUPT_CHECKPOINT"));
  const std::string bare = tensor::SerializeSafetensors({}, {}).value();
  const auto missing = DecodeSlotCheckpoint(bare, "it");
  EXPECT_THAT(missing,
              Refused(absl::StatusCode::kDataLoss, "CORRUPT_CHECKPOINT"));
  EXPECT_EQ(FieldOf(missing.status()), "esper.slot");
}

}  // namespace
}  // namespace esper::slot
