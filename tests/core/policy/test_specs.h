#ifndef ESPER_TESTS_CORE_POLICY_TEST_SPECS_H_
#define ESPER_TESTS_CORE_POLICY_TEST_SPECS_H_

#include <string>
#include <vector>

#include "core/policy/policy_spec.h"

namespace esper::policy {

// The network-growing policy, narrow enough for quick tests.
inline PolicySpec SmallNetworkGrowing(int slots = 3, int64_t layers = 1) {
  NetworkGrowingOptions options;
  options.slot_ids.clear();
  for (int i = 0; i < slots; ++i) {
    options.slot_ids.push_back("r0c" + std::to_string(i));
  }
  options.feature_dim = 24;
  options.hidden_dim = 16;
  options.lstm_layers = layers;
  return PolicySpec::NetworkGrowing(options);
}

inline HeadSpec PlainHead(const std::string& name, int64_t size) {
  HeadSpec head;
  head.name = name;
  head.size = size;
  head.hidden = {8};
  head.floor = 0.02;
  return head;
}

// One discrete choice, no driver, no embedding, no Q, no predictor.
inline PolicySpec PlainDiscrete() {
  PolicySpec spec;
  spec.name = "plain";
  spec.observation = {{"position", 2}, {"velocity", 1}};
  spec.heads = {PlainHead("action", 4)};
  spec.sampling_order = {"action"};
  spec.feature_dim = 16;
  spec.hidden_dim = 16;
  spec.floor_mode = FloorMode::kUpstream;
  spec.mask_optional = true;
  return spec;
}

// Two drivers, one driving the other; placeholders of both kinds; a head
// without hidden layer; heads out of sampling order.
inline PolicySpec TwoDrivers() {
  PolicySpec spec;
  spec.name = "two_drivers";
  spec.observation = {{"all", 5}};
  HeadSpec target = PlainHead("target", 5);  // Driven by the inner driver.
  target.driver = "tool";
  target.relevant_when = {1, 2};
  HeadSpec tool = PlainHead("tool", 3);  // Driven by the outer driver.
  tool.driver = "mode";
  tool.relevant_when = {0, 3};
  tool.placeholder = 2;
  tool.hidden = {};
  HeadSpec speed = PlainHead("speed", 2);
  speed.driver = "mode";
  speed.relevant_when = {1};
  speed.placeholder = 1;
  spec.heads = {target, tool, speed, PlainHead("mode", 4)};
  spec.sampling_order = {"mode", "speed", "tool", "target"};
  spec.feature_dim = 16;
  spec.hidden_dim = 16;
  spec.floor_mode = FloorMode::kMixture;
  return spec;
}

// Three real numbers, nothing else.
inline PolicySpec PlainBox() {
  HeadSpec force = HeadSpec::Gaussian("force", 3, /*hidden=*/8);
  force.low = {-1, -1, 0};
  force.high = {1, 1, 5};
  PolicySpec spec = PolicySpec::Plain(4, {force});
  spec.feature_dim = 16;
  spec.hidden_dim = 16;
  return spec;
}

// Choices and real numbers: Gaussian heads with a driver of each depth and
// without one, between categorical heads in storage order.
inline PolicySpec Hybrid() {
  HeadSpec aim = HeadSpec::Gaussian("aim", 2, /*hidden=*/8);
  aim.driver = "mode";
  aim.relevant_when = {1, 2};
  aim.initial_log_std = -0.5;
  HeadSpec tool = PlainHead("tool", 4);
  tool.driver = "mode";
  tool.relevant_when = {0};
  HeadSpec speed = HeadSpec::Gaussian("speed", 1);
  speed.hidden = {};
  HeadSpec grip = HeadSpec::Gaussian("grip", 5);
  grip.driver = "tool";
  grip.relevant_when = {0, 3};
  grip.hidden = {8, 8};
  PolicySpec spec =
      PolicySpec::Plain(6, {aim, tool, speed, PlainHead("mode", 3), grip});
  spec.name = "hybrid";
  spec.feature_dim = 16;
  spec.hidden_dim = 16;
  spec.floor_mode = FloorMode::kMixture;
  return spec;
}

inline std::vector<PolicySpec> GaussianTestSpecs() {
  return {PlainBox(), Hybrid()};
}

// Those of categorical heads alone: the network-growing policy with 1, 3 and 9
// slots and with two recurrent layers, and two policies of other kinds.
inline std::vector<PolicySpec> AllTestSpecs() {
  return {SmallNetworkGrowing(1), SmallNetworkGrowing(3),
          SmallNetworkGrowing(9), SmallNetworkGrowing(2, /*layers=*/2),
          PlainDiscrete(),        TwoDrivers()};
}

}  // namespace esper::policy
#endif  // ESPER_TESTS_CORE_POLICY_TEST_SPECS_H_
