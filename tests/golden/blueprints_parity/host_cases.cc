#include <memory>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "core/host/cnn_host.h"
#include "core/host/growable_model.h"
#include "core/host/transformer_host.h"
#include "tests/golden/blueprints_parity/cases.h"

namespace esper::testing {
namespace {

using nlohmann::json;

std::shared_ptr<host::Host> MakeHost(const json& options,
                                     slot::Topology topology) {
  if (topology == slot::Topology::kCnn) {
    host::CnnHostOptions cnn;
    cnn.n_blocks = options.at("n_blocks");
    cnn.base_channels = options.at("base_channels");
    cnn.pool_layers = options.at("pool_layers").get<int64_t>();
    cnn.kernel = options.at("kernel");
    cnn.num_classes = options.at("num_classes");
    return host::CnnHost::Create(cnn, /*seed=*/1).value();
  }
  host::TransformerHostOptions transformer;
  transformer.vocab_size = options.at("vocab_size");
  transformer.width = options.at("width");
  transformer.heads = options.at("heads");
  transformer.layers = options.at("layers");
  transformer.block_size = options.at("block_size");
  transformer.segments = options.at("segments");
  transformer.dropout = 0;
  return host::TransformerHost::Create(transformer, /*seed=*/1).value();
}

// The network of an entry with the weights of its vectors, and a slot at every
// point of the host.
std::shared_ptr<host::GrowableModel> MakeModel(const json& entry,
                                               Vectors& vectors,
                                               GoldenCase& result) {
  const std::string name = entry.at("name");
  const auto host = MakeHost(entry.at("options"), vectors.topology());
  const auto model =
      host::GrowableModel::Create(host, host->execution_order()).value();
  LoadParameters(*host, name + ".weight.", vectors, result);
  for (const auto& [point, seed] : entry.at("slots").items()) {
    slot::SeedSlot& slot = *model->FindSlot(point).value();
    GrowSeed(seed, StageNamed(seed.at("stages").at(0)), slot);
    LoadParameters(*SeedOf(slot), absl::StrCat(name, ".seed.", point, "."),
                   vectors, result);
    if (GateOf(slot) == nullptr) continue;
    LoadParameters(*GateOf(slot), absl::StrCat(name, ".gate.", point, "."),
                   vectors, result);
  }
  return model;
}

// Activations as they pass the points.
void CheckPoints(const json& entry, Vectors& vectors, GoldenCase& result) {
  const std::string name = entry.at("name");
  const auto model = MakeModel(entry, vectors, result);
  at::Tensor features = vectors.Get(name + ".in.x");
  int from = host::Host::kInput;
  for (const auto& [position, slot] : model->route()) {
    features = slot->forward(model->host().Run(from, position, features));
    from = position;
    ExpectTensor("features at " + slot->slot_id(), features,
                 vectors.Get(name + ".point." + slot->slot_id()), result);
  }
}

void CheckNetwork(const json& entry, Vectors& vectors, GoldenCase& result) {
  const std::string name = entry.at("name");
  const auto model = MakeModel(entry, vectors, result);
  const at::Tensor x = vectors.Get(name + ".in.x");
  const at::Tensor logits = model->Forward(x);
  logits.backward(vectors.Get(name + ".in.cotangent"));
  ExpectTensor("logits", logits, vectors.Get(name + ".out"), result);
  ExpectGradients(model->host(), name + ".grad.", vectors, result);
  for (const auto& [point, seed] : entry.at("slots").items()) {
    const slot::SeedSlot& slot = *model->FindSlot(point).value();
    ExpectGradients(*SeedOf(slot),
                    absl::StrCat(name, ".grad.seed.", point, "."), vectors,
                    result);
    if (GateOf(slot) == nullptr) continue;
    ExpectGradients(*GateOf(slot),
                    absl::StrCat(name, ".grad.gate.", point, "."), vectors,
                    result);
  }

  if (vectors.topology() != slot::Topology::kCnn) return;
  for (const auto& item : model->host().named_buffers()) {
    if (!item.value().is_floating_point()) continue;
    ExpectTensor(item.key(), item.value(),
                 vectors.Get(name + ".statistics." + item.key()), result);
  }
  model->eval();
  ExpectTensor("logits in evaluation mode", model->Forward(x),
               vectors.Get(name + ".eval"), result);
}

}  // namespace

void CheckHosts(Vectors& vectors, GoldenReport* report) {
  for (const json& entry : vectors.description().at("networks")) {
    GoldenCase result(
        report, absl::StrCat(slot::TopologyName(vectors.topology()), " host ",
                             entry.at("name").get<std::string>()));
    try {
      CheckPoints(entry, vectors, result);
      CheckNetwork(entry, vectors, result);
    } catch (const std::exception& error) {
      result.Fail(error.what());
    }
  }
}

}  // namespace esper::testing
