// The JSON form of a PolicySpec, and the digest over it.
#include <openssl/evp.h>

#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/policy/policy_spec.h"
#include "nlohmann/json.hpp"

namespace esper::policy {
namespace {

using Json = nlohmann::json;  // Sorts its keys: dump() is canonical.

// Version of the format itself.
constexpr int64_t kFormatVersion = 1;

// Thrown and caught inside this file only.
struct FieldError {
  std::string field;
  std::string message;
};

// Reads the fields of one object and, at the end, refuses those left over.
class Reader {
 public:
  Reader(const Json& json, std::string path)
      : json_(json), path_(std::move(path)) {
    if (!json.is_object()) throw FieldError{path_, "is not an object"};
  }

  bool Has(const std::string& key) const { return json_.contains(key); }

  const Json& Field(const std::string& key) {
    const auto it = json_.find(key);
    if (it == json_.end()) throw FieldError{Path(key), "is missing"};
    read_.insert(key);
    return *it;
  }

  template <typename T>
  void Read(const std::string& key, T& value) {
    Convert(Field(key), Path(key), value);
  }

  void Finish() const {
    for (const auto& [key, value] : json_.items()) {
      if (read_.count(key) == 0) throw FieldError{Path(key), "is unknown"};
    }
  }

  std::string Path(const std::string& key) const {
    return path_.empty() ? key : absl::StrCat(path_, ".", key);
  }

 private:
  static void Convert(const Json& json, const std::string& path,
                      std::string& value) {
    if (!json.is_string()) throw FieldError{path, "is not a string"};
    value = json.get<std::string>();
  }
  static void Convert(const Json& json, const std::string& path,
                      int64_t& value) {
    if (!json.is_number_integer() ||
        (json.is_number_unsigned() &&
         json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))) {
      throw FieldError{path, "is not an integer"};
    }
    value = json.get<int64_t>();
  }
  static void Convert(const Json& json, const std::string& path,
                      double& value) {
    if (!json.is_number()) throw FieldError{path, "is not a number"};
    value = json.get<double>();
  }
  static void Convert(const Json& json, const std::string& path, bool& value) {
    if (!json.is_boolean()) throw FieldError{path, "is not true or false"};
    value = json.get<bool>();
  }
  template <typename T>
  static void Convert(const Json& json, const std::string& path,
                      std::vector<T>& values) {
    if (!json.is_array()) throw FieldError{path, "is not a list"};
    values.clear();
    for (const Json& item : json) {
      values.emplace_back();
      Convert(item, path, values.back());
    }
  }

