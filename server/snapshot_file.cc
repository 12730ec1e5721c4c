#include "server/snapshot_file.h"

#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/policy/policy_io.h"
#include "core/tensor/safetensors.h"
#include "nlohmann/json.hpp"
#include "server/refusal.h"

namespace esper::server {
namespace {

using nlohmann::json;

constexpr char kActingKey[] = "acting";
constexpr int kFormat = 1;
// The metadata hold two numbers per feature of the observations.
constexpr int64_t kMaxHeaderBytes = 64 << 20;

absl::Status Corrupt(const std::string& source, const std::string& what) {
  return Refuse(
      "CORRUPT_VERSION", kActingKey,
      absl::StrCat(source, " is not a version that can act: ", what, "."),
      "Get the version again.");
}

bool IsVector(const json& value) {
  if (!value.is_array()) return false;
  for (const json& item : value) {
    if (!item.is_number()) return false;
  }
  return true;
}

// Whether every entry is there and of its type.
bool IsComplete(const json& acting) {
  if (!acting.is_object()) return false;
  for (const char* key : {"format", "version"}) {
    if (!acting.contains(key) || !acting[key].is_number_integer()) return false;
  }
  for (const char* key : {"value_unit", "floor_scale", "scaler_clip"}) {
    if (!acting.contains(key) || !acting[key].is_number()) return false;
  }
  for (const char* key : {"precision", "floor_mode"}) {
    if (!acting.contains(key) || !acting[key].is_string()) return false;
  }
  for (const char* key : {"floors", "scaler_mean", "scaler_inverse"}) {
    if (!acting.contains(key) || !IsVector(acting[key])) return false;
  }
  return true;
}

bool ParseFloorMode(const std::string& name, policy::FloorMode* mode) {
  for (const policy::FloorMode each :
       {policy::FloorMode::kNone, policy::FloorMode::kUpstream,
        policy::FloorMode::kExact, policy::FloorMode::kMixture}) {
    if (name != policy::FloorModeName(each)) continue;
    *mode = each;
    return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::string> EncodeSnapshot(
    const policy::PolicySpec& spec, const ppo::PolicySnapshot& snapshot,
    policy::InferencePrecision precision) {
  const ppo::ObservationScaler::Parts scaler = snapshot.scaler.parts();
  // Numbers are written with as many digits as bring them back exactly.
  const json acting = {
      {"format", kFormat},
      {"version", snapshot.version},
      {"precision", policy::PrecisionName(precision)},
      {"value_unit", snapshot.value_unit},
      {"floor_mode", policy::FloorModeName(snapshot.floors.mode)},
      {"floors", snapshot.floors.floors},
      {"floor_scale", snapshot.floor_scale},
      {"scaler_mean", scaler.mean},
      {"scaler_inverse", scaler.inverse},
      {"scaler_clip", scaler.clip},
  };
  std::map<std::string, std::string> metadata = policy::PolicyMetadata(spec);
  metadata[kActingKey] = acting.dump();
  return tensor::SerializeSafetensors(snapshot.weights, metadata);
}

absl::StatusOr<SnapshotFile> DecodeSnapshot(const std::string& bytes,
                                            const std::string& source) {
  tensor::SafetensorsLimits limits;
  limits.max_header_bytes = kMaxHeaderBytes;
  const auto parsed = tensor::ParseSafetensors(bytes, source, limits);
  if (!parsed.ok()) return parsed.status();
  auto file = policy::ImportPolicy(*parsed);
  if (!file.ok()) return file.status();
  const std::string* text = parsed->FindMetadata(kActingKey);
  if (text == nullptr) return Corrupt(source, "it has no metadata for acting");
  const json acting = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!IsComplete(acting)) {
    return Corrupt(source, "its metadata for acting are not complete");
  }
  if (acting["format"] != kFormat) {
    return Corrupt(source, absl::StrCat("its metadata have format ",
                                        acting["format"].dump(),
                                        ", this build reads ", kFormat));
  }
  SnapshotFile result;
  const std::string precision = acting["precision"];
  if (precision != policy::PrecisionName(policy::InferencePrecision::kFp32) &&
      precision != policy::PrecisionName(policy::InferencePrecision::kBf16)) {
    return Corrupt(source, absl::StrCat("unknown precision ", precision));
  }
  result.precision = *policy::ParsePrecision(precision);
  ppo::PolicySnapshot& snapshot = result.snapshot;
  if (!ParseFloorMode(acting["floor_mode"], &snapshot.floors.mode)) {
    return Corrupt(source, "unknown mode of its floors");
  }
  snapshot.floors.floors = acting["floors"].get<std::vector<double>>();
  auto scaler = ppo::ObservationScaler::FromParts(
      {acting["scaler_mean"].get<std::vector<double>>(),
       acting["scaler_inverse"].get<std::vector<double>>(),
       acting["scaler_clip"].get<double>()});
  if (!scaler.ok())
    return Corrupt(source, std::string(scaler.status().message()));
  if (!scaler->identity() &&
      scaler->width() != file->spec.observation_width()) {
    return Corrupt(source, "its observation scaler has another width");
  }
  snapshot.scaler = *std::move(scaler);
  snapshot.version = acting["version"];
  snapshot.value_unit = acting["value_unit"];
  snapshot.floor_scale = acting["floor_scale"];
  if (snapshot.version < 1 || !(snapshot.value_unit > 0) ||
      !std::isfinite(snapshot.value_unit) ||
      !(snapshot.floor_scale >= 0 && snapshot.floor_scale <= 1)) {
    return Corrupt(source,
                   "its version, value unit or floor scale is out of "
                   "range");
  }
  snapshot.weights = std::move(file->weights);
  result.spec = std::move(file->spec);
  return result;
}

}  // namespace esper::server
