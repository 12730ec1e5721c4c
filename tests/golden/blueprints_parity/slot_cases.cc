#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "core/slot/blueprint.h"
#include "core/slot/forward_plan.h"
#include "tests/golden/blueprints_parity/cases.h"

namespace esper::testing {
namespace {

using nlohmann::json;

std::shared_ptr<slot::SeedSlot> MakeSlot(const json& entry,
                                         slot::Topology topology) {
  slot::SeedSlot::Options options;
  options.slot_id = "r0c0";
  options.channels = entry.at("channels");
  options.topology = topology;
  options.init_profile = entry.at("profile") == "live"
                             ? slot::InitProfile::kLive
                             : slot::InitProfile::kUpstream;
  return slot::SeedSlot::Create(options).value();
}

void CheckSlot(const json& entry, slot::SeedStage stage, Vectors& vectors,
               GoldenCase& result) {
  const std::string id = entry.at("id");
  const std::string channels = absl::StrCat(entry.at("channels").get<int>());
  const std::string in = "in." + channels + ".";
  const auto slot = MakeSlot(entry, vectors.topology());
  GrowSeed(entry, stage, *slot);
  LoadParameters(*SeedOf(*slot),
                 "weight." + entry.at("weights").get<std::string>() + ".",
                 vectors, result);
  if (GateOf(*slot) != nullptr) {
    LoadParameters(*GateOf(*slot), "gate." + channels + ".", vectors, result);
  }

  const at::Tensor host = vectors.Get(in + "host").clone().requires_grad_();
  slot::SlotView view;
  if (entry.at("override")) view.alpha_override = vectors.Get(in + "override");
  const at::Tensor out = slot->forward(host, view);
  out.backward(vectors.Get(in + "cotangent"));

  ExpectTensor("output", out, vectors.Get(id + ".out"), result);
  ExpectTensor("gradient of host", host.grad(), vectors.Get(id + ".grad.host"),
               result);
  ExpectGradients(*SeedOf(*slot), id + ".grad.seed.", vectors, result);
  if (GateOf(*slot) != nullptr) {
    ExpectGradients(*GateOf(*slot), id + ".grad.gate.", vectors, result);
  }
}

}  // namespace

void CheckSlots(Vectors& vectors, GoldenReport* report) {
  for (const json& entry : vectors.description().at("cases")) {
    for (const json& name : entry.at("stages")) {
      const std::string stage = name;
      GoldenCase result(
          report, absl::StrCat(slot::TopologyName(vectors.topology()), " ",
                               entry.at("id").get<std::string>(), " ", stage));
      try {
        CheckSlot(entry, StageNamed(stage), vectors, result);
      } catch (const std::exception& error) {
        result.Fail(error.what());
      }
    }
  }
}

}  // namespace esper::testing