  const Json& json_;
  const std::string path_;
  std::set<std::string> read_;
};

Json Write(const ObservationField& field) {
  return {{"name", field.name}, {"width", field.width}};
}

Json Write(const CategoricalInput& input) {
  return {{"name", input.name},
          {"count", input.count},
          {"cardinality", input.cardinality},
          {"width", input.width}};
}

// A Gaussian head says so; a categorical one has no kind, as before there were
// others, so that digests stay.
Json WriteGaussian(const HeadSpec& head) {
  return {{"name", head.name},
          {"kind", HeadKindName(head.kind)},
          {"size", head.size},
          {"labels", head.labels},
          {"hidden", head.hidden},
          {"final_gain", head.final_gain},
          {"driver", head.driver},
          {"relevant_when", head.relevant_when},
          {"initial_log_std", head.initial_log_std},
          {"low", head.low},
          {"high", head.high},
          {"entropy_coef", head.entropy_coef}};
}

Json Write(const HeadSpec& head) {
  if (head.kind == HeadKind::kGaussian) return WriteGaussian(head);
  return {{"name", head.name},
          {"size", head.size},
          {"labels", head.labels},
          {"hidden", head.hidden},
          {"final_gain", head.final_gain},
          {"driver", head.driver},
          {"relevant_when", head.relevant_when},
          {"placeholder", head.placeholder.has_value() ? Json(*head.placeholder)
                                                       : Json("first_allowed")},
          {"conditional_mask", head.conditional_mask},
          {"idle_choice", head.idle_choice},
          {"floor", head.floor},
          {"entropy_coef", head.entropy_coef}};
}

ObservationField ReadField(const Json& json, const std::string& path) {
  ObservationField field;
  Reader reader(json, path);
  reader.Read("name", field.name);
  reader.Read("width", field.width);
  reader.Finish();
  return field;
}

CategoricalInput ReadCategorical(const Json& json, const std::string& path) {
  CategoricalInput input;
  Reader reader(json, path);
  reader.Read("name", input.name);
  reader.Read("count", input.count);
  reader.Read("cardinality", input.cardinality);
  reader.Read("width", input.width);
  reader.Finish();
  return input;
}

HeadKind ReadKind(Reader& reader) {
  if (!reader.Has("kind")) return HeadKind::kCategorical;
  std::string name;
  reader.Read("kind", name);
  for (const HeadKind kind : {HeadKind::kCategorical, HeadKind::kGaussian}) {
    if (name == HeadKindName(kind)) return kind;
  }
  throw FieldError{reader.Path("kind"), "is not categorical or gaussian"};
}

HeadSpec ReadHead(const Json& json, const std::string& path) {
  HeadSpec head;
  Reader reader(json, path);
  reader.Read("name", head.name);
  head.kind = ReadKind(reader);
  reader.Read("size", head.size);
  reader.Read("labels", head.labels);
  reader.Read("hidden", head.hidden);
  reader.Read("final_gain", head.final_gain);
  reader.Read("driver", head.driver);
  reader.Read("relevant_when", head.relevant_when);
  reader.Read("entropy_coef", head.entropy_coef);
  if (head.kind == HeadKind::kGaussian) {
    reader.Read("initial_log_std", head.initial_log_std);
    reader.Read("low", head.low);
    reader.Read("high", head.high);
    reader.Finish();
    return head;
  }
  if (reader.Field("placeholder") != Json("first_allowed")) {
    int64_t placeholder = 0;
    reader.Read("placeholder", placeholder);
    head.placeholder = placeholder;
  }
  reader.Read("conditional_mask", head.conditional_mask);
  reader.Read("idle_choice", head.idle_choice);
  reader.Read("floor", head.floor);
  reader.Finish();
  return head;
}

FloorMode ReadFloorMode(Reader& reader) {
  std::string name;
  reader.Read("floor_mode", name);
  for (const FloorMode mode : {FloorMode::kNone, FloorMode::kUpstream,
                               FloorMode::kExact, FloorMode::kMixture}) {
    if (name == FloorModeName(mode)) return mode;
  }
  throw FieldError{"floor_mode", "is not none, upstream, exact or mixture"};
}

template <typename T, typename ReadItem>
void ReadList(Reader& reader, const std::string& key, ReadItem read_item,
              std::vector<T>& items) {
  const Json& json = reader.Field(key);
  if (!json.is_array()) throw FieldError{key, "is not a list"};
  for (size_t i = 0; i < json.size(); ++i) {
    items.push_back(read_item(json[i], absl::StrCat(key, "[", i, "]")));
  }
}

PolicySpec ReadSpec(const Json& json) {
  PolicySpec spec;
  Reader reader(json, "");
  int64_t version = 0;
  reader.Read("format_version", version);
  if (version != kFormatVersion) {
    throw FieldError{"format_version", "is not the one this build reads"};
  }
  reader.Read("name", spec.name);
  ReadList(reader, "observation", ReadField, spec.observation);
  if (const Json& categorical = reader.Field("categorical");
      !categorical.is_null()) {
    spec.categorical = ReadCategorical(categorical, "categorical");
  }
  ReadList(reader, "heads", ReadHead, spec.heads);
  reader.Read("sampling_order", spec.sampling_order);
  reader.Read("slot_ids", spec.slot_ids);
  reader.Read("feature_dim", spec.feature_dim);
  reader.Read("hidden_dim", spec.hidden_dim);
  reader.Read("lstm_layers", spec.lstm_layers);
  reader.Read("q_head", spec.q_head);
  reader.Read("contribution_outputs", spec.contribution_outputs);
  spec.floor_mode = ReadFloorMode(reader);
  reader.Read("mask_optional", spec.mask_optional);
  reader.Finish();
  return spec;
}

absl::Status BadField(const FieldError& error) {
  ErrorDetail detail;
  detail.reason = "BAD_SPEC";
  detail.field = error.field;
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail,
                    absl::StrCat("Policy specification, ", error.field, ": ",
                                 error.message, "."));
}

}  // namespace

std::string PolicySpec::ToJson() const {
  Json observation_json = Json::array();
  for (const ObservationField& field : observation) {
    observation_json.push_back(Write(field));
  }
  Json heads_json = Json::array();
  for (const HeadSpec& head : heads) heads_json.push_back(Write(head));
  const Json json = {
      {"format_version", kFormatVersion},
      {"name", name},
      {"observation", observation_json},
      {"categorical",
       categorical.has_value() ? Write(*categorical) : Json(nullptr)},
      {"heads", heads_json},
      {"sampling_order", sampling_order},
      {"slot_ids", slot_ids},
      {"feature_dim", feature_dim},
      {"hidden_dim", hidden_dim},
      {"lstm_layers", lstm_layers},
      {"q_head", q_head},
      {"contribution_outputs", contribution_outputs},
      {"floor_mode", FloorModeName(floor_mode)},
      {"mask_optional", mask_optional}};
  return json.dump();
}

absl::StatusOr<PolicySpec> PolicySpec::FromJson(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return BadField({"json", "is not JSON"});
  try {
    PolicySpec spec = ReadSpec(json);
    if (absl::Status status = spec.Validate(); !status.ok()) return status;
    return spec;
  } catch (const FieldError& error) {
    return BadField(error);
  }
}

std::string PolicySpec::Digest() const {
  const std::string json = ToJson();
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_Digest(json.data(), json.size(), digest, &size, EVP_sha256(), nullptr);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), size));
}

}  // namespace esper::policy
