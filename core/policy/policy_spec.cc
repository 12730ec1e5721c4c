#include "core/policy/policy_spec.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::policy {
namespace {

constexpr int64_t kMaxWidth = 1 << 16;
constexpr int64_t kMaxLayers = 64;

absl::Status Invalid(const std::string& field, const std::string& message) {
  ErrorDetail detail;
  detail.reason = "BAD_SPEC";
  detail.field = field;
  return MakeStatus(
      absl::StatusCode::kInvalidArgument, detail,
      absl::StrCat("Policy specification, ", field, ": ", message, "."));
}

bool InRange(int64_t value, int64_t low, int64_t high) {
  return value >= low && value <= high;
}

// Names become parts of parameter names, in which a dot separates modules.
bool IsName(const std::string& name) {
  if (name.empty() || name.size() > 64) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') || c == '_';
  });
}

// What only one kind of head has.
absl::Status ValidateKind(const std::string& field, const HeadSpec& head) {
  const HeadSpec none;
  if (head.kind == HeadKind::kCategorical) {
    if (head.initial_log_std == none.initial_log_std && head.low.empty() &&
        head.high.empty()) {
      return absl::OkStatus();
    }
    return Invalid(field,
                   "initial_log_std, low and high are for Gaussian heads");
  }
  if (head.placeholder.has_value() || head.conditional_mask ||
      head.idle_choice != none.idle_choice || head.floor != none.floor) {
    return Invalid(field,
                   "a Gaussian head has no placeholder, conditional mask, idle "
                   "choice or floor");
  }
  if (!(head.initial_log_std >= -5 && head.initial_log_std <= 2)) {
    return Invalid(field, "initial_log_std must be in [-5, 2]");
  }
  if (head.low.size() != head.high.size() ||
      (!head.low.empty() &&
       static_cast<int64_t>(head.low.size()) != head.size)) {
    return Invalid(field, "low and high must be none or one per dimension");
  }
  for (size_t i = 0; i < head.low.size(); ++i) {
    if (std::isfinite(head.low[i]) && std::isfinite(head.high[i]) &&
        head.low[i] < head.high[i]) {
      continue;
    }
    return Invalid(field, "low and high must be finite and low below high");
  }
  return absl::OkStatus();
}

absl::Status ValidateHead(const PolicySpec& spec, const HeadSpec& head) {
  const std::string field = absl::StrCat("heads.", head.name);
  if (!InRange(head.size, 1, kMaxWidth)) return Invalid(field, "size below 1");
  if (absl::Status status = ValidateKind(field, head); !status.ok()) {
    return status;
  }
  if (!head.labels.empty() &&
      static_cast<int64_t>(head.labels.size()) != head.size) {
    return Invalid(field, "labels must be none or one per choice or dimension");
  }
  for (const int64_t width : head.hidden) {
    if (!InRange(width, 1, kMaxWidth)) {
      return Invalid(field, "a hidden width is out of range");
    }
  }
  if (!(head.final_gain >= 0 && head.final_gain <= 1e6)) {
    return Invalid(field, "final_gain is out of range");
  }
  if (!(head.floor >= 0 && head.floor < 1)) {
    return Invalid(field, "floor must be in [0, 1)");
  }
  if (!(head.entropy_coef >= 0 && head.entropy_coef <= 1e6)) {
    return Invalid(field, "entropy_coef is out of range");
  }
  if (!InRange(head.idle_choice, -1, head.size - 1)) {
    return Invalid(field, "idle_choice is no choice of the head");
  }
  if (head.placeholder.has_value() &&
      !InRange(*head.placeholder, 0, head.size - 1)) {
    return Invalid(field, "placeholder is no choice of the head");
  }
  if (head.driver.empty()) {
    if (!head.relevant_when.empty()) {
      return Invalid(field, "relevant_when without a driver");
    }
    if (head.conditional_mask) {
      return Invalid(field, "a conditional mask without a driver");
    }
    return absl::OkStatus();
  }
  const int64_t driver = spec.HeadIndex(head.driver);
  if (driver < 0) {
    return Invalid(field, absl::StrCat("unknown driver ", head.driver));
  }
  if (spec.heads[driver].kind != HeadKind::kCategorical) {
    return Invalid(
        field, absl::StrCat("the driver ", head.driver, " is not categorical"));
  }
  std::set<int64_t> choices;
  for (const int64_t choice : head.relevant_when) {
    if (!InRange(choice, 0, spec.heads[driver].size - 1)) {
      return Invalid(field, "relevant_when holds no choice of the driver");
    }
    if (!choices.insert(choice).second) {
      return Invalid(field, "relevant_when holds a choice twice");
    }
  }
  return absl::OkStatus();
}

