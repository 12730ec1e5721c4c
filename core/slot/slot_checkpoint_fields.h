#ifndef ESPER_CORE_SLOT_SLOT_CHECKPOINT_FIELDS_H_
#define ESPER_CORE_SLOT_SLOT_CHECKPOINT_FIELDS_H_

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "core/slot/slot_checkpoint.h"

// The field table: key and member of every field of the checkpoint structs. A
// struct whose table lacks a field does not compile.
namespace esper::slot {

template <typename Struct, typename Member>
struct Field {
  const char* key;
  Member Struct::*member;
};
template <typename Struct, typename Member>
Field(const char*, Member Struct::*) -> Field<Struct, Member>;

// kTable of a struct: a tuple of Field, in the order of declaration.
template <typename Struct>
struct FieldTable;

template <typename T, typename = void>
struct HasFieldTable : std::false_type {};
template <typename T>
struct HasFieldTable<T, std::void_t<decltype(FieldTable<T>::kTable)>>
    : std::true_type {};

// Calls `visit(key, value)` for each field of `object`, which may be const.
template <typename Object, typename Visit>
void ForEachField(Object& object, Visit visit) {
  std::apply(
      [&](const auto&... field) {
        (visit(field.key, object.*field.member), ...);
      },
      FieldTable<std::remove_const_t<Object>>::kTable);
}

namespace internal {

struct Anything {
  template <typename T>
  operator T() const noexcept;  // Never called.
};

template <typename T, typename Indices, typename = void>
struct TakesInitializers : std::false_type {};
template <typename T, size_t... I>
struct TakesInitializers<
    T, std::index_sequence<I...>,
    std::void_t<decltype(T{(static_cast<void>(I), Anything())...})>>
    : std::true_type {};

// Whether the table has as many entries as the aggregate has members.
template <typename T>
constexpr bool TableIsComplete() {
  constexpr size_t n = std::tuple_size_v<decltype(FieldTable<T>::kTable)>;
  return TakesInitializers<T, std::make_index_sequence<n>>::value &&
         !TakesInitializers<T, std::make_index_sequence<n + 1>>::value;
}

}  // namespace internal

template <>
struct FieldTable<StageRecord> {
  using T = StageRecord;
  static constexpr auto kTable = std::make_tuple(
      Field{"stage", &T::stage}, Field{"previous", &T::previous},
      Field{"previous_epochs", &T::previous_epochs},
      Field{"entered_at", &T::entered_at}, Field{"history", &T::history});
};

template <>
struct FieldTable<AlphaState> {
  using T = AlphaState;
  static constexpr auto kTable = std::make_tuple(
      Field{"alpha", &T::alpha}, Field{"start", &T::start},
      Field{"target", &T::target}, Field{"mode", &T::mode},
      Field{"curve", &T::curve}, Field{"steepness", &T::steepness},
      Field{"steps_total", &T::steps_total},
      Field{"steps_done", &T::steps_done});
};

template <>
struct FieldTable<SeedMetrics> {
  using T = SeedMetrics;
  static constexpr auto kTable = std::make_tuple(
      Field{"epochs_total", &T::epochs_total},
      Field{"epochs_in_stage", &T::epochs_in_stage},
      Field{"initial_accuracy", &T::initial_accuracy},
      Field{"current_accuracy", &T::current_accuracy},
      Field{"best_accuracy", &T::best_accuracy},
      Field{"stage_start_accuracy", &T::stage_start_accuracy},
      Field{"blending_start_accuracy", &T::blending_start_accuracy},
      Field{"blending_started", &T::blending_started},
      Field{"gradient_norm_avg", &T::gradient_norm_avg},
      Field{"gradient_ratio", &T::gradient_ratio},
      Field{"gradient_ratio_ema", &T::gradient_ratio_ema},
      Field{"current_alpha", &T::current_alpha},
      Field{"alpha_ramp_step", &T::alpha_ramp_step},
      Field{"contribution", &T::contribution},
      Field{"previous_contribution", &T::previous_contribution},
      Field{"contribution_velocity", &T::contribution_velocity},
      Field{"interaction_sum", &T::interaction_sum},
      Field{"boost_received", &T::boost_received},
      Field{"upstream_alpha_sum", &T::upstream_alpha_sum},
      Field{"downstream_alpha_sum", &T::downstream_alpha_sum},
      Field{"host_param_count", &T::host_param_count},
      Field{"seed_param_count", &T::seed_param_count},
      Field{"auto_pruned", &T::auto_pruned},
      Field{"auto_prune_reason", &T::auto_prune_reason});
};

template <>
struct FieldTable<GradientReading> {
  using T = GradientReading;
  static constexpr auto kTable = std::make_tuple(
      Field{"sampled", &T::sampled}, Field{"seed_norm", &T::seed_norm},
      Field{"ratio", &T::ratio}, Field{"health", &T::health},
      Field{"has_vanishing", &T::has_vanishing},
      Field{"has_exploding", &T::has_exploding},
      Field{"output_finite", &T::output_finite});
};

template <>
struct FieldTable<SeedRecord> {
  using T = SeedRecord;
  static constexpr auto kTable = std::make_tuple(
      Field{"seed_id", &T::seed_id}, Field{"blueprint_id", &T::blueprint_id},
      Field{"blueprint_options", &T::blueprint_options},
      Field{"init_profile", &T::init_profile},
      Field{"generation", &T::generation}, Field{"tempo", &T::tempo},
      Field{"alpha_target", &T::alpha_target}, Field{"stage", &T::stage},
      Field{"alpha", &T::alpha}, Field{"algorithm", &T::algorithm},
      Field{"blend_id", &T::blend_id}, Field{"isolated", &T::isolated},
      Field{"metrics", &T::metrics}, Field{"gradients", &T::gradients},
      Field{"gradients_healthy", &T::gradients_healthy},
      Field{"output_healthy", &T::output_healthy},
      Field{"telemetry_epoch", &T::telemetry_epoch},
      Field{"telemetry_max_epochs", &T::telemetry_max_epochs},
      Field{"prune_reason", &T::prune_reason},
      Field{"prune_initiator", &T::prune_initiator},
      Field{"cooldown_ticks", &T::cooldown_ticks},
      Field{"ste_blocked_steps", &T::ste_blocked_steps},
      Field{"trainable", &T::trainable});
};

template <>
struct FieldTable<GateRecord> {
  using T = GateRecord;
  static constexpr auto kTable =
      std::make_tuple(Field{"algorithm_id", &T::algorithm_id},
                      Field{"total_steps", &T::total_steps});
};

template <>
struct FieldTable<SlotRecord> {
  using T = SlotRecord;
  static constexpr auto kTable = std::make_tuple(
      Field{"version", &T::version}, Field{"slot_id", &T::slot_id},
      Field{"topology", &T::topology}, Field{"channels", &T::channels},
      Field{"dtype", &T::dtype}, Field{"germinations", &T::germinations},
      Field{"sequence", &T::sequence}, Field{"auto_prune", &T::auto_prune},
      Field{"seed", &T::seed}, Field{"gate", &T::gate});
};

static_assert(internal::TableIsComplete<StageRecord>());
static_assert(internal::TableIsComplete<AlphaState>());
static_assert(internal::TableIsComplete<SeedMetrics>());
static_assert(internal::TableIsComplete<GradientReading>());
static_assert(internal::TableIsComplete<SeedRecord>());
static_assert(internal::TableIsComplete<GateRecord>());
static_assert(internal::TableIsComplete<SlotRecord>());

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_SLOT_CHECKPOINT_FIELDS_H_
