#include "core/slot/events.h"

#include <exception>

#include "core/log.h"

namespace esper::slot {

void CallbackEventSink::OnEvent(const SlotEvent& event) noexcept {
  if (!callback_) return;
  try {
    callback_(event);
  } catch (const std::exception& error) {
    spdlog::error("A slot event callback failed on {}: {}", event.slot_id,
                  error.what());
  } catch (...) {
    spdlog::error("A slot event callback failed on {}.", event.slot_id);
  }
}

}  // namespace esper::slot
