#include "server/metrics/exporter.h"

#include <exception>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "prometheus/exposer.h"
#include "prometheus/metric_family.h"

namespace esper::server {
namespace {

constexpr int kThreads = 2;

// Passes on to an object that somebody else owns.
class Borrowed final : public prometheus::Collectable {
 public:
  explicit Borrowed(const prometheus::Collectable* source) : source_(source) {}
  std::vector<prometheus::MetricFamily> Collect() const override {
    return source_->Collect();
  }

 private:
  const prometheus::Collectable* const source_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Exporter>> Exporter::Start(
    const std::string& address,
    const std::vector<const prometheus::Collectable*>& sources) {
  std::unique_ptr<Exporter> exporter(new Exporter);
  try {
    exporter->exposer_ =
        std::make_unique<prometheus::Exposer>(address, kThreads);
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("Cannot serve metrics on ", address,
                     ": the address is in use or not of this machine."));
  }
  for (const prometheus::Collectable* source : sources) {
    exporter->sources_.push_back(std::make_shared<Borrowed>(source));
    exporter->exposer_->RegisterCollectable(exporter->sources_.back());
  }
  return exporter;
}

Exporter::~Exporter() = default;

int Exporter::port() const {
  const std::vector<int> ports = exposer_->GetListeningPorts();
  return ports.empty() ? 0 : ports.front();
}

}  // namespace esper::server
