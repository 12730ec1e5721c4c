#include <ATen/ops/abs.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <set>
#include <string>

#include "core/slot/blend.h"
#include "core/slot/gate_network.h"
#include "core/tensor/safetensors.h"
#include "tests/golden/slots_parity/cases.h"

namespace esper::testing {
namespace {

using at::Tensor;
using nlohmann::json;

// The tensors of the file, and which of them were looked at.
class Tensors {
 public:
  explicit Tensors(tensor::Safetensors file) : file_(std::move(file)) {}

  const Tensor* Find(const std::string& name) {
    read_.insert(name);
    return file_.Find(name);
  }
  // Throws std::out_of_range if it is not there.
  Tensor Get(const std::string& name) {
    const Tensor* tensor = Find(name);
    if (tensor == nullptr) throw std::out_of_range("tensor " + name);
    return *tensor;
  }
  std::vector<std::string> Unread() const {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : file_.tensors) {
      if (read_.count(name) == 0) names.push_back(name);
    }
    return names;
  }

 private:
  tensor::Safetensors file_;
  std::set<std::string> read_;
};

// |actual - expected| <= tolerance times the largest finite entry of
// `expected`; what is not finite must match.
void Compare(GoldenReport::Case& test, const std::string& what,
             const Tensor& actual, const Tensor& expected, double tolerance) {
  if (!actual.defined()) return test.Fail(what + " is undefined");
  if (actual.sizes() != expected.sizes() ||
      actual.scalar_type() != expected.scalar_type()) {
    return test.Fail(what + " has another shape or dtype");
  }
  const Tensor a = actual.detach().to(at::kDouble);
  const Tensor e = expected.to(at::kDouble);
  if (e.numel() == 0) return;
  const Tensor finite = at::isfinite(e);
  const double scale =
      at::where(finite, e.abs(), at::zeros_like(e)).max().item<double>();
  const Tensor same = a.eq(e)
                          .logical_or(a.isnan().logical_and(e.isnan()))
                          .logical_or(a.sub(e).abs().le(tolerance * scale));
  if (!same.all().item<bool>()) {
    test.Fail(
        what + " is off by " +
        std::to_string(at::where(finite, a.sub(e).abs(), at::zeros_like(e))
                           .max()
                           .item<double>()));
  }
}

Tensor Run(const std::string& op, const Tensor& host, const Tensor& seed,
           const Tensor& alpha, const Tensor& gate, bool detached) {
  if (op == "add") return slot::BlendAdd(host, seed, alpha);
  if (op == "isolation") return slot::BlendWithIsolation(host, seed, alpha);
  if (op == "multiply") {
    return slot::BlendMultiply(host, seed, alpha,
                               detached ? host.detach() : host);
  }
  if (op == "gate") return slot::BlendGate(host, seed, alpha, gate);
  if (op == "ste") return slot::SteForward(host, seed);
  throw std::out_of_range("operator " + op);
}

void CheckOperator(const json& row, Tensors& tensors, GoldenReport* report) {
  const std::string id = row.at("id");
  GoldenReport::Case test(report, "blend/" + row.at("name").get<std::string>());
  std::set<std::string> frozen;
  for (const json& name : row.at("no_gradient")) frozen.insert(name);
  const auto input = [&](const std::string& name) -> Tensor {
    const Tensor* stored = tensors.Find(id + ".in." + name);
    if (stored == nullptr) return Tensor();
    return stored->clone().set_requires_grad(frozen.count(name) == 0);
  };
  const Tensor host = input("host"), seed = input("seed");
  const Tensor alpha = input("alpha"), gate = input("gate");
  const Tensor cotangent = tensors.Get(id + ".in.upstream_grad");
  const Tensor expected = tensors.Get(id + ".out");
  const bool bf16 = row.at("dtype") == "bfloat16";
  const bool detached = row.at("seed_input_detached").is_boolean() &&
                        row["seed_input_detached"].get<bool>();
  const Tensor out = Run(row.at("op"), host, seed, alpha, gate, detached);
  out.mul(cotangent).sum().backward();

  if (row.at("deviation").is_string()) {
    // D14: the host comes through exactly, whatever is not finite.
    Compare(test, "out", out, host.detach(), 0);
    Compare(test, "grad.host", host.grad(), cotangent, 0);
    const Tensor none = at::zeros_like(cotangent);
    Compare(test, "grad.seed", seed.grad(),
            row.at("op") == "ste"
                ? at::where(at::isfinite(seed.detach()), cotangent, none)
                : none,
            0);
    for (const char* name : {"host", "seed", "alpha", "gate"}) {
      tensors.Find(id + ".grad." + name);
    }
    return;
  }
  Compare(test, "out", out, expected, bf16 ? 2e-2 : 1e-6);
  const auto gradient = [&](const char* name, const Tensor& given) {
    const Tensor* want = tensors.Find(id + ".grad." + name);
    if (want == nullptr) {
      if (given.defined() && given.grad().defined() && given.requires_grad()) {
        test.Fail(std::string(name) + " got a gradient");
      }
      return;
    }
    Compare(test, std::string("grad.") + name, given.grad(), *want,
            bf16 ? 2e-2 : 1e-5);
  };
  gradient("host", host);
  gradient("seed", seed);
  gradient("alpha", alpha);
  gradient("gate", gate);
}

void CheckGateNetwork(const json& row, Tensors& tensors, GoldenReport* report) {
  const std::string id = row.at("id");
  GoldenReport::Case test(report, "gate network/" + id);
  slot::GateNetwork::Options options;
  options.channels = row.at("channels");
  options.topology =
      slot::ParseTopology(row.at("topology").get<std::string>()).value();
  options.total_steps = row.at("total_steps");
  const auto gate = slot::GateNetwork::Create(options).value();
  test.Equal("hidden width", gate->hidden(), row.at("hidden").get<int64_t>());
  for (const auto& item : gate->named_parameters()) {
    Tensor parameter = item.value();
    parameter.set_data(tensors.Get(id + ".weight." + item.key()).clone());
  }
  const Tensor x = tensors.Get(id + ".in.x").clone().set_requires_grad(true);
  const Tensor out = gate->forward(x);
  out.mul(tensors.Get(id + ".in.upstream_grad")).sum().backward();
  Compare(test, "out", out, tensors.Get(id + ".out"), 1e-6);
  Compare(test, "grad.x", x.grad(), tensors.Get(id + ".grad.x"), 1e-5);
  for (const auto& item : gate->named_parameters()) {
    if (const Tensor* want = tensors.Find(id + ".grad." + item.key())) {
      Compare(test, "grad." + item.key(), item.value().grad(), *want, 1e-5);
    }
  }
}

}  // namespace

void CheckBlends(const json& file, const std::string& tensor_path,
                 GoldenReport* report) {
  auto read = tensor::ReadSafetensors(tensor_path);
  if (!read.ok()) {
    GoldenReport::Case(report, "blend_ops.safetensors")
        .Fail(read.status().ToString());
    return;
  }
  Tensors tensors(*std::move(read));
  for (const json& row : file.at("cases")) CheckOperator(row, tensors, report);
  for (const json& row : file.at("learned_gates")) {
    CheckGateNetwork(row, tensors, report);
  }
  GoldenReport::Case test(report, "blend/every tensor is used");
  for (const std::string& name : tensors.Unread()) test.Fail(name);
}

}  // namespace esper::testing
