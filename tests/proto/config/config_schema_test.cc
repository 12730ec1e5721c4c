#include "proto/config/config_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/config/training_config.h"

namespace esper::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(TrainingConfigSchemaTest, HasTypesRangesChoicesDefaultsAndComments) {
  const Json schema = TrainingConfigSchema();
  const Json& ppo = schema["properties"]["ppo"]["properties"];
  EXPECT_EQ(ppo["gamma"]["type"], "number");
  EXPECT_EQ(ppo["gamma"]["exclusiveMinimum"], 0);
  EXPECT_EQ(ppo["gamma"]["maximum"], 1);
  EXPECT_EQ(ppo["gamma"]["default"], 0.995);
  EXPECT_THAT(ppo["gamma"]["description"].get<std::string>(),
              HasSubstr("Discount per step."));
  EXPECT_EQ(ppo["entropy_floors"]["additionalProperties"]["maximum"], 1);
  EXPECT_EQ(ppo["entropy_floors"]["default"]["op"], 0.3);
  EXPECT_THAT(schema["properties"]["policy"]["properties"]["floor"]["enum"],
              ElementsAre("none", "upstream", "mixture", "exact"));
  const Json& run = schema["properties"]["run"]["properties"];
  EXPECT_EQ(run["max_epochs"]["type"], "integer");
  EXPECT_EQ(run["max_epochs"]["minimum"], 1);
  EXPECT_EQ(run["collect_deadline"]["default"], "5m");
  EXPECT_FALSE(schema["additionalProperties"].get<bool>());
}

TEST(TrainingConfigSchemaTest, ListsEveryFieldOfEverySection) {
  const Json schema = TrainingConfigSchema();
  const auto* type = v1::TrainingConfig::descriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const auto* section = type->field(i)->message_type();
    if (section == nullptr) continue;
    const Json& properties =
        schema["properties"][type->field(i)->name()]["properties"];
    EXPECT_EQ(properties.size(), section->field_count());
    for (int f = 0; f < section->field_count(); ++f) {
      EXPECT_TRUE(properties.contains(section->field(f)->name()));
    }
  }
}

}  // namespace
}  // namespace esper::config
