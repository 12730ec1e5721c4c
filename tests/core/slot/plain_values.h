#ifndef ESPER_TESTS_CORE_SLOT_PLAIN_VALUES_H_
#define ESPER_TESTS_CORE_SLOT_PLAIN_VALUES_H_

#include <array>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "core/slot/report.h"
#include "core/slot/slot_checkpoint_fields.h"
#include "core/slot/telemetry.h"

// Whether a type is made of numbers, enumerators, texts and times alone, at
// compile time: such a value can hold no tensor and keep no graph alive.
namespace esper::testing {

// What a struct consists of: from the field table, or from a `Members` beside
// the struct, whose structured binding stops compiling when a member is added.
inline auto Members(const slot::SeedTelemetry& t) {
  const auto& [norm, health, vanishing, exploding, accuracy, delta, in_stage,
               stage, alpha, to_target, velocity, algorithm, tempo, blending,
               epoch, max_epochs, at] = t;
  return std::tie(norm, health, vanishing, exploding, accuracy, delta, in_stage,
                  stage, alpha, to_target, velocity, algorithm, tempo, blending,
                  epoch, max_epochs, at);
}

inline auto Members(const slot::SlotReport& r) {
  const auto& [slot_id, seed_id, blueprint_id, index, generation, stage,
               previous, previous_epochs, metrics, telemetry, has_gate,
               isolated, trainable, healthy, improving, attention, blocked] = r;
  return std::tie(slot_id, seed_id, blueprint_id, index, generation, stage,
                  previous, previous_epochs, metrics, telemetry, has_gate,
                  isolated, trainable, healthy, improving, attention, blocked);
}

template <typename T, typename = void>
struct IsPlain
    : std::bool_constant<std::is_arithmetic_v<T> || std::is_enum_v<T> ||
                         std::is_same_v<T, std::string> ||
                         std::is_same_v<T, absl::Time>> {};

template <typename... T>
struct ArePlain : std::conjunction<IsPlain<std::decay_t<T>>...> {};

template <typename T>
struct IsPlain<std::optional<T>> : IsPlain<T> {};
template <typename T>
struct IsPlain<std::vector<T>> : IsPlain<T> {};
template <typename T, size_t N>
struct IsPlain<std::array<T, N>> : IsPlain<T> {};
template <typename K, typename V>
struct IsPlain<std::map<K, V>> : ArePlain<K, V> {};
template <typename A, typename B>
struct IsPlain<std::pair<A, B>> : ArePlain<A, B> {};
template <typename... T>
struct IsPlain<std::variant<T...>> : ArePlain<T...> {};
template <typename... T>
struct IsPlain<std::tuple<T...>> : ArePlain<T...> {};

template <typename T>
struct IsPlain<T, std::enable_if_t<slot::HasFieldTable<T>::value>> {
  template <typename... M>
  static ArePlain<M...> Of(const std::tuple<slot::Field<T, M>...>&);
  static constexpr bool value =
      decltype(Of(slot::FieldTable<T>::kTable))::value;
};

template <typename T>
struct IsPlain<T, std::void_t<decltype(Members(std::declval<const T&>()))>>
    : IsPlain<decltype(Members(std::declval<const T&>()))> {};

template <typename T>
inline constexpr bool kIsPlain = IsPlain<T>::value;

}  // namespace esper::testing
#endif  // ESPER_TESTS_CORE_SLOT_PLAIN_VALUES_H_