// A sampling order that puts drivers first also proves that there is no cycle.
absl::Status ValidateOrder(const PolicySpec& spec) {
  if (spec.sampling_order.size() != spec.heads.size()) {
    return Invalid("sampling_order", "must name every head once");
  }
  std::set<std::string> sampled;
  for (const std::string& name : spec.sampling_order) {
    const int64_t k = spec.HeadIndex(name);
    if (k < 0) {
      return Invalid("sampling_order", absl::StrCat("unknown head ", name));
    }
    const std::string& driver = spec.heads[k].driver;
    if (!driver.empty() && sampled.count(driver) == 0) {
      return Invalid("sampling_order",
                     absl::StrCat(name, " comes before its driver ", driver));
    }
    if (!sampled.insert(name).second) {
      return Invalid("sampling_order", absl::StrCat(name, " appears twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateInputs(const PolicySpec& spec) {
  std::set<std::string> names;
  for (const ObservationField& field : spec.observation) {
    if (field.name.empty() || !names.insert(field.name).second) {
      return Invalid("observation", "a field name is empty or repeated");
    }
    if (!InRange(field.width, 1, kMaxWidth)) {
      return Invalid("observation",
                     absl::StrCat(field.name, " has a width out of range"));
    }
  }
  if (!InRange(spec.observation_width(), 1, kMaxWidth)) {
    return Invalid("observation", "the whole width is out of range");
  }
  if (spec.categorical.has_value()) {
    const CategoricalInput& input = *spec.categorical;
    if (!IsName(input.name)) return Invalid("categorical", "bad name");
    if (!InRange(input.count, 1, kMaxWidth) ||
        !InRange(input.cardinality, 1, kMaxWidth) ||
        !InRange(input.width, 1, kMaxWidth)) {
      return Invalid("categorical", "count, cardinality or width out of range");
    }
  }
  return absl::OkStatus();
}

int64_t SizesOf(const std::vector<HeadSpec>& heads, HeadKind kind) {
  int64_t sizes = 0;
  for (const HeadSpec& head : heads) sizes += head.kind == kind ? head.size : 0;
  return sizes;
}

}  // namespace

const char* FloorModeName(FloorMode mode) {
  switch (mode) {
    case FloorMode::kNone:
      return "none";
    case FloorMode::kUpstream:
      return "upstream";
    case FloorMode::kExact:
      return "exact";
    case FloorMode::kMixture:
      return "mixture";
  }
  return "none";
}

const char* HeadKindName(HeadKind kind) {
  return kind == HeadKind::kGaussian ? "gaussian" : "categorical";
}

bool ObservationField::operator==(const ObservationField& other) const {
  return name == other.name && width == other.width;
}

bool CategoricalInput::operator==(const CategoricalInput& other) const {
  return name == other.name && count == other.count &&
         cardinality == other.cardinality && width == other.width;
}

bool HeadSpec::operator==(const HeadSpec& other) const {
  return name == other.name && kind == other.kind && size == other.size &&
         labels == other.labels && hidden == other.hidden &&
         final_gain == other.final_gain && driver == other.driver &&
         relevant_when == other.relevant_when &&
         placeholder == other.placeholder &&
         conditional_mask == other.conditional_mask &&
         idle_choice == other.idle_choice && floor == other.floor &&
         initial_log_std == other.initial_log_std && low == other.low &&
         high == other.high && entropy_coef == other.entropy_coef;
}

bool PolicySpec::operator==(const PolicySpec& other) const {
  return name == other.name && observation == other.observation &&
         categorical == other.categorical && heads == other.heads &&
         sampling_order == other.sampling_order && slot_ids == other.slot_ids &&
         feature_dim == other.feature_dim && hidden_dim == other.hidden_dim &&
         lstm_layers == other.lstm_layers && q_head == other.q_head &&
         contribution_outputs == other.contribution_outputs &&
         floor_mode == other.floor_mode && mask_optional == other.mask_optional;
}

absl::Status PolicySpec::Validate() const {
  if (name.empty()) return Invalid("name", "is empty");
  if (heads.empty()) return Invalid("heads", "is empty");
  if (absl::Status status = ValidateInputs(*this); !status.ok()) return status;

  std::set<std::string> names;
  int64_t conditional_masks = 0;
  for (const HeadSpec& head : heads) {
    // These would share parameter names with V and Q.
    if (!IsName(head.name) || head.name == "state_value" || head.name == "q") {
      return Invalid("heads", absl::StrCat("bad name \"", head.name, "\""));
    }
    if (!names.insert(head.name).second) {
      return Invalid("heads", absl::StrCat(head.name, " appears twice"));
    }
    conditional_masks += head.conditional_mask;
  }
  for (const HeadSpec& head : heads) {
    if (absl::Status status = ValidateHead(*this, head); !status.ok()) {
      return status;
    }
  }
  if (conditional_masks > 1) {
    return Invalid("heads", "more than one head has a conditional mask");
  }
  if (absl::Status status = ValidateOrder(*this); !status.ok()) return status;

  if (std::set<std::string>(slot_ids.begin(), slot_ids.end()).size() !=
      slot_ids.size()) {
    return Invalid("slot_ids", "an id appears twice");
  }
  if (!InRange(feature_dim, 1, kMaxWidth)) {
    return Invalid("feature_dim", "is out of range");
  }
  // The value network's widths are H/2, H/4 and H/8.
  if (!InRange(hidden_dim, 8, kMaxWidth)) {
    return Invalid("hidden_dim", "must be at least 8");
  }
  if (!InRange(lstm_layers, 1, kMaxLayers)) {
    return Invalid("lstm_layers", "is out of range");
  }
  if (!q_head.empty() && HeadIndex(q_head) < 0) {
    return Invalid("q_head", absl::StrCat("unknown head ", q_head));
  }
  if (!q_head.empty() &&
      heads[HeadIndex(q_head)].kind != HeadKind::kCategorical) {
    return Invalid("q_head", absl::StrCat(q_head, " is not categorical"));
  }
  if (!InRange(contribution_outputs, 0, kMaxWidth)) {
    return Invalid("contribution_outputs", "is out of range");
  }
  return absl::OkStatus();
}

int64_t PolicySpec::observation_width() const {
  int64_t width = 0;
  for (const ObservationField& field : observation) width += field.width;
  return width;
}

int64_t PolicySpec::categorical_count() const {
  return categorical.has_value() ? categorical->count : 0;
}

int64_t PolicySpec::action_width() const {
  return SizesOf(heads, HeadKind::kCategorical);
}

int64_t PolicySpec::continuous_width() const {
  return SizesOf(heads, HeadKind::kGaussian);
}

int64_t PolicySpec::HeadIndex(const std::string& head) const {
  for (size_t k = 0; k < heads.size(); ++k) {
    if (heads[k].name == head) return static_cast<int64_t>(k);
  }
  return -1;
}

int64_t PolicySpec::ConditionalHead() const {
  for (size_t k = 0; k < heads.size(); ++k) {
    if (heads[k].conditional_mask) return static_cast<int64_t>(k);
  }
  return -1;
}

FloorSettings FloorSettings::Scaled(double factor) const {
  FloorSettings scaled = *this;
  for (double& floor : scaled.floors) floor *= factor;
  return scaled;
}

FloorSettings PolicySpec::Floors() const {
  FloorSettings settings;
  settings.mode = floor_mode;
  for (const HeadSpec& head : heads) {
    settings.floors.push_back(floor_mode == FloorMode::kNone ? 0 : head.floor);
  }
  return settings;
}

absl::StatusOr<FloorSettings> PolicySpec::FloorsFrom(
    FloorMode mode, const std::map<std::string, double>& floors) const {
  FloorSettings settings;
  settings.mode = mode;
  settings.floors.assign(heads.size(), 0);
  for (const auto& [head, floor] : floors) {
    const int64_t k = HeadIndex(head);
    if (k < 0 || !(floor >= 0 && floor < 1) ||
        (floor > 0 && heads[k].kind != HeadKind::kCategorical)) {
      ErrorDetail detail;
      detail.reason = "BAD_FLOOR";
      detail.field = head;
      return MakeStatus(
          absl::StatusCode::kInvalidArgument, detail,
          absl::StrCat(
              "A floor of ", floor, " for head ", head, ": ",
              k < 0 ? "there is no such head."
                    : "a floor must be in [0, 1), and 0 for a Gaussian head."));
    }
    if (mode != FloorMode::kNone) settings.floors[k] = floor;
  }
  return settings;
}

}  // namespace esper::policy
